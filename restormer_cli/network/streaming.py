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
a 3×3 convolution needs again slide along in a window instead of being computed twice.

On a CPU the image is parted among threads (:mod:`restormer_cli.network.partition`), and each goes
through its part strip by strip (:mod:`restormer_cli.network.strips`), block by block in two passes
(:mod:`restormer_cli.network.passes`). They wait for each other at the end of each pass only. On a
GPU there is one part.

Feature maps here are ``(N, H, W, C)``. A strip is a run of rows of a part, or, where images are
small, several whole images.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from restormer_cli.network import kernels
from restormer_cli.network.architecture import Restormer
from restormer_cli.network.attention_sums import AttentionSums, CellProducts
from restormer_cli.network.buffers import Buffers
from restormer_cli.network.memory_plan import Plan, plan_memory
from restormer_cli.network.packed import Block, PackedNetwork
from restormer_cli.network.partition import unit_edges
from restormer_cli.network.strips import COSTS, Strips, join
from restormer_cli.network.thread_team import ThreadTeam
from restormer_cli.network.windows import CellMatrices, Grid, grids

logger = logging.getLogger(__name__)

#: Called with the fraction of the work that is done, 0 to 1. What it raises stops the work.
Progress = Callable[[float], None]


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
            self.packed = PackedNetwork(network, like)
        for notice in kernels.notices():
            logger.warning(notice)

    @torch.inference_mode()
    def __call__(
        self,
        image: Tensor,
        plan: Plan | None = None,
        progress: Progress | None = None,
        window: int | None = None,
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
        window
            Attention over local windows of so many rows and columns, a multiple of 8: see
            :mod:`restormer_cli.network.windows`. None: over the whole image.

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

            levels = grids(height, width, window)
            evaluation = _Evaluation(self.packed, plan, levels, group, share)
            with _without_autocast(self.device):
                evaluation.run(out[first : first + together])
        return out.permute(0, 3, 1, 2)


def _without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Compute in the precision that was asked for, also where the host program has autocast on."""
    if not torch.amp.is_autocast_available(device.type):  # that of MPS is newer than PyTorch 2.4
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


class _Evaluation:
    """One pass of a group of images through the network: its parts, and the order of steps."""

    def __init__(
        self,
        network: PackedNetwork,
        plan: Plan,
        levels: tuple[Grid, ...],
        image: Tensor,
        progress: Progress,
    ) -> None:
        self.network = network
        self.grids = levels
        self.progress = progress
        count, _, height, width = image.shape
        self.count = count
        on_cpu = network.device.type == "cpu"
        if not on_cpu:  # a GPU has threads enough of its own
            plan = replace(plan, threads=0)
        parts = plan.parts(network.config, count, height, width)
        self.team: ThreadTeam[Strips] = ThreadTeam(min(plan.threads, len(parts)), self._look)
        whole = ([0, height], [0, width])
        self.units = unit_edges(height, width) if on_cpu and count == 1 else whole
        self.parts = [Strips(network, plan, part, image, self.team.check) for part in parts]
        join(self.parts)
        widths, first = network.config.widths, network.config.dim
        blocks = [*enumerate(network.encoders), *enumerate(network.decoders)]
        block = COSTS["attend"] + COSTS["apply"]
        work = [(i, b.attention.channels, block) for i, bs in blocks for b in bs]
        work += [(0, first, COSTS["embed"]), (0, 2 * first, COSTS["finish"])]
        work += [(i, widths[i], COSTS["down"]) for i in range(3)]
        work += [(i, widths[i], COSTS["up"]) for i in range(1, 4)]
        pixels = count * height * width
        self.work = sum(cost * pixels / 4**i * channels**2 for i, channels, cost in work)

    def _look(self) -> None:
        done = sum(part.work_done for part in self.parts)
        if done:
            self.progress(min(1.0, done / self.work))

    def run(self, out: Tensor) -> None:
        """Restore into ``out`` ``(N, H, W, C)``."""
        try:
            with self.team:
                self._run(out)
        finally:
            for part in self.parts:
                part.let_go()  # parts know each other, so nobody else would for a while
        self.progress(1.0)

    def _run(self, out: Tensor) -> None:
        network = self.network
        self._each(Strips.embed)
        for level, blocks in enumerate(network.encoders):
            self._blocks(level, blocks)
            if level < len(network.downs):
                self._each(Strips.pull)
                self._each(Strips.downsample, network.downs[level])
        for level in (2, 1):
            self._each(Strips.pull)
            self._each(Strips.fuse, network.ups[level], network.reductions[level])
            self._blocks(level, network.decoders[level])
        self._each(Strips.pull)
        self._each(Strips.join, network.ups[0])
        self._blocks(0, network.decoders[0])
        if network.skip is not None:
            self._each(Strips.add_embedding)
        self._each(Strips.pull)
        self._each(Strips.finish, out)

    def _each(self, step: Callable[..., None], *arguments: object) -> None:
        like = self.network.like

        def work(part: Strips, workspace: dict[str, Tensor]) -> None:
            step(part, Buffers(workspace, like), *arguments)

        self.team.each(work, self.parts)

    def _blocks(self, level: int, blocks: list[Block]) -> None:
        for block in blocks:
            products = CellProducts(
                self._attend(level, block), block.attention.bias, self.network.like
            )
            self._each(Strips.apply, block, products)

    def _attend(self, level: int, block: Block) -> CellMatrices:
        """First pass of a block. The sums, which can be large, do not outlive it."""
        rows, columns = ([edge >> level for edge in edges] for edges in self.units)
        sums = AttentionSums(block.attention, self.count, (rows, columns), self.grids[level])
        self._each(Strips.attend, block, sums)
        return sums.fold()
