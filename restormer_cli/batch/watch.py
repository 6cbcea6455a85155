"""A run that goes on: what is there is restored, then every file as soon as it is whole.

A file is whole when its size and time have been at rest for a moment, or when it has been renamed
since it was last written to. What is new is found by walking the folders as a plain run does, so
all its rules hold; a change in a folder only says that it is time for a walk.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from restormer_cli.batch.discovery import STANDARD_INPUT, folders_of_views
from restormer_cli.batch.items import Item, Problems, Work
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Observer, Outcome, Summary
from restormer_cli.batch.run import Executor, Run, begin
from restormer_cli.batch.walk import identity
from restormer_cli.batch.worker import FAIL_FAST
from restormer_cli.errors import UsageError, WatchError
from restormer_cli.system.changes import Change, changes, is_on_network
from restormer_cli.system.files import is_folder
from restormer_cli.system.memory import return_freed_memory

logger = logging.getLogger(__name__)

#: Seconds after which a file that has not changed is whole.
REST_SECONDS = 2.0
#: Seconds that something odd about a file must last before it is said.
ODD_SECONDS = 10.0
#: Seconds after which the folders are walked in any case, as changes can be missed; and at least
#: so many times as long as a walk takes.
WALK_EVERY, WALK_SHARE = 60.0, 50.0

Thing = TypeVar("Thing")
#: Which images a file belongs to is known by the files, not by the name of the result.
Sources = tuple[Path, ...]


class _Look(NamedTuple):
    """What a file is like at a moment; another one differs."""

    size: int
    mtime: int
    inode: int


class _Facts(NamedTuple):
    """What the system says of a file."""

    look: _Look
    ctime: int
    """When anything about it has changed; Windows does not know."""


class _Arrival(NamedTuple):
    """An image that is new, or has changed."""

    item: Item
    looks: tuple[_Look, ...]
    since: float
    """When its files were first seen so, by a clock that no one sets."""
    growing: bool = False
    """They have been seen to change."""


def watch(
    options: RunOptions, start: Callable[[], Executor], observer: Observer, summary: Summary
) -> None:
    """Restore what is there and what comes, until a signal stops it.

    Ends by itself where a plain run ends before its time; ``summary.reason`` says why.

    Raises
    ------
    UsageError
        If there is nothing that can be watched, or as :func:`restormer_cli.batch.run.run`.
    BusyError
        If another run works in the result folder.
    WatchError
        If a folder that is watched goes away.
    """
    check(options)
    with begin(options, start, observer, summary) as run:
        watching = _Watch(options, run)
        try:
            watching.go()
        finally:
            watching.account()


def check(options: RunOptions) -> None:
    """See that a run can be watched.

    Raises
    ------
    UsageError
        If it cannot.
    """
    if options.dry_run:
        raise UsageError("--watch goes on and --dry-run does nothing; leave one of them out")
    if STANDARD_INPUT in options.named:
        raise UsageError("--watch: a list on standard input comes to an end; name a folder")
    for source in options.named:
        path = Path(source)
        if not is_folder(path):
            what = "is no folder" if os.path.lexists(path) else "no such folder"
            raise UsageError(f"{source}: {what}; --watch is for folders that are there")
        folders_of_views(path, options.sides)


class _Watch:
    """What is known of the folders that are watched."""

    def __init__(self, options: RunOptions, run: Run) -> None:
        self._options, self._run, self._summary = options, run, run.tracker.summary
        roots = [
            folder
            for source in options.named
            for folder in folders_of_views(Path(source), options.sides)
        ]
        self._roots = {folder: identity(folder) for folder in roots}
        self._polling = any(map(is_on_network, roots))
        #: All folders that the images are in.
        self._folders = roots
        #: What the files that have been dealt with were like then.
        self._dealt_with: dict[Sources, tuple[_Look, ...]] = {}
        self._arriving: dict[Sources, _Arrival] = {}
        self._unpaired: Problems = []
        self._notices: _Once[str] = _Once()
        self._problems: _Once[tuple[Path, str]] = _Once()
        #: There may be something new, or a walk is due in any case; and not before this time.
        self._news, self._next_walk, self._rested = True, 0.0, 0.0
        self._begun = False

    def go(self) -> None:
        """Watch until there is a reason to stop."""
        while not self._summary.reason:
            # What has come before a new folder is watched is found by a walk.
            self._news = True
            trees = self._roots if self._options.recursive else None
            try:
                with contextlib.closing(changes(self._folders, trees, self._polling)) as stream:
                    self._follow(stream)
            except FileNotFoundError:  # a sub-folder that has gone before it was watched
                self._see_that_all_is_there()
                self._walk()
            except OSError as error:
                what = ", ".join(map(str, self._roots))
                raise WatchError(
                    f"{what}: cannot be watched ({error.strerror or error})"
                ) from error

    def _follow(self, stream: Iterable[Collection[Change]]) -> None:
        """Act on changes until there is a reason to stop, or folders have come or gone."""
        folders = self._folders
        for told in stream:
            self._see_that_all_is_there()
            now = time.monotonic()
            self._news |= self._matters(told) or now >= self._next_walk
            if self._news and now >= self._rested:
                self._walk()
            self._restore_what_is_whole()
            if self._summary.reason or self._folders != folders:
                return

    def account(self) -> None:
        """At the end: what waits for its partner has failed, and what is not whole is left."""
        self._summary.left += len(self._arriving) + len(self._unpaired)
        for path, reason in self._unpaired:
            self._fail(path, reason)
        self._unpaired, self._arriving = [], {}

    def _see_that_all_is_there(self) -> None:
        for folder, before in self._roots.items():
            now = identity(folder)
            if now is None:
                raise WatchError(f"{folder}: has gone, so it is not watched any more")
            if now != before:
                raise WatchError(
                    f"{folder}: is another folder than before, so it is not watched any more"
                )

    def _matters(self, told: Collection[Change]) -> bool:
        """True if there may be something new; what is still being written is looked at anyway."""
        arriving = {str(path) for sources in self._arriving for path in sources} if told else set()
        return any(
            not (change.modified and change.path in arriving)
            and not os.path.basename(change.path).startswith(".")  # noqa: PTH119 - may be many
            for change in told
        )

    def _walk(self) -> None:
        """See what is there, and which of it is new."""
        began = time.monotonic()
        try:
            work = self._options.find_work(watched=True)
        except UsageError as error:
            if not self._begun:
                raise
            raise WatchError(f"{error}; it is not watched any more") from error
        self._folders = sorted(work.folders)
        known, arriving = self._dealt_with, self._arriving
        self._dealt_with, self._arriving = {}, {}
        for item in work.items:
            facts = _facts(item.sources)
            if facts is None:  # it has gone again
                continue
            looks = _looks(facts)
            if known.get(item.sources) == looks:
                self._dealt_with[item.sources] = looks
            elif before := arriving.get(item.sources):
                self._arriving[item.sources] = before._replace(item=item)
            else:
                # Of what was there at first, the clock of the file system tells as much.
                old = not self._begun and _age(looks) >= REST_SECONDS
                self._arriving[item.sources] = _Arrival(item, looks, -math.inf if old else began)
        self._say(work, began)
        now = time.monotonic()
        self._news = False
        # Among very many files a walk takes long: half of the time is enough.
        self._rested = now + (now - began)
        self._next_walk = now + max(WALK_EVERY, WALK_SHARE * (now - began))

    def _say(self, work: Work, now: float) -> None:
        """Say what is odd, once; what may pass only when it has lasted."""
        patience = ODD_SECONDS if self._begun else 0.0
        self._unpaired = work.unpaired
        waits = [f"{path}: {reason} as yet" for path, reason in work.unpaired]
        for text in self._notices.news([*work.notices, *waits], now, patience):
            self._run.tracker.notice(text)
        for path, reason in self._problems.news(work.problems, now, patience):
            self._summary.left += 1
            self._fail(path, reason)

    def _fail(self, path: Path, reason: str) -> None:
        self._run.tracker.finish(Outcome(str(path), "", "failed", error=f"{path}: {reason}"))
        if self._options.fail_fast:
            self._summary.reason = FAIL_FAST

    def _restore_what_is_whole(self) -> None:
        now = time.monotonic()
        whole: list[Item] = []
        for sources, arrival in list(self._arriving.items()):
            facts = _facts(sources)
            if facts is None:
                del self._arriving[sources]
                continue
            looks = _looks(facts)
            if looks != arrival.looks:
                self._arriving[sources] = arrival = arrival._replace(
                    looks=looks, since=now, growing=True
                )
            # Servers of files keep times as they like, and one that is written to may be given
            # permissions or attributes in between.
            at_once = not (self._polling or arrival.growing) and all(map(_is_renamed, facts))
            if at_once or _is_whole(arrival, now, REST_SECONDS):
                del self._arriving[sources]
                self._dealt_with[sources] = looks
                whole.append(arrival.item)
        if not whole and self._begun:
            return
        self._summary.left += len(whole)
        self._run.restore(Work(whole), part=self._begun or self._options.shard is not None)
        self._run.tracker.check()
        return_freed_memory()
        if self._options.fail_fast and self._summary.failed:
            self._summary.reason = self._summary.reason or FAIL_FAST
        if not self._begun:
            self._begun = True
            self._run.tracker.notice(f"watching {', '.join(self._options.named)} for more images")


class _Once(Generic[Thing]):
    """Things that are said once, as long as they hold."""

    def __init__(self) -> None:
        self._since: dict[Thing, float] = {}
        self._said: set[Thing] = set()

    def news(self, things: Iterable[Thing], now: float, patience: float) -> list[Thing]:
        """Those of the things that hold now which are to be said."""
        self._since = {thing: self._since.get(thing, now) for thing in things}
        self._said &= self._since.keys()
        news = [
            thing
            for thing, since in self._since.items()
            if thing not in self._said and now - since >= patience
        ]
        self._said.update(news)
        return news


def _facts(sources: Sources) -> list[_Facts] | None:
    """What the system says of the files of an image; None if one is not there."""
    try:
        return [_look_at(path) for path in sources]
    except (FileNotFoundError, NotADirectoryError):
        return None


def _look_at(path: Path) -> _Facts:
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError:  # in a folder that is closed, say: reading it will say so
        return _Facts(_Look(0, 0, 0), 0)
    return _Facts(_Look(facts.st_size, facts.st_mtime_ns, facts.st_ino), facts.st_ctime_ns)


def _looks(facts: Iterable[_Facts]) -> tuple[_Look, ...]:
    return tuple(one.look for one in facts)


def _age(looks: Iterable[_Look]) -> float:
    """Seconds since the last change."""
    return time.time() - max(look.mtime for look in looks) / 1e9


def _is_whole(arrival: _Arrival, now: float, rest: float) -> bool:
    return now - arrival.since >= rest


def _is_renamed(facts: _Facts) -> bool:
    """True if a file has been renamed, or had its time set, since it was last written to.

    Writing changes both times of a file to the same, a new name only that of its inode. Windows
    has no such time.
    """
    return os.name != "nt" and facts.look.size > 0 and facts.ctime > facts.look.mtime
