"""Two threads: one loads the next values ahead, one writes results in the background.

Both are bounded by the bytes they hold. The threads are daemons: a run that is stopped does not
wait for a disk. This module knows nothing of images.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from restormer_cli.errors import UsageError

Source = TypeVar("Source")
Loaded = TypeVar("Loaded")
Token = TypeVar("Token")

#: Waiting is interrupted this often, in seconds: Windows delivers Ctrl-C to no waiting thread.
_TICK = 0.5
#: And this often where there may be something to do meanwhile.
_IDLE = 0.05
#: Seconds that the end of a run waits for the value that is being loaded.
CLOSING_SECONDS = 5.0
#: Values of fewer bytes are loaded without a look at the free memory.
SMALL_BYTES = 1 << 22


class Closed(BaseException):
    """The work was given up. A BaseException, so that handlers of errors let it through."""


class Prefetcher(Generic[Source, Loaded]):
    """Iterate over ``load(source)``, computed in order in a thread of its own.

    Parameters
    ----------
    size
        Bytes that a loaded value holds.
    budget
        Nothing is loaded while the waiting values hold more bytes than this. So they hold at most
        this and one value.
    idle
        Called regularly while the iteration waits for a value.

    Iterate once. The iteration raises UsageError if the system allows no further thread.
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
        self._waiting: deque[tuple[Loaded, int]] = deque()  # each with what loading it took
        self._bytes = 0
        self._state = threading.Condition()
        self._loading = self._hungry = self._blocked = self._ended = self._closed = False
        self._error: BaseException | None = None
        #: Bytes that the value which is being loaded takes, as reserved.
        self._reserved = 0
        #: Bytes reserved since there was a new word on how many there is room for.
        self._taken = 0
        self._room: Callable[[int], bool] | None = None

    def __iter__(self) -> Iterator[Loaded]:
        _start(self._work, "reader")
        while True:
            while not self._waiting and not self._ended:
                with self._state:
                    self._hungry = True
                    self._state.notify_all()
                    self._state.wait_for(lambda: self._waiting or self._ended, _IDLE)
                    self._hungry = False
                self._idle()
            with self._state:
                if not self._waiting:
                    break
                value, cost = self._waiting.popleft()
                self._bytes -= self._size(value)
                if cost > SMALL_BYTES:
                    self._room = None  # until it is known what is to become of this value
                self._state.notify_all()
            yield value
            del value  # or it would be held until the next one is there
        if self._error is not None:
            raise self._error

    # Memory that loading takes

    def reserve(self, size: int) -> None:
        """Wait until there is room for so many bytes; ``load`` calls it before it takes them.

        There is always room once the iteration waits for this very value: the values before it
        are done then. So a large value is loaded alone, however large.

        Raises
        ------
        Closed
            If the prefetcher was closed.
        """
        with self._state:
            self._blocked = True
            self._state.notify_all()
            self._state.wait_for(lambda: self._closed or self._may_take(size))
            self._blocked = False
            if self._closed:
                raise Closed
            self._reserved += size
            self._taken += size

    def _may_take(self, size: int) -> bool:
        if not self._waiting:
            if self._hungry:
                return True
        elif sum(cost for _, cost in self._waiting) + size > self._budget:
            return False
        return self._room is not None and self._room(self._taken + size)

    def allow(self, room: Callable[[int], bool]) -> None:
        """Set the limit for loading from now on: ``room`` is True for a number of bytes that fits.

        It holds until a large value is taken. Then no load begins before the next call.
        """
        with self._state:
            self._room, self._taken = room, 0
            self._state.notify_all()

    @property
    def reserved(self) -> int:
        """Most bytes that the value which is being loaded needs."""
        return self._reserved

    def finish_loading(self) -> None:
        """Wait until the value that is being loaded is there, if there was room for it."""
        with self._state:
            while self._reserved and not (self._blocked or self._ended):
                self._state.wait(_TICK)

    def close(self, seconds: float = CLOSING_SECONDS) -> None:
        """Load nothing more; drop the value that is being loaded.

        Waits up to ``seconds`` for it, since Python's end would abort a thread inside a decoder.
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
                    self._waiting.append((value, self._reserved))
                    self._reserved = 0
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


class BackgroundWriter(Generic[Token]):
    """Run jobs in order in a thread of its own, and return in order how they ended.

    Parameters
    ----------
    budget
        Most bytes that waiting jobs hold; :meth:`put` waits for room.

    Raises
    ------
    UsageError
        If the system allows no further thread.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._jobs: deque[tuple[Token, int, Callable[[], None]]] = deque()
        self._done: deque[tuple[Token, BaseException | None]] = deque()
        self._bytes = 0
        self._busy = self._committed = self._closed = False
        self._state = threading.Condition()
        self._thread = _start(self._work, "writer")

    @property
    def bytes(self) -> int:
        """Bytes that unfinished jobs hold."""
        return self._bytes

    def put(self, token: Token, size: int, job: Callable[[], None]) -> None:
        """Queue a job that holds ``size`` bytes."""
        with self._state:
            while self._bytes and self._bytes + size > self._budget and self._thread.is_alive():
                self._state.wait(_TICK)
            self._jobs.append((token, size, job))
            self._bytes += size
            self._state.notify_all()

    def commit(self) -> None:
        """Called by a job before a step that it cannot undo: :meth:`finished` will report it.

        Raises
        ------
        Closed
            If the writer was closed.
        """
        with self._state:
            if self._closed:
                raise Closed
            self._committed = True

    def finished(self) -> Iterator[tuple[Token, BaseException | None]]:
        """Jobs that have ended since the last call, each with its exception; does not wait."""
        while self._done:
            yield self._done.popleft()

    def drain(self, seconds: float | None = None) -> Iterator[tuple[Token, BaseException | None]]:
        """Wait for all jobs, up to ``seconds``, and yield them as :meth:`finished` does."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            yield from self.finished()
            with self._state:
                if self._done:
                    continue
                if not (self._jobs or self._busy) or not self._thread.is_alive():
                    break
                if until is not None and time.monotonic() >= until:
                    break
                self._state.wait(_TICK if until is None else min(_TICK, until - time.monotonic()))

    def close(self, seconds: float = CLOSING_SECONDS) -> None:
        """Begin no more jobs; let no job commit that has not.

        Waits up to ``seconds`` for a job that has committed. Afterwards :meth:`finished` yields
        the last of all jobs that will ever be done.
        """
        with self._state:
            self._closed = True
            self._jobs.clear()
            self._state.notify_all()
            self._state.wait_for(lambda: not (self._busy and self._committed), seconds)

    def _work(self) -> None:
        while True:
            with self._state:
                while not self._jobs and not self._closed:
                    self._state.wait()
                if self._closed:
                    return
                token, size, job = self._jobs.popleft()
                self._busy, self._committed = True, False
            error: BaseException | None = None
            try:
                job()
            except BaseException as raised:  # raised where it can be handled
                error = raised
            del job
            with self._state:
                self._busy = False
                self._bytes -= size
                # What never committed and nobody waits for has not been done.
                if not isinstance(error, Closed):
                    self._done.append((token, error))
                self._state.notify_all()


def _start(target: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # of Python, which tells no more
        raise UsageError(
            "the system allows no further thread; limits are `ulimit -u` and `ulimit -v`"
        ) from error
    return thread
