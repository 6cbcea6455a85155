"""Threads that share the parts of an image, each computing alone.

PyTorch can split every operation over threads; they then wait for each other at the end of each,
some 50,000 times an image, and beside a busy process every such wait lasts a turn of the
scheduler. Here a thread runs all operations on its own part and waits once a pass.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")

#: Seconds between two looks at what the threads have done.
INTERVAL = 0.1


class Stopped(Exception):
    """Raised in threads whose work is no longer wanted."""


class ThreadTeam(Generic[T]):
    """Runs the steps of an evaluation on threads, or, with none, on the thread that calls.

    Parameters
    ----------
    threads
        How many; 0 for devices that have a queue of their own.
    look
        Called on the calling thread a few times a second. What it raises stops the work.
    """

    def __init__(self, threads: int, look: Callable[[], None]) -> None:
        self.stopped = False
        self._look = look
        self._workspaces: queue.LifoQueue[dict[str, Any]] = queue.LifoQueue()
        self._pool = ThreadPoolExecutor(threads, "strips", _compute_alone) if threads else None

    def __enter__(self) -> ThreadTeam[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopped = self.stopped or error is not None
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
        if self._pool is None:
            for part in parts:
                self._run(step, part)
            return
        running = {self._pool.submit(self._run, step, part) for part in parts}
        try:
            while running:
                done, running = wait(running, INTERVAL, FIRST_COMPLETED)
                for future in done:
                    future.result()
                self._look()
        except BaseException:
            self.stopped = True
            for future in running:
                future.cancel()
            wait(running)
            raise

    def check(self) -> None:
        """To be called by steps between strips: with no threads, to look; else to be stopped.

        Raises
        ------
        Stopped
            If another part has failed, or the caller wants no result any more.
        """
        if self.stopped:
            raise Stopped
        if self._pool is None:
            self._look()

    def _run(self, step: Callable[[T, dict[str, Any]], None], part: T) -> None:
        self.check()
        try:
            workspace = self._workspaces.get_nowait()
        except queue.Empty:
            workspace = {}
        with torch.inference_mode():  # a setting of each thread
            step(part, workspace)
        self._workspaces.put(workspace)


_default = threading.Lock()


def _compute_alone() -> None:
    """Let PyTorch use no other threads from this one, and as many as before from all others."""
    with _default:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        # Set so, it is the number of each thread that begins later as well. Not of those that
        # have begun, so another thread puts the old one back.
        other = threading.Thread(target=torch.set_num_threads, args=(threads,))
        other.start()
        other.join()
