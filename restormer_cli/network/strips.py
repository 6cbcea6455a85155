"""One part of an image, evaluated strip by strip: the steps of the network on its feature maps.

A 3×3 convolution needs one row above and below: the halo of a strip. Rows that it needs again
slide along in a :class:`Window` instead of being computed twice. Beyond the part's own pixels its
feature maps hold the halo of the part, see :mod:`restormer_cli.network.partition`. All of a map is
computed; what comes of the outermost columns is wrong, used by nothing, and overwritten by
:meth:`Strips.pull`.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from restormer_cli.network.attention_sums import AttentionSums, CellProducts
from restormer_cli.network.feature_map import FeatureMap, allocate
from restormer_cli.network.kernels import (
    Conv3x3,
    Pointwise,
    PointwiseSum,
    pixel_unshuffle,
)
from restormer_cli.network.layer_norm import Scaled, scaled, scales_dtype
from restormer_cli.network.memory_plan import Plan
from restormer_cli.network.native import Memory
from restormer_cli.network.packed import Block, PackedNetwork, Projection
from restormer_cli.network.partition import HALO, Part

#: Rows that are exchanged at once, where maps are in a file.
PULLED_ROWS = 64

#: Buffers of one thread, by name.
Workspace = dict[str, Tensor]
#: Rows, the first and the one behind the last.
Range = tuple[int, int]


class Window:
    """Projected rows sliding under a depthwise convolution.

    Rows are pushed from top to bottom; each push gives those whose neighbours are there, up to the
    one before the last, and keeps the two rows that the next ones need.
    """

    def __init__(self, stage: Projection, buffer: Tensor, top: bool) -> None:
        """``buffer`` is ``(N, capacity, W, K)``: the longer, the rarer rows are moved up.

        At the ``top`` of the image zeros are above the first row; elsewhere it is a halo itself.
        """
        self.stage = stage
        self.buffer = buffer
        self.start, self.end = 0, int(top)
        if top:
            buffer[:, 0].zero_()

    def push(self, normalised: Scaled, last: bool) -> Tensor | None:
        """Project normalised pixels; the rows that are complete now, if any.

        They come with their halo; zeros are below the ``last`` ones.
        """
        rows = normalised.pixels.shape[1]
        if self.end + rows + last > self.buffer.shape[1]:
            kept = self.end - self.start
            self.buffer[:, :kept] = self.buffer[:, self.start : self.end].clone()
            self.start, self.end = 0, kept
        self.stage.point.into(self.buffer[:, self.end : self.end + rows], *normalised)
        self.end += rows
        if last:
            self.buffer[:, self.end].zero_()
            self.end += 1
        if self.end - self.start < 3:
            return None
        complete = self.buffer[:, self.start : self.end]
        self.start = self.end - 2
        return complete


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

    def pull(self, workspace: Workspace) -> None:
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

    def _buffer(self, workspace: Workspace, name: str, *shape: int) -> Tensor:
        """Memory that is used again by every block: fresh pages from the system cost time."""
        size = math.prod(shape)
        flat = workspace.get(name)
        if flat is None or flat.numel() < size:
            flat = torch.empty(size, dtype=self.network.dtype, device=self.network.device)
            workspace[name] = flat
        return flat[:size].view(shape)

    def _memory(self, workspace: Workspace, name: str) -> Memory:
        return functools.partial(self._buffer, workspace, name)

    def _window(self, workspace: Workspace, name: str, stage: Projection, spare: int = 0) -> Window:
        count, height, width, channels = self.x.shape
        rows = height + 2
        if count == 1:
            rows = self.plan.window_rows(height, width, channels) + spare
        buffer = self._buffer(workspace, name, count, rows, width, stage.channels)
        return Window(stage, buffer, top=not self.part.above)

    def _worked(self, rows: Tensor, share: float) -> None:
        self.work_done += share * rows.numel() * rows.shape[-1]
        self.check()

    # Embedding and output

    def embed(self, workspace: Workspace) -> None:
        """Make the first feature map: the patch embedding of the image."""
        dim = self.network.config.dim
        self.wide = self._allocate(0, 2 * dim)
        self.x = self.wide.narrowed(dim)
        for a, b in self._strips(self.x):
            self.x.write(a, b, self._embedded(a, b))

    def _embedded(self, a: int, b: int) -> Tensor:
        def read(first: int, last: int) -> Tensor:
            return self.image[:, first:last].to(self.network.device)

        rows = _conv(read, a, b, self.image.shape[1], self.network.embed)
        return rows.to(self.network.dtype)

    def add_embedding(self, workspace: Workspace) -> None:
        """The dual-pixel head: add the patch embedding, computed anew, behind a 1×1 convolution."""
        assert self.network.skip is not None
        for a, b in self._own_strips(self.x):
            rows = self.x.read(a, b)
            self.network.skip.add_to(rows, self._embedded(a, b))
            self.x.write(a, b, rows)

    def finish(self, workspace: Workspace, out: Tensor) -> None:
        """Output convolution into ``out`` ``(N, H, W, C)`` and, but for dual pixels, the residual.

        The residual is added in float32.
        """
        part = self.part
        above, (_, width) = part.above, part.own(0)
        columns = slice(part.left, part.left + width)
        target = out[slice(*part.images), slice(*part.rows), slice(*part.columns)]
        for a, b in self._own_strips(self.x):
            rows = self._conv_rows(a, b, self.network.output).to(out)[:, :, columns]
            if self.network.skip is None:
                rows += self.image[:, a:b, columns]
            target[:, a - above : b - above] = rows
            self.check()

    def _conv_rows(self, a: int, b: int, conv: Conv3x3) -> Tensor:
        """Rows ``[a, b)`` of a 3×3 convolution over the feature map, read for the last time."""
        out = _conv(self.x.read, a, b, self.x.shape[1], conv)
        self.x.release(max(a - 1, 0), b)  # with the halo above, which was read again
        return out

    # Transformer blocks

    def attend(self, workspace: Workspace, block: Block, sums: AttentionSums) -> None:
        """First pass of a block: add this part's share to the sums over the image.

        What LayerNorm multiplies each pixel by is kept for the second pass.
        """
        self.pull(workspace)
        x, part, attention = self.x, self.part, block.attention
        count, height, width, _ = x.shape
        (top, bottom), columns = self._own()
        # Only own rows are summed; what LayerNorm needs no neighbours for is kept of all.
        first, last = int(part.above > 0), height - int(part.below > 0)
        window = self._window(workspace, "qk", attention.qk, spare=sums.group)
        self.scales = self._scales(count, height, width, 1)
        normal, by_head = (self._memory(workspace, name) for name in ("normalised", "by head"))
        for a, b in self._sum_strips(sums.cuts(top, bottom)):
            rows = x.read(a, b)
            normalised = block.normalise(rows, normal, self.scales[:, a:b])
            normalised = normalised.rows(max(first - a, 0), last - a)
            complete = window.push(normalised, b == height and not part.below)
            if complete is not None:
                sums.add(complete, part.images, top, columns, part.left, by_head)
                top += complete.shape[1] - 2
            self._worked(rows, 0.3)
            x.release(a, b)

    def _own(self) -> tuple[Range, Range]:
        """The part's own rows and columns at this level."""
        (top, bottom), (left, right) = (
            (a >> self.level, b >> self.level) for a, b in (self.part.rows, self.part.columns)
        )
        return (top, bottom), (left, right)

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

    def apply(self, workspace: Workspace, block: Block, products: CellProducts) -> None:
        """Second pass: x += v · M, then GDFN on the rows whose neighbours are done."""
        x, part = self.x, self.part
        height = x.shape[1]
        feed_forward = block.feed_forward
        gates = self._window(workspace, "gate", feed_forward.gate)
        values = self._window(workspace, "value", feed_forward.value)
        (top, _), (left, _) = self._own()
        origin = (top - part.above, left - part.left)
        attend = products.from_top(part.images, *origin, x.shape[2])
        normal, gated = (self._memory(workspace, name) for name in ("normalised", "gated"))
        finished = part.above
        end = height - int(part.below > 0)
        for a, b, v in self._values(block, workspace):
            rows = x.read(a, b)
            attend(a, rows, v)
            normalised = block.normalise(rows, normal)
            x.write(a, b, rows)
            last = b == end and not part.below
            gate, value = gates.push(normalised, last), values.push(normalised, last)
            if gate is not None and value is not None:
                behind = finished + gate.shape[1] - 2
                done = x.read(finished, behind)
                feed_forward.project_out.add_to(done, feed_forward.gated(gate, value, gated))
                x.write(finished, behind, done)
                finished = behind
            self._worked(rows, 0.7)
        x.flush()

    def _values(self, block: Block, workspace: Workspace) -> Iterator[tuple[int, int, Tensor]]:
        """v from top to bottom: row ranges ``[a, b)`` and ``(N, b - a, W, C)``.

        Computed again rather than kept from the first pass: keeping it would double the memory
        where that is scarcest, and save some 3 % of the time. A row is read before the range
        that holds it is given, so that the caller may change the rows that it is given.
        """
        assert self.scales is not None
        window = self._window(workspace, "v", block.attention.v)
        normal, convolved = (self._memory(workspace, name) for name in ("normalised", "values"))
        height, complete = self.x.shape[1], int(self.part.above > 0)
        for a, b in self._strips(self.x):
            rows = self.x.read(a, b)
            normalised = scaled(rows, self.scales[:, a:b], normal)
            pushed = window.push(normalised, b == height and not self.part.below)
            if pushed is not None:
                end = complete + pushed.shape[1] - 2
                yield complete, end, block.attention.v.depth(pushed, convolved)
                complete = end

    # Between levels

    def downsample(self, workspace: Workspace, conv: Conv3x3) -> None:
        """3×3 convolution and pixel-unshuffle into a new map of half the size; keep the skip."""
        part, channels = self.part, self.x.shape[3]
        below = self._allocate(self.level + 1, 2 * channels)
        columns = slice(part.left, part.left + part.own(self.level)[1])
        for a, b in self._own_strips(below):
            first, last = (part.above + 2 * (row - part.above) for row in (a, b))
            rows = self._conv_rows(first, last, conv)[:, :, columns]
            below.write(a, b, pixel_unshuffle(rows), part.left)
        self.skips.append(self.x)
        self.x = below
        self.level += 1

    def _upsampled(self, a: int, b: int, conv: Conv3x3) -> Tensor:
        """3×3 convolution and pixel-shuffle of rows ``[a, b)``: twice as many rows and columns.

        Two columns of a halo become four, of which the inner two are right.
        """
        rows = self._conv_rows(a, b, conv)
        left, right = int(self.part.left > 0), rows.shape[2] - int(self.part.right > 0)
        return rearrange(rows[:, :, left:right], "n r w (dy dx c) -> n (r dy) (w dx) c", dy=2, dx=2)

    def fuse(
        self, workspace: Workspace, conv: Conv3x3, reduction: tuple[Pointwise, PointwiseSum]
    ) -> None:
        """Upsample, concatenate the skip, reduce the channels: into the skip's own memory."""
        from_below, from_skip = reduction
        skip = self.skips.pop()
        for a, b, first, last in self._doubled_strips():
            below = self._upsampled(a, b, conv)
            beside = skip.read(first, last)
            rows = torch.empty_like(beside)
            from_below.into(rows, below)
            from_skip.add_to(rows, beside)
            skip.write(first, last, rows)
        skip.flush()
        self.x = skip
        self.level -= 1

    def _doubled_strips(self) -> list[tuple[int, int, int, int]]:
        """Ranges of own rows here, and of the same at twice the resolution."""
        above = self.part.above
        return [(a, b, 2 * a - above, 2 * b - above) for a, b in self._own_strips(self.x)]

    def join(self, workspace: Workspace, conv: Conv3x3) -> None:
        """Upsample and concatenate the skip, which is packed into the beginning of ``wide``.

        From the last rows to the first, since those of ``wide`` lie behind those of the skip.
        """
        skip = self.skips.pop()
        for a, b, first, last in reversed(self._doubled_strips()):
            joined = torch.cat([self._upsampled(a, b, conv), skip.read(first, last)], dim=-1)
            skip.release(first, last)
            self.wide.write(first, last, joined)
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


def _conv(read: Callable[[int, int], Tensor], a: int, b: int, height: int, conv: Conv3x3) -> Tensor:
    """Rows ``[a, b)`` of a 3×3 convolution over the rows that ``read`` gives."""
    rows = read(max(a - 1, 0), min(b + 1, height))
    above, below = int(a == 0), int(b == height)
    if above or below:
        rows = F.pad(rows, (0, 0, 0, 0, above, below))
    return conv(rows.to(conv.dtype))


def _seam(side: int, size: int, halo: int, other_halo: int, other_size: int) -> tuple[slice, int]:
    """Along one axis: a part's pixels beside a neighbour's, and the first of the neighbour's.

    ``side`` is -1 for the neighbour before, 1 for that behind, 0 for one that is level.
    """
    if side < 0:
        return slice(0, HALO), other_halo + other_size - HALO
    if side > 0:
        return slice(halo + size, halo + size + HALO), other_halo
    return slice(halo, halo + size), other_halo
