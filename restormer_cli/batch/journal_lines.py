"""The lines of a journal: how a header and an entry are written, and which lines are believed.

A line is either a header, the settings of all entries that follow, or an entry::

    {"settings": {"task": "derain", "weights": "225e…", …}, "version": "0.1.0"}
    ["a.png", [size, mtime], [["/photos/a.jpg", size, mtime, digest]]]
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, NamedTuple

from restormer_cli.settings import Settings
from restormer_cli.system import json_lines
from restormer_cli.system.files import Stamp
from restormer_cli.version import __version__

_SETTINGS = frozenset(field.name for field in dataclasses.fields(Settings))


class JournalEntry(NamedTuple):
    """One result as it was written."""

    size: int
    mtime: int
    sources: tuple[tuple[str, Stamp], ...]
    settings: Settings


def key_of(name: str) -> bytes:
    """The beginning of the line of a result, up to the end of its name."""
    return b"[" + json.dumps(name)[:-1].encode("ascii")


def header_line(settings: Settings) -> str:
    """The line for the settings of all entries below."""
    return json.dumps({"settings": dataclasses.asdict(settings), "version": __version__})


def entry_line(name: str, entry: JournalEntry) -> str:
    """The line for an entry, without its settings, which the header above holds."""
    sources = [[path, *dataclasses.astuple(stamp)] for path, stamp in entry.sources]
    return json.dumps([name, [entry.size, entry.mtime], sources])


def parse_line(
    line: bytes, settings: Settings | None
) -> tuple[Settings | None, tuple[str, JournalEntry] | None]:
    """Parse a line of a journal.

    A line counts only if it is sound in every part. After a damaged line that may have been a
    header, entries do not count until the next header.

    Parameters
    ----------
    line
        The line.
    settings
        The header above it, if any.

    Returns
    -------
    Settings or None
        The header for the lines below.
    tuple or None
        The name of a result and its entry, if the line is an entry.
    """
    doubtful = line.startswith(b"{") or b"\0" in line
    try:
        parsed = json_lines.parse(line)
    except ValueError:
        return None if doubtful else settings, None
    if isinstance(parsed, dict):
        return _settings_of(parsed.get("settings")), None
    made = None if settings is None else _entry_of_line(parsed, settings)
    return None if doubtful else settings, made


def _settings_of(values: object) -> Settings | None:
    if not isinstance(values, dict) or not values.keys() <= _SETTINGS:
        return None
    if not all(isinstance(value, str) or value is None for value in values.values()):
        return None
    return Settings(**values)


def _entry_of_line(parsed: Any, settings: Settings) -> tuple[str, JournalEntry] | None:
    try:
        name, (size, mtime), parts = parsed
        sources = tuple((path, Stamp(*stamp)) for path, *stamp in parts)
    except (TypeError, ValueError):
        return None
    sound = json_lines.is_name_inside(name) and json_lines.is_whole(size)
    if not (sound and json_lines.is_whole(mtime) and sources):
        return None
    for path, stamp in sources:
        sound = json_lines.is_path(path) and isinstance(stamp.digest, str)
        if not (sound and json_lines.is_whole(stamp.size) and json_lines.is_whole(stamp.mtime)):
            return None
    return name, JournalEntry(size, mtime, sources, settings)
