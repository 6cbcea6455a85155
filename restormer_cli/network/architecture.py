"""Restormer as the paper draws it: modules, parameters and the plain forward.

Source: Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image
Restoration", CVPR 2022, https://arxiv.org/abs/2111.09881. Names in parentheses below
(MDTA, GDFN) are the paper's; sections refer to it.

Attribute names are chosen so that ``state_dict()`` has the keys of the official
checkpoints. The plain forward here serves training and is the oracle against which
:mod:`restormer_cli.network.streaming` is tested; it knows nothing of files, devices or memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from restormer_cli.errors import OptionsError

LAYER_NORM_TYPES = ("WithBias", "BiasFree")
LAYER_NORM_EPSILON = 1e-5
#: Three halvings of the resolution: height and width must be multiples of this.
SIZE_MULTIPLE = 8


@dataclass(frozen=True)
class RestormerConfig:
    """Hyper-parameters of one network, under the names of the official YAML files.

    The defaults are those of every official checkpoint but for channels, LayerNorm
    and the dual-pixel head (paper, section 4, "Implementation Details").

    Raises
    ------
    OptionsError
        If a value has the wrong type or the values do not fit together.
    """

    inp_channels: int = 3
    out_channels: int = 3
    dim: int = 48
    num_blocks: tuple[int, int, int, int] = (4, 6, 6, 8)
    num_refinement_blocks: int = 4
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    ffn_expansion_factor: float = 2.66
    bias: bool = False
    LayerNorm_type: str = "WithBias"
    dual_pixel_task: bool = False

    def __post_init__(self) -> None:
        for name in ("inp_channels", "out_channels", "dim"):
            _require(_is_count(getattr(self, name), 1), name, "a positive whole number")
        _require(
            _is_count(self.num_refinement_blocks, 0),
            "num_refinement_blocks",
            "a whole number from 0 up",
        )
        for name, least in (("num_blocks", 0), ("heads", 1)):
            value = getattr(self, name)
            whole = isinstance(value, tuple) and len(value) == 4
            _require(
                whole and all(_is_count(v, least) for v in value),
                name,
                f"four whole numbers from {least} up",
            )
        _require(
            isinstance(self.ffn_expansion_factor, (int, float))
            and not isinstance(self.ffn_expansion_factor, bool)
            and math.isfinite(self.ffn_expansion_factor)
            and self.ffn_expansion_factor * self.dim >= 1,
            "ffn_expansion_factor",
            "a number that leaves at least one hidden channel",
        )
        for name in ("bias", "dual_pixel_task"):
            _require(isinstance(getattr(self, name), bool), name, "true or false")
        _require(
            self.LayerNorm_type in LAYER_NORM_TYPES,
            "LayerNorm_type",
            " or ".join(LAYER_NORM_TYPES),
        )
        _require(self.dim % 2 == 0, "dim", "an even number")
        for level, (width, heads) in enumerate(zip(self.widths, self.heads, strict=True), 1):
            _require(
                width % heads == 0, "heads", f"divisors of the {width} channels of level {level}"
            )
        _require((2 * self.dim) % self.heads[0] == 0, "heads", "divisors of the channels")
        if not self.dual_pixel_task:
            _require(
                self.inp_channels == self.out_channels,
                "inp_channels",
                "equal to out_channels, since the input is added to the output",
            )

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Channels of the four encoder levels."""
        return (self.dim, 2 * self.dim, 4 * self.dim, 8 * self.dim)

    def check_input(self, shape: torch.Size) -> None:
        """Raise ValueError unless ``shape`` is one that the network takes."""
        if len(shape) != 4 or shape[1] != self.inp_channels:
            raise ValueError(f"expected (N, {self.inp_channels}, H, W), got {tuple(shape)}")
        if shape[2] % SIZE_MULTIPLE or shape[3] % SIZE_MULTIPLE:
            raise ValueError(
                f"height and width must be multiples of {SIZE_MULTIPLE}, got {tuple(shape[2:])}"
            )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> RestormerConfig:
        """Build from a mapping such as a YAML block; lists are taken for tuples.

        Raises
        ------
        OptionsError
            If a name is not a hyper-parameter or a value does not fit.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(str(name) for name in values if name not in known)
        if unknown:
            raise OptionsError(
                f"unknown hyper-parameter {', '.join(unknown)}; "
                f"known are {', '.join(sorted(known))}"
            )
        fitted: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**fitted)

    def to_mapping(self) -> dict[str, Any]:
        """The inverse of :meth:`from_mapping`, with lists for tuples, as YAML wants them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require(condition: bool, name: str, expected: str) -> None:
    if not condition:
        raise OptionsError(f"hyper-parameter {name} must be {expected}")


class LayerNormBody(nn.Module):
    """Scale, and for ``WithBias`` shift, of a LayerNorm over the channels."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if kind == "WithBias" else None


class LayerNorm(nn.Module):
    """LayerNorm over the channels of each pixel, ``(N, C, H, W)`` to the same shape.

    ``BiasFree`` divides by the standard deviation without subtracting the mean
    (the variance itself is about the mean); it is used for denoising.
    """

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.body = LayerNormBody(channels, kind)

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        scale = torch.rsqrt(variance + LAYER_NORM_EPSILON)
        weight = self.body.weight[:, None, None]
        if self.body.bias is None:
            return x * scale * weight
        return (x - mean) * scale * weight + self.body.bias[:, None, None]


class MDTA(nn.Module):
    """Multi-Dconv head transposed attention (section 3.1): attention across channels.

    The attention map is channels × channels per head, so the cost is linear in pixels.
    """

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(
            3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias
        )
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        q, k, v = rearrange(
            self.qkv_dwconv(self.qkv(x)),
            "n (part head c) h w -> part n head c (h w)",
            part=3,
            head=self.heads,
        )
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        out = rearrange(attention @ v, "n head c (h w) -> n (head c) h w", h=height, w=width)
        return self.project_out(out)


class GDFN(nn.Module):
    """Gated-Dconv feed-forward network (section 3.2): GELU of one half gates the other."""

    def __init__(self, channels: int, expansion: float, bias: bool) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class TransformerBlock(nn.Module):
    """MDTA, then GDFN, each behind a LayerNorm and around a residual (figure 2)."""

    def __init__(self, channels: int, heads: int, config: RestormerConfig) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels, config.LayerNorm_type)
        self.attn = MDTA(channels, heads, config.bias)
        self.norm2 = LayerNorm(channels, config.LayerNorm_type)
        self.ffn = GDFN(channels, config.ffn_expansion_factor, config.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return torch.add(x, self.ffn(self.norm2(x)))


class PatchEmbedding(nn.Module):
    """Overlapped patch embedding: one 3×3 convolution from the image to features."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        # The authors' has no bias, whatever the hyper-parameter says.
        self.proj = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Downsample(nn.Module):
    """Half the resolution, twice the channels, by pixel-unshuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Upsample(nn.Module):
    """Twice the resolution, half the channels, by pixel-shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False), nn.PixelShuffle(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Restormer(nn.Module):
    """The whole U-shaped network (figure 2).

    Maps ``(N, inp_channels, H, W)`` in [0, 1] to ``(N, out_channels, H, W)``, not clamped.
    H and W must be multiples of :data:`SIZE_MULTIPLE`.

    Raises
    ------
    ValueError
        From :meth:`forward`, if the input has other channels or another size.
    """

    def __init__(self, config: RestormerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RestormerConfig()
        dim1, dim2, dim3, dim4 = config.widths
        heads1, heads2, heads3, heads4 = config.heads
        blocks1, blocks2, blocks3, blocks4 = config.num_blocks

        def stage(channels: int, heads: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(TransformerBlock(channels, heads, config) for _ in range(count)))

        self.patch_embed = PatchEmbedding(config.inp_channels, dim1)

        self.encoder_level1 = stage(dim1, heads1, blocks1)
        self.down1_2 = Downsample(dim1)
        self.encoder_level2 = stage(dim2, heads2, blocks2)
        self.down2_3 = Downsample(dim2)
        self.encoder_level3 = stage(dim3, heads3, blocks3)
        self.down3_4 = Downsample(dim3)
        self.latent = stage(dim4, heads4, blocks4)

        self.up4_3 = Upsample(dim4)
        self.reduce_chan_level3 = nn.Conv2d(2 * dim3, dim3, 1, bias=config.bias)
        self.decoder_level3 = stage(dim3, heads3, blocks3)
        self.up3_2 = Upsample(dim3)
        self.reduce_chan_level2 = nn.Conv2d(2 * dim2, dim2, 1, bias=config.bias)
        self.decoder_level2 = stage(dim2, heads2, blocks2)
        # At level 1 the skip is kept beside the upsampled features, not reduced.
        self.up2_1 = Upsample(dim2)
        self.decoder_level1 = stage(dim2, heads1, blocks1)
        self.refinement = stage(dim2, heads1, config.num_refinement_blocks)

        if config.dual_pixel_task:
            self.skip_conv = nn.Conv2d(dim1, dim2, 1, bias=config.bias)
        self.output = nn.Conv2d(dim2, config.out_channels, 3, padding=1, bias=config.bias)

    def on_cpu(self, dtype: torch.dtype | None = None) -> Restormer:
        """This network, or a copy if it is elsewhere, or in another precision than ``dtype``."""
        like = next(self.parameters())
        dtype = dtype or like.dtype
        if like.device.type == "cpu" and like.dtype == dtype:
            return self
        with torch.device("meta"):  # no numbers, which would be drawn at random
            made = Restormer(self.config)
        state = {name: tensor.to("cpu", dtype) for name, tensor in self.state_dict().items()}
        made.load_state_dict(state, assign=True)
        return made.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        self.config.check_input(image.shape)
        embedded = self.patch_embed(image)

        level1 = self.encoder_level1(embedded)
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        latent = self.latent(self.down3_4(level3))

        x = torch.cat([self.up4_3(latent), level3], dim=1)
        x = self.decoder_level3(self.reduce_chan_level3(x))
        x = torch.cat([self.up3_2(x), level2], dim=1)
        x = self.decoder_level2(self.reduce_chan_level2(x))
        x = torch.cat([self.up2_1(x), level1], dim=1)
        x = self.refinement(self.decoder_level1(x))

        if self.config.dual_pixel_task:
            return self.output(x + self.skip_conv(embedded))
        return self.output(x) + image
