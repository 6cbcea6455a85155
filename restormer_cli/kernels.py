"""The operations that the time goes into: 1×1 and 3×3 convolutions over strips of pixels.

Both have two paths to the same numbers. On x86 processors oneDNN is called directly, through the
operators that ``torch.compile`` uses as well: it multiplies twice as fast as ``torch.mm`` on
processors for which MKL leaves half the vector unit idle, takes weights that were laid out once,
and adds residuals and applies GELU while the result is still in registers. Everywhere else, and
where a future PyTorch has no such operators, it is plain PyTorch.
"""

from __future__ import annotations

import functools
import math
import platform
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: Weights are laid out for strips of about this height and width; any other works as well.
TYPICAL_STRIP = (8, 512)
#: Padding, stride, dilation and groups of a 1×1 convolution.
_POINTWISE = ([0, 0], [1, 1], [1, 1], 1)
_OPERATORS = (
    "_convolution_pointwise",
    "_convolution_pointwise_",
    "_is_mkldnn_bf16_supported",
    "_linear_pointwise",
    "_reorder_convolution_weight",
    "_reorder_linear_weight",
)
_X86 = {"x86_64", "amd64", "i386", "i686", "x86"}


@functools.cache
def _onednn(device: str, dtype: torch.dtype) -> Any:
    """PyTorch's oneDNN operators, if they are there and serve this device and precision."""
    if device != "cpu" or platform.machine().lower() not in _X86:
        return None
    if not torch._C._has_mkldnn:
        return None
    operators = torch.ops.mkldnn
    if not all(hasattr(operators, name) for name in _OPERATORS):
        return None
    if dtype == torch.bfloat16:
        return operators if operators._is_mkldnn_bf16_supported() else None
    return operators if dtype == torch.float32 else None


class Pointwise:
    """A 1×1 convolution: one matrix product over rows of pixels."""

    def __init__(self, weight: Tensor, bias: Tensor | None, like: Tensor) -> None:
        """``weight`` is ``(K, C)``; ``like`` gives the device and the precision."""
        self.weight = weight.to(like).contiguous()
        self.bias = None if bias is None else bias.to(like)
        # In bfloat16, PyTorch's own product is oneDNN's, and needs no copy of the result.
        precise = like.dtype != torch.bfloat16
        self._onednn = _onednn(like.device.type, like.dtype) if precise else None
        if self._onednn is not None:
            pixels = math.prod(TYPICAL_STRIP)
            self.weight = self._onednn._reorder_linear_weight(self.weight, pixels)

    def into(self, out: Tensor, pixels: Tensor) -> None:
        """Compute ``(N, R, W, C)`` pixels into ``out`` ``(N, R, W, K)``, a part of more rows."""
        pixels = pixels.reshape(-1, pixels.shape[-1])
        if self._onednn is not None:
            product = self._onednn._linear_pointwise(pixels, self.weight, self.bias, "none", [], "")
            out.copy_(product.view_as(out))
        elif len(out) > 1:
            out.copy_(F.linear(pixels, self.weight, self.bias).view_as(out))
        elif self.bias is None:
            torch.mm(pixels, self.weight.T, out=out[0].flatten(0, 1))
        else:
            torch.addmm(self.bias, pixels, self.weight.T, out=out[0].flatten(0, 1))


class PointwiseSum:
    """A 1×1 convolution whose result is added to what is there."""

    def __init__(self, weight: Tensor, bias: Tensor | None, like: Tensor) -> None:
        """``weight`` is ``(K, C)``; ``like`` gives the device and the precision."""
        self.weight = weight.to(like).contiguous()
        self.bias = None if bias is None else bias.to(like)
        self._onednn = _onednn(like.device.type, like.dtype)
        if self._onednn is not None:
            kernel = self.weight[:, :, None, None]
            shape = [1, kernel.shape[1], *TYPICAL_STRIP]
            self.weight = self._onednn._reorder_convolution_weight(kernel, *_POINTWISE, shape)

    def add_to(self, rows: Tensor, pixels: Tensor) -> None:
        """Add what comes of ``(N, R, W, C)`` pixels to ``rows`` ``(N, R, W, K)``, in place."""
        if self._onednn is not None:
            self._onednn._convolution_pointwise_.binary(
                rows.permute(0, 3, 1, 2),
                pixels.permute(0, 3, 1, 2),
                self.weight,
                self.bias,
                *_POINTWISE,
                *("add", None, None, [], None),
            )
            return
        flat = rows.view(-1, rows.shape[-1])
        flat.addmm_(pixels.reshape(-1, pixels.shape[-1]), self.weight.T)
        if self.bias is not None:
            flat += self.bias


def round_taps(kernel: Tensor, dtype: torch.dtype) -> Tensor:
    """Round each 3×3 kernel of float64 ``(K, C, 3, 3)`` so that the sum of its taps stays.

    That sum is the gain for smooth areas. Taps that are rounded one by one change it by up to
    0.2 % in bfloat16, and whole areas with it. With trained weights bfloat16 then cost 0.035 dB in
    all; this way it is 0.005. The error of each tap is passed on to the next smaller one.
    """
    taps = kernel.flatten(2)
    rounded, error = torch.empty_like(taps), torch.zeros_like(taps[..., :1])
    for place in torch.split(taps.abs().argsort(dim=2, descending=True), 1, dim=2):
        exact = taps.gather(2, place) + error
        nearest = exact.to(dtype).double()
        rounded.scatter_(2, place, nearest)
        error = exact - nearest
    return rounded.view_as(kernel).to(dtype)


class Conv3x3:
    """A 3×3 convolution over rows that come with their halo, columns zero-padded; then GELU."""

    def __init__(
        self,
        kernel: Tensor,
        bias: Tensor | None,
        like: Tensor,
        *,
        depthwise: bool = False,
        gelu: bool = False,
    ) -> None:
        """``kernel`` is ``(K, C, 3, 3)``; ``like`` gives the device and the precision."""
        self.dtype = like.dtype
        if depthwise and like.dtype.itemsize < 4:
            kernel = round_taps(kernel.double(), like.dtype)
        self.kernel = kernel.to(like).contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.to(like)
        self.groups = len(kernel) if depthwise else 1
        self.gelu = gelu
        self._onednn = _onednn(like.device.type, like.dtype)
        # Padding, stride, dilation, groups.
        self._geometry = ([0, 1], [1, 1], [1, 1], self.groups)
        if self._onednn is not None:
            shape = [1, self.groups * kernel.shape[1], *TYPICAL_STRIP]
            self.kernel = self._onednn._reorder_convolution_weight(
                self.kernel, *self._geometry, shape
            )

    def __call__(self, rows: Tensor) -> Tensor:
        """``(N, R + 2, W, C)`` to ``(N, R, W, K)``."""
        rows = rows.permute(0, 3, 1, 2)
        out: Tensor
        if self._onednn is not None:
            activation: tuple[object, ...] = ("gelu", [], "none") if self.gelu else ("none", [], "")
            out = self._onednn._convolution_pointwise(
                rows, self.kernel, self.bias, *self._geometry, *activation
            )
        else:
            out = F.conv2d(rows, self.kernel, self.bias, padding=(0, 1), groups=self.groups)
            if self.gelu:
                torch.ops.aten.gelu_(out)
        return out.permute(0, 2, 3, 1)
