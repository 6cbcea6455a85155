"""A folder in, a folder out: skip what is done, have the rest restored, count and report."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from restormer_cli import worker
from restormer_cli.course import Course
from restormer_cli.files import sweep
from restormer_cli.job import Job
from restormer_cli.lock import folder_lock
from restormer_cli.outcomes import Collector, Labels, Observer, Outcome, Summary
from restormer_cli.process import peak_memory
from restormer_cli.record import FOLDER, Record
from restormer_cli.shards import exclude_each_other
from restormer_cli.work import Item, Work

#: Seconds that no result takes from its first byte to its name.
SISTERS_SECONDS = 600.0


class Engine(Protocol):
    """What restores images: this process, several, or a cluster."""

    def restore(self, job: Job, record: Record, items: list[Item], course: Course) -> None:
        """Restore images, note them in a journal of the record's folder, tell their course.

        Raises
        ------
        UsageError
            If the work cannot begin: the network does not load, or nothing can be written.
        """

    def peak_memory(self) -> int:
        """Bytes of main memory that a process which restores has held at most."""


class Here:
    """Restores in this process."""

    def __init__(self, restore: worker.Restore, labels: Labels) -> None:
        self._restore, self._labels = restore, labels

    def restore(self, job: Job, record: Record, items: list[Item], course: Course) -> None:
        reason = worker.work(job, record, self._restore, self._labels, [items], course)
        course.summary.reason = reason

    def peak_memory(self) -> int:
        return peak_memory()


def run(
    job: Job,
    work: Work,
    start: Callable[[], Engine],
    observer: Observer,
    summary: Summary | None = None,
) -> Summary:
    """Restore all that ``work`` holds and is not done, holding the lock of the result folder.

    ``start`` gives what restores; it is called only once there is an image to restore. One image
    that fails costs no other its result. Totals are counted in ``summary``, if one is given, so
    that they are known of a run that is stopped.

    Raises
    ------
    BusyError
        If another run, or a shard of another split, works in the result folder.
    UsageError
        If there is something to do and the result folder cannot be written to.
    """
    summary = Summary() if summary is None else summary
    summary.left = len(work.items) + len(work.problems)
    course = Course(summary, observer)
    with contextlib.ExitStack() as stack:
        obstacle, alone = None, False
        record = Record(job.result_dir, job.settings, job.journal)
        if not job.dry_run:
            try:
                alone = stack.enter_context(_occupy(job, observer.notice))
                if alone:
                    record.gather()
                if alone and job.shard is None:
                    record.gather_shards()
            except OSError as error:
                obstacle = error
            # Sister shards write to the same folders.
            spare = 0.0 if job.shard is None else SISTERS_SECONDS
            sweep({item.result.parent for item in work.items}, spare)
        record.load(None if job.shard is None else [item.result for item in work.items])
        todo = _survey(job, work, record, course)
        record.forget()
        if alone:  # where there are no locks, another run may be writing to the journals
            record.compact()
        if todo:
            if obstacle is not None:
                raise worker.unwritable(job, obstacle) from obstacle
            engine = start()
            course.begin(todo)
            try:
                engine.restore(job, record, todo, course)
            finally:
                summary.peak_memory = engine.peak_memory()
                if alone:
                    with contextlib.suppress(OSError):  # the next run tries again
                        record.gather()
    course.close()
    return summary


@contextlib.contextmanager
def _occupy(job: Job, notice: Callable[[str], None]) -> Iterator[bool]:
    """Hold the result folder; folders that were made for nothing are removed in the end.

    Gives whether nobody else can work there: where there are no locks, one may.
    """
    folder = job.result_dir / FOLDER
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        excludes = functools.partial(exclude_each_other, job.journal)
        with folder_lock(
            folder, name=job.journal, wait=job.wait, notice=notice, excludes=excludes
        ) as alone:
            yield alone
    finally:
        with contextlib.suppress(OSError):  # not empty, so not for nothing
            for path in made:
                path.rmdir()


def _survey(job: Job, work: Work, record: Record, course: Course) -> list[Item]:
    """What is to be restored; the rest is reported."""
    for text in work.notices:
        course.notice(text)
    for path, reason in work.problems:
        course.finish(Outcome(str(path), "", "failed", error=f"{path}: {reason}"))
        course.check()
        if job.fail_fast:
            course.summary.reason = worker.FAIL_FAST
            return []
    todo = []
    again: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for item in work.items:
        verdict = record.judge(item, checksum=job.checksum, overwrite=job.overwrite)
        facts = (str(item.source), str(item.result))
        if verdict.action == "refuse":
            course.finish(Outcome(*facts, "failed", error=f"{item.source}: {verdict.reason}"))
            if job.fail_fast:
                course.summary.reason = worker.FAIL_FAST
                return []
        elif verdict.action == "skip":
            kept[verdict.reason] += 1
            course.finish(Outcome(*facts, "skipped"))
        else:
            again[verdict.reason] += 1
            if job.dry_run:
                course.finish(Outcome(*facts, "planned"))
            else:
                todo.append(item)
        course.check()
    for reason, count in again.items():
        if reason:
            course.notice(f"{reason}: {_results(count)} to be made again")
    for reason, count in kept.items():
        if reason:
            course.notice(f"{reason}: {_results(count)} kept; --overwrite replaces them")
    return todo


def _results(count: int) -> str:
    return "1 result is" if count == 1 else f"{count} results are"


def restore_folder(
    restorer: worker.Restore,
    input_dir: Path | str,
    result_dir: Path | str,
    **settings: Any,
) -> list[Outcome]:
    """Restore every image of a folder into another; the Python face of the subcommands.

    Parameters
    ----------
    restorer
        A :class:`~restormer_cli.Restorer`, or anything that is called like one. Results of
        another network or other settings are made again, if the restorer has ``settings`` that
        tell; else whatever is there counts as done.
    settings
        Further fields of :class:`Job`, such as ``recursive=True``.

    Returns
    -------
    list of Outcome
        One for each image, failed ones included.

    Raises
    ------
    UsageError
        If there is nothing to do or the folders make no sense.
    BusyError
        If another run works in the result folder.
    """
    collector = Collector()
    job = Job(str(input_dir), Path(result_dir), **settings)
    made_by = getattr(restorer, "settings", job.settings)
    job = replace(job, settings=made_by.with_bit_depth(job.bit_depth))
    run(job, job.find_work(), lambda: Here(restorer, Labels()), collector)
    return collector.outcomes
