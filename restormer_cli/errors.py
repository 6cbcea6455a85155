"""Errors for people: each has one readable sentence and an exit status."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


class RestormerError(Exception):
    """Base of all errors of this package; ``str()`` of one is a sentence for people."""

    exit_status = 1
    """Exit status of the command that the error ends."""


class UsageError(RestormerError):
    """The command cannot start as asked: wrong folders, options or combination."""

    exit_status = 2


class OptionsError(UsageError):
    """A file of hyper-parameters, or a value in one, does not describe a network."""


class WeightsError(UsageError):
    """Weights are missing, unreadable or do not fit the network."""


class DeviceError(UsageError):
    """The device or precision asked for is not available on this machine."""


class OutputError(RestormerError):
    """Standard output cannot be written, for another reason than that its reader has gone."""


class WatchError(RestormerError):
    """A folder that was watched is not there any more."""


class BusyError(RestormerError):
    """Another run works in this result folder."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: try again later


class ImageError(RestormerError):
    """One image cannot be read, restored or written; the others are not affected."""


class ResultFolderError(ImageError):
    """A result cannot be written, for a reason that holds for others too, such as a full disk."""


class Stopped(BaseException):
    """A signal asked to stop. As KeyboardInterrupt, no handler of errors catches it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number

    @property
    def exit_status(self) -> int:
        """The exit status that shells report for a program ended by this signal."""
        return 128 + self.signal_number


def fault(error: BaseException) -> str:
    """The sentence for an unexpected error, which is a bug of ours; logs its traceback."""
    logger.debug("a fault of restormer-cli", exc_info=error)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"a fault of restormer-cli ({what}); please report it"
