"""Finds the subjects of a report: the files and the outcome of each image."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from restormer_cli.batch.discovery import find_work, list_images
from restormer_cli.batch.items import natural_key
from restormer_cli.batch.journal import known_origins
from restormer_cli.batch.walk import BELOW
from restormer_cli.errors import UsageError
from restormer_cli.evaluation.metrics import Metrics
from restormer_cli.evaluation.pairing import Pairing, pair_names
from restormer_cli.evaluation.run_log import RunLine, RunLog
from restormer_cli.images.formats import PNG, result_suffixes
from restormer_cli.system.files import is_file, is_folder

Role = Literal["input", "result", "target"]
Status = Literal["restored", "uncompared", "failed", "missing"]


@dataclass
class View:
    """One picture of a subject."""

    path: Path
    width: int
    height: int
    media: str | None
    """None if browsers do not show the file."""
    thumbnail: bytes
    """A JPEG; empty when it is in the store."""
    kept: str = ""
    """The name of the thumbnail in the store."""


@dataclass
class Subject:
    """One image of a report, with its pictures and metrics when its files have been read."""

    name: str
    """Name of the result relative to its folder, with ``/``; without one, of the input."""
    status: Status
    files: dict[Role, Path] = field(default_factory=dict)
    reason: str | None = None
    """The reason if it failed or could not be compared."""
    seconds: float | None = None
    views: dict[Role, View] = field(default_factory=dict)
    before: Metrics | None = None
    """Of the input."""
    after: Metrics | None = None
    """Of the result."""


def find_subjects(
    result_dir: Path,
    run_log: RunLog,
    *,
    input_dir: Path | None = None,
    target_dir: Path | None = None,
    recursive: bool = False,
) -> tuple[list[Subject], list[str]]:
    """Find all results of a folder, images that are not restored yet, and failed ones.

    Parameters
    ----------
    result_dir
        The folder of results.
    run_log
        The lines of the runs; inputs that they name are shown if they are still there.
    input_dir
        The folder that the results came from; of dual pixels that of the left views.
    target_dir
        A folder of true images, paired by name as ``restormer evaluate`` does.

    Returns
    -------
    list of Subject
        In natural order of their names.
    list of str
        Sentences on files that were passed over.

    Raises
    ------
    UsageError
        If a folder does not exist, or there is nothing to show.
    """
    for folder in (result_dir, input_dir, target_dir):
        if folder is not None and not is_folder(folder):
            raise UsageError(f"{folder}: no such folder")
    results = list_images(result_dir, recursive)
    # What lies in sub-folders of results is the business of another report.
    notices = [text for text in results.notices if not text.endswith(BELOW)]
    subjects = {name: Subject(name, "restored") for name in results.names}
    for name, subject in subjects.items():
        subject.files["result"] = result_dir / name
    if target_dir is not None:
        _add_targets(subjects, target_dir, recursive, notices)
    for name, reason in results.problems.items():
        subjects[name] = Subject(name, "failed", reason=reason)
    for entry in run_log.entries:
        _add_entry(subjects, entry)
    if input_dir is not None:
        _add_inputs(subjects, input_dir, result_dir, recursive, notices)
    if not subjects:
        raise UsageError("; ".join([f"{result_dir}: no images found", *notices]))
    return sorted(subjects.values(), key=lambda subject: natural_key(subject.name)), notices


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _add_targets(
    subjects: dict[str, Subject], target_dir: Path, recursive: bool, notices: list[str]
) -> None:
    targets = list_images(target_dir, recursive)
    notices += targets.notices
    notices += [f"{target_dir / name}: {reason}" for name, reason in targets.problems.items()]
    if not targets.names:
        raise UsageError("; ".join([f"{target_dir}: no images found", *notices]))
    pairing: Pairing = pair_names(list(subjects), targets.names)
    for name, target in pairing.pairs:
        subjects[name].files["target"] = target_dir / target
    for name in pairing.unmatched_results:
        subjects[name].status, subjects[name].reason = "uncompared", "has no target"
    for name, reason in pairing.errors.items():
        subjects[name].status, subjects[name].reason = "uncompared", reason


def _add_entry(subjects: dict[str, Subject], entry: RunLine) -> None:
    name = entry.name or Path(entry.input).name
    subject = subjects.get(name)
    if subject is None:
        if not entry.failed:  # restored once, and removed since
            return
        subject = subjects[name] = Subject(name, "failed")
    subject.seconds = entry.seconds
    if entry.failed:
        # The line on the console names the file; here its name stands beside.
        reason = (entry.error or "").removeprefix(f"{entry.input}: ")
        subject.status, subject.reason = "failed", reason or None
    source = Path(entry.input)
    if is_file(source):
        subject.files["input"] = source


def _add_inputs(
    subjects: dict[str, Subject],
    input_dir: Path,
    result_dir: Path,
    recursive: bool,
    notices: list[str],
) -> None:
    """Add inputs to the results that a run would make of them.

    Results of other tools or of another format than most, ``a.jpg`` of ``a.jpg`` say, are paired
    by name as with targets.
    """
    # With the dot a folder called "-" is none for standard input.
    source = os.path.join(".", input_dir)  # noqa: PTH118 - Path leaves the dot out
    suffix = _usual_suffix(subjects)
    work = find_work(source, result_dir, recursive=recursive, suffix=suffix, origins=known_origins)
    notices += [notice for notice in work.notices if notice.startswith("passed over")]
    inputs = {_relative(item.source, input_dir): item.source for item in work.items}
    results = {
        _relative(item.source, input_dir): _relative(item.result, result_dir) for item in work.items
    }
    known = set(results.values())
    others = pair_names(
        [name for name in subjects if name not in known],
        [name for name, result in results.items() if result not in subjects],
    )
    results |= {target: name for name, target in others.pairs}
    for name, result in results.items():
        subject = subjects.setdefault(
            result, Subject(result, "missing", reason="is not restored yet")
        )
        subject.files["input"] = inputs[name]
    for path, reason in work.problems:
        name = _relative(path.with_suffix(suffix), input_dir)
        subjects.setdefault(name, Subject(name, "failed", {"input": path}, reason))


def _usual_suffix(subjects: dict[str, Subject]) -> str:
    """The suffix of most results, if they are of a format that runs write."""
    results = [name for name, subject in subjects.items() if "result" in subject.files]
    suffixes = Counter(os.path.splitext(name)[1] for name in results or subjects)  # noqa: PTH122
    ours = result_suffixes()
    return next((suffix for suffix, _ in suffixes.most_common() if suffix in ours), PNG.suffix)
