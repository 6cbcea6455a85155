"""Files read whole and written whole: stable while read, atomic and durable when written.

A result is written under a temporary name in its own folder, flushed to the disk, and renamed.
While it is written it is locked, so that another run can tell the leftovers of a dead one from
the work of a live one, on whatever machine that is.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from restormer_cli.errors import ImageError, ResultFolderError, UsageError
from restormer_cli.lock import is_at, try_lock, unlock

TEMPORARY_SUFFIX = ".restormer-part"
#: Seconds between two looks at a file to which somebody else appends a line.
_LINE_POLL = 0.005
#: Seconds after which the line is appended all the same.
_LINE_PATIENCE = 10.0
#: Causes that the next result would meet as well.
_LASTING = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EIO", "ENODEV", "ENXIO", "ESTALE", "ENOTCONN")
    if hasattr(errno, name)  # Windows lacks some
}
#: What file systems say that know no flushing.
_NO_SYNC = {
    getattr(errno, name)
    for name in ("EINVAL", "ENOSYS", "ENOTSUP", "EOPNOTSUPP")
    if hasattr(errno, name)
}
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
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
    """Whether a folder is there; raises as :func:`file_mode`."""
    return stat.S_ISDIR(file_mode(path))


def is_file(path: Path) -> bool:
    """Whether a file is there that can be looked at: not in a folder that is closed, say."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises before Python 3.14


def file_size(path: Path) -> int:
    """Bytes of a file; 0 where that cannot be told, as reading it will say."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def read_file(
    path: Path, judge: Callable[[BinaryIO, int], None] | None = None
) -> tuple[bytes, Stamp]:
    """Read a regular file that nobody writes to meanwhile.

    Parameters
    ----------
    judge
        Told the open file and its size in bytes before more than that is read; raises
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


@contextlib.contextmanager
def atomic_file(
    path: Path, before_rename: Callable[[os.stat_result], None] | None = None
) -> Iterator[io.BufferedWriter]:
    """A binary file under a temporary name in the same folder, renamed to ``path`` when whole.

    Who may read and write it is what the system gives to any new file there: by the umask, or by
    the folder's default access list. A file that is replaced hands down its permissions.
    ``before_rename`` is told size and time of the whole file; what it raises undoes the write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = _locked_temporary(path.parent)
    try:
        _hand_down_permissions(path, descriptor)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            sync_file(descriptor)
            if before_rename is not None:
                before_rename(os.fstat(descriptor))
            if os.name != "nt":  # Windows does not rename open files
                temporary.replace(path)
        if os.name == "nt":
            temporary.replace(path)
    except BaseException:  # Ctrl-C as well: nothing is left half-written
        temporary.unlink(missing_ok=True)
        raise


def _locked_temporary(folder: Path) -> tuple[int, Path]:
    """A new file, open and locked; another machine may sweep it before it is locked."""
    while True:
        # The name of the result is left out: with it, the temporary one could grow too long.
        path = folder / f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
        try:
            descriptor = os.open(path, _NEW_FILE, 0o666)
        except FileExistsError:
            continue
        try:
            if try_lock(descriptor) and is_at(descriptor, path):
                return descriptor, path
        except OSError:  # no locks here, and no sweeping either
            return descriptor, path
        except BaseException:  # Ctrl-C as well: no empty file is left
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        os.close(descriptor)
        path.unlink(missing_ok=True)


def _hand_down_permissions(path: Path, descriptor: int) -> None:
    """Give a new file those of the one that it will replace, if they are others."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):  # nothing to replace, or a file system without any
        old, new = path.stat(), os.fstat(descriptor)
        differs = stat.S_IMODE(old.st_mode) ^ stat.S_IMODE(new.st_mode)
        if stat.S_ISREG(old.st_mode) and differs & 0o777:
            os.fchmod(descriptor, stat.S_IMODE(old.st_mode) & 0o777)


def write_file(
    path: Path, data: bytes, before_rename: Callable[[os.stat_result], None] | None = None
) -> None:
    """Write a file so that ``path`` holds all of it or what it held before.

    Raises
    ------
    ResultFolderError
        If the folder takes no more files: the disk is full, read-only or gone.
    ImageError
        If this file alone cannot be written.
    """
    try:
        with atomic_file(path, before_rename) as file:
            file.write(data)
    except OSError as error:
        lasting = error.errno in _LASTING or (
            error.errno in {errno.EACCES, errno.EPERM} and not os.access(path.parent, os.W_OK)
        )
        raise (ResultFolderError if lasting else ImageError)(
            f"{path}: cannot be written ({error.strerror or error})"
        ) from error


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


class LineFile:
    """A file that several processes, on several machines, append whole lines to.

    On one machine the system puts every line at the end. On a network file system the machines
    disagree about where that is, unless each line is written under a lock.

    Raises
    ------
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(path, flags, 0o666)

    def append(self, line: str) -> None:
        """Write a line; what is no text in it, of a name that is none, is escaped.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        data = (line + "\n").encode("utf-8", "backslashreplace")
        with contextlib.ExitStack() as stack:
            until = time.monotonic() + _LINE_PATIENCE
            with contextlib.suppress(OSError):  # no locks here
                while not (ours := try_lock(self._descriptor)) and time.monotonic() < until:
                    time.sleep(_LINE_POLL)
                if ours:
                    stack.callback(unlock, self._descriptor)
            while data:
                data = data[os.write(self._descriptor, data) :]

    def close(self) -> None:
        os.close(self._descriptor)


def sync_file(descriptor: int) -> None:
    """Flush an open file to the disk, where the system can.

    Raises
    ------
    OSError
        If the disk does not take it.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system can."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):  # some network file systems do not
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(folders: Iterable[Path], spare: float = 0.0) -> int:
    """Remove what dead runs have left half-written in folders; how many files.

    What a live run is writing is locked (on Windows: open) and stays. What cannot be judged or
    removed stays as well.

    Parameters
    ----------
    spare
        Leave alone what has changed in the last so many seconds: for those that have live
        neighbours, on machines that may not see each other's locks.
    """
    newest = time.time() - spare if spare else float("inf")
    count = 0
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") and entry.name.endswith(TEMPORARY_SUFFIX):
                    count += _remove_if_dead(Path(entry.path), newest)
    return count


def _remove_if_dead(path: Path, newest: float) -> bool:
    try:
        with path.open("r+b") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode) or facts.st_mtime > newest:
                return False
            if os.name != "nt":
                if not try_lock(file.fileno()):
                    return False
                path.unlink()
                return True
        path.unlink()
    except OSError:
        return False
    return True
