"""What MDTA sums over the image: q·kᵀ and the squared norms of q and k, unit by unit."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from restormer_cli.network.buffers import Memory
from restormer_cli.network.kernels import PointwiseSum
from restormer_cli.network.packed import Attention
from restormer_cli.network.tf32 import for_products
from restormer_cli.network.windows import CellMatrices, Grid

#: Pixels that one product of q and k sums over at least, if units are so large.
GROUP_PIXELS = 1024


class AttentionSums:
    """Sums over the units of some images, to which parts add what is theirs.

    Units end where those of the image do and where cells of local windows do. Each unit's sum is
    taken in one order, group of rows by group of rows, and the units of a window are added in one
    order. So the result does not depend on strips or parts.

    Parameters
    ----------
    count
        Images.
    units
        Rows and columns at which units of the image begin, and the last end, at this level.
    """

    def __init__(
        self, attention: Attention, count: int, units: Sequence[Sequence[int]], grid: Grid
    ) -> None:
        self.attention, self.grid = attention, grid
        self.rows, self.columns = grid.cuts(units)
        heads, per_head = attention.heads, attention.channels // attention.heads
        new = attention.temperature.new_zeros
        shape = (count, len(self.rows) - 1, len(self.columns) - 1)
        self.gram = new(*shape, heads, per_head, per_head)
        self.squares = new(*shape, 2, heads, per_head)
        on_cpu = attention.temperature.device.type == "cpu"
        #: Rows that make one product. A GPU makes all of a strip at once.
        self.group = min(units[0][1], max(1, GROUP_PIXELS // units[1][1])) if on_cpu else 1
        # Elsewhere strips are always the same, and so is the order.
        self.in_order = on_cpu and count == 1

    def cuts(self, top: int, bottom: int) -> list[int]:
        """Rows between which strips may end: those of units, and of groups from the unit's top."""
        edges = [top, *(edge for edge in self.rows if top < edge < bottom), bottom]
        return [row for a, b in pairwise(edges) for row in range(a, b, self.group)] + [bottom]

    def add(
        self,
        rows: Tensor,
        images: tuple[int, int],
        first: int,
        columns: tuple[int, int],
        halo: int,
        memory: Memory,
    ) -> None:
        """Add the sums of projected rows that begin and end at :meth:`cuts`.

        Parameters
        ----------
        rows
            ``(N, R + 2, W, 2C)``: with their halo.
        first
            Number of the first row in the map.
        columns
            The columns of the map that are to be summed.
        halo
            Columns that ``rows`` have before these.
        """
        attention = self.attention
        begin, edges = self.across(columns, halo)
        parts = attention.qk.depth.by_group(rows, edges, 2 * attention.heads, memory)
        for column, (qk, squares) in enumerate(parts, begin):
            for row, a, b in self.down(first, first + qk.shape[2]):
                place = (slice(*images), row, column)
                self._add_unit(
                    place, qk[:, :, a - first : b - first], squares[:, a - first : b - first]
                )

    def across(self, columns: tuple[int, int], halo: int) -> tuple[int, list[tuple[int, int]]]:
        """Number of the first unit in these columns; where each begins and ends.

        The latter as a part counts them, which has a ``halo`` before the first.
        """
        begin, end = (bisect_left(self.columns, column) for column in columns)
        left = columns[0] - halo
        return begin, list(pairwise(column - left for column in self.columns[begin : end + 1]))

    def down(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """Cut rows ``[first, last)`` at the units: number of each, first row, and one behind."""
        row = bisect_right(self.rows, first) - 1
        while row < len(self.rows) - 1 and self.rows[row] < last:
            yield row, max(self.rows[row], first), min(self.rows[row + 1], last)
            row += 1

    def _add_unit(self, place: tuple[slice, int, int], qk: Tensor, squares: Tensor) -> None:
        height, group = qk.shape[2], self.group
        own = self.attention.qk.depth.own
        if own is not None and own.sums:
            own.gram(qk, squares, group, self.gram[place], self.squares[place])
            return
        whole = height // group * group
        for a, b, size in ((0, whole, group), (whole, height, height - whole)):
            if a < b:
                self._add(self.gram[place], _products(qk[:, :, a:b], size))
                total = self.squares[place]
                norms = squares[:, a:b].view(len(squares), -1, size, *total.shape[1:]).sum(2)
                self._add(total, norms)

    def _add(self, total: Tensor, groups: Tensor) -> None:
        """Add ``(N, groups, …)`` to the sum."""
        if self.in_order:
            for group in groups.unbind(1):
                total += group
        else:
            total += groups.sum(dim=1, dtype=total.dtype)

    def fold(self) -> CellMatrices:
        """The matrices M of all cells."""
        cuts = (self.rows, self.columns)
        return self.grid.fold(self.attention, self.gram, self.squares, cuts)


#: What adds v · M, and the columns that it is for: the first, and the one behind the last.
CellRow = list[tuple[PointwiseSum, int, int]]


class CellProducts:
    """What adds v · M of each cell to the features, prepared where there is one cell."""

    def __init__(self, matrices: CellMatrices, bias: Tensor | None, like: Tensor) -> None:
        self.matrices, self.bias, self.like = matrices, bias, like
        whole = matrices.grid.cells == (1, 1)
        self._whole = self._row(0, slice(None)) if whole else None

    def _row(self, row: int, columns: slice) -> list[list[PointwiseSum]]:
        """Products with M of a row of cells, by image and column."""
        made = self.matrices.row(row, columns)
        return [[PointwiseSum(cell, self.bias, self.like) for cell in image] for image in made]

    def from_top(
        self, images: tuple[int, int], top: int, left: int, width: int
    ) -> Callable[[int, int], Iterator[tuple[int, int, list[CellRow]]]]:
        """A function that gives the cells of some rows of a part; called from top to bottom.

        Parameters
        ----------
        top, left, width
            Where in the map the part's first row and column are, and how many columns it has.

        Returns
        -------
        function
            Of rows ``[first, last)`` of the part: cut at the cells, and of each image what adds
            v · M, and to which columns.
        """
        columns = self.matrices.grid.columns.split(left, left + width)
        cells = slice(columns[0][0], columns[-1][0] + 1)
        edges = [(begin - left, end - left) for _, begin, end in columns]
        held: list[CellRow] = []
        held_row = -1

        def of(first: int, last: int) -> Iterator[tuple[int, int, list[CellRow]]]:
            nonlocal held, held_row
            for row, a, b in self.matrices.grid.rows.split(first + top, last + top):
                if row != held_row:
                    made = self._row(row, cells) if self._whole is None else self._whole
                    held = [
                        [(product, *ends) for product, ends in zip(image, edges, strict=True)]
                        for image in made[slice(*images)]
                    ]
                    held_row = row
                yield a - top, b - top, held

        return of


def _products(qk: Tensor, size: int) -> Tensor:
    """q·kᵀ of each group of rows: ``(2 * heads, N, R, W, c)`` to ``(N, groups, heads, c, c)``."""
    grouped = qk.reshape(*qk.shape[:2], -1, size * qk.shape[3], qk.shape[4])
    q, k = for_products(grouped).flatten(0, 2).chunk(2)
    products = torch.bmm(q.transpose(1, 2), k)
    return products.view(-1, *grouped.shape[1:3], *products.shape[1:]).permute(1, 2, 0, 3, 4)
