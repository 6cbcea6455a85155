"""Restormer evaluated strip by strip: the whole-image result in bounded memory.

The network has three kinds of step. Per-pixel ones (LayerNorm, 1×1 convolution, gate) need
nothing but the pixel. 3×3 convolutions need one row above and below: the halo. MDTA alone looks
at the whole image, and only through the Gram matrix q·kᵀ (channels × channels) and the norms of
q and k. So each block takes two passes over strips of rows:

1. LayerNorm → q, k → Gram matrix and norms, summed over the strips;
2. x += v · M, where M is the softmaxed matrix folded with ``project_out``; then GDFN on the rows
   that are complete, while they are still in cache.

The result is that of the plain forward up to the order of summation. What makes it fast on a
CPU: feature maps are matrices of pixels × channels, so every 1×1 convolution is one matrix
product; strips are small enough for the cache; all of LayerNorm but its division is folded
into the product behind it; residuals are added by the product itself (``addmm_``); and rows that
a 3×3 convolution needs again slide along in a :class:`Window` instead of being computed twice.

Feature maps here are ``(N, H, W, C)``. A strip is a run of rows of one image, or, where images
are small, several whole images.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from restormer_cli.network import kernels
from restormer_cli.network.architecture import Restormer
from restormer_cli.network.feature_map import FeatureMap, allocate
from restormer_cli.network.kernels import Conv3x3, PointwiseSum
from restormer_cli.network.memory_plan import Plan, plan_memory
from restormer_cli.network.packed import Block, PackedNetwork, Projection

logger = logging.getLogger(__name__)

#: Called with the fraction of the work that is done, 0 to 1. What it raises stops the work.
Progress = Callable[[float], None]


class Window:
    """Projected rows sliding under a depthwise convolution.

    Rows are pushed from top to bottom; each push gives the output rows that are now complete,
    one behind the rows pushed, and keeps the two rows that the next ones need.
    """

    def __init__(self, stage: Projection, buffer: Tensor) -> None:
        """``buffer`` is ``(N, capacity, W, K)``: the longer, the rarer rows are moved up."""
        self.stage = stage
        self.buffer = buffer
        self.start, self.end = 0, 1
        buffer[:, 0].zero_()

    def push(self, pixels: Tensor, last: bool) -> Tensor | None:
        """Project ``(N, R, W, C)`` normalised pixels; the output rows now complete, if any."""
        rows = pixels.shape[1]
        if self.end + rows + last > self.buffer.shape[1]:
            kept = self.end - self.start
            self.buffer[:, :kept] = self.buffer[:, self.start : self.end].clone()
            self.start, self.end = 0, kept
        self.stage.point.into(self.buffer[:, self.end : self.end + rows], pixels)
        self.end += rows
        if last:
            self.buffer[:, self.end].zero_()
            self.end += 1
        if self.end - self.start < 3:
            return None
        out = self.stage.depth(self.buffer[:, self.start : self.end])
        self.start = self.end - 2
        return out


class StreamingRestormer:
    """The network of a :class:`Restormer`, evaluated strip by strip.

    Parameters
    ----------
    network
        Where the parameters are taken from. They are copied; it can be dropped afterwards.
    device, dtype
        Where and in which precision to compute. Sums over the image are wider in any case.
    """

    def __init__(
        self,
        network: Restormer,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config = network.config
        like = torch.empty(0, device=device, dtype=dtype)
        self.device, self.dtype = like.device, dtype  # with its index
        with torch.no_grad():
            self.prepared = PackedNetwork(network, like)
        for notice in kernels.notices():
            logger.warning(notice)

    @torch.inference_mode()
    def __call__(
        self, image: Tensor, plan: Plan | None = None, progress: Progress | None = None
    ) -> Tensor:
        """Restore a batch.

        Parameters
        ----------
        image
            ``(N, inp_channels, H, W)`` in [0, 1]; H and W multiples of 8.
        plan
            Strip height and where feature maps live; by default, what fits this machine now.
        progress
            Called a few times a second with the share of the work that is done.

        Returns
        -------
        Tensor
            ``(N, out_channels, H, W)`` float32 on the device of ``image``, not clamped.

        Raises
        ------
        ValueError
            If the channels or the size are not what the network takes.
        """
        self.config.check_input(image.shape)
        count, _, height, width = image.shape
        plan = plan or plan_memory(self.config, height, width, self.device, self.dtype)
        together = plan.images_together(height, width, 2 * self.config.dim)
        out = torch.empty(
            (count, height, width, self.config.out_channels),
            dtype=torch.float32,
            device=image.device,
        )
        for first in range(0, count, together):
            group = image[first : first + together]

            def share(part: float, before: int = first, size: int = len(group)) -> None:
                if progress is not None:
                    progress((before + part * size) / count)

            with _without_autocast(self.device):
                _Evaluation(self.prepared, plan, share).run(group, out[first : first + together])
        return out.permute(0, 3, 1, 2)


def _without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Compute in the precision that was asked for, also where the host program has autocast on."""
    if not torch.amp.is_autocast_available(device.type):  # that of MPS is newer than PyTorch 2.4
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


class _Evaluation:
    """One pass of a group of images through the network; holds its feature maps and buffers."""

    def __init__(self, network: PackedNetwork, plan: Plan, progress: Progress) -> None:
        self.network = network
        self.plan = plan
        self.progress = progress
        self.buffers: dict[str, Tensor] = {}
        self.work_done = 0.0
        self.work_total = 0.0

    def run(self, image: Tensor, out: Tensor) -> None:
        """Restore ``image`` ``(N, C, H, W)`` into ``out`` ``(N, H, W, C)``."""
        network, config = self.network, self.network.config
        image = image.permute(0, 2, 3, 1)
        count, height, width, _ = image.shape
        self.work_total = self._work(count * height * width)

        wide = self._allocate(count, height, width, 2 * config.dim)
        x = wide.narrowed(config.dim)
        for a, b in self._strips(x):
            x.write(a, b, self._embed(image, a, b))

        skips = []
        for level, blocks in enumerate(network.encoders):
            for block in blocks:
                self._block(x, block)
            if level < len(network.downs):
                skips.append(x)
                x = self._downsample(x, network.downs[level])
        for level in (2, 1):
            x = self._fuse(x, skips.pop(), level)
            for block in network.decoders[level]:
                self._block(x, block)
        x = self._join(x, skips.pop(), wide)
        for block in network.decoders[0]:
            self._block(x, block)

        if network.skip is not None:
            self._add_embedding(x, image)
        self._finish(x, image, out)
        self.progress(1.0)

    # Strips, buffers, progress

    def _allocate(self, count: int, height: int, width: int, channels: int) -> FeatureMap:
        shape = (count, height, width, channels)
        network, plan = self.network, self.plan
        return allocate(shape, network.device, network.dtype, plan.storage, pinned=plan.pinned)

    def _strips(self, x: FeatureMap) -> list[tuple[int, int]]:
        """Row ranges that cover the map; all of it where several images go together."""
        count, height, width, channels = x.shape
        rows = height if count > 1 else self.plan.strip_rows(height, width, channels)
        return [(a, min(a + rows, height)) for a in range(0, height, rows)]

    def _buffer(self, name: str, *shape: int) -> Tensor:
        """Memory that is used again by every block: fresh pages from the system cost time."""
        size = math.prod(shape)
        flat = self.buffers.get(name)
        if flat is None or flat.numel() < size:
            flat = torch.empty(size, dtype=self.network.dtype, device=self.network.device)
            self.buffers[name] = flat
        return flat[:size].view(shape)

    def _window(self, name: str, stage: Projection, x: FeatureMap) -> Window:
        count, height, width, channels = x.shape
        rows = height + 2 if count > 1 else self.plan.window_rows(height, width, channels)
        return Window(stage, self._buffer(name, count, rows, width, stage.channels))

    def _work(self, pixels: int) -> float:
        """Total of what :meth:`_tick` will count: pixels times squared channels."""
        network = self.network
        stages = [*enumerate(network.encoders), *enumerate(network.decoders)]
        return sum(
            (pixels / 4**level * block.attention.channels**2 for level, b in stages for block in b),
            0.0,
        )

    def _tick(self, rows: Tensor, share: float) -> None:
        self.work_done += share * rows.numel() * rows.shape[-1]
        self.progress(min(1.0, self.work_done / self.work_total))

    # Steps of the network

    def _embed(self, image: Tensor, a: int, b: int) -> Tensor:
        def read(first: int, last: int) -> Tensor:
            return image[:, first:last].to(self.network.device)

        embedded = self._conv(read, a, b, image.shape[1], self.network.embed)
        return embedded.to(self.network.dtype)

    @staticmethod
    def _conv(
        read: Callable[[int, int], Tensor],
        a: int,
        b: int,
        height: int,
        conv: Conv3x3,
    ) -> Tensor:
        """Rows ``[a, b)`` of a 3×3 convolution over the rows that ``read`` gives."""
        rows = read(max(a - 1, 0), min(b + 1, height))
        above, below = int(a == 0), int(b == height)
        if above or below:
            rows = F.pad(rows, (0, 0, 0, 0, above, below))
        return conv(rows.to(conv.dtype))

    def _conv_rows(self, x: FeatureMap, a: int, b: int, conv: Conv3x3) -> Tensor:
        """Rows ``[a, b)`` of a 3×3 convolution over a feature map, read for the last time."""
        out = self._conv(x.read, a, b, x.shape[1], conv)
        x.release(max(a - 1, 0), b)  # with the halo above, which was read again
        return out

    def _block(self, x: FeatureMap, block: Block) -> None:
        scales = self._buffer("scales", *x.shape[:3], 1)
        matrices = self._attend(x, block, scales)
        self._apply(x, block, scales, matrices)

    def _attend(self, x: FeatureMap, block: Block, scales: Tensor) -> Tensor:
        """First pass: the matrices M ``(N, C, C)`` of the block's attention.

        What LayerNorm multiplies each pixel by is left in ``scales`` ``(N, H, W, 1)`` for the
        second pass.
        """
        attention = block.attention
        count, height, _, channels = x.shape
        heads, per_head = attention.heads, channels // attention.heads
        wide = attention.temperature
        gram = wide.new_zeros(count, heads, per_head, per_head)
        squares = wide.new_zeros(count, 2, heads, per_head)
        window = self._window("qk", attention.qk, x)
        for a, b in self._strips(x):
            rows = x.read(a, b)
            normalised, scales[:, a:b] = block.normalise(rows)
            qk = window.push(normalised, b == height)
            if qk is not None:
                # One copy, and all heads' products are contiguous and one call.
                split = "n r w (two h c) -> two h n r w c"
                qk = rearrange(qk, split, two=2, h=heads).contiguous()
                if qk.dtype == torch.float16:  # sums over a row can leave its range
                    qk = qk.float()
                gram += _gram(qk)
                squares += _squares(qk)
            self._tick(rows, 0.3)
            x.release(a, b)
        return attention.fold(gram, squares)

    def _values(
        self, x: FeatureMap, block: Block, scales: Tensor
    ) -> Iterator[tuple[int, int, Tensor]]:
        """v from top to bottom: row ranges ``[a, b)`` and ``(N, b - a, W, C)``.

        Computed again rather than kept from the first pass: keeping it would double the memory
        where that is scarcest, and save some 3 % of the time. A row is read before the range
        that holds it is given, so that the caller may change the rows that it is given.
        """
        stage = block.attention.v
        window = self._window("v", stage, x)
        height, complete = x.shape[1], 0
        for a, b in self._strips(x):
            v = window.push(x.read(a, b) * scales[:, a:b], b == height)
            if v is not None:
                yield complete, complete + v.shape[1], v
                complete += v.shape[1]

    def _apply(self, x: FeatureMap, block: Block, scales: Tensor, matrices: Tensor) -> None:
        """Second pass: x += v · M, then GDFN on the rows whose neighbours are done."""
        height = x.shape[1]
        feed_forward = block.feed_forward
        bias, like = block.attention.bias, x.tensor.new_empty(0, device=self.network.device)
        projections = [PointwiseSum(matrix, bias, like) for matrix in matrices]
        gates = self._window("gate", feed_forward.gate, x)
        amounts = self._window("value", feed_forward.value, x)
        finished = 0
        for a, b, v in self._values(x, block, scales):
            rows = x.read(a, b)
            for image, project in enumerate(projections):
                project.add_to(rows[image : image + 1], v[image : image + 1])
            normalised, _ = block.normalise(rows)
            x.write(a, b, rows)
            gate = gates.push(normalised, b == height)
            amount = amounts.push(normalised, b == height)
            if gate is not None and amount is not None:
                end = finished + gate.shape[1]
                done = x.read(finished, end)
                feed_forward.project_out.add_to(done, gate.mul_(amount))
                x.write(finished, end, done)
                finished = end
            self._tick(rows, 0.7)
        x.flush()

    def _downsample(self, x: FeatureMap, conv: Conv3x3) -> FeatureMap:
        """3×3 convolution and pixel-unshuffle into a new map of half the size."""
        count, height, width, channels = x.shape
        below = self._allocate(count, height // 2, width // 2, 2 * channels)
        for a, b in self._strips(below):
            rows = self._conv_rows(x, 2 * a, 2 * b, conv)
            unshuffled = rearrange(rows, "n (r dy) (w dx) c -> n r w (c dy dx)", dy=2, dx=2)
            below.write(a, b, unshuffled)
        return below

    def _upsample(self, x: FeatureMap, a: int, b: int, level: int) -> Tensor:
        """3×3 convolution and pixel-shuffle of rows ``[a, b)``: twice as many rows and columns."""
        rows = self._conv_rows(x, a, b, self.network.ups[level])
        return rearrange(rows, "n r w (dy dx c) -> n (r dy) (w dx) c", dy=2, dx=2)

    def _fuse(self, x: FeatureMap, skip: FeatureMap, level: int) -> FeatureMap:
        """Upsample, concatenate the skip, reduce the channels: into the skip's own memory."""
        reduction = self.network.reductions[level]
        assert reduction is not None
        from_below, from_skip = reduction
        for a, b in self._strips(x):
            below = self._upsample(x, a, b, level)
            beside = skip.read(2 * a, 2 * b)
            rows = torch.empty_like(beside)
            from_below.into(rows, below)
            from_skip.add_to(rows, beside)
            skip.write(2 * a, 2 * b, rows)
        skip.flush()
        return skip

    def _join(self, x: FeatureMap, skip: FeatureMap, wide: FeatureMap) -> FeatureMap:
        """Upsample and concatenate the skip, which is packed into the beginning of ``wide``.

        From the last rows to the first, since those of ``wide`` lie behind those of the skip.
        """
        for a, b in reversed(self._strips(x)):
            below = self._upsample(x, a, b, 0)
            beside = skip.read(2 * a, 2 * b)
            joined = torch.cat([below, beside], dim=-1)
            skip.release(2 * a, 2 * b)
            wide.write(2 * a, 2 * b, joined)
        return wide

    def _add_embedding(self, x: FeatureMap, image: Tensor) -> None:
        """The dual-pixel head: add the patch embedding, computed anew, behind a 1×1 convolution."""
        assert self.network.skip is not None
        for a, b in self._strips(x):
            rows = x.read(a, b)
            self.network.skip.add_to(rows, self._embed(image, a, b))
            x.write(a, b, rows)

    def _finish(self, x: FeatureMap, image: Tensor, out: Tensor) -> None:
        """Output convolution and, but for dual pixels, the residual in float32."""
        for a, b in self._strips(x):
            rows = self._conv_rows(x, a, b, self.network.output).to(out)
            if self.network.skip is None:
                rows += image[:, a:b]
            out[:, a:b] = rows


def _gram(qk: Tensor) -> Tensor:
    """q·kᵀ of a strip: ``(2, heads, N, R, W, c)`` to ``(N, heads, c, c)``.

    Row by row, so that the result does not depend on how rows are grouped into strips.
    """
    q, k = kernels.for_products(qk).flatten(1, 3)
    rows = torch.bmm(q.transpose(1, 2), k)
    return _sum_rows(rows.view(*qk.shape[1:4], *rows.shape[1:]), 2).transpose(0, 1)


def _squares(qk: Tensor) -> Tensor:
    """Squared norms over a strip: ``(2, heads, N, R, W, c)`` to ``(N, 2, heads, c)``."""
    return _sum_rows(torch.mul(qk, qk).sum(dim=4), 3).permute(2, 0, 1, 3)


def _sum_rows(rows: Tensor, dim: int) -> Tensor:
    wide = torch.float32 if rows.device.type == "mps" else torch.float64
    return rows.sum(dim=dim, dtype=wide)
