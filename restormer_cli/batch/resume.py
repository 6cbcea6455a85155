"""Decides which images are still to be restored: restore, skip or refuse.

A result is done if the journal has an entry for the file as it is, with the inputs, weights and
settings of this run.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from restormer_cli.batch.items import Item
from restormer_cli.batch.journal import Journal
from restormer_cli.errors import ImageError
from restormer_cli.system.files import Stamp, absolute_path, is_link, read_file, why_no_file


@dataclass(frozen=True)
class Decision:
    """The decision about an image."""

    action: Literal["restore", "skip", "refuse"]
    reason: str = ""
    """The reason, for people; "" if it is obvious."""


RESTORE, DONE = Decision("restore"), Decision("skip")


def decide(
    journal: Journal, item: Item, *, checksum: bool = False, overwrite: bool = False
) -> Decision:
    """Decide about an image.

    Parameters
    ----------
    checksum
        Compare the content of the input, not its size and time.
    overwrite
        Restore it in any case.
    """
    try:
        there = item.result.stat()
    except OSError:
        # What a link leads to may be back tomorrow, with the disk that it is on.
        if is_link(item.result) and not overwrite:
            trouble = why_no_file(item.result, "a result")
            return Decision("refuse", f"{item.result} {trouble}; --overwrite replaces it")
        return RESTORE  # if the trouble is another, writing will say so
    if not stat.S_ISREG(there.st_mode):
        return Decision("refuse", f"{item.result} is in the way and no file")
    if overwrite:
        return RESTORE
    entry = journal.entry_at(item.result, there)
    if entry is None:
        return Decision("skip", "not in the record of this folder")
    if entry.settings.task != journal.settings.task:
        return Decision("skip", f"made by {entry.settings.task}")
    others = [path for path, _ in entry.sources]
    moved = others != [absolute_path(path) for path in item.sources]
    # Where both files are there, size and time may be the same by chance: frames of a scanner,
    # files of an archive.
    twins = moved and any(map(_both_there, item.sources, others))
    same = _same_content if checksum or twins else _same_stamp
    try:
        came_from_these = len(entry.sources) == len(item.sources) and all(
            same(path, stamp) for path, (_, stamp) in zip(item.sources, entry.sources, strict=True)
        )
    except (OSError, ImageError):
        return RESTORE  # reading the input will say what is wrong
    if not came_from_these:
        if moved:
            return Decision(
                "refuse",
                f"{item.result} is the result of {others[0]}; "
                "name another --result-dir, or replace it with --overwrite",
            )
        return Decision("restore", "input changed")
    changes = journal.settings.changes_from(entry.settings)
    return Decision("restore", ", ".join(changes) + " changed") if changes else DONE


def _both_there(path: Path, other: str) -> bool:
    """True if these are two files, not one that was moved or is reached by another path."""
    try:
        return not path.samefile(other)
    except OSError:
        return False


def _same_stamp(path: Path, stamp: Stamp) -> bool:
    facts = path.stat()
    return (facts.st_size, facts.st_mtime_ns) == (stamp.size, stamp.mtime)


def _same_content(path: Path, stamp: Stamp) -> bool:
    return path.stat().st_size == stamp.size and read_file(path)[1].digest == stamp.digest
