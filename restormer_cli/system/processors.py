"""Processors that this process may use."""

from __future__ import annotations

import contextlib
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


def _cgroup_quotas(root: Path = cgroups.ROOT) -> Iterator[float]:
    """Processors that each control group around this process allows."""
    for folder, unified in cgroups.folders("cpu", root):
        files = ("cpu.max",) if unified else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        with contextlib.suppress(OSError, ValueError):
            words = [w for f in files for w in (folder / f).read_text("ascii").split()]
            quota, period = words  # "max" and -1 stand for no limit
            if quota.isdigit():
                yield int(quota) / int(period)
