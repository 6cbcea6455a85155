"""Reads files whole, and tells kinds of files apart.

Paths come from people and from folders of others. So pipes and devices are not opened, and a folder
that cannot be accessed is an error with a sentence.
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
#: Suffixes of files that browsers and other programs have not finished, such as ``a.jpg.part``.
UNFINISHED = (
    ".part", ".partial", ".crdownload", ".opdownload", ".download", ".filepart", ".aria2", ".tmp",
    ".temp",
)  # fmt: skip


@dataclass(frozen=True, slots=True)  # a record may hold millions
class Stamp:
    """Identifies the content of a file."""

    size: int
    """Bytes."""
    mtime: int
    """Last change, in nanoseconds since 1970."""
    digest: str
    """BLAKE2b of the content, 128 bit, in hexadecimal."""


def digest(data: bytes) -> str:
    """Compute :attr:`Stamp.digest` of some content."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def kind(mode: int) -> str:
    """Name the kind of a file that is not regular, such as ``a pipe``."""
    return _KINDS.get(stat.S_IFMT(mode), "no regular file")


def why_no_file(path: Path, wanted: str) -> str:
    """The reason not to open an entry of a folder; empty if it is a regular file.

    Parameters
    ----------
    wanted
        The expected kind, such as ``an image file``.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to a file that is not there"
    except OSError as error:  # a link to itself, say
        return f"cannot be read ({error.strerror or error})"
    return "" if stat.S_ISREG(mode) else f"is {kind(mode)}, not {wanted}"


def in_the_way(folder: Path) -> str:
    """What keeps a folder from being made, as a sentence that names it; empty if nothing does."""
    for place in (folder, *folder.parents):
        if os.path.lexists(place):
            if os.path.isdir(place):  # noqa: PTH112 - Path.is_dir raises before Python 3.14
                return ""
            gone = not os.path.exists(place)  # noqa: PTH110 - as above, where links go round
            return f"{place} is {'a link to a folder that is not there' if gone else 'a file'}"
    return ""


def real_path(path: Path) -> Path:
    """Resolve links in a path, as far as it can be accessed."""
    return Path(os.path.realpath(path))  # Path.resolve raises where links go round in a circle


def absolute_path(path: Path | str) -> str:
    """The path from the root of the file system; links stay as they are."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve would follow links


def file_mode(path: Path) -> int:
    """The ``st_mode`` of a path; 0 if nothing is there.

    Raises
    ------
    UsageError
        If the path cannot be accessed: its folder is closed, say, or it is too long.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise UsageError(f"{path}: cannot be looked at ({error.strerror or error})") from error


def is_folder(path: Path) -> bool:
    """True if the path is a folder; raises as :func:`file_mode`."""
    return stat.S_ISDIR(file_mode(path))


def is_file(path: Path) -> bool:
    """True if the path is a file that can be accessed."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises before Python 3.14


def is_link(path: Path) -> bool:
    """True if the path is a link, wherever that leads; False also if it cannot be looked at."""
    return os.path.islink(path)  # noqa: PTH114 - as above


def file_size(path: Path) -> int:
    """Bytes of a file; 0 if that is not known, since reading it will raise the error."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def open_regular(path: Path, mode: Literal["rb", "r+b"] = "rb") -> BinaryIO:
    """Open a regular file; a pipe or a device may give bytes for ever, or never one.

    Raises
    ------
    OSError
        If it cannot be opened, or is no regular file.
    """
    check_regular(path.stat().st_mode, path)
    return path.open(mode)


def check_regular(mode: int, path: Path) -> None:
    """Check that a mode is that of a regular file.

    Raises
    ------
    OSError
        If it is not.
    """
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"is {kind(mode)}, not a file", str(path))


def read_file(
    path: Path, judge: Callable[[BinaryIO, int], None] | None = None
) -> tuple[bytes, Stamp]:
    """Read a regular file, and make sure that it did not change meanwhile.

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
    """Read the first kilobyte of a file.

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
    """Refuse to overwrite a file that is not one of ours.

    A file that cannot be read passes, since writing it will raise the error.

    Raises
    ------
    UsageError
        With ``reason``, if ``path`` is a file that is not empty and does not begin with ``start``.
    """
    if is_file(path) and os.access(path, os.R_OK):
        head = file_head(path)
        if head and not head.startswith(start):
            raise UsageError(f"{path}: {reason}")
