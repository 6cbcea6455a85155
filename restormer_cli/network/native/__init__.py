"""Kernels in C: what PyTorch needs several passes over memory for, in one.

Each thread that calls one computes alone, without the interpreter lock. A pixel's result does not
depend on how a map is split into calls.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from restormer_cli.network.native.build import LIBRARY, is_sound
from restormer_cli.network.trials import near, waves

_SIZE, _POINTER, _INT = ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_int
#: Ends of the functions' names.
_TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_PROCESSORS = {
    "avx2": "AVX2",
    "avx512": "AVX-512",
    "avx512bf16": "AVX-512 with bfloat16",
    "neon": "NEON",
}


class Filter:
    """A depthwise 3×3 convolution, laid out for the kernels."""

    def __init__(self, kernel: Tensor, bias: Tensor | None) -> None:
        """``kernel`` is ``(K, 1, 3, 3)``, ``bias`` ``(K,)``."""
        self.taps = kernel.float().flatten(1).T.contiguous()
        self.bias = None if bias is None else bias.float().contiguous()
        self.pointers = (self.taps.data_ptr(), None if self.bias is None else self.bias.data_ptr())


class Kernels:
    """The kernels for one precision.

    Feature maps are ``(N, rows, columns, channels)``; channels lie side by side, other strides are
    free. Windows come with a row above and below that are not computed. Columns likewise, but for
    the sides in ``pad``: beyond those there are zeros.
    """

    def __init__(self, library: ctypes.CDLL, target: str, dtype: torch.dtype) -> None:
        ends = f"{_TYPES[dtype]}_{target}"
        self.target, self.dtype = target, dtype
        self._gate = library[f"restormer_gate_{ends}"]
        self._gate.argtypes = [*[_POINTER] * 2, *[_SIZE] * 5, *[_INT] * 2, *[_POINTER] * 5]
        self._gate.argtypes += [_SIZE] * 2
        self._depthwise = library[f"restormer_depthwise_{ends}"]
        self._depthwise.argtypes = [_POINTER, *[_SIZE] * 5, *[_INT] * 2, *[_POINTER] * 3]
        self._depthwise.argtypes += [*[_SIZE] * 4, _POINTER]
        self._normalise = library[f"restormer_normalise_{ends}"]
        self._normalise.argtypes = [_POINTER, *[_SIZE] * 5, _INT, ctypes.c_float]
        self._normalise.argtypes += [_POINTER, *[_SIZE] * 2, _POINTER, _SIZE]
        self._scale = library[f"restormer_scale_{ends}"]
        self._scale.argtypes = [_POINTER, *[_SIZE] * 5, _POINTER, _SIZE, _POINTER, *[_SIZE] * 2]
        for function in (self._gate, self._depthwise, self._normalise, self._scale):
            function.restype = None

    def gate(
        self,
        gates: Tensor,
        values: Tensor,
        filters: tuple[Filter, Filter],
        out: Tensor,
        pad: tuple[bool, bool] = (True, True),
    ) -> None:
        """GELU of the one convolution, times the other.

        Parameters
        ----------
        gates, values
            ``(N, R + 2, W + 2, K)`` with the same strides; a column less for each side in ``pad``.
        filters
            For gates and values.
        out
            ``(N, R, W, K)``, written.
        pad
            Whether the window ends at the map's left, right side.
        """
        count, rows, _, channels = out.shape
        columns = gates.shape[2]
        self._check(gates, values, out, shape=(count, rows, columns + sum(pad) - 2, channels))
        image, row, pixel, _ = gates.stride()
        if values.stride() != gates.stride() or values.shape != gates.shape:
            raise ValueError("gates and values must have the same layout")
        out_image, out_row, out_pixel, _ = out.stride()
        size = gates.element_size()
        for n in range(count):
            self._gate(
                gates.data_ptr() + n * image * size,
                values.data_ptr() + n * image * size,
                row,
                pixel,
                rows,
                columns,
                channels,
                *pad,
                *filters[0].pointers,
                *filters[1].pointers,
                out.data_ptr() + n * out_image * size,
                out_row,
                out_pixel,
            )

    def depthwise(
        self,
        window: Tensor,
        kernel: Filter,
        out: Tensor,
        pad: tuple[bool, bool] = (True, True),
        squares: Tensor | None = None,
    ) -> None:
        """A depthwise convolution.

        Parameters
        ----------
        window
            ``(N, R + 2, W + 2, G * c)``; a column less for each side in ``pad``.
        out
            ``(G, N, R, W, c)``, each group of channels apart, written.
        squares
            ``(N, R, G * c)`` float64, contiguous: the sum of squares over each row of the result
            as rounded, written.
        """
        groups, count, rows, _, channels = out.shape
        columns, wide = window.shape[2:]
        self._check(window, out[0], shape=(count, rows, columns + sum(pad) - 2, channels))
        image, row, pixel, _ = window.stride()
        out_group, out_image, out_row, out_pixel, _ = out.stride()
        size = window.element_size()
        if groups * channels != wide:
            raise ValueError("channels in and out differ")
        sums, per_image = None, rows * wide * 8
        if squares is not None:
            if squares.shape != (count, rows, wide) or squares.dtype != torch.float64:
                raise ValueError("squares are (N, R, K) in float64")
            sums = squares.data_ptr()
        for n in range(count):
            self._depthwise(
                window.data_ptr() + n * image * size,
                row,
                pixel,
                rows,
                columns,
                wide,
                *pad,
                *kernel.pointers,
                out.data_ptr() + n * out_image * size,
                channels,
                out_group,
                out_row,
                out_pixel,
                None if sums is None else sums + n * per_image,
            )

    def normalise(
        self,
        rows: Tensor,
        out: Tensor,
        epsilon: float,
        center: bool = True,
        scales: Tensor | None = None,
    ) -> None:
        """LayerNorm without its affine part.

        Parameters
        ----------
        rows, out
            ``(N, R, W, C)``; may be the same.
        center
            Whether the mean is subtracted; the variance is around it in any case.
        scales
            ``(N, R, W)`` float32: what each pixel is multiplied by, written.
        """
        self._check_pixels(rows, out, scales)
        count, height, width, channels = rows.shape
        image, row, pixel, _ = rows.stride()
        out_image, out_row, out_pixel, _ = out.stride()
        size = rows.element_size()
        for n in range(count):
            self._normalise(
                rows.data_ptr() + n * image * size,
                row,
                pixel,
                height,
                width,
                channels,
                center,
                epsilon,
                out.data_ptr() + n * out_image * size,
                out_row,
                out_pixel,
                None if scales is None else scales.data_ptr() + n * scales.stride(0) * 4,
                0 if scales is None else scales.stride(1),
            )

    def scale(self, rows: Tensor, scales: Tensor, out: Tensor) -> None:
        """Multiply each pixel of ``(N, R, W, C)`` by its number in ``scales`` ``(N, R, W)``."""
        self._check_pixels(rows, out, scales)
        count, height, width, channels = rows.shape
        image, row, pixel, _ = rows.stride()
        out_image, out_row, out_pixel, _ = out.stride()
        size = rows.element_size()
        for n in range(count):
            self._scale(
                rows.data_ptr() + n * image * size,
                row,
                pixel,
                height,
                width,
                channels,
                scales.data_ptr() + n * scales.stride(0) * 4,
                scales.stride(1),
                out.data_ptr() + n * out_image * size,
                out_row,
                out_pixel,
            )

    def _check_pixels(self, rows: Tensor, out: Tensor, scales: Tensor | None) -> None:
        for tensor in (rows, out):
            if tensor.dtype != self.dtype or tensor.stride(-1) != 1 or tensor.device.type != "cpu":
                raise ValueError(f"{self.dtype} on the CPU is needed, channels side by side")
        if rows.shape != out.shape:
            raise ValueError("rows and result must have the same shape")
        if scales is not None and (
            scales.dtype != torch.float32 or scales.shape != rows.shape[:3] or scales.stride(2) != 1
        ):
            raise ValueError("scales are (N, R, W) in float32, the last axis contiguous")

    def _check(self, *tensors: Tensor, shape: tuple[int, ...]) -> None:
        """Raw pointers know no bounds: all that is passed on must fit."""
        *windows, out = tensors
        for tensor in tensors:
            if tensor.dtype != self.dtype or tensor.stride(-1) != 1 or tensor.device.type != "cpu":
                raise ValueError(f"{self.dtype} on the CPU is needed, channels side by side")
        if tuple(out.shape) != shape or any(w.shape[1] != shape[1] + 2 for w in windows):
            raise ValueError(f"the result is {tuple(out.shape)}, not {shape}")


def kernels(dtype: torch.dtype) -> Kernels | None:
    """The kernels for a precision on this machine's CPU; None where PyTorch's serve alone."""
    found = _found(dtype)
    return found if isinstance(found, Kernels) else None


def describe(dtype: torch.dtype) -> str:
    """Which kernels a CPU computes with in this precision, and why, as half a sentence."""
    found = _found(dtype)
    if isinstance(found, Kernels):
        return f"kernels in C for {_PROCESSORS[found.target]}"
    return f"PyTorch's kernels alone, because {found}"


def notices() -> list[str]:
    """What this process does without though it is there, a sentence each."""
    return [f"slower than need be: {reason}" for reason in _distrusted]


_distrusted: dict[str, None] = {}


@functools.cache
def _found(dtype: torch.dtype) -> Kernels | str:
    """The kernels, tried once a process against PyTorch; or why there are none."""
    if dtype not in _TYPES:
        return f"those in C are for {' and '.join(_TYPES.values())}"
    if os.environ.get("RESTORMER_NATIVE") == "0":
        return "RESTORMER_NATIVE is 0"
    if not LIBRARY.exists():
        return "those in C were not compiled at the installation"
    try:
        library = _load(LIBRARY)
        target = library.restormer_processor().decode()
        if not target:
            return "those in C are for AVX2, AVX-512 and NEON"
        found = Kernels(library, target, dtype)
        trouble = _try(found)
    except (OSError, AttributeError) as error:  # damaged, or for another system
        trouble = f"{LIBRARY.name} cannot be loaded ({error})"
    if trouble:
        _distrusted[trouble] = None
    return trouble or found


def _load(path: Path) -> ctypes.CDLL:
    if not is_sound(path):
        raise OSError("it is damaged or made from other sources: install again")
    library = ctypes.CDLL(str(path))
    library.restormer_processor.restype = ctypes.c_char_p
    return library


def _try(found: Kernels) -> str:
    """Compare every kernel with PyTorch; what is wrong, or nothing."""
    with torch.inference_mode():
        right = all(near(made, expected) for made, expected in _trials(found))
    return "" if right else f"{LIBRARY.name} gives wrong numbers"


def _trials(found: Kernels) -> Iterator[tuple[Tensor, Tensor]]:
    """Results beside PyTorch's. Widths and channels take the kernels' every path."""
    heads = 2
    for pad, bias, width, channels in (
        ((True, True), False, 37, 64),
        ((False, True), True, 2, 58),
        ((True, False), True, 33, 10),
    ):
        rows, columns = 3, width + 2 - sum(pad)
        gates, values = waves(2, 2, rows + 2, columns, channels).to(found.dtype)
        plain = [
            (waves(channels, 1, 3, 3), waves(channels) if bias else None),
            (waves(channels, 1, 3, 3).flip(0), waves(channels).flip(0) if bias else None),
        ]
        gate_filter, value_filter = (Filter(*parameters) for parameters in plain)
        gate, value = (
            F.conv2d(
                F.pad(window.float().permute(0, 3, 1, 2), (int(pad[0]), int(pad[1]))),
                *parameters,
                groups=channels,
            ).permute(0, 2, 3, 1)
            for window, parameters in zip((gates, values), plain, strict=True)
        )
        out = torch.full_like(gate, torch.nan, dtype=found.dtype)
        found.gate(gates, values, (gate_filter, value_filter), out, pad)
        yield out, (F.gelu(gate) * value).to(found.dtype)

        split = torch.stack(value.chunk(heads, dim=3))
        out = torch.full_like(split, torch.nan, dtype=found.dtype)
        squares = out.new_full((2, rows, channels), torch.nan, dtype=torch.float64)
        found.depthwise(values, value_filter, out, pad, squares)
        yield out, split.to(found.dtype)
        of_result = out.double().square().sum(3).permute(1, 2, 0, 3).flatten(2)
        yield squares.float(), of_result.float()

        out = torch.full_like(gates, torch.nan)
        scales = torch.full(gates.shape[:3], torch.nan)
        variances = gates.float().var(-1, correction=0)
        for center in (True, False):
            found.normalise(gates, out, 1e-5, center, scales)
            factors = torch.rsqrt(variances + 1e-5)
            mean = gates.float().mean(-1, keepdim=True) if center else 0.0
            yield out, ((gates.float() - mean) * factors[..., None]).to(found.dtype)
            yield scales, factors
        found.scale(gates, scales, out)
        yield out, (gates.float() * factors[..., None]).to(found.dtype)
