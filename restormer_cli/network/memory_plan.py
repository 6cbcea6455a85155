"""How much memory there is, what one image will take of it, and where feature maps live.

:func:`plan_memory` decides before any work begins; :class:`FeatureMap` is what
:mod:`restormer_cli.network.streaming` reads strips from and writes them to, wherever they live.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from restormer_cli.errors import ImageError
from restormer_cli.network.architecture import RestormerConfig
from restormer_cli.network.windows import state_bytes
from restormer_cli.system.memory import FREE_MEMORY_SHARE, free_memory, held_memory
from restormer_cli.system.units import format_bytes

#: ``device``: beside the network. ``host``: in main memory while the network is on a GPU.
#: ``scratch``: in a temporary file, of which only the strips at hand are in memory.
Storage = Literal["device", "host", "scratch"]

#: Numbers (pixels × channels) in a strip of features on a CPU, so that what is made of it stays
#: in the cache (measured).
CPU_STRIP_VALUES = 1 << 20
#: But not fewer rows at full resolution: a row of output reads three of input (measured).
CPU_STRIP_ROWS = 4
SMALLEST_STRIP_VALUES = 1 << 16
#: GPUs want large launches.
GPU_STRIP_VALUES = 1 << 26
#: Library code paged in on first use, kernels generated, allocator slack, buffers inside kernels.
OVERHEAD_BYTES = 128 * 2**20
#: Rows that a sliding window has to spare: the more, the rarer its last ones are moved up.
SPARE_WINDOW_ROWS = 8


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
    """Predicted peak above what the process holds already."""
    scratch_bytes: int = 0
    """Size of the scratch file, for ``storage="scratch"``."""
    threads: int = 1
    """Threads that each stream through parts of the image, on a CPU."""

    def widest_part(self, dim: int) -> int:
        """Columns of a part of the image, at most, so that its strips have rows enough."""
        return self.strip_values // (CPU_STRIP_ROWS * 2 * dim)

    def strip_rows(self, height: int, width: int, channels: int) -> int:
        """Rows of a strip of a feature map of this size."""
        return min(height, max(1, self.strip_values // (width * channels)))

    def window_rows(self, height: int, width: int, channels: int) -> int:
        """Rows of the window that slides over such strips: halo and padding included."""
        return self.strip_rows(height, width, channels) + SPARE_WINDOW_ROWS + 3

    def images_together(self, height: int, width: int, channels: int) -> int:
        """How many images with feature maps of this size make one strip."""
        return max(1, self.strip_values // (height * width * channels))

    def smaller(self) -> Plan | None:
        """The next plan to try after the device ran out of memory; None after the last."""
        if self.strip_values > SMALLEST_STRIP_VALUES:
            return replace(self, strip_values=self.strip_values // 4)
        if self.storage == "device":
            return replace(self, storage="host")
        return None


def plan_memory(
    config: RestormerConfig,
    height: int,
    width: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    max_memory: int | None = None,
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
    window
        Rows and columns of local windows of attention; None for the whole image.

    Raises
    ------
    MemoryBudgetError
        If no plan fits; it says how much the most frugal one would take.
    """
    available = _available(device, max_memory)
    strips = [GPU_STRIP_VALUES]
    if device.type == "cpu":
        strips = [CPU_STRIP_VALUES]
    while strips[-1] > SMALLEST_STRIP_VALUES:
        strips.append(strips[-1] // 2)
    elsewhere: Storage = "scratch" if device.type == "cpu" else "host"
    least = math.inf
    # From the fastest to the most frugal. Of strips of one row there are none smaller.
    strips.append(1)
    threads = [torch.get_num_threads() if device.type == "cpu" else 1]
    while threads[-1] > 1:
        threads.append(threads[-1] // 2)
    for plan in (
        Plan(values, storage, 0, threads=count)
        for storage in ("device", elsewhere)
        for count in threads
        for values in strips
    ):
        plan = _predict(config, height, width, device, dtype, plan, window)
        least = min(least, plan.peak_bytes)
        if plan.peak_bytes <= available and _scratch_fits(plan):
            return plan
    needed = least if max_memory is None else least + max_memory - available
    raise _too_little(height, width, needed, available, max_memory)


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
    if device.type != "cpu":
        max_memory = None  # speaks of the device's memory, and the pixels come to this machine's
    most = free_memory() + held_memory()[0] if max_memory is None else max_memory
    if needed > most:
        raise _too_little(height, width, needed, most, max_memory)


def room_for(
    config: RestormerConfig,
    height: int,
    width: int,
    device: torch.device,
    dtype: torch.dtype,
    max_memory: int | None,
    window: int | None = None,
) -> tuple[int, int]:
    """Main memory that may be taken now, and what an image will take of it; parameters as above.

    The latter is all of the former where no plan fits.
    """
    available = _available(_CPU, max_memory if device.type == "cpu" else None)
    try:
        plan = plan_memory(config, height, width, device, dtype, max_memory, window)
    except MemoryBudgetError:
        return available, available
    if device.type == "cpu":
        return available, plan.peak_bytes
    needed = OVERHEAD_BYTES + _image_bytes(config, height, width)
    if plan.storage == "host":  # where the maps are, as they would be on a CPU
        plan = replace(plan, storage="device")
        needed += _predict(config, height, width, _CPU, dtype, plan, window).peak_bytes
    return available, needed


def _too_little(
    height: int, width: int, needed: float, available: int, max_memory: int | None
) -> MemoryBudgetError:
    allowed = "the memory that is free" if max_memory is None else "--max-memory"
    return MemoryBudgetError(
        f"{width}×{height} pixels need at least {format_bytes(needed)}, more than {allowed} "
        f"({format_bytes(available if max_memory is None else max_memory)})"
    )


def _image_bytes(config: RestormerConfig, height: int, width: int) -> int:
    """Input, output and the temporaries of rounding it, in float32."""
    return height * width * 4 * (config.inp_channels + 3 * config.out_channels)


def _predict(
    config: RestormerConfig,
    height: int,
    width: int,
    device: torch.device,
    dtype: torch.dtype,
    plan: Plan,
    window: int | None,
) -> Plan:
    """Fill in what the plan will take."""
    item = dtype.itemsize
    images = plan.images_together(height, width, 2 * config.dim)
    # Feature maps of levels 1 to 4, in bytes: the resolution falls faster than the width grows.
    maps = [
        images * (height >> level) * (width >> level) * channels * item
        for level, channels in enumerate(config.widths)
    ]
    # At level 1 the decoder holds the skip beside the upsampled features, in memory that is
    # reserved from the start; on a CPU what is not yet written takes none.
    decoder = 2 * maps[0]
    if device.type == "cpu":
        resident = max(sum(maps), decoder + maps[1])
    else:
        resident = decoder + sum(maps[1:])
    scratch = 0
    if plan.storage != "device":
        resident, scratch = 0, decoder + sum(maps[1:])
    workspace = 0
    for level, channels in enumerate((2 * config.dim, *config.widths[1:])):
        hidden = int(channels * config.ffn_expansion_factor)
        size = (height >> level, width >> level, channels)
        row = images * size[1] * item
        rows = size[0] if images > 1 else plan.strip_rows(*size)
        windows = (3 * channels + 2 * hidden) * plan.window_rows(*size)
        temporaries = (5 * channels + 3 * hidden) * (rows + 2)
        # The widest 3×3 convolution: input with halo, output, shuffled output.
        resampling = 8 * channels * (rows + 2)
        workspace = max(workspace, row * (windows + max(temporaries, resampling)))
    image = images * _image_bytes(config, height, width)
    image += images * height * width * item  # LayerNorm's scales
    image += images * state_bytes(config, height, width, window)
    peak = resident + int(1.25 * workspace) + image + OVERHEAD_BYTES
    return replace(plan, peak_bytes=peak, scratch_bytes=scratch if plan.storage == "scratch" else 0)


def _available(device: torch.device, max_memory: int | None) -> int:
    """Bytes that may be taken beyond what is taken already."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device)
        idle = held - torch.cuda.memory_allocated(device)
        if max_memory is None:
            return int(FREE_MEMORY_SHARE * (free + idle))
        return min(max_memory - torch.cuda.memory_allocated(device), free + idle)
    free = free_memory()
    if max_memory is None:
        return int(FREE_MEMORY_SHARE * free)
    return max_memory - held_memory()[0]


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
