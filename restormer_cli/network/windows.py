"""Attention over local windows: which there are, and the one matrix of each cell between them.

A network learns from patches, and MDTA takes its statistics over all that it is given. Over a
whole photo they differ from those that it has learned. Test-time Local Converter (TLC: Chu et al.,
"Improving Image Restoration by Revisiting Global Information Aggregation", ECCV 2022,
arXiv:2112.04491) takes them over overlapping windows of about the size of a patch, and averages
what comes of them where they overlap.

What a window gives for a pixel is A·v, and only the matrix A differs from window to window. So the
average over the windows that cover a pixel is (their mean A)·v. The edges of all windows cut a map
into cells, in each of which that mean is the same, and the sums that a window's A is made of are
those of its cells. So strips sum by cell in their first pass and multiply by cell in the second:
no pixel is computed twice, however much windows overlap. Attention over the whole map is the case
of one window, which is one cell.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from restormer_cli.network.architecture import RestormerConfig
from restormer_cli.network.packed import Attention
from restormer_cli.network.partition import unit_edges


@dataclass(frozen=True)
class Axis:
    """The windows along one side of a map, and the cells that their edges cut it into."""

    size: int
    """Pixels of the side."""
    window: int
    """Pixels of a window along it, ``size`` at most."""

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where windows begin: at even steps, but for the last one, which ends at the end."""
        last = self.size - self.window
        count = -(-self.size // self.window)
        step = self.window if count == 1 else -(-last // (count - 1))
        return (*range(0, last, step), last)

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """Where cells begin, and the end of the last: cell i is ``[edges[i], edges[i + 1])``."""
        return tuple(sorted({*self.starts, *(start + self.window for start in self.starts)}))

    def parts(self, edges: Sequence[int]) -> tuple[range, ...]:
        """The parts of each window, where the side is cut at ``edges``, all of cells among them."""
        at = {edge: part for part, edge in enumerate(edges)}
        return tuple(range(at[start], at[start + self.window]) for start in self.starts)

    @cached_property
    def covering(self) -> tuple[range, ...]:
        """The windows that cover each cell."""
        return tuple(
            range(bisect_left(self.starts, end - self.window), bisect_right(self.starts, begin))
            for begin, end in pairwise(self.edges)
        )

    def split(self, first: int, last: int) -> list[tuple[int, int, int]]:
        """Cut pixels ``[first, last)`` at the edges: number of the cell, begin and end."""
        return [
            (cell, max(a, first), min(b, last))
            for cell, (a, b) in enumerate(pairwise(self.edges))
            if a < last and b > first
        ]


class Grid:
    """The windows and the cells of one feature map.

    Parameters
    ----------
    height, width
        Of the map, in its own pixels.
    window
        Rows and columns of a window, in the same pixels; None for one window, the whole map.
    """

    def __init__(self, height: int, width: int, window: int | None = None) -> None:
        self.size = height, width
        self.rows, self.columns = (
            Axis(size, size if window is None else min(size, window)) for size in (height, width)
        )

    @property
    def row_edges(self) -> tuple[int, ...]:
        """Where cells begin from top to bottom, and the height."""
        return self.rows.edges

    @property
    def column_edges(self) -> tuple[int, ...]:
        """Where cells begin from left to right, and the width."""
        return self.columns.edges

    @property
    def cells(self) -> tuple[int, int]:
        """Number of cells from top to bottom and from left to right."""
        return len(self.row_edges) - 1, len(self.column_edges) - 1

    def cuts(self, units: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
        """Rows and columns at which sums are cut: at the edges of units, and at those of cells."""
        rows, columns = units
        return sorted({*rows, *self.row_edges}), sorted({*columns, *self.column_edges})

    def fold(
        self, attention: Attention, gram: Tensor, squares: Tensor, cuts: Sequence[Sequence[int]]
    ) -> CellMatrices:
        """What each cell's v is multiplied by.

        Parameters
        ----------
        gram
            q·kᵀ, summed over each part between ``cuts``: ``(N, parts, parts, heads, c, c)``.
        squares
            ‖q‖² and ‖k‖², summed likewise: ``(N, parts, parts, 2, heads, c)``.
        cuts
            Rows and columns, as of :meth:`cuts`.
        """
        windows = len(self.rows.starts), len(self.columns.starts)
        softmaxed = gram.new_empty((len(gram), *windows, *gram.shape[3:]), dtype=torch.float32)
        beside = self.columns.parts(cuts[1])
        # A row of windows at a time, since sums are wider than what comes of them.
        for row, above in enumerate(self.rows.parts(cuts[0])):
            sums = (
                sums_of_ranges(sums_of_ranges(values, [above])[:, 0], beside)
                for values in (gram, squares)
            )
            softmaxed[:, row] = attention.softmaxed(*sums)
        return CellMatrices(self, attention, softmaxed)

    def state_bytes(
        self, channels: int, heads: int, units: Sequence[Sequence[int]], threads: int, share: float
    ) -> int:
        """Memory that one block's attention takes here: sums, what comes of them, and products.

        Sums are taken apart in ``units``, whose edges are rows and columns of the map. Each thread
        makes the products of a row of cells, on a ``share`` of the columns.
        """
        per_window = channels * channels // heads
        above, beside = (len(edges) - 1 for edges in self.cuts(units))
        windows = len(self.rows.starts) * len(self.columns.starts)
        # Columns of cells are even, but for the first and the last ones.
        cells = min(self.cells[1], int(share * self.cells[1]) + 3)
        # float64 sums by part, and for one row what is made of them; float32 by window; and the
        # products of two rows, in float64 while they are made.
        return (
            8 * above * beside * per_window
            + 32 * beside * per_window
            + 4 * windows * per_window
            + 24 * threads * cells * channels * channels
        )


class CellMatrices:
    """The matrices M of a block's cells: the block adds M · v."""

    def __init__(self, grid: Grid, attention: Attention, softmaxed: Tensor) -> None:
        """``softmaxed`` is ``(N, windows, windows, heads, c, c)``, of each window."""
        self.grid = grid
        self._attention = attention
        self._softmaxed = softmaxed

    def row(self, row: int, columns: slice = slice(None)) -> Tensor:
        """M of a row of cells, or of some ``columns`` of it: ``(N, cells, C, C)``.

        Computed anew at each call: of all cells together they would take more memory than small
        windows may.
        """
        above = self.grid.rows.covering[row]
        beside = self.grid.columns.covering[columns]
        summed = sums_of_ranges(self._softmaxed[:, above.start : above.stop].sum(1), beside)
        counts = [len(above) * len(windows) for windows in beside]
        if len(set(counts)) == 1:
            return self._attention.projected(summed / counts[0])
        mean = summed / torch.tensor(counts).to(summed)[:, None, None, None]
        return self._attention.projected(mean)


def grids(height: int, width: int, window: int | None) -> tuple[Grid, ...]:
    """The grids of the four levels.

    Parameters
    ----------
    height, width
        Of the padded image.
    window
        Rows and columns of a window at full resolution; None for whole images. Windows as large
        as the image are the same.
    """
    return tuple(
        Grid(
            height >> level,
            width >> level,
            None if window is None else max(1, window >> level),
        )
        for level in range(4)
    )


def state_bytes(
    config: RestormerConfig,
    height: int,
    width: int,
    window: int | None,
    threads: int = 1,
    widest: int | None = None,
) -> int:
    """Memory that windows of an image take at most, beside its feature maps: bytes an image.

    Parameters
    ----------
    height, width, window
        As of :func:`grids`.
    threads, widest
        How many work on parts of the image, and the columns of a part, by default all.
    """
    widths = (2 * config.dim, *config.widths[1:])  # of level 1, that of the decoder
    units = unit_edges(height, width)
    share = (widest or width) / width
    levels = zip(grids(height, width, window), widths, config.heads, strict=True)
    return max(
        grid.state_bytes(
            channels,
            heads,
            [[edge >> level for edge in edges] for edges in units],
            threads,
            share,
        )
        for level, (grid, channels, heads) in enumerate(levels)
    )


def sums_of_ranges(values: Tensor, ranges: Sequence[range]) -> Tensor:
    """Sum ``values`` ``(N, count, …)`` over each of the ranges of ``count``: ``(N, ranges, …)``.

    Always in the same order, which scattered additions on a GPU are not.
    """
    if len(ranges) == values.shape[1] and all(len(r) == 1 for r in ranges):
        return values
    firsts = torch.tensor([r.start for r in ranges]).to(values.device)
    lengths = torch.tensor([len(r) for r in ranges]).to(values.device)
    total = values[:, firsts]
    for place in range(1, max(map(len, ranges))):
        there = (place < lengths).to(values).view(-1, *[1] * (values.ndim - 2))
        total += values[:, torch.minimum(firsts + place, firsts + lengths - 1)] * there
    return total
