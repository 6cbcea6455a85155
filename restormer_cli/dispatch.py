"""Several workers on one run: images go out in chunks, faults are survived, each is told once.

The driver moves no pixels. It hands each worker two chunks, so that one is there when the other is
done, and makes them so large that a worker needs a few seconds for one, but smaller towards the
end, so that all end together. Of a million images no more are under way.

When a worker is lost, what it had in hand is done again. Each of those images is then given to a
worker alone, since one of them may be the cause: who loses three workers has failed. Results
appear whole or not at all, so doing an image twice harms nothing; whatever is told of it a second
time is passed over.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from restormer_cli.course import Course
from restormer_cli.errors import UsageError
from restormer_cli.files import sweep
from restormer_cli.job import Job
from restormer_cli.outcomes import Outcome
from restormer_cli.record import Record
from restormer_cli.remote import PATIENCE, Reply
from restormer_cli.stopping import uninterrupted
from restormer_cli.work import Item
from restormer_cli.worker import FAIL_FAST, LAST_WRITE_SECONDS

#: Seconds that a worker should need for a chunk.
CHUNK_SECONDS = 2.0
#: Megapixels of a chunk as long as nobody knows how fast a worker is.
FIRST_CHUNK = 0.25
#: And at least: eight small images, which go through the network together.
SMALLEST_CHUNK = 8 * 64 * 64 / 1e6
#: Images in a chunk at most.
LONGEST_CHUNK = 256
#: Chunks that a worker has at once.
CHUNKS_AHEAD = 2
#: So many workers an image may lose before it has failed, and a worker may be lost in a row
#: before it has begun to work.
LOSSES = 3
#: Seconds without any worker after which it is said.
LONELY_SECONDS = 10.0
#: Seconds that a worker may need, when it has written its last result, to say so.
LAST_WORD_SECONDS = 2.0


@dataclass(frozen=True)
class Lost:
    """What a crew says of a worker that is not there any more."""

    reason: str


class Crew(Protocol):
    """Workers somewhere, by their numbers; each has a :class:`~restormer_cli.remote.Remote`."""

    size: int

    def start(self, worker: int) -> None:
        """Have a worker made, or made anew after it was lost; does not wait for it."""

    def call(self, worker: int, chunks: Sequence[Sequence[Item]], stop: bool) -> None:
        """Call ``exchange`` of a worker, which has answered the last call; does not wait."""

    def replies(self, seconds: float) -> Iterable[tuple[int, Reply | Lost]]:
        """Answers to calls; waits for one, but no longer than this."""

    def close(self) -> None:
        """End all workers at once."""


@dataclass
class _Hand:
    """What the driver knows of a worker."""

    chunks: list[set[Item]] = field(default_factory=list)
    """That it has, without those images that are done."""
    alone: bool = False
    """Whether it is restoring an image that may have lost others."""
    ready: bool = False
    waiting: bool = False
    """Whether it owes an answer."""
    since: float = 0.0
    """When it was ready."""
    done: float = 0.0
    """Megapixels that it has finished since."""
    begun: float = 0.0
    """Megapixels that came out of its network and are not yet finished."""
    stillborn: int = 0
    """How often in a row it was lost before it was ready."""
    given_up: bool = False


class Dispatcher:
    """Restores with a crew; an :class:`~restormer_cli.batch.Engine`.

    Parameters
    ----------
    tell
        Is told what workers say of themselves: devices, threads and so on.
    """

    def __init__(self, crew: Crew, tell: Callable[[str], None] = lambda text: None) -> None:
        self.crew = crew
        self.tell = tell
        self.most_memory = 0

    def peak_memory(self) -> int:
        return self.most_memory

    def restore(self, job: Job, record: Record, items: list[Item], course: Course) -> None:
        self.job, self.course = job, course
        self.hands = [_Hand() for _ in range(min(self.crew.size, len(items)))]
        self.fresh = deque(items)
        self.left = sum(map(course.megapixels, items))  # of those in fresh
        #: Images that are under way, as workers know them and as the person typed them.
        self.open: dict[Item, Item] = {}
        #: Of those, what each has lost.
        self.losses: dict[Item, list[int]] = {}
        #: And those of them that nobody has in hand.
        self.suspects: deque[Item] = deque()
        #: Where workers that were lost may have left something half-written.
        self.wrecks: set[Path] = set()
        self.halted = self.stopping = False
        with uninterrupted():
            self._run()
        if job.shard is None:  # sister shards may be writing there
            sweep(self.wrecks)

    def _run(self) -> None:
        self.last_ready = time.monotonic()
        try:
            for number in range(len(self.hands)):
                self.crew.start(number)
            while (self.fresh or self.open) and not self.halted:
                self._hand_out()
                self._listen(PATIENCE)
                self._see_who_is_there()
                self.course.check()
        finally:
            try:
                self._stop()
            finally:
                self.crew.close()

    # Handing out

    def _hand_out(self) -> None:
        for number, hand in enumerate(self.hands):
            if not hand.waiting and not hand.given_up:
                self._call(number, list(self._chunks(number)) if hand.ready else [])

    def _call(self, number: int, chunks: Sequence[Sequence[Item]], *, stop: bool = False) -> None:
        self.hands[number].waiting = True
        self.crew.call(number, chunks, stop)

    def _chunks(self, number: int) -> Iterator[list[Item]]:
        """What a worker gets now."""
        hand = self.hands[number]
        while len(hand.chunks) < CHUNKS_AHEAD and not hand.alone:
            suspect = self._suspect_for(number)
            if suspect is not None and hand.chunks:
                return  # it is to be alone
            if suspect is not None:
                hand.alone = True
                self.suspects.remove(suspect)
                chunk = [suspect]
            elif self.fresh:
                chunk = self._next_chunk(hand)
            else:
                return
            hand.chunks.append(set(chunk))
            yield chunk

    def _suspect_for(self, number: int) -> Item | None:
        """An image that has lost others, but not this worker, if there is another one.

        A device that is out of order would lose every image else.
        """
        ready = {other for other, hand in enumerate(self.hands) if hand.ready}
        for item in self.suspects:
            lost = self.losses[item]
            if number not in lost or ready.issubset(lost):
                return item
        return None

    def _next_chunk(self, hand: _Hand) -> list[Item]:
        seconds = time.monotonic() - hand.since
        wanted = CHUNK_SECONDS * hand.done / seconds if hand.done else FIRST_CHUNK
        # Towards the end less, so that no worker waits long for another.
        wanted = max(SMALLEST_CHUNK, min(wanted, self.left / (3 * len(self.hands))))
        chunk: list[Item] = []
        while self.fresh and len(chunk) < LONGEST_CHUNK:
            size = self.course.megapixels(self.fresh[0])
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
        for number, reply in self.crew.replies(seconds):
            hand = self.hands[number]
            hand.waiting = False
            if hand.given_up:
                continue
            if isinstance(reply, Lost):
                self._lose(number, reply.reason)
                continue
            self.most_memory = max(self.most_memory, reply.peak_memory)
            for name, arguments in reply.events:
                getattr(self, f"_on_{name}")(number, *arguments)
            if reply.state == "broken":
                self._lose(number, reply.reason)
            elif reply.state == "refused":
                for item in self._in_hand(hand):  # it has begun none of them
                    self.fresh.appendleft(self.open.pop(item))
                    self.left += self.course.megapixels(self.fresh[0])
                self.hands[number] = _Hand(given_up=True)
                self._blame(number, reply.reason)
            elif reply.state in {"halted", "ended"}:
                hand.ready = False
                self._halt(self._as_typed(reply.reason, None))
            elif reply.state == "working" and not hand.ready:
                hand.ready, hand.since, hand.stillborn = True, time.monotonic(), 0

    def _on_fact(self, number: int, text: str) -> None:
        self.tell(f"worker {number + 1}: {text}")

    def _on_notice(self, number: int, text: str, item: Item | None) -> None:
        self.course.notice(self._as_typed(text, item))

    def _on_start(self, number: int, item: Item, megapixels: float) -> None:
        if item in self.open:
            self.course.start(self.open[item], megapixels)

    def _on_advance(self, number: int, megapixels: float) -> None:
        self.hands[number].begun += megapixels
        self.course.advance(megapixels)

    def _on_settle(self, number: int, item: Item, outcome: Outcome) -> None:
        hand = self.hands[number]
        for chunk in hand.chunks:
            chunk.discard(item)
        hand.chunks = [chunk for chunk in hand.chunks if chunk]
        hand.alone = hand.alone and bool(hand.chunks)
        if item in self.open:
            megapixels = (outcome.width or 0) * (outcome.height or 0) / 1e6
            hand.done += megapixels
            hand.begun = max(0.0, hand.begun - megapixels)
            self._settle(item, outcome)

    def _settle(self, item: Item, outcome: Outcome) -> None:
        if outcome.error is not None:
            outcome = replace(outcome, error=self._as_typed(outcome.error, item))
        typed = self.open.pop(item)
        self.losses.pop(item, None)
        outcome = replace(outcome, input=str(typed.source), result=str(typed.result))
        self.course.settle(typed, outcome)
        if outcome.status == "failed" and self.job.fail_fast:
            self._halt(FAIL_FAST)

    def _halt(self, reason: str) -> None:
        """Begin nothing more; the first reason counts."""
        self.halted = True
        self.course.summary.reason = self.course.summary.reason or reason

    def _as_typed(self, text: str, item: Item | None) -> str:
        """A sentence with paths as the person gave them; workers know absolute ones."""
        if item in self.open:
            typed = self.open[item]
            for path, short in zip(_paths(item), _paths(typed), strict=True):
                text = text.replace(str(path), str(short))
        return text.replace(str(absolute_path(self.job.result_dir)), str(self.job.result_dir))

    # Faults

    def _lose(self, number: int, reason: str) -> None:
        """A worker has gone: what it had in hand is to be done again."""
        hand = self.hands[number]
        if self.stopping:
            hand.ready = False
            return
        unfinished = self._in_hand(hand)
        self.course.advance(-hand.begun)
        stillborn = 0 if hand.ready else hand.stillborn + 1
        self.hands[number] = _Hand(stillborn=stillborn, given_up=stillborn >= LOSSES)
        if unfinished:
            images = "1 image" if len(unfinished) == 1 else f"{len(unfinished)} images"
            self.course.notice(
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
        if self.hands[number].given_up:
            self._blame(number, f"it was lost {stillborn} times as it began ({reason})")
        elif self.fresh or self.open:
            self.crew.start(number)

    def _in_hand(self, hand: _Hand) -> list[Item]:
        """Images that a worker has and that are not done."""
        return [item for chunk in hand.chunks for item in chunk if item in self.open]

    def _blame(self, number: int, reason: str) -> None:
        """A worker is of no use; that is the end if it was the last one."""
        reason = self._as_typed(reason, None)
        if all(hand.given_up for hand in self.hands):
            raise UsageError(reason)
        self.course.notice(f"worker {number + 1} is left out: {reason}")

    def _see_who_is_there(self) -> None:
        now = time.monotonic()
        if any(hand.ready for hand in self.hands):
            self.last_ready = now
        elif now - self.last_ready >= LONELY_SECONDS:
            self.course.notice("waiting for a worker to begin")
            self.last_ready = float("inf")  # say it once

    def _stop(self) -> None:
        """Have all workers write what they have restored; those that need longer are ended."""
        self.stopping = True
        until = time.monotonic() + LAST_WRITE_SECONDS + LAST_WORD_SECONDS
        while any(hand.ready for hand in self.hands) and time.monotonic() < until:
            for number, hand in enumerate(self.hands):
                if hand.ready and not hand.waiting:
                    self._call(number, [], stop=True)
            self._listen(PATIENCE)


def _paths(item: Item) -> tuple[Path, ...]:
    return (*item.sources, item.result)


def _absolute(item: Item) -> Item:
    return Item(tuple(map(absolute_path, item.sources)), absolute_path(item.result))


def absolute_path(path: Path) -> Path:
    """The same file for a process that may work in another folder."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - links stay
