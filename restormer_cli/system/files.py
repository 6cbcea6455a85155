"""Files read whole and written whole: stable while read, atomic and durable when written.

A result is written under a temporary name in its own folder, flushed to the disk, and renamed.
While it is written it is locked, so that another run can tell the leftovers of a dead one from
the work of a live one, on whatever machine that is.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from restormer_cli.errors import ImageError, UsageError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)  # a record may hold millions
class Stamp:
    """What tells a file's content from another one's."""

    size: int
    """Bytes."""
    mtime: int
    """Last change, in nanoseconds since 1970."""
    digest: str
    """BLAKE2b of the content, 128 bit, in hexadecimal."""


def digest(data: bytes) -> str:
    """The :attr:`Stamp.digest` of a content."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def kind(mode: int) -> str:
    """What a file is that is no regular one, such as ``a pipe``."""
    return _KINDS.get(stat.S_IFMT(mode), "no regular file")


def why_no_file(path: Path, wanted: str) -> str:
    """Why a name found in a folder is not opened, as a pipe would block; empty if it is a file.

    Parameters
    ----------
    wanted
        What it should be, such as ``an image file``.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to a file that is not there"
    except OSError as error:  # a link to itself, say
        return f"cannot be read ({error.strerror or error})"
    return "" if stat.S_ISREG(mode) else f"is {kind(mode)}, not {wanted}"


def real_path(path: Path) -> Path:
    """The path free of links, as far as it can be looked at."""
    return Path(os.path.realpath(path))  # Path.resolve raises where links go round in a circle


def file_mode(path: Path) -> int:
    """What is there, as ``st_mode`` tells it; 0 if nothing is.

    Raises
    ------
    UsageError
        If the path cannot be looked at: its folder is closed, say, or it is too long.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise UsageError(f"{path}: cannot be looked at ({error.strerror or error})") from error


def is_folder(path: Path) -> bool:
    """True if a folder is there; raises as :func:`file_mode`."""
    return stat.S_ISDIR(file_mode(path))


def is_file(path: Path) -> bool:
    """True if a file is there that can be looked at: not in a folder that is closed, say."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises before Python 3.14


def file_size(path: Path) -> int:
    """Bytes of a file; 0 where that cannot be told, as reading it will say."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def open_regular(path: Path, mode: Literal["rb", "r+b"] = "rb") -> BinaryIO:
    """Open a file that has an end: a pipe or a device may give bytes for ever, or never one.

    Raises
    ------
    OSError
        If it cannot be opened, or is no regular file.
    """
    check_regular(path.stat().st_mode, path)
    return path.open(mode)


def check_regular(mode: int, path: Path) -> None:
    """See that a mode is that of a regular file.

    Raises
    ------
    OSError
        If not.
    """
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"is {kind(mode)}, not a file", str(path))


def read_file(
    path: Path, judge: Callable[[BinaryIO, int], None] | None = None
) -> tuple[bytes, Stamp]:
    """Read a regular file that nobody writes to meanwhile.

    Parameters
    ----------
    judge
        Called with the open file and its size in bytes before more of it is read; raises
        ImageError to refuse it.

    Raises
    ------
    ImageError
        If it cannot be read, is a pipe or a device, or changes while it is read.
    """
    try:
        # A pipe without a writer would block for ever, so look before opening.
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise ImageError(f"{path}: is {kind(mode)}, not an image file")
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            if judge is not None:
                judge(file, before.st_size)
                file.seek(0)
            data = file.read(before.st_size + 1)  # one more tells that it grows
            after = os.fstat(file.fileno())
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror or error})") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(
        data
    ) != after.st_size:
        raise ImageError(f"{path}: changed while it was read; run again when it is complete")
    return data, Stamp(len(data), after.st_mtime_ns, digest(data))


def file_head(path: Path) -> bytes:
    """The first kilobyte of a file, to see of what kind it is.

    Raises
    ------
    UsageError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(1024)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error


def refuse_other_file(path: Path, start: bytes, reason: str) -> None:
    """Before output is written: a file of the user's, named by mistake, must not be harmed.

    What cannot be read is left to the writing.

    Raises
    ------
    UsageError
        With ``reason``, if ``path`` is a file that is not empty and does not begin with ``start``.
    """
    if is_file(path) and os.access(path, os.R_OK):
        head = file_head(path)
        if head and not head.startswith(start):
            raise UsageError(f"{path}: {reason}")
