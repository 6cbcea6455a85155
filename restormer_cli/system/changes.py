"""Changes in folders: told by the system, or looked for where it is not told of them."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from restormer_cli.system import stopping
from restormer_cli.system.files import real_path

logger = logging.getLogger(__name__)

#: Milliseconds that a wait for changes takes at most.
TICK = 250
#: And between two looks where the system is not asked.
POLL = 2000
#: File systems that other machines, or the host of a virtual one, change unseen by this one.
_NETWORK = frozenset(
    {"nfs", "nfs3", "nfs4", "cifs", "smb2", "smb3", "smbfs", "afpfs", "webdav", "davfs", "afs"}
    | {"ceph", "glusterfs", "lustre", "gpfs", "beegfs", "ocfs2", "gfs2", "ncpfs"}
    | {"9p", "vboxsf", "vmhgfs", "prl_fs", "virtiofs", "drvfs"}
)


class Change(NamedTuple):
    """One change of a file or folder."""

    path: str
    modified: bool
    """True if it was there before and is there now."""


class _Stop:
    """Ends a wait for changes when a signal has come."""

    def is_set(self) -> bool:
        return stopping.is_waiting()


def is_on_network(folder: Path) -> bool:
    """True if a folder lies where other machines may change it, as far as the system tells."""
    real = real_path(folder)
    if str(real).startswith("\\\\"):
        return True
    mounts = []
    with contextlib.suppress(OSError, RuntimeError):  # no /proc, say
        mounts = psutil.disk_partitions(all=True)
    holding = [mount for mount in mounts if real.is_relative_to(mount.mountpoint)]
    if not holding:
        return False
    # Of several at one place the last covers the others.
    mount = max(enumerate(holding), key=lambda one: (len(one[1].mountpoint), one[0]))[1]
    kind = mount.fstype.lower()
    # fuseblk is a local disk; what the others are, nobody knows.
    return kind in _NETWORK or kind.startswith("fuse.") or "remote" in mount.opts.split(",")


def changes(
    folders: Sequence[Path], trees: Iterable[Path] | None, polling: bool
) -> Generator[tuple[Change, ...]]:
    """Changes right in folders as they come; nothing now and then, and at once to begin with.

    A signal that stops the run is raised from here.

    Parameters
    ----------
    folders
        All that are to be watched, sub-folders included.
    trees
        Folders in which all of these lie, if there are sub-folders among them.
    polling
        Look for changes instead of waiting to be told.

    Raises
    ------
    FileNotFoundError
        If one of the folders is not there.
    """
    import watchfiles

    while True:
        # Watching trees, the library would follow links on Linux. Windows lets no folder be
        # renamed that is watched for itself.
        whole = trees is not None and not polling and sys.platform != "linux"
        try:
            stream = watchfiles.watch(
                *(trees if trees is not None and whole else folders),
                watch_filter=None,
                stop_event=_Stop(),
                rust_timeout=TICK,
                yield_on_timeout=True,
                force_polling=polling or None,
                poll_delay_ms=POLL,
                recursive=whole,
                ignore_permission_denied=True,
            )
            while True:
                # Raised inside of the library, a stop would become another exception.
                with stopping.uninterrupted():
                    found = next(stream, None)
                if found is None:
                    break
                yield tuple(
                    Change(path, change is watchfiles.Change.modified) for change, path in found
                )
        except FileNotFoundError:
            raise
        except (OSError, RuntimeError) as error:
            if polling:
                raise
            # The number of folders that Linux watches is limited.
            logger.warning(f"changes are looked for every {POLL / 1000:.0f} s ({error})")
            polling = True
