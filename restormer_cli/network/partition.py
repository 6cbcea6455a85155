"""How an image is shared out among threads: rectangles of whole units, each with a halo.

A part is stored with two pixels of its neighbours at each inner side. That is as far as one block
looks: one pixel for the depthwise convolution of MDTA, one for that of GDFN. So a part is evaluated
like an image of its own, and between blocks only halos are exchanged.

Units do not depend on the number of threads: sums over the image are taken unit by unit and added
in the order of the units, so the result is the same to the last bit however the image is parted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from restormer_cli.network.architecture import SIZE_MULTIPLE

#: Pixels stored beyond a part's own, at every level.
HALO = 2
#: Side of a unit at full resolution, in pixels; larger images have larger units.
SMALLEST_UNIT = 128
#: Sums are kept for each unit, so there are not more of them.
MOST_UNITS = 128
#: More parts than threads, so that a thread on a busy processor takes fewer of them.
MOST_PARTS_EACH = 4
#: What levels 1 to 4 take, all blocks of a level together, in the network of the paper.
_LEVEL_COSTS = (10, 3, 3, 2)


@dataclass(frozen=True)
class Part:
    """A rectangle of an image, or of some images of one size; pixels at full resolution."""

    row: int
    column: int
    """Place in the grid of parts."""
    images: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]
    above: int
    below: int
    left: int
    right: int
    """Halo at each side, 0 at the image's edge; the same at every level."""

    def size(self, level: int) -> tuple[int, int]:
        """Height and width at a level as stored: with the halo."""
        height, width = self.own(level)
        return self.above + height + self.below, self.left + width + self.right

    def own(self, level: int) -> tuple[int, int]:
        """Height and width at a level without the halo."""
        (top, bottom), (left, right) = self.rows, self.columns
        return (bottom - top) >> level, (right - left) >> level

    @property
    def count(self) -> int:
        return self.images[1] - self.images[0]


def unit_edges(height: int, width: int) -> tuple[list[int], list[int]]:
    """Rows and columns at which units begin, and where the last ends, at full resolution.

    Units are squares whose side is a power of two; the last of a row or column may be smaller,
    or larger by less than what a halo takes at the lowest resolution.
    """
    side = SMALLEST_UNIT
    while math.ceil(height / side) * math.ceil(width / side) > MOST_UNITS:
        side *= 2

    def edges(size: int) -> list[int]:
        whole = max(1, math.ceil((size - HALO * SIZE_MULTIPLE + 1) / side))
        return [*range(0, whole * side, side), size]

    return edges(height), edges(width)


def partition(
    count: int, height: int, width: int, threads: int, widest: int = 1 << 30
) -> list[Part]:
    """Parts for so many threads, row by row.

    Parameters
    ----------
    count
        Images of this size; if there are several, each is small and they are parted instead.
    widest
        Columns that a part has at most, but no fewer than a unit.
    """
    if threads == 0:
        return [Part(0, 0, (0, count), (0, height), (0, width), 0, 0, 0, 0)]
    if count > 1:
        size = math.ceil(count / 4)  # whatever the number of threads
        return [
            Part(number, 0, (a, min(a + size, count)), (0, height), (0, width), 0, 0, 0, 0)
            for number, a in enumerate(range(0, count, size))
        ]
    unit_rows, unit_columns = unit_edges(height, width)
    down, across = len(unit_rows) - 1, len(unit_columns) - 1
    unit = unit_columns[1]
    most = max(MOST_PARTS_EACH * threads, math.ceil(across / max(1, widest // unit)))
    row_edges, column_edges = min(
        (
            (_shared_out(unit_rows, rows), _shared_out(unit_columns, columns))
            for rows in range(1, down + 1)
            for columns in range(1, across + 1)
            if rows * columns <= most
        ),
        key=lambda edges: _cost(edges[0], edges[1], threads, max(widest, unit)),
    )
    return [
        Part(
            i,
            j,
            (0, 1),
            (top, bottom),
            (left, right),
            above=HALO if top else 0,
            below=HALO if bottom < height else 0,
            left=HALO if left else 0,
            right=HALO if right < width else 0,
        )
        for i, (top, bottom) in enumerate(pairwise(row_edges))
        for j, (left, right) in enumerate(pairwise(column_edges))
    ]


def _shared_out(edges: list[int], parts: int) -> list[int]:
    """Where parts begin and end: each has as many units as any other, or one more."""
    units = len(edges) - 1
    return [edges[units * part // parts] for part in range(parts + 1)]


def _cost(row_edges: list[int], column_edges: list[int], threads: int, widest: int) -> float:
    """Time that such parts take, in arbitrary units; more where they are too wide."""
    tall, wide = (max(b - a for a, b in pairwise(edges)) for edges in (row_edges, column_edges))
    rows, columns = len(row_edges) - 1, len(column_edges) - 1
    halo_rows, halo_columns = (HALO * min(2, parts - 1) for parts in (rows, columns))
    part: float = sum(
        cost * (1 << 2 * level) * ((tall >> level) + halo_rows) * ((wide >> level) + halo_columns)
        for level, cost in enumerate(_LEVEL_COSTS)
    )
    return math.ceil(rows * columns / threads) * part * max(1.0, wide / widest)
