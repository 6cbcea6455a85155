"""Lets signals stop a run only at moments when nothing gets lost.

Python would raise :class:`~restormer_cli.errors.Stopped` between any two steps of the main thread,
also between writing a result and counting it. So a run works :func:`uninterrupted`, checks for a
stop where it waits, and is :func:`interruptible` only inside the network, which takes long.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from restormer_cli.errors import Stopped

#: The signal of a terminal that is closed; Windows has none.
_HANG_UP: int | None = getattr(signal, "SIGHUP", None)
#: Signals of Ctrl-C, of a service manager, and of a closed terminal.
STOPPING = [number for number in (signal.SIGINT, signal.SIGTERM, _HANG_UP) if number is not None]
#: Seconds in which a further signal is part of the same stop.
SAME_STOP_SECONDS = 1.0


class _Stops:
    """State of the main thread: True if a stop has to wait, and the stop that waits."""

    held = False
    waiting: Stopped | None = None


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def _holding(held: bool) -> Iterator[None]:
    if not _is_main():  # no other thread is interrupted
        yield
        return
    before = _Stops.held
    try:
        _Stops.held = held
        check()
        yield
    finally:
        _Stops.held = before
    check()


def uninterrupted() -> contextlib.AbstractContextManager[None]:
    """Hold a stop back until the end of the context, :func:`check` or :func:`interruptible`."""
    return _holding(True)


def interruptible() -> contextlib.AbstractContextManager[None]:
    """Let a stop come at any moment, inside :func:`uninterrupted`."""
    return _holding(False)


def check(*, now: bool = False) -> None:
    """Raise a stop that waits, unless it is held back; with ``now`` in any case."""
    if _Stops.waiting is not None and (now or not _Stops.held) and _is_main():
        stop, _Stops.waiting = _Stops.waiting, None
        raise stop


def is_waiting() -> bool:
    """True if a stop has come and is to be raised."""
    return _Stops.waiting is not None


@contextlib.contextmanager
def signals_stop() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into :class:`Stopped`; a later one has its usual effect."""
    previous: dict[int, Any] = {}
    stopped_at = -math.inf

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped_at
        # One stop comes twice where a service manager signals the script that has started this
        # and all its children, and the script hands the signal on.
        if time.monotonic() - stopped_at < SAME_STOP_SECONDS:
            return
        if stopped_at > -math.inf:
            restore_handlers()
            signal.raise_signal(number)
            return
        stopped_at = time.monotonic()
        _Stops.waiting = Stopped(number)
        check()

    def restore_handlers() -> None:
        while previous:
            number, handler = previous.popitem()
            signal.signal(number, handler)

    _Stops.waiting = None
    if _is_main():
        for number in STOPPING:
            ignored = signal.getsignal(number) == signal.SIG_IGN
            if not (ignored and number == _HANG_UP):  # nohup asks for that
                previous[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        restore_handlers()
        _Stops.waiting = None
