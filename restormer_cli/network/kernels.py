"""The operations that the time goes into: 1×1 and 3×3 convolutions over strips of pixels.

There are three paths to the same numbers, the first that serves the device, the processor and the
precision. Kernels in C (:mod:`restormer_cli.network.native`). oneDNN on x86, through the operators
that ``torch.compile`` uses as well: it multiplies twice as fast as ``torch.mm`` on processors for
which MKL leaves half the vector unit idle, takes weights that were laid out once, and adds
residuals and applies GELU while the result is still in registers. And plain PyTorch: everywhere
else, and where another PyTorch has no such operators or they do not pass their trial.
"""

from __future__ import annotations

import functools
import math
import platform
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from restormer_cli.network import native
from restormer_cli.network.buffers import Memory
from restormer_cli.network.layer_norm import has_layer_norm
from restormer_cli.network.tf32 import (
    can_forbid_tf32,
    convolve,
    exact_product,
    products_may_be_tf32,
)
from restormer_cli.network.trials import distrust, distrusted, near, waves

#: Weights are laid out for strips of about this height and width; any other works as well.
TYPICAL_STRIP = (8, 512)
#: Numbers of the smallest vectors that the kernels in C work on.
_LEAST_VECTOR = 4
#: Padding, stride, dilation and groups of a 1×1 convolution.
_POINTWISE = ([0, 0], [1, 1], [1, 1], 1)
_X86 = {"x86_64", "amd64", "i386", "i686", "x86"}


class _ByTrial:
    """Stands for the operators that :func:`_onednn` finds and has tried."""


_BY_TRIAL = _ByTrial()


def _chosen(operators: Any, like: Tensor) -> Any:
    return _onednn(like.device.type, like.dtype) if operators is _BY_TRIAL else operators


def _gelu(out: Tensor) -> Tensor:
    """GELU, in place where PyTorch has it so; only the copying one is documented."""
    in_place = getattr(torch.ops.aten, "gelu_", None)
    return F.gelu(out) if in_place is None else in_place(out)


def try_operators(device: torch.device, dtype: torch.dtype) -> None:
    """Try whatever is not documented and would be used; see :func:`notices`."""
    _onednn(device.type, dtype)
    has_layer_norm(device, dtype)
    if device.type == "cuda":
        can_forbid_tf32(device)


def notices() -> list[str]:
    """What this process does without, a sentence each: operators that failed their trial."""
    return [*distrusted]


@functools.cache
def _onednn(device: str, dtype: torch.dtype) -> Any:
    """PyTorch's oneDNN operators, if they serve this device and precision and do what they should.

    They are private, so any of them may change with PyTorch. Each is tried once a process against
    the plain operation; if one is missing, raises or gives other numbers, none is used.
    """
    if device != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return None
    backend: Any = torch.backends.mkldnn  # it has no types
    if platform.machine().lower() not in _X86 or not backend.is_available():
        return None
    operators = torch.ops.mkldnn
    try:
        if dtype == torch.bfloat16 and not operators._is_mkldnn_bf16_supported():
            return None  # an old processor
        trouble = _try_onednn(operators, dtype)
    except Exception as error:  # whatever a changed operator raises
        trouble = f"which cannot be called ({type(error).__name__})"
    if trouble:
        distrust("the operators of oneDNN", trouble)
    return None if trouble else operators


def _try_onednn(operators: Any, dtype: torch.dtype) -> str:
    """Compare every use of the operators with plain PyTorch; what is wrong, or nothing."""
    with torch.inference_mode():
        for made, expected in zip(_trials(operators, dtype), _trials(None, dtype), strict=True):
            if not near(made, expected):
                return "which give wrong numbers"
    return ""


def _trials(operators: Any, dtype: torch.dtype) -> Iterator[Tensor]:
    """The kinds of layer that a network has, each once, over strips of the kinds there are."""
    like = torch.empty(0, dtype=dtype)
    channels, hidden = 8, 16
    for count, rows, width in ((1, 3, 9), (2, 4, 8)):
        # As windows are: some rows of more, packed for another size.
        pixels = waves(count, rows + 4, width, channels).to(dtype)[:, 1 : rows + 3]
        for bias in (None, waves(hidden)):
            point = Pointwise(waves(hidden, channels), bias, like, operators=operators)
            out = like.new_zeros(count, rows + 5, width, hidden)
            point.into(out[:, 2 : rows + 4], pixels)
            yield out
            added = PointwiseSum(waves(hidden, channels), bias, like, operators=operators)
            for image in range(count):
                added.add_to(out[image : image + 1, 2 : rows + 4], pixels[image : image + 1])
            yield out
            conv = Conv3x3(waves(hidden, channels, 3, 3), bias, like, operators=operators)
            yield conv(pixels, pixels.new_empty)
        for bias, gelu in ((None, True), (waves(channels), False)):
            kernel = waves(channels, 1, 3, 3)
            depth = Conv3x3(kernel, bias, like, depthwise=True, gelu=gelu, operators=operators)
            yield depth(pixels, pixels.new_empty)


def _own_products(operators: Any, like: Tensor) -> native.Kernels | None:
    """The kernels in C, where they multiply and no other operators are asked for."""
    own = native.kernels_for(like) if operators is _BY_TRIAL else None
    return own if own is not None and own.multiplies else None


class _Product:
    """A 1×1 convolution: one matrix product over rows of pixels."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        like: Tensor,
        *,
        operators: Any = _BY_TRIAL,
    ) -> None:
        """``weight`` is ``(K, C)``; ``like`` gives the device and the precision."""
        self._own = _own_products(operators, like)
        if self._own is not None:
            self.matrix = self._own.matrix(weight, bias)
            return
        self.weight = weight.to(like).contiguous()
        self.bias = None if bias is None else bias.to(like)
        self._onednn = _chosen(operators, like)
        if self._onednn is not None:
            self._lay_out()

    def _lay_out(self) -> None:
        """Have oneDNN lay out the weights as it reads them fastest."""
        raise NotImplementedError


class Pointwise(_Product):
    """A 1×1 convolution whose result is written."""

    def _lay_out(self) -> None:
        if self.weight.dtype == torch.bfloat16:
            # PyTorch's own product is oneDNN's, and needs no copy of the result.
            self._onednn = None
            return
        pixels = math.prod(TYPICAL_STRIP)
        self.weight = self._onednn._reorder_linear_weight(self.weight, pixels)

    def into(self, out: Tensor, pixels: Tensor) -> None:
        """Compute ``(N, R, W, C)`` pixels into ``out`` ``(N, R, W, K)``, a part of more rows."""
        if self._own is not None:
            self._own.product(pixels, self.matrix, out)
            return
        pixels = pixels.reshape(-1, pixels.shape[-1])
        if self._onednn is not None:
            product = self._onednn._linear_pointwise(pixels, self.weight, self.bias, "none", [], "")
            out.copy_(product.view_as(out))
        elif products_may_be_tf32(pixels):
            out.copy_(exact_product(pixels, self.weight, self.bias).view_as(out))
        elif len(out) > 1:
            out.copy_(F.linear(pixels, self.weight, self.bias).view_as(out))
        elif self.bias is None:
            torch.mm(pixels, self.weight.T, out=out[0].flatten(0, 1))
        else:
            torch.addmm(self.bias, pixels, self.weight.T, out=out[0].flatten(0, 1))


class PointwiseSum(_Product):
    """A 1×1 convolution whose result is added to what is there."""

    def _lay_out(self) -> None:
        kernel = self.weight[:, :, None, None]
        shape = [1, kernel.shape[1], *TYPICAL_STRIP]
        self.weight = self._onednn._reorder_convolution_weight(kernel, *_POINTWISE, shape)

    def add_to(self, rows: Tensor, pixels: Tensor) -> None:
        """Add what comes of ``(N, R, W, C)`` pixels to ``rows`` ``(N, R, W, K)``, in place."""
        if self._own is not None:
            self._own.product(pixels, self.matrix, rows, add=True)
            return
        if not rows.is_contiguous():
            # Of some columns the library rounds products before it adds them.
            dense = rows.contiguous()
            self.add_to(dense, pixels.contiguous())
            rows.copy_(dense)
            return
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
        if products_may_be_tf32(flat):
            flat += exact_product(pixels.reshape(-1, pixels.shape[-1]), self.weight, self.bias)
            return
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


def round_rows(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Round a float64 matrix ``(K, C)`` so that the sum of each row stays about what it is.

    A matrix that subtracts the mean of the pixel has rows whose sums are zero; what rounding makes
    of that is multiplied by the mean. The error of all is spread over an eighth, the smallest.
    """
    few = max(1, matrix.shape[1] // 8)
    smallest = matrix.abs().argsort(dim=1)[:, :few]
    rounded = matrix.to(dtype).double()
    error = (matrix - rounded).scatter(1, smallest, 0).sum(1, keepdim=True)
    spread = matrix.gather(1, smallest) + error / few
    return rounded.scatter(1, smallest, spread.to(dtype).double()).to(dtype)


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
        operators: Any = _BY_TRIAL,
    ) -> None:
        """``kernel`` is ``(K, C, 3, 3)``; ``like`` gives the device and the precision."""
        self.dtype = like.dtype
        self._own = None if depthwise else _own_products(operators, like)
        if self._own is not None:
            # The three channels of an image would be computed one by one.
            padding = -len(kernel) % _LEAST_VECTOR
            self._outputs = len(kernel)
            kernel = F.pad(kernel, (0, 0, 0, 0, 0, 0, 0, padding))
            bias = None if bias is None else F.pad(bias, (0, padding))
            self._matrix = self._own.matrix(kernel, bias)
            return
        if depthwise and like.dtype.itemsize < 4:
            kernel = round_taps(kernel.double(), like.dtype)
        self.kernel = kernel.to(like).contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.to(like)
        self.groups = len(kernel) if depthwise else 1
        self.gelu = gelu
        self._onednn = _chosen(operators, like)
        # Padding, stride, dilation, groups.
        self._geometry = ([0, 1], [1, 1], [1, 1], self.groups)
        if self._onednn is not None:
            shape = [1, self.groups * kernel.shape[1], *TYPICAL_STRIP]
            self.kernel = self._onednn._reorder_convolution_weight(
                self.kernel, *self._geometry, shape
            )

    def __call__(self, rows: Tensor, memory: Memory) -> Tensor:
        """``(N, R + 2, W, C)`` to ``(N, R, W, K)``, for which memory is asked, or not."""
        if self._own is not None:
            count, height, width, _ = rows.shape
            out = memory(count, height - 2, width, self._matrix.shape[0])
            # An image has its channels apart.
            rows = rows if rows.stride(-1) == 1 else rows.contiguous()
            self._own.convolution(rows, self._matrix, out)
            return out[..., : self._outputs]
        rows = rows.permute(0, 3, 1, 2)
        if self._onednn is not None:
            activation: tuple[object, ...] = ("gelu", [], "none") if self.gelu else ("none", [], "")
            out = self._onednn._convolution_pointwise(
                rows, self.kernel, self.bias, *self._geometry, *activation
            )
        else:
            out = convolve(rows, self.kernel, self.bias, self.groups)
            if self.gelu:
                out = _gelu(out)
        return out.permute(0, 2, 3, 1)


def pixel_unshuffle(rows: Tensor, memory: Memory) -> Tensor:
    """``(N, 2R, 2W, C)`` to ``(N, R, W, 4C)``, for which memory is asked, or not."""
    own = native.kernels_for(rows)
    if own is None:
        return rearrange(rows, "n (r dy) (w dx) c -> n r w (c dy dx)", dy=2, dx=2)
    count, height, width, channels = rows.shape
    out = memory(count, height // 2, width // 2, 4 * channels)
    own.unshuffle(rows, out)
    return out


def pixel_shuffle(rows: Tensor, out: Tensor) -> None:
    """``(N, R, W, 4C)``, ordered (dy, dx, channel), into ``(N, 2R, 2W, C)``."""
    for dy, line in enumerate(rows.chunk(2, dim=3)):
        for dx, pixels in enumerate(line.chunk(2, dim=3)):
            out[:, dy::2, dx::2] = pixels


class Depthwise:
    """A 3×3 depthwise convolution over rows that come with their halo, columns zero-padded."""

    def __init__(
        self, kernel: Tensor, bias: Tensor | None, like: Tensor, *, gelu: bool = False
    ) -> None:
        """``kernel`` is ``(K, 1, 3, 3)``; GELU follows, if asked for."""
        self.channels = len(kernel)
        self.own = native.kernels_for(like)
        if self.own is not None:
            if like.dtype.itemsize < 4:  # some processors multiply in bfloat16
                kernel = round_taps(kernel.double(), like.dtype)
            self.filter = native.Filter(kernel, bias)
        else:
            self.conv = Conv3x3(kernel, bias, like, depthwise=True, gelu=gelu)

    def __call__(self, rows: Tensor, memory: Memory) -> Tensor:
        """``(N, R + 2, W, K)`` to ``(N, R, W, K)``."""
        if self.own is None:
            return self.conv(rows, memory)
        out = memory(*rows[:, 2:].shape)
        self.own.depthwise(rows, self.filter, out[None])
        return out

    def by_group(
        self, rows: Tensor, columns: list[tuple[int, int]], groups: int, memory: Memory
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Some columns of the result, channels in groups, and sums of squares.

        Parameters
        ----------
        rows
            ``(N, R + 2, W, K)``.
        columns
            First columns, and those behind the last.
        memory
            Gives memory for a shape.

        Yields
        ------
        tuple
            ``(groups, N, R, columns, K / groups)``, contiguous, to be used before the next; and
            the squares summed over the columns, ``(N, R, K)``.
        """
        count, height, width, channels = rows.shape
        height -= 2
        if self.own is None:
            whole = rearrange(self.conv(rows, memory), "n r w (g c) -> g n r w c", g=groups)
            for first, last in columns:
                part = whole[..., first:last, :].contiguous()
                if part.dtype == torch.float16:  # sums over a row can leave its range
                    part = part.float()
                yield part, rearrange(torch.mul(part, part).sum(3), "g n r c -> n r (g c)")
            return
        squares = rows.new_empty(count, height, channels, dtype=torch.float64)
        for first, last in columns:
            shape = (groups, count, height, last - first, channels // groups)
            part = memory(*shape)
            before, behind = first > 0, last < width
            window = rows[:, :, first - before : last + behind]
            self.own.depthwise(window, self.filter, part, (not before, not behind), squares)
            yield part, squares


def gate(
    gates: Depthwise, values: Depthwise, rows: Tensor, others: Tensor, memory: Memory
) -> Tensor:
    """The gate of GDFN: GELU of the one convolution, times the other.

    Parameters
    ----------
    rows, others
        ``(N, R + 2, W, K)`` for gates and values.
    memory
        Asked for memory for ``(N, R, W, K)``, or not.
    """
    if gates.own is None:
        return gates.conv(rows, memory).mul_(values.conv(others, memory))
    out = memory(*rows[:, 2:].shape)
    gates.own.gate(rows, others, (gates.filter, values.filter), out)
    return out
