"""The network's parameters, prepared for strips: folded, reordered, padded.

All folding is done in float64, once, when the network is loaded. What is prepared here is
evaluated by :mod:`restormer_cli.network.streaming`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from restormer_cli.network import native
from restormer_cli.network.architecture import (
    GDFN,
    LAYER_NORM_EPSILON,
    MDTA,
    LayerNorm,
    Restormer,
    TransformerBlock,
)
from restormer_cli.network.buffers import Memory
from restormer_cli.network.kernels import (
    Conv3x3,
    Depthwise,
    Pointwise,
    PointwiseSum,
    gate,
    round_rows,
    try_operators,
)
from restormer_cli.network.layer_norm import layer_norm

#: Vector instructions work on this many numbers at once: depthwise convolutions over other
#: numbers of channels can take ten times as long.
CHANNEL_MULTIPLE = 16


def _optional(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.to(like)


class Projection:
    """LayerNorm but for its division, the 1×1 convolution behind it, and the 3×3 depthwise one.

    Scale and shift of LayerNorm are folded into the 1×1 convolution, and so is the mean that it
    subtracts, if it does. Zero padding applies to the output of that, so it is the depthwise
    convolution's business.
    """

    def __init__(
        self,
        norm: LayerNorm,
        point: nn.Conv2d,
        depth: nn.Conv2d,
        part: slice,
        like: Tensor,
        *,
        gelu: bool = False,
        multiple: int = 1,
    ) -> None:
        """Take channels ``part`` of the output, then zeros up to a ``multiple``."""
        padding = -(part.stop - part.start) % multiple

        def padded(tensor: Tensor | None) -> Tensor | None:
            if tensor is None:
                return None
            zeros = tensor.new_zeros(padding, *tensor.shape[1:])
            return torch.cat([tensor[part], zeros]).double()

        matrix, kernel = padded(point.weight), padded(depth.weight)
        assert matrix is not None
        assert kernel is not None
        matrix, bias = matrix.flatten(1), padded(point.bias)
        scaled = matrix * norm.body.weight.double()
        if norm.body.bias is not None:
            scaled -= scaled.mean(1, keepdim=True)
            shift = matrix @ norm.body.bias.double()
            bias = shift if bias is None else bias + shift
            if like.dtype.itemsize < 4:
                scaled = round_rows(scaled, like.dtype)
        self.point = Pointwise(scaled, bias, like)
        self.depth = Depthwise(kernel, padded(depth.bias), like, gelu=gelu)

    @property
    def channels(self) -> int:
        return self.depth.channels

    def in_c(self) -> native.Projection:
        """For kernels in C."""
        return native.Projection(self.point.matrix, self.depth.filter)


class Attention:
    """MDTA with its LayerNorm, prepared for strips."""

    def __init__(self, norm: LayerNorm, attn: MDTA, like: Tensor) -> None:
        channels = attn.project_out.out_channels
        self.heads = attn.heads
        self.channels = channels
        both, third = slice(0, 2 * channels), slice(2 * channels, 3 * channels)
        self.qk = Projection(norm, attn.qkv, attn.qkv_dwconv, both, like)
        self.v = Projection(norm, attn.qkv, attn.qkv_dwconv, third, like)
        wide = torch.float32 if like.device.type == "mps" else torch.float64
        self.temperature = attn.temperature.to(like.device, wide)
        self.project_out = attn.project_out.weight.flatten(1).to(like.device, wide)
        self.bias = _optional(attn.project_out.bias, like)

    def softmaxed(self, gram: Tensor, squares: Tensor) -> Tensor:
        """The matrices A ``(…, heads, c, c)`` that each head multiplies its v by.

        ``gram`` is q·kᵀ ``(…, heads, c, c)``; ``squares`` are ‖q‖² and ‖k‖², ``(…, 2, heads, c)``.
        """
        # F.normalize, which the plain forward uses, bounds norms from below by 1e-12.
        norms = squares.sqrt().clamp_min(1e-12)
        scores = gram / (norms[..., 0, :, :, None] * norms[..., 1, :, None, :])
        return (scores * self.temperature).softmax(-1)

    def projected(self, softmaxed: Tensor) -> Tensor:
        """The matrices M ``(…, C, C)``, of A and ``project_out`` after it: the block adds M · v."""
        heads = rearrange(self.project_out, "o (h c) -> o h c", h=self.heads)
        return torch.einsum("ohc,...hcd->...ohd", heads, softmaxed.to(heads)).flatten(-2)


class FeedForward:
    """GDFN with its LayerNorm, prepared for strips."""

    def __init__(self, norm: LayerNorm, ffn: GDFN, like: Tensor) -> None:
        hidden = ffn.project_out.in_channels
        # Apart, so that gate and value are contiguous each.
        first, second = slice(0, hidden), slice(hidden, 2 * hidden)
        stage = (norm, ffn.project_in, ffn.dwconv)
        self.gate = Projection(*stage, first, like, gelu=True, multiple=CHANNEL_MULTIPLE)
        self.value = Projection(*stage, second, like, multiple=CHANNEL_MULTIPLE)
        padding = self.gate.channels - hidden
        weight = F.pad(ffn.project_out.weight.flatten(1), (0, padding))
        self.project_out = PointwiseSum(weight, ffn.project_out.bias, like)

    def gated(self, gates: Tensor, values: Tensor, memory: Memory) -> Tensor:
        """GELU of the one, times the other: what :attr:`project_out` takes."""
        return gate(self.gate.depth, self.value.depth, gates, values, memory)


class Block:
    """One transformer block, prepared for strips."""

    def __init__(self, block: TransformerBlock, like: Tensor) -> None:
        self.attention = Attention(block.norm1, block.attn, like)
        self.feed_forward = FeedForward(block.norm2, block.ffn, like)
        self.center = block.norm1.body.bias is not None
        self.native = self._native(like)

    def _native(self, like: Tensor) -> native.Block | None:
        """For kernels in C, where they take all steps of a pass."""
        own = native.kernels_for(like)
        if own is None or not own.multiplies:
            return None
        attention, feed_forward = self.attention, self.feed_forward
        return native.Block(
            own,
            attention.qk.in_c(),
            attention.v.in_c(),
            feed_forward.gate.in_c(),
            feed_forward.value.in_c(),
            feed_forward.project_out.matrix,
            heads=attention.heads,
            center=self.center,
            epsilon=LAYER_NORM_EPSILON,
        )

    def normalise(self, rows: Tensor, memory: Memory, scales: Tensor | None = None) -> Tensor:
        """LayerNorm without its affine part of ``(N, R, W, C)``.

        The rows times what is left in ``scales`` ``(N, R, W, 1)`` serve as well: see
        :class:`Projection`.
        """
        return layer_norm(rows, self.center, LAYER_NORM_EPSILON, memory, scales)


class PackedNetwork:
    """All parameters of a :class:`Restormer`, on the device and in the precision of ``like``.

    Lists are by level, the first being that of full resolution.
    """

    def __init__(self, network: Restormer, like: Tensor) -> None:
        network = network.on_cpu()  # MPS has no float64 to fold in
        self.config = network.config
        self.like, self.device, self.dtype = like, like.device, like.dtype
        try_operators(like.device, like.dtype)

        def blocks(stage: nn.Sequential) -> list[Block]:
            return [Block(block, like) for block in stage if isinstance(block, TransformerBlock)]

        # In lower precision the first and the last convolution stay in float32: the image has
        # finer steps than bfloat16, and so does what is added to it.
        precise = like.float() if like.dtype.itemsize < 4 else like

        def conv(module: nn.Module, like: Tensor = like) -> Conv3x3:
            assert isinstance(module, nn.Conv2d)
            return Conv3x3(module.weight, module.bias, like)

        def upsampling(module: nn.Module) -> Conv3x3:
            """Order the outputs (dy, dx, channel), so that pixel-shuffle moves whole pixels."""
            assert isinstance(module, nn.Conv2d)
            return Conv3x3(rearrange(module.weight, "(c d) i y x -> (d c) i y x", d=4), None, like)

        def reduction(module: nn.Conv2d) -> tuple[Pointwise, PointwiseSum]:
            """Of the channels from below, and of the skip's."""
            upsampled, skip = module.weight.flatten(1).chunk(2, dim=1)
            return Pointwise(upsampled, module.bias, like), PointwiseSum(skip, None, like)

        self.embed = conv(network.patch_embed.proj, precise)
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
            self.skip = PointwiseSum(skip.weight.flatten(1), skip.bias, like)
        self.output = conv(network.output, precise)
