"""Prints log records of the package: warnings, and more with ``-v``."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

#: By the number of ``-v``.
LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
PACKAGE = "restormer_cli"


class _LineHandler(logging.Handler):
    """Prints each record as text; tracebacks only with ``-vv``."""

    def __init__(self, say: Callable[[str], None], level: int) -> None:
        super().__init__(level)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_text or record.exc_info:
            if self.level > logging.DEBUG:
                text += " (-vv shows where)"
            else:
                text = logging.Formatter().format(record)
        for line in text.splitlines():  # of a traceback there are many
            self._say(line)


@contextlib.contextmanager
def log_to(say: Callable[[str], None], verbosity: int) -> Iterator[None]:
    """Print log records of the package while the context lasts.

    Parameters
    ----------
    say
        Prints a line for people.
    verbosity
        Number of ``-v``: 0 for warnings, 1 for device and weights too, 2 for all and tracebacks.
    """
    logger = logging.getLogger(PACKAGE)
    others = [handler for handler in logger.handlers if isinstance(handler, _LineHandler)]
    level = LEVELS[min(verbosity, len(LEVELS) - 1)]
    handler = _LineHandler(say, level)
    before = logger.level
    logger.setLevel(level)
    for other in others:  # each line once
        logger.removeHandler(other)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        for other in others:
            logger.addHandler(other)
        logger.setLevel(before)
