"""Threads that share the parts of an image, each computing alone.

PyTorch can split every operation over threads; they then wait for each other at the end of each,
some 50,000 times an image, and beside a busy process every such wait lasts a turn of the
scheduler. Here a thread runs all operations on its own part and waits once a pass.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")

#: Seconds between two looks at what the threads have done.
INTERVAL = 0.1


class Cancelled(Exception):
    """Raised in threads whose work is no longer wanted."""


class ThreadTeam(Generic[T]):
    """Runs the steps of an evaluation on threads, of which the one that calls is the first.

    It works like the others rather than waiting for them: a system that wakes two threads at once
    may put both on one core, and takes milliseconds to find that the other core is free.

    Parameters
    ----------
    threads
        How many; 0 for devices that have a queue of their own.
    look
        Called on the calling thread a few times a second. What it raises stops the work.
    """

    def __init__(self, threads: int, look: Callable[[], None]) -> None:
        self.stopped = False
        self._threads = threads
        self._look = look
        self._next_look = 0.0
        self._caller: int | None = None
        self._settings = contextlib.ExitStack()
        self._workspaces: queue.LifoQueue[dict[str, Any]] = queue.LifoQueue()
        self._pool = ThreadPoolExecutor(threads - 1, "strips", _alone) if threads > 1 else None

    def __enter__(self) -> ThreadTeam[T]:
        self._caller = threading.get_ident()
        if self._threads:
            self._settings.callback(torch.set_num_threads, torch.get_num_threads())
            _alone()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopped = self.stopped or error is not None
        with self._settings:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
        self._workspaces = queue.LifoQueue()  # let go of their memory

    def each(self, step: Callable[[T, dict[str, Any]], None], parts: Iterable[T]) -> None:
        """Call ``step(part, workspace)`` for all parts and wait for them.

        A workspace is a dictionary that one thread at a time has, to keep buffers in.

        Raises
        ------
        Exception
            What the first step that failed raised, after all others have ended.
        """
        left = deque(parts)

        def work() -> None:
            while not self.stopped:
                try:
                    part = left.popleft()
                except IndexError:  # another thread was faster
                    return
                self._run(step, part)

        others: list[Future[None]] = []
        try:
            if self._pool is not None:
                others += [
                    self._pool.submit(work) for _ in range(min(self._threads, len(left)) - 1)
                ]
            work()
            self._look()
            running = set(others)
            while running:
                _, running = wait(running, INTERVAL)
                self._look()
        except BaseException as error:
            self.stopped = True
            wait(others)
            if not isinstance(error, Cancelled):
                raise
        for other in others:
            failure = other.exception()
            if failure is not None and not isinstance(failure, Cancelled):
                raise failure
        if self.stopped:
            raise Cancelled

    def check(self) -> None:
        """To be called by steps between strips: to look, on the calling thread, or to be stopped.

        Raises
        ------
        Cancelled
            If another part has failed, or the caller wants no result any more.
        """
        if self.stopped:
            raise Cancelled
        if threading.get_ident() == self._caller and (now := time.monotonic()) >= self._next_look:
            # A device with a queue of its own computes on meanwhile.
            self._next_look = now + (INTERVAL if self._threads else 0)
            self._look()

    def _run(self, step: Callable[[T, dict[str, Any]], None], part: T) -> None:
        self.check()
        try:
            workspace = self._workspaces.get_nowait()
        except queue.Empty:
            workspace = {}
        try:
            with torch.inference_mode():  # a setting of each thread
                step(part, workspace)
        except BaseException:
            self.stopped = True
            raise
        self._workspaces.put(workspace)


_default = threading.Lock()


def _alone() -> None:
    """Let PyTorch use no other threads from this one, and as many as before from all others."""
    with _default:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        # Set so, it is the number of each thread that begins later as well. Not of those that
        # have begun, so another thread puts the old one back.
        other = threading.Thread(target=torch.set_num_threads, args=(threads,))
        other.start()
        other.join()
