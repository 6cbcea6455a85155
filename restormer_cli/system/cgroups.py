"""Control groups: what a container or a service manager leaves to this process (Linux only)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def folders(controller: str, root: Path = ROOT) -> Iterator[tuple[Path, bool]]:
    """The groups around this process, innermost first, that rule over a resource.

    Parameters
    ----------
    controller
        As the kernel calls it: ``memory``, ``cpu``.

    Yields
    ------
    Path
        Where the group's files are.
    bool
        Whether they are those of version 2.
    """
    try:
        memberships = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in memberships:
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
