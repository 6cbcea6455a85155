"""What one image will take of the memory that there is, and where its feature maps live.

:func:`plan_memory` decides before any work begins; :class:`FeatureMap` is what
:mod:`restormer_cli.network.streaming` reads strips from and writes them to, wherever they live.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from restormer_cli.errors import ImageError
from restormer_cli.network.architecture import RestormerConfig
from restormer_cli.network.device_memory import WHOLE, Shares, available_memory, whole_memory
from restormer_cli.network.partition import Part, partition
from restormer_cli.network.windows import state_bytes
from restormer_cli.system.memory import CAN_GIVE_BACK
from restormer_cli.system.units import format_bytes

#: ``device``: beside the network. ``host``: in main memory while the network is on a CUDA card.
#: ``scratch``: in a temporary file, of which only the strips at hand are in memory.
Storage = Literal["device", "host", "scratch"]
#: Where maps may be, from the fastest on. An Apple GPU has no memory of its own.
STORAGES: dict[str, tuple[Storage, ...]] = {
    "cpu": ("device", "scratch"),
    "mps": ("device", "scratch"),
    "cuda": ("device", "host", "scratch"),
}

#: A strip of features on a CPU, so that what is made of it stays in the cache (measured).
CPU_STRIP_BYTES = 1 << 20
#: But not fewer rows at full resolution: a row of output reads three of input (measured).
CPU_STRIP_ROWS = 8
SMALLEST_STRIP_VALUES = 1 << 16
#: GPUs want large launches.
GPU_STRIP_VALUES = 1 << 26
#: Library code paged in on first use, kernels generated, allocator slack, buffers inside kernels.
OVERHEAD_BYTES = 128 * 2**20
#: Of the main memory that there is, maps are pinned in this share at most: it cannot be swapped.
PINNED_SHARE = 0.5
#: Rows that a sliding window has to spare: the more, the rarer its last ones are moved up.
SPARE_WINDOW_ROWS = 8
#: Rows that q and k are summed over together, at most, where a unit is narrow.
GROUP_ROWS = 16


_CPU = torch.device("cpu")


class MemoryBudgetError(ImageError):
    """An image cannot be restored within the memory that is allowed."""


@dataclass(frozen=True)
class Plan:
    """How one image is to be evaluated. All sizes are upper bounds."""

    strip_values: int
    """Pixels × channels in a strip, at every level; a strip has at least one row."""
    storage: Storage
    peak_bytes: int
    """Predicted peak, of the device's memory, above what the process holds already."""
    scratch_bytes: int = 0
    """Size of the scratch file, for ``storage="scratch"``."""
    main_bytes: int = 0
    """Predicted peak of main memory; on a CPU and an Apple GPU that is the device's."""
    pinned: bool = False
    """True if maps in main memory are to lie where a card reads them at full speed."""
    threads: int = 1
    """Threads that each stream through parts of the image, on a CPU."""

    def parts(self, config: RestormerConfig, count: int, height: int, width: int) -> list[Part]:
        """How images that go together are shared out among the threads of a CPU."""
        # So wide that their strips have rows enough.
        widest = self.strip_values // (CPU_STRIP_ROWS * 2 * config.dim)
        return partition(count, height, width, self.threads, widest)

    def strip_rows(self, height: int, width: int, channels: int) -> int:
        """Rows of a strip of a feature map of this size."""
        return min(height, max(1, self.strip_values // (width * channels)))

    def window_rows(self, height: int, width: int, channels: int) -> int:
        """Rows of the window that slides over such strips: halo and padding included."""
        return self.strip_rows(height, width, channels) + SPARE_WINDOW_ROWS + 3

    def images_together(self, height: int, width: int, channels: int) -> int:
        """How many images with feature maps of this size make one strip."""
        return max(1, self.strip_values // (height * width * channels))


@dataclass(frozen=True)
class _Evaluation:
    """What is planned for; see :func:`plan_memory`."""

    config: RestormerConfig
    height: int
    width: int
    device: torch.device
    dtype: torch.dtype
    count: int | None = None
    window: int | None = None

    def predict(self, plan: Plan, main: int) -> Plan:
        """Fill in what the plan will take; ``main`` is the main memory allowed beside a card."""
        config, height, width = self.config, self.height, self.width
        item = self.dtype.itemsize
        images = plan.images_together(height, width, 2 * config.dim)
        images = images if self.count is None else min(images, self.count)
        # Feature maps of levels 1 to 4, in bytes: the resolution falls faster than the width grows.
        maps = [
            images * (height >> level) * (width >> level) * channels * item
            for level, channels in enumerate(config.widths)
        ]
        # At level 1 the decoder holds the skip beside the upsampled features, in memory that is
        # reserved from the start; on a CPU what is not yet written takes none, and when all is,
        # half of the map below has been read and is forgotten.
        all_maps = [2 * maps[0], *maps[1:]]
        resident, elsewhere = sum(all_maps), 0
        parts = plan.parts(config, images, height, width)
        stored = sum(math.prod(part.size(0)) for part in parts) / (height * width)
        if self.device.type == "cpu":
            below = maps[1] // 2 if CAN_GIVE_BACK else maps[1]
            resident = int(stored * max(sum(maps), all_maps[0] + below))
        if plan.storage != "device":
            resident, elsewhere = 0, int(stored * sum(all_maps))
        workspace = max(self._workspace(part, plan) for part in parts)
        # Threads keep their buffers from part to part.
        threads = max(1, min(plan.threads, len(parts)))
        workspace *= item * threads
        scales = int(stored * images * height * width * max(item, 4))  # LayerNorm's
        # What libraries take inside a kernel, and what the allocator of each thread keeps.
        slack = 2.0 if self.device.type == "cpu" else 1.25
        peak = resident + int(slack * workspace) + scales + OVERHEAD_BYTES
        widest = max(part.size(0)[1] for part in parts)
        peak += images * state_bytes(config, height, width, self.window, threads, widest)
        image = images * _image_bytes(config, height, width)
        if plan.storage == "scratch":
            plan = replace(plan, scratch_bytes=elsewhere)
        if self.device.type != "cuda":
            return replace(plan, peak_bytes=peak + image, main_bytes=peak + image)
        taken = image + OVERHEAD_BYTES
        if plan.storage == "host":
            # What is pinned comes in powers of two, and stays with the process.
            pinned = sum(1 << (size - 1).bit_length() for size in all_maps)
            plan = replace(plan, pinned=taken + pinned <= PINNED_SHARE * main)
            taken += pinned if plan.pinned else elsewhere
        return replace(plan, peak_bytes=peak, main_bytes=taken)

    def _workspace(self, part: Part, plan: Plan) -> int:
        """Numbers that one thread holds beside the feature maps of a part."""
        most = 0
        for level, channels in enumerate((2 * self.config.dim, *self.config.widths[1:])):
            hidden = int(channels * self.config.ffn_expansion_factor)
            height, width = part.size(level)
            row = part.count * width
            rows = height if part.count > 1 else plan.strip_rows(height, width, channels)
            windows = (3 * channels + 2 * hidden) * plan.window_rows(height, width, channels)
            windows += 2 * channels * GROUP_ROWS
            # Kept from strip to strip: normalised pixels, q and k by head, v, what was gated.
            kept = (4 * channels + hidden) * rows
            # The widest 3×3 convolution (input with halo, output, shuffled output), or products.
            passing = max(8 * channels, 2 * channels + 2 * hidden) * (rows + 2)
            most = max(most, row * (windows + kept + passing))
        return most


def plan_memory(
    config: RestormerConfig,
    height: int,
    width: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    max_memory: int | None = None,
    *,
    count: int | None = None,
    shares: Shares = WHOLE,
    failed: Plan | None = None,
    window: int | None = None,
) -> Plan:
    """The fastest plan for an image of this size that keeps to the memory allowed.

    Parameters
    ----------
    height, width
        Size after padding, in pixels.
    max_memory
        Bytes that the peak must stay under: of the whole process on a CPU, of the device's
        memory in use by this process on a GPU. By default, most of what is free now.
    count
        Images of this size that there are; by default as many as make a strip.
    shares
        Of memory that other processes like this one take as well.
    failed
        A plan for which the memory did not suffice after all: this one takes half of it at most,
        or as little as any.
    window
        Rows and columns of local windows of attention; None for the whole image.

    Raises
    ------
    MemoryBudgetError
        If no plan fits; it says how much the most frugal one would take.
    """
    available = wanted = available_memory(device, max_memory, shares)
    if failed is not None:
        wanted = min(available, OVERHEAD_BYTES + (failed.peak_bytes - OVERHEAD_BYTES) // 2)
        available = min(available, failed.peak_bytes - 1)
    main = available_memory(_CPU, None, shares) if device.type == "cuda" else available
    evaluation = _Evaluation(config, height, width, device, dtype, count, window)
    least, least_fits = None, False
    for plan in _candidates(device, dtype):
        plan = evaluation.predict(plan, main)
        fits = plan.main_bytes <= main and _scratch_fits(plan)
        if plan.peak_bytes <= wanted and fits:
            return plan
        if least is None or (plan.peak_bytes, not fits) < (least.peak_bytes, not least_fits):
            least, least_fits = plan, fits
    assert least is not None
    if least.peak_bytes <= available and least_fits:
        return least
    if least.peak_bytes <= available and least.main_bytes > main:  # of a card
        raise _too_little(height, width, least.main_bytes, main, None, "main memory")
    needed = least.peak_bytes if max_memory is None else least.peak_bytes + max_memory - available
    raise _too_little(height, width, needed, available, max_memory)


def _candidates(device: torch.device, dtype: torch.dtype) -> Iterator[Plan]:
    """Plans from the fastest to the most frugal, what they take not filled in."""
    strips = [GPU_STRIP_VALUES]
    if device.type == "cpu":
        strips = [CPU_STRIP_BYTES // dtype.itemsize]
    while strips[-1] > SMALLEST_STRIP_VALUES:
        strips.append(strips[-1] // 2)
    strips.append(1)  # of strips of one row there are none smaller
    threads = [torch.get_num_threads() if device.type == "cpu" else 0]
    while threads[-1] > 1:
        threads.append(threads[-1] // 2)
    for storage in STORAGES[device.type]:
        for number in threads:
            for values in strips:
                yield Plan(values, storage, 0, threads=number)


def check_size(
    config: RestormerConfig, height: int, width: int, device: torch.device, max_memory: int | None
) -> None:
    """Refuse an image that no plan can fit, before it is decoded; parameters as above.

    Raises
    ------
    MemoryBudgetError
        If the pixels alone take more than all that this process may ever have.
    """
    needed = _image_bytes(config, height, width)
    if needed <= OVERHEAD_BYTES:
        return  # Of small images there are many: asking the system costs more than decoding them.
    if device.type == "cuda":
        max_memory = None  # speaks of the card's memory, and the pixels come to this machine's
    most = whole_memory() if max_memory is None else max_memory
    if needed > most:
        raise _too_little(height, width, needed, most, max_memory)


def room_for(
    config: RestormerConfig,
    height: int,
    width: int,
    device: torch.device,
    dtype: torch.dtype,
    max_memory: int | None,
    *,
    shares: Shares = WHOLE,
    window: int | None = None,
) -> tuple[int, int]:
    """Main memory that may be taken now, and what an image will take of it; parameters as above.

    The latter is all of the former where no plan fits.
    """
    if device.type == "cuda":
        available = available_memory(_CPU, None, shares)
    else:
        available = available_memory(device, max_memory, shares)
    try:
        plan = plan_memory(
            config, height, width, device, dtype, max_memory, shares=shares, window=window
        )
    except MemoryBudgetError:
        return available, available
    return available, plan.main_bytes


def _too_little(
    height: int,
    width: int,
    needed: float,
    available: int,
    max_memory: int | None,
    memory: str = "memory",
) -> MemoryBudgetError:
    allowed = f"the {memory} that is free" if max_memory is None else "--max-memory"
    return MemoryBudgetError(
        f"{width}×{height} pixels need at least {format_bytes(needed)}, more than {allowed} "
        f"({format_bytes(available if max_memory is None else max_memory)})"
    )


def _image_bytes(config: RestormerConfig, height: int, width: int) -> int:
    """Input, output and the temporaries of rounding it, in float32."""
    return height * width * 4 * (config.inp_channels + 3 * config.out_channels)


def scratch_folder() -> Path:
    """Where scratch files go: ``TMPDIR``, else a folder that is on disk rather than in memory.

    Raises
    ------
    MemoryBudgetError
        If there is no folder that temporary files can be written to.
    """
    var_tmp = Path("/var/tmp")
    if "TMPDIR" not in os.environ and var_tmp.is_dir() and os.access(var_tmp, os.W_OK):
        return var_tmp
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise MemoryBudgetError(
            "needs a temporary folder, and none can be written to; TMPDIR names another folder"
        ) from error


def _scratch_fits(plan: Plan) -> bool:
    return plan.scratch_bytes == 0 or plan.scratch_bytes < shutil.disk_usage(scratch_folder()).free
