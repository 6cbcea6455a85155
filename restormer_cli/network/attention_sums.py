"""What MDTA sums over the image: q·kᵀ and the squared norms of q and k, unit by unit."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from restormer_cli.network.packed import Attention

#: Pixels that one product of q and k sums over at least, if units are so large.
GROUP_PIXELS = 256


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
        qk: Tensor,
        images: tuple[int, int],
        row: int,
        column: int,
        edges: list[int],
    ) -> None:
        """Add rows of q and k, ``(N, R, W, 2C)``, that begin with a group and lie in one unit row.

        ``edges`` are the columns at which units begin, the first being unit ``column``, and W.
        """
        rows = qk.shape[1] // self.group * self.group
        for first, last, across in _runs(edges):
            units = slice(column, column + across)
            gram = self.gram[row, units, slice(*images)]
            squares = self.squares[row, units, slice(*images)]
            for part, size in ((qk[:, :rows], self.group), (qk[:, rows:], qk.shape[1] - rows)):
                if part.shape[1]:
                    self._add(gram, squares, part[:, :, first:last], across, size)
            column += across

    def _add(self, gram: Tensor, squares: Tensor, qk: Tensor, across: int, group: int) -> None:
        # One copy, and the products of all heads, units and groups are contiguous and one call.
        split = "n (r g) (u w) (two h c) -> two r u n h (g w) c"
        heads = self.attention.heads
        qk = rearrange(qk, split, two=2, h=heads, u=across, g=group).contiguous()
        if qk.dtype == torch.float16:  # sums over a row can leave its range
            qk = qk.float()
        q, k = qk.flatten(1, 4)
        products = torch.bmm(q.transpose(1, 2), k).view(*qk.shape[1:5], *gram.shape[-2:])
        norms = rearrange(torch.mul(qk, qk).sum(dim=5), "two r u n h c -> r u n two h c")
        if self.in_order:
            for product, norm in zip(products, norms, strict=True):
                gram += product
                squares += norm
        else:
            gram += products.sum(dim=0, dtype=gram.dtype)
            squares += norms.sum(dim=0, dtype=gram.dtype)

    def fold(self) -> Tensor:
        """The matrices M ``(N, C, C)``: the block adds M · v."""
        return self.attention.fold(self.gram.sum(dim=(0, 1)), self.squares.sum(dim=(0, 1)))


def _runs(edges: list[int]) -> list[tuple[int, int, int]]:
    """Columns of units side by side that are equally wide, and how many there are."""
    runs: list[tuple[int, int, int]] = []
    for first, last in zip(edges, edges[1:], strict=False):
        if runs and (last - first) * runs[-1][2] == runs[-1][1] - runs[-1][0]:
            runs[-1] = (runs[-1][0], last, runs[-1][2] + 1)
        else:
            runs.append((first, last, 1))
    return runs
