"""This process on its machine: processors it may use, peak memory, what native code prints."""

from __future__ import annotations

import codecs
import contextlib
import functools
import io
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from restormer_cli import cgroups


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Send what native code writes to stderr nowhere; ``sys.stderr`` goes on to where it went.

    libpng, libtiff and others print to file descriptor 2 whatever Python is told. Does nothing to
    it where ``sys.stderr`` is no file of the system, as in a test.
    """
    # It logs what is wrong with a file, but not with which.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        native = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        native = -1
    if native != 2:
        yield
        return
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    ours = sys.stderr
    sys.stderr = os.fdopen(
        os.dup(saved), "w", buffering=1, encoding=ours.encoding, errors=ours.errors
    )
    os.dup2(null, 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(saved, 2)
        with contextlib.suppress(OSError):  # whoever read it has gone
            sys.stderr.close()
        sys.stderr = ours
        os.close(saved)
        os.close(null)


def open_standard_streams() -> None:
    """Give a process that was started without some of them (``2>&-``) streams that lead nowhere.

    Else the next file that is opened would be taken for stderr, and native code write into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - it stays open
            setattr(sys, name, stream)


def encode_stdout(*, json: bool = False) -> None:
    """Settle how names that are no text, or not in the console's alphabet, are printed.

    Where paths are expected as the bytes that they are, if the console is UTF-8; else, and in
    JSON, which is UTF-8 everywhere, escaped. Does nothing where ``sys.stdout`` is no text stream
    of the system, as in a test.
    """
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return
    if json:
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    else:
        in_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if in_utf8 else "backslashreplace")


def peak_memory() -> int:
    """Bytes of main memory that this process has held at most."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def processors() -> int:
    """How many processors this process may keep busy: affinity and control groups respected."""
    import psutil

    try:
        count = len(psutil.Process().cpu_affinity())
    except AttributeError:  # macOS has no affinity
        count = os.cpu_count() or 1
    return max(1, min([count, *map(math.ceil, _cgroup_quotas())]))


def idle_processors(seconds: float = 0.2) -> int:
    """How many processors of the machine nobody keeps busy, this process sleeping meanwhile."""
    import psutil

    busy = psutil.cpu_percent(interval=seconds) / 100
    return round((psutil.cpu_count() or 1) * (1 - busy))


@functools.cache
def share_the_machine() -> str:
    """Settle on a number of threads, unless the user has; to be called before PyTorch is loaded.

    Threads of OpenMP wait for each other at the end of every step. If there are more of them
    than processors that are free, each step takes as long as the scheduler's turn: two threads
    beside two busy processes took over 20 times as long as one (measured on two cores).

    Returns
    -------
    str
        The number and why, for people.
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
