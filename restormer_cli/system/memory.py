"""Main memory: what is free for this process, control groups respected, and its peak."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from restormer_cli.system import cgroups
from restormer_cli.system.limits import address_space

#: Share of the free memory that may be used when no limit was asked for.
FREE_MEMORY_SHARE = 0.85


def peak_memory() -> int:
    """Bytes of main memory that this process has held at most."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def return_freed_memory() -> None:
    """Give what the C library has freed, but holds for later, back to the system.

    With glibc that can be hundreds of megabytes, in pieces that fit nothing large. Others do it
    by themselves, or offer no way.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def free_memory() -> int:
    """Bytes of main memory that this process can still take, limits of the system respected."""
    limits = [_available_memory(), *_cgroup_headrooms()]
    if (allowed := address_space()) is not None:
        limits.append(max(0, allowed - held_memory()[1]))
    return min(limits)


def _available_memory() -> int:
    import psutil

    try:
        return int(psutil.virtual_memory().available)
    except (psutil.Error, OSError):  # without /proc
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroup_headrooms(root: Path = cgroups.ROOT) -> Iterator[int]:
    """What each control group around this process leaves."""
    for folder, unified in cgroups.folders("memory", root):
        if unified:
            names, cache_key = ("memory.max", "memory.current"), "inactive_file"
        else:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            cache_key = "total_inactive_file"
        try:
            limit, used = (folder.joinpath(n).read_text(encoding="ascii").strip() for n in names)
            statistics = (folder / "memory.stat").read_text(encoding="ascii")
        except OSError:
            continue
        if limit.isdigit():  # "max" stands for none
            cached = dict(line.split() for line in statistics.splitlines()).get(cache_key, "0")
            yield max(0, int(limit) - int(used) + int(cached))


def held_memory() -> tuple[int, int]:
    """Bytes of main memory that this process holds, and of address space."""
    import psutil

    try:
        facts = psutil.Process().memory_info()
    except (psutil.Error, OSError):  # without /proc
        return peak_memory(), peak_memory()
    return facts.rss, facts.vms
