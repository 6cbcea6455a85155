"""Both passes of a transformer block over one part of an image, a strip in one call.

The structures are those of ``passes.h``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from restormer_cli.network.native.calls import SOME_PIXELS, Filter, Kernels, Matrix

#: Gives memory of the maps' precision, of a name and a shape, with undefined content.
Buffers = Callable[..., Tensor]

#: What is made of a strip should stay in the cache that a core has for itself (measured).
STRIP_BYTES = 1 << 18

_SIZE, _POINTER = ctypes.c_ssize_t, ctypes.c_void_p


def _structure(name: str, **fields: Any) -> Any:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


_Matrix = _structure("_Matrix", outputs=_SIZE, panels=_POINTER, bias=_POINTER)
_Filter = _structure("_Filter", taps=_POINTER, bias=_POINTER)
_Projection = _structure("_Projection", point=_Matrix, depth=_Filter)
_Block = _structure(
    "_Block",
    **dict.fromkeys(("qk", "v", "gate", "value"), _Projection),
    **{"project_out": _Matrix, "heads": _SIZE, "center": _SIZE, "epsilon": ctypes.c_double},
)
_Part = _structure(
    "_Part",
    **dict.fromkeys(("x", "scales"), _POINTER),
    **dict.fromkeys(("height", "width", "channels", "is_top", "is_bottom"), _SIZE),
)
_Sliding = _structure(
    "_Sliding", data=_POINTER, **dict.fromkeys(("capacity", "start", "end", "next"), _SIZE)
)
_FirstPass = _structure(
    "_FirstPass",
    qk=_Sliding,
    **dict.fromkeys(("step", "group", "scaled"), _SIZE),
    **dict.fromkeys(("by_head", "row_squares", "sums", "pairs"), _POINTER),
)
_SecondPass = _structure(
    "_SecondPass",
    **dict.fromkeys(("v", "gate", "value"), _Sliding),
    **dict.fromkeys(("step", "done"), _SIZE),
    **dict.fromkeys(("convolved", "gated", "scales"), _POINTER),
)
_Cell = _structure(
    "_Cell",
    **dict.fromkeys(("left", "right"), _SIZE),
    **{"matrix": _Matrix, "gram": _POINTER, "squares": _POINTER},
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


class Ground(NamedTuple):
    """One image's part: its features and what LayerNorm multiplies each pixel by."""

    x: Tensor
    """``(H, W, C)``, contiguous, with the halo."""
    scales: Tensor
    """``(H, W)`` float32, contiguous: written by the first pass, read by the second."""
    is_top: bool
    is_bottom: bool
    """Whether the part ends where the image does, without a halo."""


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
        self, block: Block, ground: Ground, group: int, widest: int, buffers: Buffers
    ) -> None:
        part = _part(block.kernels, ground)
        width, channels = ground.x.shape[1:]
        step = max(group, _rows(2 * width * channels, ground.x) // group * group)
        per_head = channels // block.heads
        kept = (
            buffers("by head", 2 * step * widest * channels),
            torch.empty(step, 2 * channels, dtype=torch.float64),
            torch.empty(per_head, per_head),
            ground.x.new_empty(2 * SOME_PIXELS * per_head),
        )
        data, rows = _window(buffers, "qk", block.qk, step, ground)
        sliding = _Sliding(data.data_ptr(), rows, next=int(not ground.is_top))
        self._pass = _FirstPass(sliding, step, group, 0, *(t.data_ptr() for t in kept))
        self._kept = (*kept, data, ground)
        self._call = block.kernels.attend
        self._arguments = tuple(map(ctypes.byref, (block.structure, part, self._pass)))
        self._shapes = ((block.heads, per_head, per_head), (2, block.heads, per_head))

    def __call__(
        self, first: int, last: int, units: Sequence[tuple[int, int, Tensor, Tensor]]
    ) -> None:
        """Add the sums of rows ``[first, last)``, which follow those of the call before.

        Parameters
        ----------
        units
            First column of each unit, the one behind its last, and what is added to, float64
            and contiguous: q·kᵀ ``(heads, c, c)`` and squares ``(2, heads, c)``.
        """
        for _, _, *sums in units:
            if any(
                total.shape != shape or total.dtype != torch.float64 or not total.is_contiguous()
                for total, shape in zip(sums, self._shapes, strict=True)
            ):
                raise ValueError(f"sums must be of shapes {self._shapes} in float64, contiguous")
        cells = (_Cell * len(units))(
            *(
                (left, right, _Matrix(), gram.data_ptr(), squares.data_ptr())
                for left, right, gram, squares in units
            )
        )
        self._call(*self._arguments, first, last, cells, len(units))


class SecondPass:
    """x += v · M, and GDFN, from the first row to the last; parameters as above."""

    def __init__(self, block: Block, ground: Ground, buffers: Buffers) -> None:
        part = _part(block.kernels, ground)
        width, channels = ground.x.shape[1:]
        hidden = block.gate.point.shape[0]
        step = _rows(width * (channels + 2 * hidden), ground.x)
        kept = (
            buffers("convolved", step * width * channels),
            buffers("gated", (step + 1) * width * hidden),
            torch.empty(step * width),
        )
        projections = {"v": block.v, "gate": block.gate, "value": block.value}
        windows = [_window(buffers, *named, step, ground) for named in projections.items()]
        # GDFN begins where attention does, two rows into a halo.
        begin = int(not ground.is_top)
        sliding = (
            _Sliding(data.data_ptr(), rows, next=first)
            for (data, rows), first in zip(windows, (0, begin, begin), strict=True)
        )
        self._pass = _SecondPass(*sliding, step, 2 * begin, *(t.data_ptr() for t in kept))
        self._kept = (*kept, windows, ground)
        self._call = block.kernels.apply
        self._arguments = tuple(map(ctypes.byref, (block.structure, part, self._pass)))

    def __call__(self, first: int, last: int, cells: Sequence[tuple[int, int, Matrix]]) -> None:
        """Add v · M to rows ``[first, last)``, and GDFN where that is behind.

        Parameters
        ----------
        cells
            First column of each cell, the one behind its last, and its M.
        """
        made = (_Cell * len(cells))(
            *((left, right, _matrix(matrix), None, None) for left, right, matrix in cells)
        )
        self._call(*self._arguments, first, last, made, len(cells))


def _matrix(matrix: Matrix) -> Any:
    return _Matrix(matrix.shape[0], *matrix.pointers)


def _filter(kernel: Filter) -> Any:
    return _Filter(*kernel.pointers)


def _rows(values: int, like: Tensor) -> int:
    """Rows of so many values that a strip has: even, since kernels take two at once."""
    return max(2, STRIP_BYTES // (values * like.element_size()) // 2 * 2)


def _part(kernels: Kernels, ground: Ground) -> Any:
    x, scales = ground.x, ground.scales
    if not (
        x.dtype == kernels.dtype
        and x.is_cpu
        and x.is_contiguous()
        and scales.dtype == torch.float32
        and scales.shape == x.shape[:2]
        and scales.is_contiguous()
    ):
        raise ValueError(f"a part must be contiguous {kernels.dtype} on the CPU, scales float32")
    return _Part(x.data_ptr(), scales.data_ptr(), *x.shape, ground.is_top, ground.is_bottom)


def _window(
    buffers: Buffers, name: str, projection: Projection, step: int, ground: Ground
) -> tuple[Tensor, int]:
    """Memory for projected rows, and how many they are."""
    # Two rows stay, and there may be zeros on both sides; spare ones make moving up rarer.
    rows = 2 * step + 4
    return buffers(name, rows * ground.x.shape[1] * projection.point.shape[0]), rows
