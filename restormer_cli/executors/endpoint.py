"""The end of a worker in another process: takes chunks of images, returns events.

The driver calls and the endpoint replies, over any connection. The worker runs between calls, too:
:func:`restormer_cli.batch.worker.work` has a thread of its own and takes chunks from a queue, so
that it never waits while there is one left.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Literal

from restormer_cli.batch import worker
from restormer_cli.batch.items import Item
from restormer_cli.batch.journal import Journal
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Outcome
from restormer_cli.errors import DeviceError, RestormerError, Stopped, fault
from restormer_cli.loading import RestorerSpec
from restormer_cli.system.memory import peak_memory
from restormer_cli.system.stopping import STOPPING

logger = logging.getLogger(__name__)

#: Most seconds that a call waits for events.
PATIENCE = 0.25
#: Seconds in which further events are collected after the first: a fast worker makes hundreds of
#: images a second, and the driver may have hundreds of workers.
GATHER = 0.05

#: ``starting`` until the network is loaded. ``ended`` as it was asked to. ``halted`` before: the
#: run fails fast, or the disk is full. ``refused``: it cannot work at all; ``deviceless``: because
#: its device cannot be used. ``broken``: a bug, or a device that has gone; the process is not to be
#: used any more.
State = Literal["starting", "working", "ended", "halted", "refused", "deviceless", "broken"]
#: Name of a method of a :class:`~restormer_cli.batch.worker.Listener`, and arguments to call it
#: with; or ``log``, with level, text and traceback of a log record.
Event = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Reply:
    """The answer of a worker to a call."""

    state: State
    reason: str = ""
    """Why it was halted or refused, has no device, or is broken."""
    events: list[Event] = field(default_factory=list)
    """Events since the last call."""
    peak_memory: int = 0


class WorkerEndpoint:
    """A worker that another process controls.

    Parameters
    ----------
    run_options
        The options of the run; ``result_dir`` must be a path that is valid in this process.
    spec
        The weights, device and precision to restore with.
    """

    def __init__(self, run_options: RunOptions, spec: RestorerSpec) -> None:
        self._run_options, self._spec = run_options, spec
        self._chunks: SimpleQueue[Sequence[Item] | None] = SimpleQueue()
        self._events: list[Event] = []
        self._state: State = "starting"
        self._reason = ""
        self._news = False
        self._stopping = False
        self._change = threading.Condition()
        threading.Thread(target=self._work, name="worker", daemon=True).start()

    def exchange(self, chunks: Sequence[Sequence[Item]], stop: bool) -> Reply:
        """Queue chunks, and return the events since the last call.

        Returns soon, if need be without an event.

        Parameters
        ----------
        chunks
            Images to restore after those in the queue.
        stop
            End the worker as a run that is stopped: images that are restored are written.
        """
        for chunk in chunks:
            self._chunks.put(chunk)
        if stop:
            self._stopping = True
            self._chunks.put(None)
        with self._change:
            self._change.wait_for(lambda: self._news, PATIENCE)
            if self._news and self._state == "working":
                self._change.wait_for(lambda: self._state != "working", GATHER)
            self._news = False
            events, self._events = self._events, []
            return Reply(self._state, self._reason, events, peak_memory())

    def _work(self) -> None:
        package = logging.getLogger("restormer_cli")
        package.setLevel(logging.DEBUG)  # what is shown is for the driver to say
        package.addHandler(handler := _LogForwarder(self))
        try:
            spec = self._spec.found_here()
            loaded = spec.load()
            for fact in loaded.facts:
                logger.info(fact)
            self._become("working")
            journal = Journal.of_worker(
                self._run_options.result_dir,
                self._run_options.settings,
                self._run_options.journal_name,
            )
            chunks = iter(self._chunks.get, None)
            reason = worker.work(
                self._run_options,
                journal,
                loaded.restorer,
                loaded.provenance,
                chunks,
                _Listener(self),
                keep_on=False,
            )
        except Stopped:
            self._become("ended")
        except DeviceError as error:
            self._become("deviceless", str(error))
        except RestormerError as error:
            self._become("refused", str(error))
        except BaseException as error:
            fault(error)
            self._become("broken", f"{type(error).__name__}: {error}".splitlines()[0])
        else:
            self._become("halted" if reason else "ended", reason)
        finally:
            package.removeHandler(handler)

    def _become(self, state: State, reason: str = "") -> None:
        with self._change:
            self._state, self._reason, self._news = state, reason, True
            self._change.notify_all()

    def tell(self, event: Event, *, news: bool) -> None:
        """Keep an event for the next call; ``news`` ends a call that waits."""
        with self._change:
            if self._events and event[0] == "advance" == self._events[-1][0]:
                event = ("advance", (self._events.pop()[1][0] + event[1][0],))
            self._events.append(event)
            if news:
                self._news = True
                self._change.notify_all()

    def check(self) -> None:
        """Raise Stopped, also in the middle of an image, if the worker is to stop."""
        if self._stopping:
            raise Stopped(signal.SIGTERM)


class _LogForwarder(logging.Handler):
    """Passes the log records of this process to the driver, tracebacks as text."""

    def __init__(self, endpoint: WorkerEndpoint) -> None:
        super().__init__(logging.DEBUG)
        self._endpoint = endpoint

    def emit(self, record: logging.LogRecord) -> None:
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        event = ("log", (record.levelno, record.getMessage(), trace))
        self._endpoint.tell(event, news=False)


class _Listener:
    """Passes events to the endpoint: a :class:`restormer_cli.batch.worker.Listener`."""

    def __init__(self, endpoint: WorkerEndpoint) -> None:
        self._endpoint = endpoint

    def notice(self, text: str, item: Item | None = None) -> None:
        self._endpoint.tell(("notice", (text, item)), news=True)

    def check(self) -> None:
        self._endpoint.check()

    def start(self, item: Item, megapixels: float) -> None:
        self._endpoint.tell(("start", (item, megapixels)), news=False)

    def advance(self, megapixels: float) -> None:
        self._endpoint.tell(("advance", (megapixels,)), news=False)

    def settle(self, item: Item, outcome: Outcome) -> None:
        self._endpoint.tell(("settle", (item, outcome)), news=True)


def serve(connection: Any, run_options: RunOptions, spec: RestorerSpec) -> None:
    """Run a worker at the end of a :class:`multiprocessing.connection.Connection`.

    Returns when the worker has replied that it has ended, or soon after the driver has gone.
    """
    # A terminal sends Ctrl-C to workers, too; the driver tells them what to do about it.
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    endpoint = WorkerEndpoint(run_options, spec)
    state: State = "starting"
    try:
        while state in {"starting", "working"}:
            reply = endpoint.exchange(*connection.recv())
            connection.send(reply)
            state = reply.state
    except (EOFError, OSError):
        until = time.monotonic() + worker.LAST_WRITE_SECONDS
        while state in {"starting", "working"} and time.monotonic() < until:
            state = endpoint.exchange([], stop=True).state
