"""The network's parameters, prepared for strips: folded, reordered, padded.

All folding is done in float64, once, when the network is loaded. What is prepared here is
evaluated by :mod:`restormer_cli.streaming`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from restormer_cli.architecture import (
    GDFN,
    LAYER_NORM_EPSILON,
    MDTA,
    LayerNorm,
    Restormer,
    TransformerBlock,
)

#: Vector instructions work on this many numbers at once: depthwise convolutions over other
#: numbers of channels can take ten times as long.
CHANNEL_MULTIPLE = 16


def _optional(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.to(like)


@dataclass(frozen=True)
class Depthwise:
    """A 1×1 convolution, with the LayerNorm before it, and the 3×3 depthwise one behind it.

    The bias of the first, ``shift``, is never added to its output, which would take a pass over
    memory: the second adds what comes of it. Zero padding applies to the output with its bias,
    so the output without it is padded with ``-shift``.
    """

    point: Tensor
    """``(C, K)``: ``normalised pixels @ point + shift``."""
    shift: Tensor | None
    depth: Tensor
    """``(K, 1, 3, 3)``."""
    bias: Tensor | None
    """``(K,)``: what ``shift`` and the depthwise bias come to."""
    edges: tuple[Tensor, Tensor] | None
    """What is too much of that in the first and the last column, ``(K,)`` each."""

    @property
    def channels(self) -> int:
        return self.depth.shape[0]

    @classmethod
    def prepare(
        cls,
        norm: LayerNorm,
        point: nn.Conv2d,
        depth: nn.Conv2d,
        part: slice,
        like: Tensor,
        multiple: int = 1,
    ) -> Depthwise:
        """Channels ``part`` of ``depth(point(norm(x)))``, then zeros up to a ``multiple``.

        Scale and shift of LayerNorm are folded into the 1×1 convolution, all in float64.
        """
        padding = -(part.stop - part.start) % multiple

        def padded(tensor: Tensor) -> Tensor:
            zeros = tensor.new_zeros(padding, *tensor.shape[1:])
            return torch.cat([tensor[part], zeros]).double()

        def total(*terms: Tensor | None) -> Tensor | None:
            present = [term for term in terms if term is not None]
            return torch.stack(present).sum(0) if present else None

        matrix, kernel = padded(point.weight).flatten(1), padded(depth.weight)
        shift = total(
            None if norm.body.bias is None else matrix @ norm.body.bias.double(),
            None if point.bias is None else padded(point.bias),
        )
        columns = kernel.sum(dim=2)[:, 0]
        bias = total(
            None if shift is None else shift * columns.sum(dim=1),
            None if depth.bias is None else padded(depth.bias),
        )
        edges = None
        if shift is not None:
            edges = ((shift * columns[:, 0]).to(like), (shift * columns[:, 2]).to(like))
        scaled = (matrix * norm.body.weight.double()).T.contiguous()
        return cls(
            scaled.to(like), _optional(shift, like), kernel.to(like), _optional(bias, like), edges
        )

    def pad(self, rows: Tensor) -> None:
        """Make ``rows`` what lies outside the image."""
        if self.shift is None:
            rows.zero_()
        else:
            torch.neg(self.shift.expand_as(rows), out=rows)

    def convolve(self, rows: Tensor) -> Tensor:
        """``(N, R + 2, W, K)`` to ``(N, R, W, K)``: rows come with their halo, columns do not."""
        out = F.conv2d(
            rows.permute(0, 3, 1, 2),
            self.depth,
            self.bias,
            padding=(0, 1),
            groups=self.channels,
        ).permute(0, 2, 3, 1)
        if self.edges is not None:
            out[:, :, 0] -= self.edges[0]
            out[:, :, -1] -= self.edges[1]
        return out


class Attention:
    """MDTA with its LayerNorm, prepared for strips."""

    def __init__(self, norm: LayerNorm, attn: MDTA, like: Tensor) -> None:
        channels = attn.project_out.out_channels
        self.heads = attn.heads
        self.channels = channels
        both, third = slice(0, 2 * channels), slice(2 * channels, 3 * channels)
        self.qk = Depthwise.prepare(norm, attn.qkv, attn.qkv_dwconv, both, like)
        self.v = Depthwise.prepare(norm, attn.qkv, attn.qkv_dwconv, third, like)
        wide = torch.float32 if like.device.type == "mps" else torch.float64
        self.temperature = attn.temperature.to(like.device, wide)
        self.project_out = attn.project_out.weight.flatten(1).to(like.device, wide)
        self.bias = _optional(attn.project_out.bias, like)

    def fold(self, gram: Tensor, squares: Tensor, like: Tensor) -> Tensor:
        """The matrices M ``(N, C, C)`` for which the block adds ``v @ M``.

        ``gram`` is q·kᵀ ``(N, heads, c, c)``; ``squares`` are ‖q‖² and ‖k‖², ``(N, 2, heads, c)``.
        """
        # F.normalize, which the plain forward uses, bounds norms from below by 1e-12.
        norms = squares.sqrt().clamp_min(1e-12)
        scores = gram / (norms[:, 0, :, :, None] * norms[:, 1, :, None, :]) * self.temperature
        attention = scores.softmax(-1)
        heads = rearrange(self.project_out, "o (h c) -> o h c", h=self.heads)
        folded = torch.einsum("ohc,nhcd->nhdo", heads, attention)
        return folded.flatten(1, 2).to(like)


class FeedForward:
    """GDFN with its LayerNorm, prepared for strips."""

    def __init__(self, norm: LayerNorm, ffn: GDFN, like: Tensor) -> None:
        hidden = ffn.project_out.in_channels
        # Apart, so that gate and value are contiguous each.
        first, second = slice(0, hidden), slice(hidden, 2 * hidden)
        stage = (norm, ffn.project_in, ffn.dwconv)
        self.gate = Depthwise.prepare(*stage, first, like, CHANNEL_MULTIPLE)
        self.value = Depthwise.prepare(*stage, second, like, CHANNEL_MULTIPLE)
        padding = self.gate.channels - hidden
        self.project_out = F.pad(ffn.project_out.weight.flatten(1).T, (0, 0, 0, padding)).to(like)
        self.bias = _optional(ffn.project_out.bias, like)


class Block:
    """One transformer block, prepared for strips."""

    def __init__(self, block: TransformerBlock, like: Tensor) -> None:
        self.attention = Attention(block.norm1, block.attn, like)
        self.feed_forward = FeedForward(block.norm2, block.ffn, like)
        self.center = block.norm1.body.bias is not None

    def normalise(self, rows: Tensor) -> Tensor:
        """LayerNorm without its affine part: ``(N, R, W, C)`` to ``(N·R·W, C)``."""
        pixels = rows.reshape(-1, rows.shape[-1])
        if pixels.dtype != torch.float32:
            return self._normalise(pixels.float()).to(pixels.dtype)
        return self._normalise(pixels)

    def _normalise(self, pixels: Tensor) -> Tensor:
        # Means as matrix products: on a CPU up to three times faster than the library's kernel.
        mean_of = pixels.new_full((pixels.shape[1], 1), 1 / pixels.shape[1])
        centered = pixels - pixels @ mean_of
        variance = torch.mul(centered, centered) @ mean_of
        scale = variance.add_(LAYER_NORM_EPSILON).rsqrt_()
        if self.center:
            return centered.mul_(scale)
        return torch.mul(pixels, scale, out=centered)


class PreparedNetwork:
    """All parameters of a :class:`Restormer`, on the device and in the precision of ``like``.

    Lists are by level, the first being that of full resolution.
    """

    def __init__(self, network: Restormer, like: Tensor) -> None:
        self.config = network.config
        self.device, self.dtype = like.device, like.dtype

        def blocks(stage: nn.Sequential) -> list[Block]:
            return [Block(block, like) for block in stage if isinstance(block, TransformerBlock)]

        def conv(module: nn.Module) -> tuple[Tensor, Tensor | None]:
            assert isinstance(module, nn.Conv2d)
            weight = module.weight.to(like).contiguous(memory_format=torch.channels_last)
            return weight, _optional(module.bias, like)

        def upsampling(module: nn.Module) -> tuple[Tensor, None]:
            """Order the outputs (dy, dx, channel), so that pixel-shuffle moves whole pixels."""
            weight, _ = conv(module)
            shuffled = rearrange(weight, "(c d) i y x -> (d c) i y x", d=4)
            return shuffled.contiguous(memory_format=torch.channels_last), None

        def reduction(module: nn.Conv2d) -> tuple[Tensor, Tensor, Tensor | None]:
            upsampled, skip = module.weight.flatten(1).T.to(like).chunk(2)
            return upsampled.contiguous(), skip.contiguous(), _optional(module.bias, like)

        self.embed = conv(network.patch_embed.proj)
        self.encoders = [
            blocks(network.encoder_level1),
            blocks(network.encoder_level2),
            blocks(network.encoder_level3),
            blocks(network.latent),
        ]
        self.downs = [conv(m.body[0]) for m in (network.down1_2, network.down2_3, network.down3_4)]
        # Index 0 is level 1, as in self.encoders.
        self.ups = [upsampling(m.body[0]) for m in (network.up2_1, network.up3_2, network.up4_3)]
        self.reductions = [
            None,
            reduction(network.reduce_chan_level2),
            reduction(network.reduce_chan_level3),
        ]
        self.decoders = [
            blocks(network.decoder_level1) + blocks(network.refinement),
            blocks(network.decoder_level2),
            blocks(network.decoder_level3),
        ]
        self.skip = None
        if self.config.dual_pixel_task:
            skip = network.skip_conv
            self.skip = (
                skip.weight.flatten(1).T.contiguous().to(like),
                _optional(skip.bias, like),
            )
        self.output = conv(network.output)
