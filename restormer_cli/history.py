"""How the results in a folder were made, as far as it is known.

Known is what the runs said in the lines of ``--report FILE``, and a file of such lines that lies
in the result folder is found by itself. Where there is none, the folder's own record tells which
inputs and weights the results came from. :func:`read_history` is the only door: whoever wants to
know how results were made asks here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from restormer_cli import jsonlines
from restormer_cli.errors import UsageError
from restormer_cli.files import is_file, real_path
from restormer_cli.record import Record, Settings
from restormer_cli.tasks import Variant, variant_of_weights

REPORT_SUFFIX = ".jsonl"

#: Keys of a line that speak of the one image; all others are settings of the run.
_OF_IMAGE = frozenset({"input", "result", "status", "seconds", "width", "height", "error"})
#: What such a line says of an image that it did not touch.
_NOTHING_NEW = frozenset({"skipped", "planned"})


@dataclass(frozen=True)
class Entry:
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
class History:
    """The last that was said of each image."""

    entries: list[Entry] = field(default_factory=list)

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


def read_history(result_dir: Path, report: Path | None = None) -> History:
    """Read what is known of a folder of results.

    Parameters
    ----------
    report
        A file that ``--report`` wrote. By default every ``*.jsonl`` in the folder itself that
        holds such lines.

    Raises
    ------
    UsageError
        If ``report`` cannot be read or holds no such line.
    """
    if report is not None:
        entries = list(_read_lines(report, result_dir))
        if not entries:
            raise UsageError(f"{report}: holds no line that restormer --report writes")
        files = [entries]
    else:
        found = sorted(result_dir.glob(f"*{REPORT_SUFFIX}"), key=_age)
        files = [list(_read_lines(path, result_dir)) for path in found]
        if not any(files):
            files = [list(_read_record(result_dir))]
    # Keyed by the result; what was given none can only be known by its input.
    last: dict[tuple[str, str], Entry] = {}
    for entry in (entry for entries in files for entry in entries):
        last[entry.name, "" if entry.name else entry.input] = entry
    return History(list(last.values()))


def _read_record(result_dir: Path) -> Iterator[Entry]:
    """What the folder's own record says of the results that are still as they were written."""
    record = Record(result_dir, Settings())
    record.load()
    for name in record.entries:
        made = record.entry_of(result_dir / name)
        if made is not None:
            yield Entry(
                input=made.sources[0][0],
                name=name,
                failed=False,
                error=None,
                seconds=None,
                settings={"weights": made.settings.label} if made.settings.label else {},
            )


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _read_lines(path: Path, result_dir: Path) -> Iterator[Entry]:
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    folder = result_dir.resolve()
    for line in text.split("\n"):  # names may hold what splitlines() takes for an end of line
        try:
            values = jsonlines.parse(line)
        except ValueError:  # the last line of a run that was killed, say
            continue
        if _is_ours(values) and values["status"] not in _NOTHING_NEW:
            yield _entry(values, folder)


def _is_ours(values: Any) -> bool:
    """Whether a line looks like one of a report and can be one in every part."""
    if not (isinstance(values, dict) and values.keys() >= _OF_IMAGE):
        return False
    seconds, error = values["seconds"], values["error"]
    return (
        values["status"] in ("done", "skipped", "failed", "planned")
        and jsonlines.is_path(values["input"])
        and (values["result"] in ("", None) or jsonlines.is_path(values["result"]))
        and (error is None or isinstance(error, str))
        and (seconds is None or (isinstance(seconds, (int, float)) and 0 <= seconds < 1e12))
    )


def _entry(values: Mapping[str, Any], folder: Path) -> Entry:
    seconds = values["seconds"]
    return Entry(
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
