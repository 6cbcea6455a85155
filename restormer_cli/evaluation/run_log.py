"""How the results in a folder were made, as far as it is known.

Known is what the runs said in the lines of ``--log-json FILE``, and a file of such lines that lies
in the result folder is found by itself. Where there is none, the folder's own record tells which
inputs and weights the results came from. :func:`read_run_log` is the only door: whoever wants to
know how results were made asks here.
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

REPORT_SUFFIX = ".jsonl"
#: Characters of a line of ours at most: two paths and an error that names one, all escaped.
LONGEST_LINE = 1 << 20
#: After so many without a line of ours a file is taken for somebody else's.
FOREIGN_CHARACTERS = 1 << 26

#: Keys of a line that speak of the one image; all others are settings of the run.
_OF_IMAGE = frozenset({"input", "result", "status", "seconds", "width", "height", "error"})
#: What such a line says of an image that it did not touch.
_NOTHING_NEW = frozenset({"skipped", "planned"})


@dataclass(frozen=True)
class RunLine:
    """What a run said of one image."""

    input: str
    name: str
    """The result relative to the result folder, with ``/``; empty if it was given none."""
    failed: bool
    error: str | None
    seconds: float | None
    settings: Mapping[str, str] = field(default_factory=dict)
    """Weights, device, precision and whatever else the line says, by its keys."""


@dataclass(frozen=True)
class RunLog:
    """The last that was said of each image."""

    entries: list[RunLine] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    """What might have said more and could not be read."""

    @property
    def variants(self) -> list[Variant]:
        """The variants whose shipped weights made the results, in no special order."""
        labels = {entry.settings.get("weights", "") for entry in self.entries}
        found = {variant_of_weights(label) for label in labels if label}
        return [variant for variant in found if variant is not None]

    @property
    def settings(self) -> dict[str, Counter[str]]:
        """How many images were made with each value of each setting."""
        counts: dict[str, Counter[str]] = {}
        for entry in self.entries:
            for key, value in entry.settings.items():
                counts.setdefault(key, Counter())[value] += 1
        return counts


def read_run_log(result_dir: Path, report: Path | None = None) -> RunLog:
    """Read what is known of a folder of results.

    Parameters
    ----------
    report
        A file that ``--log-json`` wrote. By default every ``*.jsonl`` in the folder itself that
        holds such lines.

    Raises
    ------
    UsageError
        If ``report`` cannot be read or holds no such line.
    """
    notices: list[str] = []
    if report is not None:
        # One of the shell's has a writer: <(zcat run.jsonl.gz).
        if stat.S_ISFIFO(file_mode(report)) and not report.is_relative_to("/dev"):
            raise UsageError(f"{report}: is a pipe, not a report")
        entries = list(_read_lines(report, result_dir))
        if not entries:
            raise UsageError(f"{report}: holds no line that --log-json writes")
        files = [entries]
    else:
        files = []
        for path in sorted(_reports_in(result_dir), key=_age):
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
    """What the folder's own record says of the results that are still as they were written."""
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


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _reports_in(folder: Path) -> list[Path]:
    """What is called like a report; folders are not meant."""
    try:
        with os.scandir(folder) as entries:
            return [
                Path(entry.path)
                for entry in entries
                # os.path, since an entry raises where links go round in a circle.
                if entry.name.endswith(REPORT_SUFFIX) and not os.path.isdir(entry.path)  # noqa: PTH112
            ]
    except OSError:  # whoever looks for images there says so
        return []


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, of which none is longer than a report's can be.

    Ends early where none was ours for long: ``data.jsonl`` of somebody else may be huge.

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
    """True if a line looks like one of a report and can be one in every part."""
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
    """A result relative to its folder, also where the folder has been moved since."""
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
