"""Writes files that appear whole or not at all.

A file is written under a temporary name in its own folder, flushed to the disk, and renamed. While
it is written it is locked, so that another process, on any machine, knows it from the leftovers of
a dead one.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from restormer_cli.errors import ImageError, ResultFolderError
from restormer_cli.system.files import in_the_way
from restormer_cli.system.locks import is_at, try_lock

TEMPORARY_SUFFIX = ".restormer-part"


#: Errors that the next file would meet as well.
_LASTING = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EIO", "ENODEV", "ENXIO", "ESTALE", "ENOTCONN")
    if hasattr(errno, name)  # Windows lacks some
}
#: Errors of file systems that cannot flush.
_NO_SYNC = {
    getattr(errno, name)
    for name in ("EINVAL", "ENOSYS", "ENOTSUP", "EOPNOTSUPP")
    if hasattr(errno, name)
}
#: Errors where something else stands in the place of a folder.
_NO_FOLDER = {errno.EEXIST, errno.ENOTDIR}
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


@contextlib.contextmanager
def atomic_file(
    path: Path, before_rename: Callable[[os.stat_result], None] | None = None
) -> Iterator[io.BufferedWriter]:
    """Open a binary file under a temporary name in the same folder; rename it when it is whole.

    The file has the usual permissions of new files, by the umask or the folder's default access
    list, or those of the file that it replaces.

    Parameters
    ----------
    path
        The name of the whole file.
    before_rename
        Called with the status of the whole file. If it raises an exception, nothing is renamed.
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
    """Create a file and lock it; try again if another machine swept it before it was locked."""
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
    """Give a new file the permissions of the file that it replaces, if they differ."""
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
    """Write a file whole, or leave ``path`` as it was; parameters as of :func:`atomic_file`.

    Raises
    ------
    ResultFolderError
        If no file can be written there: the disk is full, read-only or gone.
    ImageError
        If this file cannot be written.
    """
    try:
        with atomic_file(path, before_rename) as file:
            file.write(data)
    except OSError as error:
        lasting = error.errno in _LASTING or (
            error.errno in {errno.EACCES, errno.EPERM} and not os.access(path.parent, os.W_OK)
        )
        obstacle = in_the_way(path.parent) if error.errno in _NO_FOLDER else ""
        raise (ResultFolderError if lasting else ImageError)(
            f"{path}: cannot be written ({obstacle or error.strerror or error})"
        ) from error


def sync_file(descriptor: int) -> None:
    """Flush an open file to the disk, if the file system can.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, if the file system can."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):  # some network file systems do not
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(folders: Iterable[Path], spare: float = 0.0) -> int:
    """Remove temporary files of dead runs.

    Files of live runs are locked (on Windows: open) and stay. Files that cannot be removed stay as
    well.

    Parameters
    ----------
    folders
        Folders to look in, without their sub-folders.
    spare
        Keep files that have changed in the last so many seconds. For folders in which other
        machines are at work, whose locks may not be visible.

    Returns
    -------
    int
        The number of files removed.
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
