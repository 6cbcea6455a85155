"""Errors a person can act on: each carries one readable sentence, and an exit status."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


class RestormerError(Exception):
    """Base of all errors of this package; ``str()`` of one is a sentence for people."""

    exit_status = 1
    """Of the command that the error ends."""


class UsageError(RestormerError):
    """The command cannot start as asked: wrong folders, options or combination."""

    exit_status = 2


class OptionsError(UsageError):
    """A file of hyper-parameters, or a value in one, does not describe a network."""


class WeightsError(UsageError):
    """Weights are missing, unreadable or do not fit the network."""


class DeviceError(UsageError):
    """The device or precision asked for is not to be had on this machine."""


class OutputError(RestormerError):
    """Standard output takes no more lines, and its reader has not simply gone."""


class WatchError(RestormerError):
    """A folder that was watched is not there any more."""


class BusyError(RestormerError):
    """Another run works in this result folder; it says who."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: try again later


class ImageError(RestormerError):
    """One image cannot be read, restored or written; the others are not affected."""


class ResultFolderError(ImageError):
    """A result cannot be written for a reason that will hold for the next one too."""


class Stopped(BaseException):
    """A signal asked to stop. Like KeyboardInterrupt, it is no error that a handler may eat."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number

    @property
    def exit_status(self) -> int:
        """As shells give that of a program which a signal has ended."""
        return 128 + self.signal_number


def fault(error: BaseException) -> str:
    """What to say of an error that should not be; its traceback is logged, for debugging.

    To be called where it is handled. It is ours, not the user's, and costs one image at most.
    """
    logger.debug("a fault of restormer-cli", exc_info=error)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"a fault of restormer-cli ({what}); please report it"
