"""Both passes of a transformer block over one part of an image, a strip in one call.

The structures are those of ``passes.h``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from restormer_cli.network.buffers import Buffers
from restormer_cli.network.native.calls import SOME_PIXELS, Filter, Kernels, Matrix

#: What is made of a strip should stay in the cache that a core has for itself (measured).
STRIP_BYTES = 1 << 18

_SIZE, _POINTER = ctypes.c_ssize_t, ctypes.c_void_p


class _Matrix(ctypes.Structure):
    _fields_ = (("outputs", _SIZE), ("panels", _POINTER), ("bias", _POINTER))


class _Filter(ctypes.Structure):
    _fields_ = (("taps", _POINTER), ("bias", _POINTER))


class _Projection(ctypes.Structure):
    _fields_ = (("point", _Matrix), ("depth", _Filter))


class _Block(ctypes.Structure):
    _fields_ = (
        *((name, _Projection) for name in ("qk", "v", "gate", "value")),
        ("project_out", _Matrix),
        ("heads", _SIZE),
        ("center", _SIZE),
        ("epsilon", ctypes.c_double),
    )


class _Part(ctypes.Structure):
    _fields_ = (
        ("x", _POINTER),
        ("scales", _POINTER),
        *((name, _SIZE) for name in ("height", "width", "channels", "is_top", "is_bottom")),
    )


class _Sliding(ctypes.Structure):
    _fields_ = (
        ("data", _POINTER),
        *((name, _SIZE) for name in ("capacity", "start", "end", "next")),
    )


class _FirstPass(ctypes.Structure):
    _fields_ = (
        ("qk", _Sliding),
        *((name, _SIZE) for name in ("step", "group", "scaled")),
        *((name, _POINTER) for name in ("by_head", "row_squares", "sums", "pairs")),
    )


class _SecondPass(ctypes.Structure):
    _fields_ = (
        *((name, _Sliding) for name in ("v", "gate", "value")),
        ("step", _SIZE),
        ("done", _SIZE),
        *((name, _POINTER) for name in ("convolved", "gated", "scales")),
    )


class _Cell(ctypes.Structure):
    _fields_ = (
        ("left", _SIZE),
        ("right", _SIZE),
        ("matrix", _Matrix),
        ("gram", _POINTER),
        ("squares", _POINTER),
    )


class Projection(NamedTuple):
    """A 1×1 convolution, and the 3×3 depthwise one behind it."""

    point: Matrix
    depth: Filter


class Block:
    """The parameters of a transformer block."""

    def __init__(
        self,
        kernels: Kernels,
        qk: Projection,
        v: Projection,
        gate: Projection,
        value: Projection,
        project_out: Matrix,
        *,
        heads: int,
        center: bool,
        epsilon: float,
    ) -> None:
        """``center`` and ``epsilon`` are those of LayerNorm, see :meth:`Kernels.normalise`."""
        self.kernels = kernels
        self.qk, self.v, self.gate, self.value = qk, v, gate, value
        self.project_out, self.heads = project_out, heads
        projections = (
            _Projection(_matrix(p.point), _filter(p.depth)) for p in (qk, v, gate, value)
        )
        self.structure = _Block(*projections, _matrix(project_out), heads, center, epsilon)


class ImagePart(NamedTuple):
    """One image's part: its features and what LayerNorm multiplies each pixel by."""

    x: Tensor
    """``(H, W, C)``, contiguous, with the halo."""
    scales: Tensor
    """``(H, W)`` float32, contiguous: written by the first pass, read by the second."""
    is_top: bool
    is_bottom: bool
    """True if the part ends where the image does, without a halo."""


class FirstPass:
    """The sums that attention takes over the image, from the first row to the last.

    Parameters
    ----------
    group
        Rows whose products are summed in float32 before they are added.
    widest
        Columns that a unit has at most.
    buffers
        Gives memory that nothing else uses until the pass ends.
    """

    def __init__(
        self, block: Block, image: ImagePart, group: int, widest: int, buffers: Buffers
    ) -> None:
        part = _part(block.kernels, image)
        width, channels = image.x.shape[1:]
        step = max(group, _rows(2 * width * channels, image.x) // group * group)
        per_head = channels // block.heads
        kept = (
            buffers("by head", 2 * step * widest * channels),
            torch.empty(step, 2 * channels, dtype=torch.float64),
            torch.empty(per_head, per_head),
            image.x.new_empty(2 * SOME_PIXELS * per_head),
        )
        data, rows = _window(buffers, "qk", block.qk, step, image)
        sliding = _Sliding(data.data_ptr(), rows, next=int(not image.is_top))
        self._pass = _FirstPass(sliding, step, group, 0, *(t.data_ptr() for t in kept))
        self._kept = (*kept, data, image)
        self._call = block.kernels.attend
        self._arguments = tuple(map(ctypes.byref, (block.structure, part, self._pass)))
        self._shapes = ((block.heads, per_head, per_head), (2, block.heads, per_head))

    def __call__(
        self,
        first: int,
        last: int,
        columns: Sequence[tuple[int, int]],
        gram: Tensor,
        squares: Tensor,
    ) -> None:
        """Add the sums of rows ``[first, last)``, which follow those of the call before.

        Parameters
        ----------
        columns
            The first column of each unit, and the one behind its last.
        gram, squares
            What is added to, for each unit: q·kᵀ ``(units, heads, c, c)`` and squares
            ``(units, 2, heads, c)``, float64, contiguous.
        """
        addresses = []
        for sums, shape in zip((gram, squares), self._shapes, strict=True):
            if not (
                sums.shape == (len(columns), *shape)
                and sums.dtype == torch.float64
                and sums.is_contiguous()
            ):
                raise ValueError(f"sums must be {shape} for each unit, in float64, contiguous")
            begin, distance = sums.data_ptr(), sums.stride(0) * sums.element_size()
            addresses.append(range(begin, begin + len(columns) * distance, distance))
        units = (
            _Cell(*edges, _Matrix(), *each)
            for edges, *each in zip(columns, *addresses, strict=True)
        )
        self._call(*self._arguments, first, last, (_Cell * len(columns))(*units), len(columns))


class SecondPass:
    """x += v · M, and GDFN, from the first row to the last; parameters as above."""

    def __init__(self, block: Block, image: ImagePart, buffers: Buffers) -> None:
        part = _part(block.kernels, image)
        width, channels = image.x.shape[1:]
        hidden = block.gate.point.shape[0]
        step = _rows(width * (channels + 2 * hidden), image.x)
        kept = (
            buffers("convolved", step * width * channels),
            buffers("gated", (step + 1) * width * hidden),
            torch.empty(step * width),
        )
        projections = {"v": block.v, "gate": block.gate, "value": block.value}
        windows = [_window(buffers, *named, step, image) for named in projections.items()]
        # GDFN begins where attention does, two rows into a halo.
        begin = int(not image.is_top)
        sliding = (
            _Sliding(data.data_ptr(), rows, next=first)
            for (data, rows), first in zip(windows, (0, begin, begin), strict=True)
        )
        self._pass = _SecondPass(*sliding, step, 2 * begin, *(t.data_ptr() for t in kept))
        self._kept = (*kept, windows, image)
        self._call = block.kernels.apply
        self._arguments = tuple(map(ctypes.byref, (block.structure, part, self._pass)))

    def __call__(self, first: int, last: int, cells: Sequence[tuple[int, int, Matrix]]) -> None:
        """Add v · M to rows ``[first, last)``, and GDFN where that is behind.

        Parameters
        ----------
        cells
            First column of each cell, the one behind its last, and its M.
        """
        made = (_Cell(left, right, _matrix(matrix)) for left, right, matrix in cells)
        self._call(*self._arguments, first, last, (_Cell * len(cells))(*made), len(cells))


def _matrix(matrix: Matrix) -> Any:
    return _Matrix(matrix.shape[0], *matrix.pointers)


def _filter(kernel: Filter) -> Any:
    return _Filter(*kernel.pointers)


def _rows(values: int, like: Tensor) -> int:
    """Rows of so many values that a strip has: even, since kernels take two at once."""
    return max(2, STRIP_BYTES // (values * like.element_size()) // 2 * 2)


def _part(kernels: Kernels, image: ImagePart) -> Any:
    x, scales = image.x, image.scales
    if not (
        x.dtype == kernels.dtype
        and x.is_cpu
        and x.is_contiguous()
        and scales.dtype == torch.float32
        and scales.shape == x.shape[:2]
        and scales.is_contiguous()
    ):
        raise ValueError(f"a part must be contiguous {kernels.dtype} on the CPU, scales float32")
    return _Part(x.data_ptr(), scales.data_ptr(), *x.shape, image.is_top, image.is_bottom)


def _window(
    buffers: Buffers, name: str, projection: Projection, step: int, image: ImagePart
) -> tuple[Tensor, int]:
    """Memory for projected rows, and how many they are."""
    # Two rows stay, and there may be zeros on both sides; spare ones make moving up rarer.
    rows = 2 * step + 4
    return buffers(name, rows * image.x.shape[1] * projection.point.shape[0]), rows
