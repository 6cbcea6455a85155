"""Work ahead and behind: a thread that prepares what comes next, and one that puts results away.

Both are bounded by the bytes they hold. The threads are daemons: a run that is stopped does not
wait for a disk. Nothing here knows of images.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Source = TypeVar("Source")
Loaded = TypeVar("Loaded")
Token = TypeVar("Token")

#: Waiting is interrupted this often, in seconds: Windows delivers Ctrl-C to no waiting thread.
_TICK = 0.5
#: And this often where there may be something to do meanwhile.
_IDLE = 0.05
#: How long the end of a run waits for what is being loaded, in seconds.
CLOSING_SECONDS = 5.0


class ReadAhead(Generic[Source, Loaded]):
    """Iterate over ``load(source)``, computed in order in a thread of its own.

    Parameters
    ----------
    size
        Bytes that a loaded value holds.
    budget
        Nothing is loaded while what is waiting holds more bytes than this, so that together it
        is never more than this and one value.
    idle
        Called now and then by the iteration while there is nothing to give.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        load: Callable[[Source], Loaded],
        size: Callable[[Loaded], int],
        budget: int,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._load, self._size, self._budget = load, size, budget
        self._idle = idle
        self._sources = iter(sources)
        self._waiting: deque[Loaded] = deque()
        self._bytes = 0
        self._state = threading.Condition()
        self._loading = self._ended = self._closed = False
        self._error: BaseException | None = None
        threading.Thread(target=self._work, name="reader", daemon=True).start()

    def __iter__(self) -> Iterator[Loaded]:
        while True:
            while not self._waiting and not self._ended:
                with self._state:
                    self._state.wait_for(lambda: self._waiting or self._ended, _IDLE)
                self._idle()
            with self._state:
                if not self._waiting:
                    break
                value = self._waiting.popleft()
                self._bytes -= self._size(value)
                self._state.notify_all()
            yield value
            del value  # or it would be held until the next one is there
        if self._error is not None:
            raise self._error

    def close(self, seconds: float = CLOSING_SECONDS) -> None:
        """Load nothing more; what is being loaded is dropped.

        Waits so long for it to end: Python's own end would abort a thread inside a decoder.
        """
        with self._state:
            self._closed = True
            self._waiting.clear()
            self._state.notify_all()
            self._state.wait_for(lambda: self._ended or not self._loading, seconds)

    def _work(self) -> None:
        try:
            for source in self._sources:
                with self._state:
                    if self._closed:
                        break
                    self._loading = True
                value = self._load(source)
                with self._state:
                    self._loading = False
                    self._waiting.append(value)
                    self._bytes += self._size(value)
                    self._state.notify_all()
                    del value
                    while self._bytes > self._budget and self._waiting and not self._closed:
                        self._state.wait()
                    if self._closed:
                        break
        except BaseException as error:  # raised where it can be handled
            self._error = error
        finally:
            with self._state:
                self._ended = True
                self._state.notify_all()


class WriteBehind(Generic[Token]):
    """Run jobs in order in a thread of its own and give back how they ended, in order.

    ``budget`` bounds the bytes of the jobs that wait: :meth:`put` then waits as well.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._jobs: deque[tuple[Token, int, Callable[[], None]]] = deque()
        self._done: deque[tuple[Token, BaseException | None]] = deque()
        self._bytes = 0
        self._busy = False
        self._closed = False
        self._state = threading.Condition()
        threading.Thread(target=self._work, name="writer", daemon=True).start()

    def put(self, token: Token, size: int, job: Callable[[], None]) -> None:
        """Queue a job that holds ``size`` bytes."""
        with self._state:
            while self._bytes and self._bytes + size > self._budget:
                self._state.wait(_TICK)
            self._jobs.append((token, size, job))
            self._bytes += size
            self._state.notify_all()

    def finished(self) -> Iterator[tuple[Token, BaseException | None]]:
        """Jobs that have ended since the last call, with what they raised; does not wait."""
        while self._done:
            yield self._done.popleft()

    def drain(self, seconds: float | None = None) -> Iterator[tuple[Token, BaseException | None]]:
        """All that is left, waiting for at most ``seconds``."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            yield from self.finished()
            with self._state:
                if self._done:
                    continue
                if not self._jobs and not self._busy:
                    break
                if until is not None and time.monotonic() >= until:
                    break
                self._state.wait(_TICK if until is None else min(_TICK, until - time.monotonic()))

    def close(self) -> None:
        """Begin no more jobs."""
        with self._state:
            self._closed = True
            self._jobs.clear()
            self._state.notify_all()

    def _work(self) -> None:
        while True:
            with self._state:
                while not self._jobs and not self._closed:
                    self._state.wait()
                if self._closed:
                    return
                token, size, job = self._jobs.popleft()
                self._busy = True
            error: BaseException | None = None
            try:
                job()
            except BaseException as raised:  # raised where it can be handled
                error = raised
            del job
            with self._state:
                self._busy = False
                self._bytes -= size
                self._done.append((token, error))
                self._state.notify_all()
