"""Errors a person can act on: each carries one readable sentence."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


class RestormerError(Exception):
    """Base of all errors of this package; ``str()`` of one is a sentence for people."""


class UsageError(RestormerError):
    """The command cannot start as asked: wrong folders, options or combination."""


class OptionsError(UsageError):
    """A file of hyper-parameters, or a value in one, does not describe a network."""


class WeightsError(UsageError):
    """Weights are missing, unreadable or do not fit the network."""


class DeviceError(UsageError):
    """The device or precision asked for is not to be had on this machine."""


class OutputError(RestormerError):
    """Standard output takes no more lines, and its reader has not simply gone."""


class BusyError(RestormerError):
    """Another run works in this result folder; it says who."""


class ImageError(RestormerError):
    """One image cannot be read, restored or written; the others are not affected."""


class ResultFolderError(ImageError):
    """A result cannot be written for a reason that will hold for the next one too."""


class Stopped(BaseException):
    """A signal asked to stop. Like KeyboardInterrupt, it is no error that a handler may eat."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def fault(error: BaseException) -> str:
    """What to say of an error that should not be; its traceback is logged, for debugging.

    To be called where it is handled. It is ours, not the user's, and costs one image at most.
    """
    logger.debug("a fault of restormer-cli", exc_info=error)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"a fault of restormer-cli ({what}); please report it"
