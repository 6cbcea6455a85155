"""The scheduler: hands chunks of images to several workers, and survives the loss of any.

The driver moves no pixels. Each worker has two chunks, so that one is there when the other is done.
A chunk takes a few seconds, and less towards the end, so that all workers end together. No other
images are in the hands of workers, even of a million.

When a worker is lost, its images are restored again. Each of them is then given to a worker alone,
since it may be the cause: an image that loses three workers has failed. Results appear whole or
not at all, so restoring an image twice harms nothing, and its second outcome is ignored.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from restormer_cli.batch.items import Item
from restormer_cli.batch.journal import Journal
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Outcome
from restormer_cli.batch.progress import ProgressTracker
from restormer_cli.batch.worker import FAIL_FAST, LAST_WRITE_SECONDS
from restormer_cli.errors import DeviceError, UsageError
from restormer_cli.executors.endpoint import PATIENCE, Reply
from restormer_cli.system.atomic import sweep
from restormer_cli.system.files import absolute_path
from restormer_cli.system.stopping import uninterrupted

logger = logging.getLogger(__name__)

#: Seconds that a worker should need for a chunk.
CHUNK_SECONDS = 2.0
#: Megapixels of a chunk while the speed of a worker is not known.
FIRST_CHUNK = 0.25
#: Least megapixels of a chunk: eight small images, which are restored together.
SMALLEST_CHUNK = 8 * 64 * 64 / 1e6
#: Most images in a chunk.
LONGEST_CHUNK = 256
#: Chunks that a worker has at once.
CHUNKS_AHEAD = 2
#: Workers that an image may lose before it has failed, and losses in a row of a worker that has not
#: begun to work.
LOSSES = 3
#: Seconds without any worker after which a notice says so.
LONELY_SECONDS = 10.0
#: Seconds that a worker may need to reply after its last result.
LAST_WORD_SECONDS = 2.0


@dataclass(frozen=True)
class Lost:
    """The reply of a pool for a worker that was lost."""

    reason: str


class WorkerPool(Protocol):
    """Workers, by number, each with a :class:`~restormer_cli.executors.endpoint.WorkerEndpoint`."""

    size: int

    def start(self, worker: int) -> None:
        """Start a worker, also one that was lost; does not wait for it."""

    def call(self, worker: int, chunks: Sequence[Sequence[Item]], stop: bool) -> None:
        """Call ``exchange`` of a worker that has replied to the last call; does not wait."""

    def replies(self, seconds: float) -> Iterable[tuple[int, Reply | Lost]]:
        """Wait for a reply, up to ``seconds``, and yield all that are there."""

    def close(self) -> None:
        """End all workers at once."""


@dataclass
class _WorkerState:
    """The state of a worker, as the driver knows it."""

    chunks: list[set[Item]] = field(default_factory=list)
    """Chunks that it has, without images that are done."""
    alone: bool = False
    """True if it is restoring an image that may have caused the loss of others."""
    started: bool = False
    ready: bool = False
    waiting: bool = False
    """True if it has not replied to the last call."""
    since: float = 0.0
    """Time at which it was ready."""
    done: float = 0.0
    """Megapixels that it has finished since."""
    begun: float = 0.0
    """Megapixels of images that are not finished."""
    stillborn: int = 0
    """Losses in a row before it was ready."""
    given_up: bool = False
    deviceless: bool = False
    """True if that is since its device cannot be used."""


class Scheduler:
    """Restores with a pool of workers; an :class:`~restormer_cli.batch.run.Executor`."""

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.most_memory = 0
        self.workers: list[_WorkerState] = []
        #: Images in the hands of workers, as these know them and as the person typed them.
        self.open: dict[Item, Item] = {}
        #: Folders where lost workers may have left temporary files.
        self.wrecks: set[Path] = set()
        self.stopping = False

    def peak_memory(self) -> int:
        return self.most_memory

    def restore(
        self, run_options: RunOptions, journal: Journal, items: list[Item], tracker: ProgressTracker
    ) -> None:
        self.run_options, self.tracker = run_options, tracker
        self.fresh = deque(items)
        self.left = sum(map(tracker.megapixels, items))  # of those in fresh
        #: Workers that each open image has lost.
        self.losses: dict[Item, list[int]] = {}
        #: Those of them that no worker has.
        self.suspects: deque[Item] = deque()
        self.halted = False
        with uninterrupted():
            self._run(len(items))

    def close(self, tracker: ProgressTracker) -> None:
        self.tracker = tracker
        with uninterrupted():
            try:
                self._stop()
            finally:
                self.pool.close()
        if self.wrecks and self.run_options.shard is None:  # sister shards may be writing there
            sweep(self.wrecks)

    def _run(self, images: int) -> None:
        self.last_ready = time.monotonic()
        while len(self.workers) < min(self.pool.size, images):
            self.workers.append(_WorkerState())
        for number, worker in enumerate(self.workers):
            worker.since, worker.done = self.last_ready, 0.0  # it may have had nothing to do
            if not (worker.started or worker.given_up):
                self._start(number)
        while (self.fresh or self.open) and not self.halted:
            self._hand_out()
            self._listen(PATIENCE)
            self._see_who_is_there()
            self.tracker.check()

    def _start(self, number: int) -> None:
        self.workers[number].started = True
        self.pool.start(number)

    # Handing out

    def _hand_out(self) -> None:
        for number, worker in enumerate(self.workers):
            if not worker.waiting and not worker.given_up:
                self._call(number, list(self._chunks(number)) if worker.ready else [])

    def _call(self, number: int, chunks: Sequence[Sequence[Item]], *, stop: bool = False) -> None:
        self.workers[number].waiting = True
        self.pool.call(number, chunks, stop)

    def _chunks(self, number: int) -> Iterator[list[Item]]:
        """Chunks for a worker."""
        worker = self.workers[number]
        while len(worker.chunks) < CHUNKS_AHEAD and not worker.alone:
            suspect = self._suspect_for(number)
            if suspect is not None and worker.chunks:
                return  # it is to be alone
            if suspect is not None:
                worker.alone = True
                self.suspects.remove(suspect)
                chunk = [suspect]
            elif self.fresh:
                chunk = self._next_chunk(worker)
            else:
                return
            worker.chunks.append(set(chunk))
            yield chunk

    def _suspect_for(self, number: int) -> Item | None:
        """An image that has lost workers other than this one, if there are any.

        Else a broken device would fail every image.
        """
        ready = {other for other, worker in enumerate(self.workers) if worker.ready}
        for item in self.suspects:
            lost = self.losses[item]
            if number not in lost or ready.issubset(lost):
                return item
        return None

    def _next_chunk(self, worker: _WorkerState) -> list[Item]:
        seconds = time.monotonic() - worker.since
        wanted = CHUNK_SECONDS * worker.done / seconds if worker.done else FIRST_CHUNK
        # Towards the end less, so that no worker waits long for another.
        wanted = max(SMALLEST_CHUNK, min(wanted, self.left / (3 * len(self.workers))))
        chunk: list[Item] = []
        while self.fresh and len(chunk) < LONGEST_CHUNK:
            size = self.tracker.megapixels(self.fresh[0])
            wanted -= size
            if chunk and wanted < 0:
                break
            typed = self.fresh.popleft()
            self.left -= size
            chunk.append(_absolute(typed))
            self.open[chunk[-1]] = typed
        return chunk

    # What workers say

    def _listen(self, seconds: float) -> None:
        for number, reply in self.pool.replies(seconds):
            worker = self.workers[number]
            worker.waiting = False
            if worker.given_up:
                continue
            if isinstance(reply, Lost):
                self._lose(number, reply.reason)
                continue
            self.most_memory = max(self.most_memory, reply.peak_memory)
            for name, arguments in reply.events:
                getattr(self, f"_on_{name}")(number, *arguments)
            if reply.state == "broken":
                self._lose(number, reply.reason)
            elif reply.state in {"refused", "deviceless"}:
                for item in self._unfinished(worker):  # it has begun none of them
                    self.fresh.appendleft(self.open.pop(item))
                    self.left += self.tracker.megapixels(self.fresh[0])
                without = reply.state == "deviceless"
                self.workers[number] = _WorkerState(given_up=True, deviceless=without)
                if len(self.workers) < self.pool.size:  # who was not needed until now
                    self.workers.append(_WorkerState())
                    self.pool.start(len(self.workers) - 1)
                self._blame(number, reply.reason)
            elif reply.state in {"halted", "ended"}:
                worker.ready = False
                self._halt(self._as_typed(reply.reason, None))
            elif reply.state == "working" and not worker.ready:
                worker.ready, worker.since, worker.stillborn = True, time.monotonic(), 0

    def _on_log(self, number: int, level: int, text: str, traceback: str | None) -> None:
        facts = {"name": logger.name, "levelno": level, "levelname": logging.getLevelName(level)}
        message = {"msg": f"worker {number + 1}: {text}", "exc_text": traceback}
        if logger.isEnabledFor(level):
            logger.handle(logging.makeLogRecord({**facts, **message}))

    def _on_notice(self, number: int, text: str, item: Item | None) -> None:
        self.tracker.notice(self._as_typed(text, item))

    def _on_start(self, number: int, item: Item, megapixels: float) -> None:
        if item in self.open:
            self.tracker.start(self.open[item], megapixels)

    def _on_advance(self, number: int, megapixels: float) -> None:
        self.workers[number].begun += megapixels
        self.tracker.advance(megapixels)

    def _on_settle(self, number: int, item: Item, outcome: Outcome) -> None:
        worker = self.workers[number]
        for chunk in worker.chunks:
            chunk.discard(item)
        worker.chunks = [chunk for chunk in worker.chunks if chunk]
        worker.alone = worker.alone and bool(worker.chunks)
        if item in self.open:
            megapixels = (outcome.width or 0) * (outcome.height or 0) / 1e6
            worker.done += megapixels
            worker.begun = max(0.0, worker.begun - megapixels)
            self._settle(item, outcome)

    def _settle(self, item: Item, outcome: Outcome) -> None:
        if outcome.error is not None:
            outcome = replace(outcome, error=self._as_typed(outcome.error, item))
        typed = self.open.pop(item)
        self.losses.pop(item, None)
        outcome = replace(outcome, input=str(typed.source), result=str(typed.result))
        self.tracker.settle(typed, outcome)
        if outcome.status == "failed" and self.run_options.fail_fast:
            self._halt(FAIL_FAST)

    def _halt(self, reason: str) -> None:
        """Begin no more images; the first reason counts."""
        self.halted = True
        self.tracker.summary.reason = self.tracker.summary.reason or reason

    def _as_typed(self, text: str, item: Item | None) -> str:
        """Put paths into a sentence as the person typed them; workers know absolute ones."""
        if item in self.open:
            typed = self.open[item]
            for path, short in zip(_paths(item), _paths(typed), strict=True):
                text = text.replace(str(path), str(short))
        return text.replace(
            absolute_path(self.run_options.result_dir), str(self.run_options.result_dir)
        )

    # Faults

    def _lose(self, number: int, reason: str) -> None:
        """Handle the loss of a worker: its images are to be restored again."""
        worker = self.workers[number]
        if self.stopping:
            worker.ready = False
            return
        unfinished = self._unfinished(worker)
        self.tracker.advance(-worker.begun)
        stillborn = 0 if worker.ready else worker.stillborn + 1
        self.workers[number] = _WorkerState(stillborn=stillborn, given_up=stillborn >= LOSSES)
        if unfinished:
            images = "1 image" if len(unfinished) == 1 else f"{len(unfinished)} images"
            self.tracker.notice(
                f"worker {number + 1} was lost ({reason}): {images} to be done again"
            )
        self.wrecks.update(item.result.parent for item in unfinished)
        for item in unfinished:
            lost = self.losses.setdefault(item, [])
            lost.append(number)
            if len(lost) < LOSSES:
                self.suspects.append(item)
                continue
            error = f"{item.source}: {len(lost)} workers were lost restoring it ({reason})"
            self._settle(item, Outcome("", "", "failed", error=error))
        if self.workers[number].given_up:
            self._blame(number, f"it was lost {stillborn} times as it began ({reason})")
        elif self.fresh or self.open:
            self._start(number)

    def _unfinished(self, worker: _WorkerState) -> list[Item]:
        """Images of a worker that are not done."""
        return [item for chunk in worker.chunks for item in chunk if item in self.open]

    def _blame(self, number: int, reason: str) -> None:
        """Give up a worker; raise UsageError if it was the last one."""
        reason = self._as_typed(reason, None)
        if all(worker.deviceless for worker in self.workers):
            raise DeviceError(reason)
        if all(worker.given_up for worker in self.workers):
            raise UsageError(reason)
        self.tracker.notice(f"worker {number + 1} is left out: {reason}")

    def _see_who_is_there(self) -> None:
        now = time.monotonic()
        if any(worker.ready for worker in self.workers):
            self.last_ready = now
        elif now - self.last_ready >= LONELY_SECONDS:
            self.tracker.notice("waiting for a worker to begin")
            self.last_ready = float("inf")  # say it once

    def _stop(self) -> None:
        """Let all workers write their restored images; end those that need too long."""
        self.stopping = True
        until = time.monotonic() + LAST_WRITE_SECONDS + LAST_WORD_SECONDS
        while any(worker.ready for worker in self.workers) and time.monotonic() < until:
            for number, worker in enumerate(self.workers):
                if worker.ready and not worker.waiting:
                    self._call(number, [], stop=True)
            self._listen(PATIENCE)


def _paths(item: Item) -> tuple[Path, ...]:
    return (*item.sources, item.result)


def _absolute(item: Item) -> Item:
    """The same image for a process that may work in another folder."""
    sources = tuple(Path(absolute_path(path)) for path in item.sources)
    return Item(sources, Path(absolute_path(item.result)))
