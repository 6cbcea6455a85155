"""Main memory that is free for this process, within its control groups, and its peak."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from restormer_cli.system import cgroups
from restormer_cli.system.limits import address_space

#: Share of the free memory that may be used when no limit was asked for.
FREE_MEMORY_SHARE = 0.85


def peak_memory() -> int:
    """Peak main memory of this process, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def return_freed_memory() -> None:
    """Return memory to the system that was freed, but is still held by the C library.

    With glibc that can be hundreds of megabytes, in pieces that fit nothing large. Other C
    libraries return it themselves, or cannot.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


#: True where :func:`give_back` makes memory free.
CAN_GIVE_BACK = sys.platform == "linux"


def give_back(address: int, size: int) -> None:
    """Make the pages within so many bytes from an address free for others.

    They stay this process's, but what they held is lost. Nothing happens where the system cannot.
    """
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
    if CAN_GIVE_BACK and first < last:
        madvise = ctypes.CDLL(None).madvise
        madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


def free_memory() -> int:
    """Bytes of main memory that this process can still take, within all limits."""
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
    """Bytes that each control group around this process leaves."""
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
    """Bytes of main memory and of address space that this process holds."""
    import psutil

    try:
        facts = psutil.Process().memory_info()
    except (psutil.Error, OSError):  # without /proc
        return peak_memory(), peak_memory()
    return facts.rss, facts.vms
