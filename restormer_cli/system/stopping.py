"""Signals that stop a run, at moments at which nothing gets lost.

Python would raise :class:`~restormer_cli.errors.Stopped` between any two steps of the main thread,
also between a result and the count of it. So a run works :func:`uninterrupted`, looks for a stop
where it waits, and is :func:`interruptible` only inside the network, which takes long.
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

#: Of a terminal that is closed; Windows has none.
_HANG_UP: int | None = getattr(signal, "SIGHUP", None)
#: Ctrl-C, a service manager, and that.
STOPPING = [number for number in (signal.SIGINT, signal.SIGTERM, _HANG_UP) if number is not None]
#: A signal that comes so soon after another one is the same stop.
SAME_STOP_SECONDS = 1.0


class _Stops:
    """The one main thread's: whether a stop has to wait, and the one that does."""

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
    """Let a stop wait until this ends, or :func:`check` or :func:`interruptible` come."""
    return _holding(True)


def interruptible() -> contextlib.AbstractContextManager[None]:
    """Let a stop come at any moment, inside of what is uninterrupted."""
    return _holding(False)


def check(*, now: bool = False) -> None:
    """Raise a stop that has waited, if nothing holds it or it is to be raised ``now``."""
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
