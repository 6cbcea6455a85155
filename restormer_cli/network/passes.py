"""Both passes of a transformer block over one part of an image, strip by strip.

Where there are kernels in C for all of it, a strip is one call of theirs. Elsewhere PyTorch takes
the steps, with kernels in C for those that it needs several passes over memory for.

Rows that a 3×3 convolution needs again slide along in a window instead of being computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from restormer_cli.network import native
from restormer_cli.network.attention_sums import AttentionSums, CellProducts
from restormer_cli.network.buffers import Buffers
from restormer_cli.network.feature_map import FeatureMap
from restormer_cli.network.layer_norm import scaled
from restormer_cli.network.packed import Block, Projection
from restormer_cli.network.partition import HALO, Part


@dataclass(frozen=True)
class PartMap:
    """What a pass goes over: one part of a feature map."""

    x: FeatureMap
    scales: Tensor
    """What LayerNorm multiplies each pixel by, ``(N, H, W, 1)``: the second pass needs it again."""
    part: Part
    level: int
    buffers: Buffers
    window_rows: int
    """Rows that windows have, of what :class:`Window` slides over strips."""

    @property
    def top(self) -> int:
        """The row of the whole map that the part's own rows begin with."""
        return self.part.rows[0] >> self.level

    @property
    def columns(self) -> tuple[int, int]:
        """The part's own columns of the whole map."""
        left, right = self.part.columns
        return left >> self.level, right >> self.level

    @property
    def place(self) -> tuple[tuple[int, int], int, int, int]:
        """The part's images, its first row and column in the map, and how many columns it has."""
        part = self.part
        return part.images, self.top - part.above, self.columns[0] - part.left, self.x.shape[2]

    def complete(self, first: int, last: int, halo: int) -> int:
        """How far rows from ``first`` on have their neighbours when those up to ``last`` are there.

        Of those below the part's own, ``halo`` rows do not count.
        """
        height = self.x.shape[1]
        end = min(last if last == height else last - 1, height - min(halo, self.part.below))
        return max(first, end)

    def images(self) -> Iterator[tuple[native.ImagePart, Buffers]]:
        """The part in each image, and buffers, for kernels in C."""
        ends = not self.part.above, not self.part.below
        features = zip(self.x.tensor, self.scales[..., 0], strict=True)
        for number, (x, scales) in enumerate(features):
            yield native.ImagePart(x, scales, *ends), self.buffers.of(number)


class Window:
    """Projected rows sliding under a depthwise convolution.

    Rows are pushed from top to bottom; each push gives those whose neighbours are there, up to the
    one before the last, and keeps the two rows that the next ones need.
    """

    def __init__(self, stage: Projection, name: str, part_map: PartMap, spare: int = 0) -> None:
        """It has ``spare`` rows more: the more, the rarer rows are moved up."""
        count, _, width, _ = part_map.x.shape
        self.stage = stage
        self.buffer = part_map.buffers(
            name, count, part_map.window_rows + spare, width, stage.channels
        )
        # At the top of the image zeros are above the first row; elsewhere it is a halo itself.
        top = not part_map.part.above
        self.start, self.end = 0, int(top)
        if top:
            self.buffer[:, 0].zero_()

    def push(self, normalised: Tensor, last: bool) -> Tensor | None:
        """Project normalised pixels; the rows that are complete now, if any.

        They come with their halo; zeros are below the ``last`` ones.
        """
        rows = normalised.shape[1]
        if self.end + rows + last > self.buffer.shape[1]:
            kept = self.end - self.start
            self.buffer[:, :kept] = self.buffer[:, self.start : self.end].clone()
            self.start, self.end = 0, kept
        self.stage.point.into(self.buffer[:, self.end : self.end + rows], normalised)
        self.end += rows
        if last:
            self.buffer[:, self.end].zero_()
            self.end += 1
        if self.end - self.start < 3:
            return None
        complete = self.buffer[:, self.start : self.end]
        self.start = self.end - 2
        return complete


class FirstPass:
    """Adds a part's share to the sums over the image.

    What LayerNorm multiplies each pixel by is kept for the second pass.
    """

    def __init__(self, block: Block, part_map: PartMap, sums: AttentionSums) -> None:
        self.block, self.map, self.sums = block, part_map, sums
        self._window = Window(block.attention.qk, "qk", part_map, spare=sums.group)
        self._top = part_map.top

    def __call__(self, a: int, b: int) -> None:
        """Take rows ``[a, b)``, which follow those of the call before."""
        part_map, buffers = self.map, self.map.buffers
        part, height = part_map.part, part_map.x.shape[1]
        normalised = self.block.normalise(
            part_map.x.read(a, b), buffers.named("normalised"), part_map.scales[:, a:b]
        )
        # Only own rows are summed; what LayerNorm needs no neighbours for is kept of all.
        first, last = int(part.above > 0), height - int(part.below > 0)
        normalised = normalised[:, max(first - a, 0) : last - a]
        complete = self._window.push(normalised, b == height and not part.below)
        if complete is not None:
            self.sums.add(
                complete,
                part.images,
                self._top,
                part_map.columns,
                part.left,
                buffers.named("by head"),
            )
            self._top += complete.shape[1] - 2


class SecondPass:
    """x += v · M, then GDFN on the rows whose neighbours are done."""

    def __init__(self, block: Block, part_map: PartMap, products: CellProducts) -> None:
        self.block, self.map = block, part_map
        feed_forward = block.feed_forward
        self._v = Window(block.attention.v, "v", part_map)
        self._gate = Window(feed_forward.gate, "gate", part_map)
        self._value = Window(feed_forward.value, "value", part_map)
        self._cells = products.from_top(*part_map.place)
        self._attended, self._done = int(part_map.part.above > 0), part_map.part.above

    def __call__(self, a: int, b: int) -> None:
        """Take rows ``[a, b)``, which follow those of the call before.

        v is computed again rather than kept from the first pass: keeping it would double the
        memory where that is scarcest, and save some 3 % of the time.
        """
        part_map, block, buffers = self.map, self.block, self.map.buffers
        x, normal = part_map.x, part_map.buffers.named("normalised")
        bottom = b == x.shape[1] and not part_map.part.below
        normalised = scaled(x.read(a, b), part_map.scales[:, a:b], normal)
        pushed = self._v.push(normalised, bottom)
        if pushed is None:
            return
        v = block.attention.v.depth(pushed, buffers.named("values"))
        a, b = self._attended, self._attended + v.shape[1]
        self._attended = b
        rows = x.read(a, b)
        for first, last, cells in self._cells(a, b):
            for image, row in enumerate(cells):
                for product, left, right in row:
                    here = (
                        slice(image, image + 1),
                        slice(first - a, last - a),
                        slice(left, right),
                    )
                    product.add_to(rows[here], v[here])
        normalised = block.normalise(rows, normal)
        x.write(a, b, rows)
        gate, value = (w.push(normalised, bottom) for w in (self._gate, self._value))
        if gate is not None and value is not None:
            behind = self._done + gate.shape[1] - 2
            done = x.read(self._done, behind)
            gated = block.feed_forward.gated(gate, value, buffers.named("gated"))
            block.feed_forward.project_out.add_to(done, gated)
            x.write(self._done, behind, done)
            self._done = behind


class NativeFirstPass:
    """The same as :class:`FirstPass`, by kernels in C."""

    def __init__(self, block: Block, part_map: PartMap, sums: AttentionSums) -> None:
        assert block.native is not None
        self._map, self._sums = part_map, sums
        self._begin, self._columns = sums.across(part_map.columns, part_map.part.left)
        widest = max(right - left for left, right in self._columns)
        self._images = [
            native.FirstPass(block.native, image, sums.group, widest, buffers)
            for image, buffers in part_map.images()
        ]
        self._done = part_map.part.above

    def __call__(self, a: int, b: int) -> None:
        part, sums = self._map.part, self._sums
        first = self._done
        self._done = self._map.complete(first, b, HALO)
        above = self._map.top - part.above
        for row, top, bottom in sums.down(first + above, self._done + above):
            for number, image in enumerate(self._images, part.images[0]):
                units = (number, row, slice(self._begin, self._begin + len(self._columns)))
                totals = sums.gram[units], sums.squares[units]
                image(top - above, bottom - above, self._columns, *totals)


class NativeSecondPass:
    """The same as :class:`SecondPass`, by kernels in C."""

    def __init__(self, block: Block, part_map: PartMap, products: CellProducts) -> None:
        assert block.native is not None
        self._map = part_map
        self._cells = products.from_top(*part_map.place)
        self._images = [
            native.SecondPass(block.native, image, buffers) for image, buffers in part_map.images()
        ]
        self._done = int(part_map.part.above > 0)

    def __call__(self, a: int, b: int) -> None:
        first = self._done
        self._done = self._map.complete(first, b, 1)
        for top, bottom, cells in self._cells(first, self._done):
            for image, row in zip(self._images, cells, strict=True):
                image(top, bottom, [(left, right, made.matrix) for made, left, right in row])
