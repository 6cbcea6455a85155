"""Workers as processes of this machine, one for each device."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from restormer_cli.batch.items import Item
from restormer_cli.batch.options import RunOptions
from restormer_cli.executors.endpoint import Reply, serve
from restormer_cli.executors.scheduler import Lost
from restormer_cli.loading import RestorerSpec

#: Seconds that a process which is killed may take to be gone.
LAST_SECONDS = 5.0


class ProcessPool:
    """A :class:`~restormer_cli.executors.scheduler.WorkerPool` of processes, connected by pipes.

    Parameters
    ----------
    run_options
        The options of the run.
    specs
        One for each process.
    """

    def __init__(self, run_options: RunOptions, specs: Sequence[RestorerSpec]) -> None:
        self.size = len(specs)
        self._run_options, self._specs = run_options, specs
        # A fork would share CUDA and the threads of PyTorch, neither of which survives that.
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, SpawnProcess] = {}
        self._pipes: dict[int, Connection] = {}

    def start(self, worker: int) -> None:
        self._end(worker)
        ours, theirs = self._context.Pipe()
        with theirs:
            process = self._context.Process(
                target=_be_worker,
                args=(theirs, self._run_options, self._specs[worker]),
                daemon=True,
            )
            process.start()
        self._processes[worker], self._pipes[worker] = process, ours

    def call(self, worker: int, chunks: Sequence[Sequence[Item]], stop: bool) -> None:
        with contextlib.suppress(OSError):  # it has gone, as its pipe will say
            self._pipes[worker].send((chunks, stop))

    def replies(self, seconds: float) -> Iterable[tuple[int, Reply | Lost]]:
        ready = wait(list(self._pipes.values()), seconds)
        for worker, pipe in list(self._pipes.items()):
            if pipe in ready:
                try:
                    yield worker, pipe.recv()
                except Exception as error:  # it has gone, or what it says makes no sense
                    ended = self._end(worker)
                    gone = isinstance(error, (EOFError, OSError))
                    yield worker, Lost(ended if gone else f"{type(error).__name__}: {error}")

    def close(self) -> None:
        for worker in list(self._processes):
            self._end(worker)

    def _end(self, worker: int) -> str:
        """Make sure that a process is gone; return how it ended."""
        process = self._processes.pop(worker, None)
        if process is None:
            return ""
        self._pipes.pop(worker).close()
        process.join(0.1)  # it may just be ending by itself
        process.kill()
        process.join(LAST_SECONDS)
        return _ending(process.exitcode)


def _be_worker(connection: Connection, run_options: RunOptions, spec: RestorerSpec) -> None:
    serve(connection, run_options, spec)
    # Threads may still be inside a decoder, where Python's own end would abort the process.
    os._exit(0)


def _ending(status: int | None) -> str:
    if status is None or status >= 0:
        return f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:  # one of those for programs' own use
        return f"signal {-status}"
    return f"{name}, as when memory runs out" if name == "SIGKILL" else name
