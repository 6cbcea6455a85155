"""One run at a time in a result folder.

The lock is that of the operating system (``flock``, on Windows ``msvcrt.locking``). It ends with
the process that holds it, even if that crashes. On Linux it also holds between machines that share
a network file system. If a file system has no locks, the run goes on and says so.

Each lock has a name, so that shards of one run can share a folder. The caller decides which names
exclude each other. A run that takes a lock holds another one, the gate, while it checks the locks
of others, so that two runs that start at once see each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from restormer_cli.errors import BusyError
from restormer_cli.system import json_lines
from restormer_cli.system.locks import is_at, try_lock

_SUFFIX = ".lock"
#: Held while another lock is taken.
_GATE = "gate"
#: Seconds between two attempts to take a lock.
POLL = 0.5
#: Mean seconds between two attempts to take the gate.
GATE_POLL = 0.02
#: Seconds of waiting for the gate after which a notice says so.
GATE_PATIENCE = 5.0


@contextlib.contextmanager
def folder_lock(
    folder: Path,
    *,
    name: str = "run",
    wait: bool = False,
    notice: Callable[[str], None] = lambda text: None,
    excludes: Callable[[str], bool] = lambda other: False,
) -> Iterator[bool]:
    """Hold the lock ``name`` of an existing folder; its file is removed at the end.

    Yields True, or False if the file system has no locks.

    Parameters
    ----------
    wait
        Wait until it is free.
    notice
        Called with a sentence for people: the run that is waited for, or the lack of locks.
    excludes
        True for the name of another lock that must be free, too.

    Raises
    ------
    BusyError
        If another process holds it, or one that excludes it, and ``wait`` is not set.
    OSError
        If the folder cannot be written to.
    """
    path = folder / f"{name}{_SUFFIX}"
    told = False
    there_are_locks = True

    def say_that_there_are_none(text: str) -> None:
        nonlocal there_are_locks
        there_are_locks = False
        notice(text)

    while True:
        with _gate(folder, notice):
            descriptor, holder = _try_file(path, say_that_there_are_none)
            if descriptor is not None:
                try:
                    holder = _holder_of_another(folder, path, excludes)
                except BaseException:  # Ctrl-C as well: an open file would stay locked
                    _release(path, descriptor)
                    raise
                if holder is None:
                    _sign(descriptor)
                    break
                _release(path, descriptor)
        if not wait:
            raise BusyError(
                f"{folder.parent}: another run works here ({holder}); "
                "wait for it with --wait, or name another --result-dir"
            )
        if not told:
            notice(f"{folder.parent}: waiting for another run ({holder})")
            told = True
        time.sleep(POLL)
    try:
        yield there_are_locks
    finally:
        _release(path, descriptor)


@contextlib.contextmanager
def _gate(folder: Path, notice: Callable[[str], None]) -> Iterator[None]:
    """Wait for the gate, which is only held for moments, and hold it."""
    path = folder / f"{_GATE}{_SUFFIX}"
    patient_until = time.monotonic() + GATE_PATIENCE
    while True:
        # Without locks there is no gate either; that is said of the lock itself.
        descriptor, holder = _try_file(path, lambda text: None)
        if descriptor is not None:
            break
        if time.monotonic() > patient_until:
            notice(f"{folder.parent}: waiting for another run to begin ({holder})")
            patient_until = float("inf")
        # Of many that begin together, no two keep step.
        time.sleep(random.uniform(0, 2 * GATE_POLL))
    try:
        yield
    finally:
        _release(path, descriptor)


def _holder_of_another(folder: Path, own: Path, excludes: Callable[[str], bool]) -> str | None:
    """Describe the holder of a lock that excludes ours; remove lock files without a holder."""
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        if path == own or not excludes(path.name.removesuffix(_SUFFIX)):
            continue
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:  # its holder has just finished
            continue
        try:
            free = try_lock(descriptor)
        except OSError:  # no locks here, as has been said
            os.close(descriptor)
            continue
        except BaseException:  # Ctrl-C as well: an open file would stay locked
            os.close(descriptor)
            raise
        if not free:
            try:
                return _describe(descriptor, path)
            finally:
                os.close(descriptor)
        # Whoever wants this lock waits at the gate, so nobody has it by now.
        _release(path, descriptor)
    return None


def _try_file(path: Path, notice: Callable[[str], None]) -> tuple[int | None, str | None]:
    """Create and lock a lock file. Return its descriptor, or else describe its holder."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # the last holder has removed the folder with its lock
            path.parent.mkdir(parents=True, exist_ok=True)
            continue
        try:
            ours = _try_lock_or_say(descriptor, path, notice)
            if ours and is_at(descriptor, path):
                return descriptor, None
            holder = _describe(descriptor, path)
        except BaseException:  # Ctrl-C as well: an open file would stay locked
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not ours and path.exists():
            return None, holder
        # Else the last holder has just finished and removed it.


def _release(path: Path, descriptor: int) -> None:
    # Before it is free, so that nobody finds it locked by a file that has no name any more.
    # Windows does not remove open files, and there the file stays.
    with contextlib.suppress(OSError):
        if is_at(descriptor, path):  # nobody has put another one there by hand
            path.unlink()
    os.close(descriptor)


def _try_lock_or_say(descriptor: int, path: Path, notice: Callable[[str], None]) -> bool:
    try:
        return try_lock(descriptor)
    except OSError as error:
        notice(
            f"{path.parent.parent}: this file system has no locks ({error.strerror}); "
            "make sure that no other run works here"
        )
        return True


def _sign(descriptor: int) -> None:
    """Write into the file who holds the lock. On a full disk it is held without that."""
    holder = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, (json.dumps(holder) + "\n").encode("ascii"))


def _describe(descriptor: int, path: Path) -> str:
    """Describe the holder of a lock from its file."""
    name = path.name.removesuffix(_SUFFIX)
    part = "" if name == "run" else f"{name}, "
    with contextlib.suppress(OSError, ValueError):
        match json_lines.parse(os.read(descriptor, 4096)):
            case {"pid": int(pid), "host": str(host), "since": str(since)}:
                if json_lines.is_whole(pid) and (host + since).isprintable():
                    return f"{part}process {pid} on {host}, since {since}"
    return f"{part}it has only just begun"
