"""What MDTA sums over the image: q·kᵀ and the squared norms of q and k, unit by unit."""

from __future__ import annotations

import torch
from torch import Tensor

from restormer_cli.network.kernels import Memory
from restormer_cli.network.packed import Attention

#: Pixels that one product of q and k sums over at least, if units are so large.
GROUP_PIXELS = 1024


class AttentionSums:
    """Sums over the units of some images, to which parts add what is theirs.

    Each unit's sum is taken in one order, group of rows by group of rows, and the units are added
    in one order. So the result does not depend on strips or parts.

    Parameters
    ----------
    count
        Images.
    units
        Rows and columns at which units begin, and where the last ends, at this level.
    """

    def __init__(
        self, attention: Attention, count: int, units: tuple[list[int], list[int]]
    ) -> None:
        self.attention = attention
        # Elsewhere strips are always the same, and so is the order.
        self.in_order = attention.temperature.device.type == "cpu" and count == 1
        heads, per_head = attention.heads, attention.channels // attention.heads
        new = attention.temperature.new_zeros
        down, across = (len(edges) - 1 for edges in units)
        self.gram = new(down, across, count, heads, per_head, per_head)
        self.squares = new(down, across, count, 2, heads, per_head)
        height, width = (edges[1] for edges in units)
        #: Rows that make one product.
        self.group = min(height, max(1, GROUP_PIXELS // width))

    def add(
        self,
        rows: Tensor,
        images: tuple[int, int],
        unit: tuple[int, int],
        columns: list[int],
        memory: Memory,
    ) -> None:
        """Add projected rows ``(N, R + 2, W, 2C)`` that begin with a group of one row of units.

        ``columns`` are those at which units begin, the first being ``unit``, and where they end.
        """
        attention, (row, column) = self.attention, unit
        edges = list(zip(columns, columns[1:], strict=False))
        parts = attention.qk.depth.by_group(rows, edges, 2 * attention.heads, memory)
        for number, (qk, squares) in enumerate(parts, column):
            place = (row, number, slice(*images))
            whole = qk.shape[2] // self.group * self.group
            for a, b, size in ((0, whole, self.group), (whole, qk.shape[2], qk.shape[2] - whole)):
                if a < b:
                    self._add(self.gram[place], _products(qk[:, :, a:b], size))
                    norms = squares[:, a:b].unflatten(1, (-1, size)).sum(2)
                    self._add(self.squares[place], norms.unflatten(2, (2, attention.heads, -1)))

    def _add(self, total: Tensor, groups: Tensor) -> None:
        """Add ``(N, groups, …)`` to the sum."""
        if self.in_order:
            for group in groups.unbind(1):
                total += group
        else:
            total += groups.sum(dim=1, dtype=total.dtype)

    def fold(self) -> Tensor:
        """The matrices M ``(N, C, C)``: the block adds M · v."""
        return self.attention.fold(self.gram.sum(dim=(0, 1)), self.squares.sum(dim=(0, 1)))


def _products(qk: Tensor, size: int) -> Tensor:
    """q·kᵀ of each group of rows: ``(2 * heads, N, R, W, c)`` to ``(N, groups, heads, c, c)``."""
    grouped = qk.unflatten(2, (-1, size)).flatten(3, 4)
    q, k = grouped.flatten(0, 2).chunk(2)
    products = torch.bmm(q.transpose(1, 2), k)
    return products.view(-1, *grouped.shape[1:3], *products.shape[1:]).permute(1, 2, 0, 3, 4)
