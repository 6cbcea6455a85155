"""Locks of open files, which end with the process that holds them."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


_HELD = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK}
#: Windows locks bytes, which others then cannot read. So one far behind the end is locked.
_LOCKED_BYTE = 1 << 30


def try_lock(descriptor: int) -> bool:
    """Lock an open file, until it is closed or the process ends; False if another holds it.

    Raises
    ------
    OSError
        If the file system has no locks.
    """
    try:
        if sys.platform == "win32":
            _lock_byte(descriptor, msvcrt.LK_NBLCK)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


def unlock(descriptor: int) -> None:
    """Release the lock of :func:`try_lock`, and keep the file open."""
    if sys.platform == "win32":
        _lock_byte(descriptor, msvcrt.LK_UNLCK)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_at(descriptor: int, path: Path) -> bool:
    """True if an open file is still the one at this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ESTALE}:  # the latter if another machine removed it
            return False
        raise


def _lock_byte(descriptor: int, mode: int) -> None:
    """Lock or unlock as Windows does; the file is then at its beginning, whatever came of it."""
    if sys.platform == "win32":
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, mode, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
