"""Runs a batch: skip images that are done, have the rest restored, count and report."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from restormer_cli.batch import worker
from restormer_cli.batch.items import Item, Work
from restormer_cli.batch.journal import FOLDER, Journal
from restormer_cli.batch.lock import folder_lock
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Observer, Outcome, Summary
from restormer_cli.batch.progress import ProgressTracker
from restormer_cli.batch.resume import decide
from restormer_cli.batch.shards import exclude_each_other
from restormer_cli.system.atomic import sweep

#: Seconds that no result takes from its first byte to its name.
SISTERS_SECONDS = 600.0


class Executor(Protocol):
    """Restores the images of a run: in this process, in several, or on a cluster."""

    def restore(
        self, options: RunOptions, journal: Journal, items: list[Item], tracker: ProgressTracker
    ) -> None:
        """Restore images, record them in a journal, report their progress.

        May be called again with others until it is closed.

        Raises
        ------
        UsageError
            If the work cannot begin: the network does not load, or nothing can be written.
        """

    def close(self, tracker: ProgressTracker) -> None:
        """Let go of all workers; what they have restored by now is written and reported."""

    def peak_memory(self) -> int:
        """Peak main memory of a restoring process, in bytes."""


def run(
    options: RunOptions,
    work: Work,
    start: Callable[[], Executor],
    observer: Observer,
    summary: Summary | None = None,
) -> Summary:
    """Restore the images of ``work`` that are not done, holding the lock of the result folder.

    One image that fails costs no other its result.

    Parameters
    ----------
    start
        Makes the executor; called only if there is an image to restore.
    summary
        Counts the totals, so that they are known of a run that is stopped.

    Returns
    -------
    Summary
        The totals.

    Raises
    ------
    BusyError
        If another run, or a shard of another split, works in the result folder.
    UsageError
        If there is something to do and the result folder cannot be written to.
    """
    summary = Summary() if summary is None else summary
    summary.left = len(work.items) + len(work.problems)
    with begin(options, start, observer, summary) as begun:
        begun.restore(work, part=options.shard is not None)
    return summary


@contextlib.contextmanager
def begin(
    options: RunOptions, start: Callable[[], Executor], observer: Observer, summary: Summary
) -> Iterator[Run]:
    """Hold the result folder for a run; raises as :func:`run`."""
    tracker = ProgressTracker(summary, observer)
    with contextlib.ExitStack() as stack:
        obstacle, alone = None, False
        journal = Journal(options.result_dir, options.settings, options.journal_name)
        if not options.dry_run:
            try:
                alone = stack.enter_context(_occupy(options, observer.notice))
                if alone:
                    journal.gather()
                if alone and options.shard is None:
                    journal.gather_shards()
            except OSError as error:
                obstacle = error
        begun = Run(options, start, journal, tracker, alone=alone, obstacle=obstacle)
        try:
            yield begun
        finally:
            begun.close()
    tracker.close()


class Run:
    """A run that holds its result folder, until it is closed.

    Parameters
    ----------
    alone
        Nobody else can work there; where there are no locks, another run may be writing to the
        journals.
    obstacle
        Why nothing can be written there, if so.
    """

    def __init__(
        self,
        options: RunOptions,
        start: Callable[[], Executor],
        journal: Journal,
        tracker: ProgressTracker,
        *,
        alone: bool,
        obstacle: OSError | None,
    ) -> None:
        self.options, self.tracker = options, tracker
        self._start, self._journal = start, journal
        self._alone, self._obstacle = alone, obstacle
        self._executor: Executor | None = None
        self._swept: set[Path] = set()

    def restore(self, work: Work, *, part: bool) -> None:
        """Restore what is not done. The summary has counted it as left.

        Parameters
        ----------
        part
            These are a few of many images, so of the record no more is held than is said of them.

        Raises
        ------
        UsageError
            If there is something to do and the result folder cannot be written to.
        """
        try:
            self._restore(work, part)
        finally:
            self.tracker.pause()

    def _restore(self, work: Work, part: bool) -> None:
        options, journal, tracker = self.options, self._journal, self.tracker
        if not options.dry_run:
            folders = {item.result.parent for item in work.items} - self._swept
            # Sister shards write to the same folders.
            sweep(folders, 0.0 if options.shard is None else SISTERS_SECONDS)
            self._swept |= folders
        journal.load([item.result for item in work.items] if part else None)
        todo = _survey(options, work, journal, tracker)
        journal.forget()
        if self._alone:
            journal.compact()
        if not todo:
            return
        if self._obstacle is not None:
            raise worker.unwritable(options, self._obstacle) from self._obstacle
        if self._executor is None:
            self._executor = self._start()
        tracker.begin(todo)
        self._executor.restore(options, journal, todo, tracker)

    def close(self) -> None:
        """End what restores, and put what its workers have noted into the journal of the run."""
        if self._executor is None:
            return
        try:
            self._executor.close(self.tracker)
        finally:
            self.tracker.summary.peak_memory = self._executor.peak_memory()
            if self._alone:
                with contextlib.suppress(OSError):  # the next run tries again
                    self._journal.gather()


@contextlib.contextmanager
def _occupy(options: RunOptions, notice: Callable[[str], None]) -> Iterator[bool]:
    """Hold the lock of the result folder; remove folders that were made for nothing.

    Yields True, or False if the file system has no locks, so that another run may work there.
    """
    folder = options.result_dir / FOLDER
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        excludes = functools.partial(exclude_each_other, options.journal_name)
        with folder_lock(
            folder, name=options.journal_name, wait=options.wait, notice=notice, excludes=excludes
        ) as alone:
            yield alone
    finally:
        with contextlib.suppress(OSError):  # not empty, so not for nothing
            for path in made:
                path.rmdir()


def _survey(
    options: RunOptions, work: Work, journal: Journal, tracker: ProgressTracker
) -> list[Item]:
    """Return the images to restore; report the outcome of all others."""
    for text in work.notices:
        tracker.notice(text)
    for path, reason in work.problems:
        tracker.finish(Outcome(str(path), "", "failed", error=f"{path}: {reason}"))
        tracker.check()
        if options.fail_fast:
            tracker.summary.reason = worker.FAIL_FAST
            return []
    todo = []
    again: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for item in work.items:
        decision = decide(journal, item, checksum=options.checksum, overwrite=options.overwrite)
        facts = (str(item.source), str(item.result))
        if decision.action == "refuse":
            tracker.finish(Outcome(*facts, "failed", error=f"{item.source}: {decision.reason}"))
            if options.fail_fast:
                tracker.summary.reason = worker.FAIL_FAST
                return []
        elif decision.action == "skip":
            kept[decision.reason] += 1
            tracker.finish(Outcome(*facts, "skipped"))
        else:
            again[decision.reason] += 1
            if options.dry_run:
                tracker.finish(Outcome(*facts, "planned"))
            else:
                todo.append(item)
        tracker.check()
    for reason, count in again.items():
        if reason:
            tracker.notice(f"{reason}: {_results(count)} to be made again")
    for reason, count in kept.items():
        if reason:
            tracker.notice(f"{reason}: {_results(count)} kept; --overwrite replaces them")
    return todo


def _results(count: int) -> str:
    return "1 result is" if count == 1 else f"{count} results are"
