"""Builds a report: subjects → pictures and figures → page and contact sheet."""

from __future__ import annotations

import datetime
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from restormer_cli.batch.walk import REPORT_MARK
from restormer_cli.errors import ImageError, UsageError
from restormer_cli.evaluation.memory_budget import MemoryBudget, comparison_bytes, map_in_order
from restormer_cli.evaluation.protocols import EvaluationProtocol, choose_protocol, find_protocol
from restormer_cli.evaluation.run_log import read_run_log
from restormer_cli.images.codecs.base import Pixels
from restormer_cli.images.reading import read_image
from restormer_cli.report.contact_sheet import draw_sheets, sheet_paths
from restormer_cli.report.page import as_html
from restormer_cli.report.pictures import LIMIT, Store, thumbnail, type_in_browser
from restormer_cli.report.subjects import Role, Subject, View, find_subjects
from restormer_cli.report.values import page_values
from restormer_cli.system.atomic import TEMPORARY_SUFFIX, atomic_file
from restormer_cli.system.files import file_head, file_mode, is_link, kind, real_path

NAME = "report.html"
#: Copies of the page, with its pictures, that are in memory while it is made.
PAGE_COPIES = 8


@dataclass(frozen=True)
class Report:
    """The files that were written."""

    html: Path
    images: int
    beside: Path | None
    """The folder that has to stay beside the HTML, if there is one."""
    sheets: list[Path]
    notices: list[str]
    """Sentences on files that were passed over."""


def write_report(
    result_dir: Path,
    *,
    input_dir: Path | None = None,
    target_dir: Path | None = None,
    log_json: Path | None = None,
    protocol: str = "auto",
    recursive: bool = False,
    output: Path | None = None,
    contact_sheet: Path | None = None,
    overwrite: bool = False,
    max_memory: int | None = None,
    limit: int = LIMIT,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Write one HTML file that shows a folder of results.

    Parameters
    ----------
    input_dir, target_dir
        The folders of inputs, and of true images to measure results and inputs against.
    log_json
        A file that ``--log-json`` wrote; by default the ``*.jsonl`` files among the results.
    protocol
        As for ``restormer evaluate``.
    output
        By default ``report.html`` among the results.
    contact_sheet
        A PNG to draw as well; for many images further ones with numbers in their names.
    overwrite
        Replace files that are not reports.
    max_memory
        As of :func:`restormer_cli.evaluation.evaluate.evaluate_folder`.
    limit
        Most bytes of pictures in the HTML. Beyond it, full-size pictures are linked, then
        thumbnails are written into a folder beside it. Too little memory lowers it.
    progress
        Called with the number of images that were looked at and of all.

    Raises
    ------
    UsageError
        If a folder does not exist or there is nothing to show, or if a file cannot be written or
        would be overwritten. Errors of single images are shown in the report.
    """
    output = output or result_dir / NAME
    run_log = read_run_log(result_dir, log_json)
    subjects, notices = find_subjects(
        result_dir, run_log, input_dir=input_dir, target_dir=target_dir, recursive=recursive
    )
    sheets = [] if contact_sheet is None else sheet_paths(contact_sheet, len(subjects))
    _check_output(output, sheets, result_dir, overwrite)
    chosen, reason = choose_protocol(protocol, run_log)
    budget = MemoryBudget(max_memory)
    limit = max(0, min(limit, budget.total // PAGE_COPIES))
    store = Store(output.parent / f"{output.stem}-files", limit)
    try:
        shown = []
        compared = find_protocol(chosen)
        for one in map_in_order(lambda subject: _look_at(subject, compared, budget), subjects):
            for view in one.views.values():
                view.kept = store.add(view.thumbnail)
                view.thumbnail = b""
            shown.append(one)
            if progress is not None:
                progress(len(shown), len(subjects))
        title = real_path(result_dir).name or str(result_dir)
        values = {
            "title": title,
            "made": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "protocol": chosen if target_dir is not None else None,
            "reason": reason,
            "folders": _folders(result_dir, input_dir, target_dir),
            "settings": {key: list(count.items()) for key, count in run_log.settings.items()},
            **page_values(shown, store, output.parent, budget),
        }
        with atomic_file(output) as file:
            file.write(as_html(values))
        written = draw_sheets(shown, store, sheets, title)
        store.sweep()
    except OSError as error:
        # Of a file that is written under a temporary name, say what it was to be.
        temporary = str(error.filename).endswith(TEMPORARY_SUFFIX)
        name = output if temporary else error.filename or output
        raise UsageError(f"{name}: cannot be written ({error.strerror or error})") from error
    beside = store.folder if store.beside else None
    return Report(output, len(shown), beside, written, [*run_log.notices, *notices])


def _check_output(output: Path, sheets: list[Path], result_dir: Path, overwrite: bool) -> None:
    """Refuse to overwrite files that are no reports, unless ``overwrite`` is set."""
    for sheet in sheets[:1]:
        if real_path(sheet.parent).is_relative_to(real_path(result_dir)):
            raise UsageError(f"{sheet}: lies among the results and would be taken for one")
    for path in [output, *sheets]:
        mode = file_mode(path)
        if mode and not stat.S_ISREG(mode):
            raise UsageError(f"{path}: is {kind(mode)}")
        if mode and not overwrite and REPORT_MARK not in file_head(path):
            raise UsageError(f"{path}: exists and is not a report; --overwrite replaces it")
        if not mode and is_link(path) and not overwrite:
            raise UsageError(
                f"{path}: is a link to a file that is not there; --overwrite replaces it"
            )


def _look_at(subject: Subject, protocol: EvaluationProtocol, budget: MemoryBudget) -> Subject:
    """Read and compare the files of one subject; errors become its reason."""
    roles = [role for role in _ROLES if role in subject.files]
    if not roles:
        return subject
    compare = protocol.memory if "target" in roles else None
    try:
        with budget.take(comparison_bytes(subject.files.values(), compare)):
            troubles = _fill(subject, protocol)
    except ImageError as error:
        troubles = dict.fromkeys(roles, str(error))
    # That a failed image cannot be read is why it failed.
    for role in ("result", "target", "input"):
        if role in troubles and subject.reason is None:
            subject.status = "failed" if role == "result" else "uncompared"
            subject.reason = troubles[role]
    return subject


#: The target first: it is compared with each of the others, which are then dropped.
_ROLES: tuple[Role, ...] = ("target", "result", "input")


def _fill(subject: Subject, protocol: EvaluationProtocol) -> dict[Role, str]:
    """Add views and figures; return a sentence for each file that cannot be read."""
    troubles: dict[Role, str] = {}
    target: Pixels | None = None
    for role in _ROLES:
        path = subject.files.get(role)
        if path is None:
            continue
        try:
            pixels = read_image(path).pixels
            subject.views[role] = _view(path, pixels)
        except ImageError as error:
            troubles[role] = str(error).removeprefix(f"{path}: ")
            continue
        except OSError as error:  # it has just been read
            troubles[role] = f"cannot be read ({error.strerror or error})"
            continue
        if role == "target":
            target = pixels
        elif target is not None:
            try:
                metrics = protocol.compare(pixels, target)
            except ImageError as error:
                if role == "result":
                    subject.status, subject.reason = "uncompared", str(error)
                # A gray input of a colour result, say: nothing is wrong with that.
                continue
            if role == "result":
                subject.after = metrics
            elif subject.after is not None:
                subject.before = metrics
    order: tuple[Role, ...] = ("result", "target", "input")
    subject.views = {role: subject.views[role] for role in order if role in subject.views}
    return troubles


def _view(path: Path, pixels: Pixels) -> View:
    height, width = pixels.shape[:2]
    media = type_in_browser(path)
    return View(path, width, height, media, thumbnail(pixels))


def _folders(*folders: Path | None) -> dict[str, str]:
    named = zip(("results", "inputs", "targets"), folders, strict=True)
    return {name: str(folder) for name, folder in named if folder is not None}
