"""One run at a time in a result folder.

The lock is that of the operating system (``flock``, on Windows ``msvcrt.locking``), which ends
with the process that holds it, however that ends: a dead holder blocks nobody, and no process
number has to be judged. Linux passes it on to the server of a network file system, so it holds
between machines. Where a file system has no locks, the run goes on and says so.

A lock has a name, so that parts of one run that share a folder can each have their own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from restormer_cli.errors import BusyError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_HELD = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK}
#: Windows locks bytes, and nobody else can read those: one far behind the end is taken.
_LOCKED_BYTE = 1 << 30
#: Seconds between two looks at a lock that somebody else holds.
POLL = 0.5


def try_lock(descriptor: int) -> bool:
    """Lock an open file, unless somebody else has; closing it or the process's end unlocks.

    Raises
    ------
    OSError
        If the file system has no locks.
    """
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


@contextlib.contextmanager
def folder_lock(
    folder: Path,
    *,
    name: str = "run",
    wait: bool = False,
    notice: Callable[[str], None] = lambda text: None,
) -> Iterator[None]:
    """Hold the lock ``name`` of a folder, which exists; its file is removed in the end.

    Parameters
    ----------
    wait
        Wait until it is free.
    notice
        Told who is waited for, and when there can be no lock.

    Raises
    ------
    BusyError
        If somebody else has it and ``wait`` is not set.
    OSError
        If the folder cannot be written to.
    """
    path = folder / f"{name}.lock"
    descriptor = _acquire(path, wait, notice)
    try:
        yield
    finally:
        # Before it is free, so that nobody finds it locked by a file that has no name any more.
        # Windows does not remove open files, and there the file stays.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _acquire(path: Path, wait: bool, notice: Callable[[str], None]) -> int:
    told = False
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # the last holder has removed the folder with its lock
            path.parent.mkdir(parents=True, exist_ok=True)
            continue
        try:
            ours = _try_lock_or_say(descriptor, path, notice)
            if ours and _is_at(descriptor, path):
                _sign(descriptor)
                return descriptor
            holder = _describe(descriptor)
        except BaseException:  # Ctrl-C as well: an open file would stay locked
            os.close(descriptor)
            raise
        os.close(descriptor)
        if ours or not path.exists():  # the last holder has just finished and removed it
            continue
        if not wait:
            raise BusyError(
                f"{path.parent.parent}: another run works here ({holder}); "
                "wait for it with --wait, or name another --result-dir"
            )
        if not told:
            notice(f"{path.parent.parent}: waiting for another run ({holder})")
            told = True
        time.sleep(POLL)


def _try_lock_or_say(descriptor: int, path: Path, notice: Callable[[str], None]) -> bool:
    try:
        return try_lock(descriptor)
    except OSError as error:
        notice(
            f"{path.parent.parent}: this file system has no locks ({error.strerror}); "
            "make sure that no other run works here"
        )
        return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Say in the file who holds the lock. On a full disk nobody learns it, but it is held."""
    holder = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, (json.dumps(holder) + "\n").encode("ascii"))


def _describe(descriptor: int) -> str:
    """Who holds a lock, as the file says."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        holder = json.loads(os.read(descriptor, 4096))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    return "it has only just begun"
