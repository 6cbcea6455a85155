"""Processors that this process may use, and the threads that share them."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path

from restormer_cli.system import cgroups


def processors() -> int:
    """Number of processors that this process may use, by affinity and control groups."""
    import psutil

    try:
        count = len(psutil.Process().cpu_affinity())
    except (AttributeError, psutil.Error):  # macOS has no affinity; Linux may be without /proc
        count = os.cpu_count() or 1
    return max(1, min([count, *map(math.ceil, _cgroup_quotas())]))


def idle_processors(seconds: float = 0.2) -> int:
    """Number of idle processors of the machine, measured while this process sleeps."""
    import psutil

    try:
        busy = psutil.cpu_percent(interval=seconds) / 100
    except (psutil.Error, OSError):  # without /proc
        busy = 0.0
    return round((psutil.cpu_count() or 1) * (1 - busy))


@functools.cache
def share_the_machine() -> str:
    """Set the number of threads, unless the user has; call it before PyTorch is loaded.

    Threads of OpenMP wait for each other at the end of every step. If there are more of them
    than idle processors, each step takes as long as the scheduler's turn: two threads beside two
    busy processes took over 20 times as long as one (measured on two cores).

    Returns
    -------
    str
        The number and the reason, for people.
    """
    allowed = processors()
    if "OMP_NUM_THREADS" in os.environ:
        return f"{os.environ['OMP_NUM_THREADS']}, as OMP_NUM_THREADS says"
    free = max(1, min(allowed, idle_processors()))
    if free < allowed:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # sleep while waiting
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), free))
    return f"{torch.get_num_threads()}, since {free} of {allowed} processors are free"


def _cgroup_quotas(root: Path = cgroups.ROOT) -> Iterator[float]:
    """Processors that each control group around this process allows."""
    for folder, unified in cgroups.folders("cpu", root):
        files = ("cpu.max",) if unified else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        with contextlib.suppress(OSError, ValueError):
            words = [w for f in files for w in (folder / f).read_text("ascii").split()]
            quota, period = words  # "max" and -1 stand for no limit
            if quota.isdigit():
                yield int(quota) / int(period)
