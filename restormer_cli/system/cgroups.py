"""Control groups: limits that a container or a service manager sets (Linux only)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def folders(controller: str, root: Path = ROOT) -> Iterator[tuple[Path, bool]]:
    """Find the groups around this process that limit a resource, innermost first.

    Parameters
    ----------
    controller
        The kernel's name for the resource: ``memory``, ``cpu``.

    Yields
    ------
    Path
        The folder of the group's files.
    bool
        True if they are those of version 2.
    """
    try:
        # Names are bytes, as those of all folders.
        text = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    for line in filter(None, text.split("\n")):
        _, controllers, name = line.split(":", 2)
        unified = controllers == ""
        if not unified and controller not in controllers.split(","):
            continue
        base = root if unified else root / controller
        group = base / name.lstrip("/")
        # In a container the path is that of the host, and the files are at the root.
        for folder in [group, *group.parents]:
            yield folder, unified
            if folder == base:
                break
