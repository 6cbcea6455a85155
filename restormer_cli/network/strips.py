"""One part of an image, evaluated strip by strip: the steps of the network on its feature maps.

A 3×3 convolution needs one row above and below: the halo of a strip. Beyond the part's own pixels
its feature maps hold the halo of the part, see :mod:`restormer_cli.network.partition`. All of a map
is computed; what comes of the outermost columns is wrong, used by nothing, and overwritten by
:meth:`Strips.pull`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from restormer_cli.network.attention_sums import AttentionSums, CellProducts
from restormer_cli.network.buffers import Buffers, Memory
from restormer_cli.network.feature_map import KEPT_ROWS, FeatureMap, allocate
from restormer_cli.network.kernels import (
    Conv3x3,
    Pointwise,
    PointwiseSum,
    pixel_shuffle,
    pixel_unshuffle,
)
from restormer_cli.network.layer_norm import scales_dtype
from restormer_cli.network.memory_plan import Plan
from restormer_cli.network.packed import Block, PackedNetwork
from restormer_cli.network.partition import HALO, Part
from restormer_cli.network.passes import (
    FirstPass,
    NativeFirstPass,
    NativeSecondPass,
    PartMap,
    SecondPass,
)

#: Rows that are exchanged at once, where maps are in a file.
PULLED_ROWS = 64

#: What steps take for each pixel and squared channel of the map that they read: two passes of a
#: block, and the convolutions around blocks (that of the image: of the map that it makes).
COSTS = {"attend": 0.3, "apply": 0.7, "embed": 0.05, "down": 0.4, "up": 1.5, "finish": 0.1}
#: Rows, the first and the one behind the last.
Range = tuple[int, int]


class Strips:
    """The feature maps of one part, and the steps of the network on them.

    Parameters
    ----------
    image
        ``(N, C, H, W)``, all of it.
    check
        Called between strips; what it raises ends the step.
    """

    def __init__(
        self,
        network: PackedNetwork,
        plan: Plan,
        part: Part,
        image: Tensor,
        check: Callable[[], None],
    ) -> None:
        self.network, self.plan, self.part, self.check = network, plan, part, check
        (top, bottom), (left, right) = part.rows, part.columns
        rows = slice(top - part.above, bottom + part.below)
        columns = slice(left - part.left, right + part.right)
        self.image = image[slice(*part.images), :, rows, columns].permute(0, 2, 3, 1)
        self.level = 0
        #: Rows down, columns across, and the part there.
        self.neighbours: list[tuple[int, int, Strips]] = []
        #: Pixels times squared channels.
        self.work_done = 0.0
        self.skips: list[FeatureMap] = []
        self.scales: Tensor | None = None

    def let_go(self) -> None:
        """Give back all memory."""
        self.neighbours.clear()
        self.skips.clear()
        self.scales = None
        for name in ("x", "wide"):
            self.__dict__.pop(name, None)

    # The halo of the part

    def pull(self, buffers: Buffers) -> None:
        """Fill the halo with what the neighbours hold, whose own pixels must not change now."""
        part = self.part
        height, width = part.own(self.level)
        for down, across, other in self.neighbours:
            there = other.part
            rows, first = _seam(down, height, part.above, there.above, there.own(self.level)[0])
            columns, left = _seam(across, width, part.left, there.left, there.own(self.level)[1])
            for a in range(rows.start, rows.stop, PULLED_ROWS):
                b = min(a + PULLED_ROWS, rows.stop)
                c = a - rows.start + first
                source = other.x.tensor[
                    :, c : c + b - a, left : left + columns.stop - columns.start
                ]
                self.x.tensor[:, a:b, columns] = source
                self.x.release(a, b)
                other.x.release(c, c + b - a)

    # Strips and buffers

    def _allocate(self, level: int, channels: int) -> FeatureMap:
        shape = (self.part.count, *self.part.size(level), channels)
        network, plan = self.network, self.plan
        return allocate(shape, network.device, network.dtype, plan.storage, pinned=plan.pinned)

    def _strips(self, x: FeatureMap, first: int = 0, last: int | None = None) -> list[Range]:
        """Ranges that cover rows ``[first, last)``, by default all."""
        count, height, width, channels = x.shape
        last = height if last is None else last
        # Where several images go together, a strip is all of them.
        rows = height if count > 1 else self.plan.strip_rows(height, width, channels)
        return [(a, min(a + rows, last)) for a in range(first, last, rows)]

    def _own_strips(self, x: FeatureMap) -> list[Range]:
        """Ranges that cover the part's own rows."""
        return self._strips(x, self.part.above, x.shape[1] - self.part.below)

    def _worked(self, a: int, b: int, step: str) -> None:
        count, _, width, channels = self.x.shape
        self.work_done += COSTS[step] * count * (b - a) * width * channels**2
        self.check()

    # Embedding and output

    def embed(self, buffers: Buffers) -> None:
        """Make the first feature map: the patch embedding of the image."""
        dim = self.network.config.dim
        self.wide = self._allocate(0, 2 * dim)
        self.x = self.wide.narrowed(dim)
        for a, b in self._strips(self.x):
            self.x.write(a, b, self._embedded(a, b, buffers))
            self._worked(a, b, "embed")

    def _embedded(self, a: int, b: int, buffers: Buffers) -> Tensor:
        def read(first: int, last: int) -> Tensor:
            return self.image[:, first:last].to(self.network.device)

        memory = buffers.named("embedded", self.network.embed.dtype)
        return _conv(read, a, b, self.image.shape[1], self.network.embed, memory)

    def add_embedding(self, buffers: Buffers) -> None:
        """The dual-pixel head: add the patch embedding, computed anew, behind a 1×1 convolution."""
        assert self.network.skip is not None
        for a, b in self._own_strips(self.x):
            rows = self.x.read(a, b)
            embedded = self._embedded(a, b, buffers)
            self.network.skip.add_to(rows, embedded.to(self.network.dtype))
            self.x.write(a, b, rows)

    def finish(self, buffers: Buffers, out: Tensor) -> None:
        """Output convolution into ``out`` ``(N, H, W, C)`` and, but for dual pixels, the residual.

        The residual is added in float32.
        """
        part = self.part
        above, (_, width) = part.above, part.own(0)
        columns = slice(part.left, part.left + width)
        target = out[slice(*part.images), slice(*part.rows), slice(*part.columns)]
        for a, b in self._own_strips(self.x):
            rows = self._conv_rows(a, b, self.network.output, buffers).to(out)[:, :, columns]
            if self.network.skip is None:
                rows += self.image[:, a:b, columns]
            target[:, a - above : b - above] = rows
            self._worked(a, b, "finish")

    def _conv_rows(self, a: int, b: int, conv: Conv3x3, buffers: Buffers) -> Tensor:
        """Rows ``[a, b)`` of a 3×3 convolution over the feature map, read for the last time."""
        memory = buffers.named(f"convolved {conv.dtype}", conv.dtype)
        out = _conv(self.x.read, a, b, self.x.shape[1], conv, memory)
        self.x.release(max(a - 1, 0), b)  # with the halo above, which was read again
        return out

    # Transformer blocks

    def attend(self, buffers: Buffers, block: Block, sums: AttentionSums) -> None:
        """First pass of a block: add this part's share to the sums over the image."""
        self.pull(buffers)
        kind = FirstPass if block.native is None else NativeFirstPass
        take = kind(block, self._part_map(buffers), sums)
        top, bottom = (row >> self.level for row in self.part.rows)
        for a, b in self._sum_strips(sums.cuts(top, bottom)):
            take(a, b)
            self._worked(a, b, "attend")
            self.x.release(a, b)

    def apply(self, buffers: Buffers, block: Block, products: CellProducts) -> None:
        """Second pass of a block: x += v · M, then GDFN."""
        kind = SecondPass if block.native is None else NativeSecondPass
        take = kind(block, self._part_map(buffers), products)
        for a, b in self._strips(self.x):
            take(a, b)
            self._worked(a, b, "apply")
            self.x.release(max(a - KEPT_ROWS, 0), b)
        self.x.flush()

    def _part_map(self, buffers: Buffers) -> PartMap:
        count, height, width, channels = self.x.shape
        rows = height + 2 if count > 1 else self.plan.window_rows(height, width, channels)
        return PartMap(
            self.x,
            self._scales(count, height, width, 1),
            self.part,
            self.level,
            buffers,
            rows,
        )

    def _scales(self, *shape: int) -> Tensor:
        size = math.prod(shape)
        if self.scales is None or self.scales.numel() < size:
            dtype = scales_dtype(self.network.like)
            self.scales = torch.empty(size, dtype=dtype, device=self.network.device)
        return self.scales.flatten()[:size].view(shape)

    def _sum_strips(self, cuts: Sequence[int]) -> list[Range]:
        """Ranges that cover all rows, so that each completes own rows from one cut to another.

        A strip completes the rows one behind those that it ends with.
        """
        count, height, width, channels = self.x.shape
        rows = height if count > 1 else self.plan.strip_rows(height, width, channels)
        ends, begin = [0], 0
        while begin < len(cuts) - 1:
            # As far as the strip is high, but one step at least.
            begin = max(begin + 1, bisect_right(cuts, cuts[begin] + rows) - 1)
            ends.append(self.part.above + cuts[begin] - cuts[0] + 1)
        ends = [*(end for end in ends[:-1] if end < height), height]
        return list(pairwise(ends))

    # Between levels

    def downsample(self, buffers: Buffers, conv: Conv3x3) -> None:
        """3×3 convolution and pixel-unshuffle into a new map of half the size; keep the skip."""
        part, channels = self.part, self.x.shape[3]
        below = self._allocate(self.level + 1, 2 * channels)
        columns = slice(part.left, part.left + part.own(self.level)[1])
        for a, b in self._own_strips(below):
            first, last = (part.above + 2 * (row - part.above) for row in (a, b))
            rows = self._conv_rows(first, last, conv, buffers)[:, :, columns]
            rows = pixel_unshuffle(rows, buffers.named("unshuffled"))
            below.write(a, b, rows, part.left)
            self._worked(first, last, "down")
        self.skips.append(self.x)
        self.x = below
        self.level += 1

    def _upsampled(self, a: int, b: int, conv: Conv3x3, buffers: Buffers, out: Tensor) -> None:
        """3×3 convolution and pixel-shuffle of rows ``[a, b)``: twice as many rows and columns.

        Two columns of a halo become four, of which the inner two are right.
        """
        rows = self._conv_rows(a, b, conv, buffers)
        left, right = int(self.part.left > 0), rows.shape[2] - int(self.part.right > 0)
        pixel_shuffle(rows[:, :, left:right], out)

    def fuse(
        self, buffers: Buffers, conv: Conv3x3, reduction: tuple[Pointwise, PointwiseSum]
    ) -> None:
        """Upsample, concatenate the skip, reduce the channels: into the skip's own memory."""
        from_below, from_skip = reduction
        skip = self.skips.pop()
        for a, b, first, last in self._doubled_strips():
            beside = skip.read(first, last)
            upsampled, rows = (buffers(name, *beside.shape) for name in ("upsampled", "reduced"))
            self._upsampled(a, b, conv, buffers, upsampled)
            from_below.into(rows, upsampled)
            from_skip.add_to(rows, beside)
            skip.write(first, last, rows)
            self._worked(a, b, "up")
        skip.flush()
        self.x.forget(0, self.x.shape[1])  # allocators keep what was freed, and its pages
        self.x = skip
        self.level -= 1

    def _doubled_strips(self) -> list[tuple[int, int, int, int]]:
        """Ranges of own rows here, and of the same at twice the resolution."""
        above = self.part.above
        return [(a, b, 2 * a - above, 2 * b - above) for a, b in self._own_strips(self.x)]

    def join(self, buffers: Buffers, conv: Conv3x3) -> None:
        """Upsample and concatenate the skip, which is packed into the beginning of ``wide``.

        From the last rows to the first, since those of ``wide`` lie behind those of the skip. This
        is when most memory is taken, so what is below goes row by row.
        """
        skip, end = self.skips.pop(), self.x.shape[1]
        for a, b, first, last in reversed(self._doubled_strips()):
            beside = skip.read(first, last)
            channels = beside.shape[3]
            joined = buffers("joined", *beside.shape[:3], 2 * channels)
            self._upsampled(a, b, conv, buffers, joined[..., :channels])
            joined[..., channels:] = beside
            skip.release(first, last)
            self.wide.write(first, last, joined)
            self.x.forget(a + 1, end)  # the row above is the halo of the next
            end = a + 1
            self._worked(a, b, "up")
        self.x = self.wide
        self.level -= 1


def join(parts: Sequence[Strips]) -> None:
    """Tell parts of one image who their neighbours are."""
    places = {(strips.part.row, strips.part.column): strips for strips in parts}
    for (row, column), strips in places.items():
        if strips.part.size(0) == strips.part.own(0):
            continue
        strips.neighbours = [
            (down, across, places[row + down, column + across])
            for down in (-1, 0, 1)
            for across in (-1, 0, 1)
            if (down or across) and (row + down, column + across) in places
        ]


def _conv(
    read: Callable[[int, int], Tensor],
    a: int,
    b: int,
    height: int,
    conv: Conv3x3,
    memory: Memory,
) -> Tensor:
    """Rows ``[a, b)`` of a 3×3 convolution over the rows that ``read`` gives."""
    rows = read(max(a - 1, 0), min(b + 1, height))
    above, below = int(a == 0), int(b == height)
    if above or below:
        rows = F.pad(rows, (0, 0, 0, 0, above, below))
    return conv(rows.to(conv.dtype), memory)


def _seam(side: int, size: int, halo: int, other_halo: int, other_size: int) -> tuple[slice, int]:
    """Along one axis: a part's pixels beside a neighbour's, and the first of the neighbour's.

    ``side`` is -1 for the neighbour before, 1 for that behind, 0 for one that is level.
    """
    if side < 0:
        return slice(0, HALO), other_halo + other_size - HALO
    if side > 0:
        return slice(halo + size, halo + size + HALO), other_halo
    return slice(halo, halo + size), other_halo
