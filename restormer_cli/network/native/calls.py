"""Calls of the kernels with tensors, which are checked: addresses know no bounds or types."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

_SIZE, _POINTER, _INT = ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_int
#: As in ``kernels.c``.
SOME_PIXELS = 64
#: Ends of the functions' names.
TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class Filter:
    """A depthwise 3×3 convolution, laid out for the kernels."""

    def __init__(self, kernel: Tensor, bias: Tensor | None) -> None:
        """``kernel`` is ``(K, 1, 3, 3)``, ``bias`` ``(K,)``, both of any precision."""
        self.taps = kernel.float().flatten(1).T.contiguous()
        self.bias = None if bias is None else bias.float().contiguous()
        self.channels = len(kernel)
        self.pointers = (self.taps.data_ptr(), None if self.bias is None else self.bias.data_ptr())


class Matrix:
    """A 1×1 or 3×3 convolution, laid out for the kernels; made by :meth:`Kernels.matrix`."""

    def __init__(self, panels: Tensor, bias: Tensor | None, shape: tuple[int, int]) -> None:
        self.panels = panels
        self.bias = None if bias is None else bias.float().contiguous()
        #: Output channels, input channels.
        self.shape = shape
        self.pointers = (panels.data_ptr(), None if self.bias is None else self.bias.data_ptr())


class Kernels:
    """The kernels for one precision.

    Feature maps are ``(N, rows, columns, channels)``; channels lie side by side, other strides are
    free. Windows come with a row above and below that are not computed. Columns likewise, but for
    the sides in ``pad``: beyond those there are zeros.
    """

    def __init__(self, library: ctypes.CDLL, target: str, dtype: torch.dtype) -> None:
        ends = f"{TYPES[dtype]}_{target}"
        self.target, self.dtype = target, dtype
        shape, scales = [_SIZE] * 4, [_POINTER, *[_SIZE] * 2]
        pixels, parameters, pad = [_POINTER, *[_SIZE] * 3], [_POINTER] * 2, [_INT] * 2
        split = [_POINTER, *[_SIZE] * 5, _POINTER]

        def function(name: str, *arguments: Any) -> Any:
            found = library[f"restormer_{name}_{ends}"]
            found.restype, found.argtypes = None, arguments
            return found

        self._gate = function(
            "gate", *shape, *pad, _POINTER, *pixels, *parameters, *parameters, *pixels
        )
        self._depthwise = function("depthwise", *shape, *pad, *pixels, *parameters, *split)
        self._normalise = function(
            "normalise", *shape, _INT, ctypes.c_float, *pixels, *pixels, *scales
        )
        self._scale = function("scale", *shape, *pixels, *pixels, *scales)
        #: True if there are products of matrices; elsewhere PyTorch's libraries have faster ones.
        self.multiplies = hasattr(library, f"restormer_product_{ends}") and not (
            dtype == torch.bfloat16 and library.restormer_has_matrix_unit()
        )
        self._unshuffle = function("unshuffle", *shape, *pixels, *pixels)
        #: True if there are sums of q·kᵀ.
        self.sums = hasattr(library, f"restormer_gram_{ends}")
        if self.sums:
            self._gram = function(
                "gram",
                *[_SIZE] * 6,
                *[_POINTER, _SIZE, _SIZE, _POINTER, _SIZE],
                *[_POINTER, _SIZE] * 2,
                *[_POINTER] * 2,
            )
        if self.multiplies:
            passed = [_POINTER] * 3 + [_SIZE] * 2 + [_POINTER, _SIZE]
            #: Both passes of a block: see :mod:`restormer_cli.network.native.passes`.
            self.attend, self.apply = function("attend", *passed), function("apply", *passed)
            self._pack = function("pack", *[_SIZE] * 3, *[_POINTER] * 2)
            self._convolution = function("convolution", *[_SIZE] * 5, *pixels, *parameters, *pixels)
            self._product = function(
                "product", *[_SIZE] * 5, _INT, *pixels, *scales, *parameters, *pixels
            )

    def matrix(self, weight: Tensor, bias: Tensor | None) -> Matrix:
        """Lay out the weights of a convolution, ``(K, C)`` or ``(K, C, 3, 3)``, and its bias."""
        outputs, inputs = weight.shape[:2]
        taps = weight.float().reshape(outputs, inputs, -1).transpose(1, 2).contiguous()
        step = 1 if self.dtype == torch.float32 else 2
        panels = torch.empty(outputs * taps.shape[1] * -(-inputs // step) * step, dtype=self.dtype)
        self._pack(*taps.shape, taps.data_ptr(), panels.data_ptr())
        return Matrix(panels, bias, (outputs, inputs))

    def product(
        self,
        pixels: Tensor,
        matrix: Matrix,
        out: Tensor,
        scales: Tensor | None = None,
        *,
        add: bool = False,
    ) -> None:
        """A 1×1 convolution.

        Parameters
        ----------
        pixels
            ``(N, R, W, C)``.
        out
            ``(N, R, W, K)``, written, or added to.
        scales
            ``(N, R, W)`` float32: what each pixel is multiplied by.
        """
        self._check(pixels, out)
        self._check_scales(pixels, scales)
        self._check_matrix(pixels, matrix, out, halo=0)
        outputs, inputs = matrix.shape
        self._product(
            *(*out.shape[:3], inputs, outputs, add),
            *_address(pixels),
            *((None, 0, 0) if scales is None else _address(scales)),
            *matrix.pointers,
            *_address(out),
        )

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
            True if the window ends at the map's left, right side.
        """
        left, right = pad
        gate, value = filters
        count, rows, width, channels = out.shape
        columns = width + 2 - left - right
        self._check(gates, values, out)
        shape = (count, rows + 2, columns, channels)
        if not gates.shape == values.shape == shape:
            raise ValueError(f"gates and values must be {shape}, and are {tuple(gates.shape)}")
        if values.stride() != gates.stride() or not gate.channels == value.channels == channels:
            raise ValueError("gates and values differ in layout, or from their filters")
        self._gate(
            *(count, rows, columns, channels, left, right, gates.data_ptr()),
            *_address(values),
            *gate.pointers,
            *value.pointers,
            *_address(out),
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
        left, right = pad
        groups, count, rows, width, channels = out.shape
        columns, wide = width + 2 - left - right, groups * channels
        self._check(window, out)
        if window.shape != (count, rows + 2, columns, wide) or kernel.channels != wide:
            raise ValueError(f"{tuple(window.shape)} is no window for {tuple(out.shape)}")
        if squares is not None and not (
            squares.shape == (count, rows, wide)
            and squares.dtype == torch.float64
            and squares.is_contiguous()
        ):
            raise ValueError("squares must be (N, R, K) in float64, contiguous")
        self._depthwise(
            *(count, rows, columns, wide, left, right),
            *_address(window),
            *kernel.pointers,
            *_address(out),
            channels,
            None if squares is None else squares.data_ptr(),
        )

    def convolution(self, rows: Tensor, matrix: Matrix, out: Tensor) -> None:
        """A 3×3 convolution, with zeros beyond the columns.

        Parameters
        ----------
        rows
            ``(N, R + 2, W, C)``.
        out
            ``(N, R, W, K)``, written.
        """
        self._check(rows, out)
        self._check_matrix(rows, matrix, out, halo=2)
        outputs, inputs = matrix.shape
        self._convolution(
            *(*out.shape[:3], inputs, outputs),
            *_address(rows),
            *matrix.pointers,
            *_address(out),
        )

    def gram(
        self, qk: Tensor, squares: Tensor, group: int, total: Tensor, squares_total: Tensor
    ) -> None:
        """Add q·kᵀ and squares to their sums, from the first row to the last.

        Parameters
        ----------
        qk, squares
            As :meth:`depthwise` gives them: ``(2 * heads, N, R, W, c)``, q's heads first, and
            ``(N, R, 2 * heads * c)``; of either rows may be left out.
        group
            Rows whose products are summed in float32 before they are added.
        total, squares_total
            ``(N, heads, c, c)`` and ``(N, 2, heads, c)``, float64, contiguous but for N.
        """
        both, count, rows, width, channels = qk.shape
        heads = both // 2
        self._check(qk)
        shapes = ((count, heads, channels, channels), (count, 2, heads, channels))
        doubles = (total, squares_total, squares)
        if not (
            total.shape == shapes[0]
            and squares_total.shape == shapes[1]
            and squares.shape == (count, rows, both * channels)
            and all(t.dtype == torch.float64 and t.is_cpu and t[0].is_contiguous() for t in doubles)
            and qk[0, 0].is_contiguous()
        ):
            raise ValueError(f"sums do not fit {tuple(qk.shape)}, or are not float64")
        # Of the kernel's own, so that threads are apart: float32 sums, and some pixels of both.
        sums, pairs = torch.empty(channels, channels), qk.new_empty(2 * SOME_PIXELS * channels)
        self._gram(
            *(count, rows, width, channels, heads, group),
            *(qk.data_ptr(), *qk.stride()[:2], squares.data_ptr(), squares.stride(0)),
            *(total.data_ptr(), total.stride(0)),
            *(squares_total.data_ptr(), squares_total.stride(0)),
            *(sums.data_ptr(), pairs.data_ptr()),
        )

    def normalise(
        self,
        rows: Tensor,
        out: Tensor | None,
        epsilon: float,
        center: bool = True,
        scales: Tensor | None = None,
    ) -> None:
        """LayerNorm without its affine part.

        Parameters
        ----------
        rows, out
            ``(N, R, W, C)``; may be the same. Without ``out`` only the scales are written.
        center
            True if the mean is subtracted; the variance is around it in any case.
        scales
            ``(N, R, W)`` float32: what each pixel is multiplied by, written.
        """
        self._check_pixels(rows, rows if out is None else out, scales)
        self._normalise(
            *rows.shape,
            *(center, epsilon),
            *_address(rows),
            *((None, 0, 0, 0) if out is None else _address(out)),
            *((None, 0, 0) if scales is None else _address(scales)),
        )

    def scale(self, rows: Tensor, scales: Tensor, out: Tensor) -> None:
        """Multiply each pixel of ``(N, R, W, C)`` by its number in ``scales`` ``(N, R, W)``."""
        self._check_pixels(rows, out, scales)
        self._scale(*rows.shape, *_address(rows), *_address(out), *_address(scales))

    def unshuffle(self, rows: Tensor, out: Tensor) -> None:
        """Pixel-unshuffle of ``(N, 2R, 2W, C)`` into ``(N, R, W, 4C)``, as PyTorch orders it."""
        self._check(rows, out)
        count, height, width, channels = out.shape
        if rows.shape != (count, 2 * height, 2 * width, channels // 4) or channels % 4:
            raise ValueError(f"{tuple(rows.shape)} cannot be unshuffled to {tuple(out.shape)}")
        self._unshuffle(*(count, height, width, channels // 4), *_address(rows), *_address(out))

    def _check_pixels(self, rows: Tensor, out: Tensor, scales: Tensor | None) -> None:
        self._check(rows, out)
        if rows.shape != out.shape:
            raise ValueError(f"{tuple(rows.shape)} and {tuple(out.shape)} must be the same")
        self._check_scales(rows, scales)

    def _check_matrix(self, rows: Tensor, matrix: Matrix, out: Tensor, *, halo: int) -> None:
        count, height, width, channels = out.shape
        outputs, inputs = matrix.shape
        if rows.shape != (count, height + halo, width, inputs) or channels != outputs:
            shapes = f"{tuple(rows.shape)} and {tuple(out.shape)}"
            raise ValueError(f"{shapes} are not what a matrix of {matrix.shape} is for")

    def _check_scales(self, rows: Tensor, scales: Tensor | None) -> None:
        if scales is not None and not (
            scales.dtype == torch.float32
            and scales.shape == rows.shape[:3]
            and scales.stride(2) == 1
        ):
            raise ValueError("scales must be (N, R, W) in float32, columns side by side")

    def _check(self, *maps: Tensor) -> None:
        """Raw pointers know no bounds and no types."""
        for tensor in maps:
            beside = tensor.stride(-1) == 1 or tensor.shape[-1] == 1
            if tensor.dtype != self.dtype or not tensor.is_cpu or not beside:
                raise ValueError(f"maps must be {self.dtype} on the CPU, channels side by side")


def _address(tensor: Tensor) -> tuple[int, ...]:
    """Where it begins, and the distances along all axes but the last, in elements."""
    return (tensor.data_ptr(), *tensor.stride()[:-1])
