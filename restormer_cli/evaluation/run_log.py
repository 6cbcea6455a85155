"""Reads how the results in a folder were made, as far as it is known.

The lines of ``--log-json FILE`` tell; a file of such lines among the results is found by itself.
Without one, the journals of the folder tell the inputs and weights of the results.
"""

from __future__ import annotations

import codecs
import io
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from restormer_cli.batch.journal import Journal
from restormer_cli.errors import UsageError
from restormer_cli.settings import Settings
from restormer_cli.system import json_lines
from restormer_cli.system.files import file_mode, is_file, real_path, why_no_file
from restormer_cli.tasks import Variant, variant_of_weights

SUFFIX = ".jsonl"
#: Most characters of a line: two paths and an error that names one, all escaped.
LONGEST_LINE = 1 << 20
#: Characters without a line of ours after which a file counts as foreign.
FOREIGN_CHARACTERS = 1 << 26

#: Keys of a line on its image; all others are settings of the run.
_OF_IMAGE = frozenset({"input", "result", "status", "seconds", "width", "height", "error"})
#: Status of images that a run did not restore.
_NOTHING_NEW = frozenset({"skipped", "planned"})


@dataclass(frozen=True)
class RunLine:
    """The line of one image in a run log."""

    input: str
    name: str
    """The result relative to the result folder, with ``/``; empty if there is none."""
    failed: bool
    error: str | None
    seconds: float | None
    settings: Mapping[str, str] = field(default_factory=dict)
    """Weights, device, precision and other values of the line, by its keys."""


@dataclass(frozen=True)
class RunLog:
    """The last line of each image."""

    entries: list[RunLine] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    """Sentences on files that could not be read."""

    @property
    def variants(self) -> list[Variant]:
        """The variants whose shipped weights made the results, in no special order."""
        labels = {entry.settings.get("weights", "") for entry in self.entries}
        found = {variant_of_weights(label) for label in labels if label}
        return [variant for variant in found if variant is not None]

    @property
    def settings(self) -> dict[str, Counter[str]]:
        """The number of images for each value of each setting."""
        counts: dict[str, Counter[str]] = {}
        for entry in self.entries:
            for key, value in entry.settings.items():
                counts.setdefault(key, Counter())[value] += 1
        return counts


def read_run_log(result_dir: Path, log: Path | None = None) -> RunLog:
    """Read the run log of a folder of results.

    Parameters
    ----------
    log
        A file that ``--log-json`` wrote; by default every ``*.jsonl`` in the folder itself with
        such lines.

    Raises
    ------
    UsageError
        If ``log`` cannot be read or holds no such line.
    """
    notices: list[str] = []
    if log is not None:
        # One of the shell's has a writer: <(zcat run.jsonl.gz).
        if stat.S_ISFIFO(file_mode(log)) and not log.is_relative_to("/dev"):
            raise UsageError(f"{log}: is a pipe, not a report")
        entries = list(_read_lines(log, result_dir))
        if not entries:
            raise UsageError(f"{log}: holds no line that --log-json writes")
        files = [entries]
    else:
        files = []
        for path in sorted(_logs_in(result_dir), key=_time_of_change):
            try:
                if trouble := why_no_file(path, "a report"):
                    raise UsageError(f"{path}: {trouble}")
                files.append(list(_read_lines(path, result_dir)))
            except UsageError as error:  # nobody has asked for it
                notices.append(f"passed over: {error}")
        if not any(files):
            files = [list(_read_record(result_dir))]
    # Keyed by the result; what was given none can only be known by its input.
    last: dict[tuple[str, str], RunLine] = {}
    for entry in (entry for entries in files for entry in entries):
        last[entry.name, "" if entry.name else entry.input] = entry
    return RunLog(list(last.values()), notices)


def _read_record(result_dir: Path) -> Iterator[RunLine]:
    """Read the journals of the folder, for results that are still as they were written."""
    journal = Journal(result_dir, Settings())
    journal.load()
    for name in journal.entries:
        made = journal.entry_of(result_dir / name)
        if made is not None:
            settings = {
                "weights": made.settings.label,
                "window": made.settings.window,
                "self_ensemble": made.settings.self_ensemble,
            }
            yield RunLine(
                input=made.sources[0][0],
                name=name,
                failed=False,
                error=None,
                seconds=None,
                settings={key: value for key, value in settings.items() if value},
            )


def _time_of_change(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _logs_in(folder: Path) -> list[Path]:
    """Files named like run logs."""
    try:
        with os.scandir(folder) as entries:
            return [
                Path(entry.path)
                for entry in entries
                # os.path, since an entry raises where links go round in a circle.
                if entry.name.endswith(SUFFIX) and not os.path.isdir(entry.path)  # noqa: PTH112
            ]
    except OSError:  # whoever looks for images there says so
        return []


def _lines(path: Path) -> Iterator[str]:
    """Read the lines of a text file; longer ones than a run log can have are cut in pieces.

    Raises
    ------
    UsageError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            wide = file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # of PowerShell
            encoding, errors = ("utf-16", "replace") if wide else ("utf-8-sig", "surrogateescape")
            lines = io.TextIOWrapper(file, encoding, errors, newline="\n")
            # Names may hold what splitlines() takes for an end of line.
            while line := lines.readline(LONGEST_LINE):
                yield line
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error


def _read_lines(path: Path, result_dir: Path) -> Iterator[RunLine]:
    """Read the lines of a run log; stop early in a foreign file, which may be huge."""
    folder = real_path(result_dir)
    foreign = 0
    for line in _lines(path):
        foreign += len(line)
        if foreign > FOREIGN_CHARACTERS:
            return
        try:
            values = json_lines.parse(line)
        except ValueError:  # the last line of a run that was killed, say
            continue
        if not _is_ours(values):
            continue
        foreign = 0
        if values["status"] not in _NOTHING_NEW:
            yield _entry(values, folder)


def _is_ours(values: Any) -> bool:
    """True if a value can be a line of a run log, in every part."""
    if not (isinstance(values, dict) and values.keys() >= _OF_IMAGE):
        return False
    seconds, error = values["seconds"], values["error"]
    return (
        values["status"] in ("done", "skipped", "failed", "planned")
        and json_lines.is_path(values["input"])
        and (values["result"] in ("", None) or json_lines.is_path(values["result"]))
        and (error is None or isinstance(error, str))
        and (seconds is None or (isinstance(seconds, (int, float)) and 0 <= seconds < 1e12))
    )


def _entry(values: Mapping[str, Any], folder: Path) -> RunLine:
    seconds = values["seconds"]
    return RunLine(
        input=values["input"],
        name=_name(values["result"] or "", folder),
        failed=values["status"] == "failed",
        error=values["error"],
        seconds=None if seconds is None else float(seconds),
        settings={
            key: str(value)
            for key, value in values.items()
            if key not in _OF_IMAGE and value is not None and not isinstance(value, (dict, list))
        },
    )


def _name(result: str, folder: Path) -> str:
    """The path of a result relative to its folder, also if that was moved since."""
    if not result:
        return ""
    path = real_path(Path(result).parent) / Path(result).name
    if path.name in ("", ".."):  # no file
        return ""
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    tails = [PurePath(*path.parts[start:]) for start in range(1, len(path.parts))]
    there = (tail for tail in tails if ".." not in tail.parts and is_file(folder / tail))
    return next(there, PurePath(path.name)).as_posix()
