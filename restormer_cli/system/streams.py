"""Standard streams: closed ones, those of native code, and the encoding of names."""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

#: Narrower windows, and wider ones, are taken for a mistake.
LEAST_COLUMNS, MOST_COLUMNS = 20, 10_000


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Send what native code writes to stderr nowhere; ``sys.stderr`` goes on to where it went.

    libpng, libtiff and others print to file descriptor 2 whatever Python is told. Does nothing to
    it where ``sys.stderr`` is no file of the system, as in a test.
    """
    # It logs what is wrong with a file, but not with which.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        native = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        native = -1
    if native != 2:
        yield
        return
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    ours = sys.stderr
    sys.stderr = os.fdopen(
        os.dup(saved), "w", buffering=1, encoding=ours.encoding, errors=ours.errors
    )
    os.dup2(null, 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(saved, 2)
        with contextlib.suppress(OSError):  # whoever read it has gone
            sys.stderr.close()
        sys.stderr = ours
        os.close(saved)
        os.close(null)


def open_standard_streams() -> None:
    """Give a process that was started without some of them (``2>&-``) streams that lead nowhere.

    Else the next file that is opened would be taken for stderr, and native code write into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - it stays open
            setattr(sys, name, stream)


def forget_unusable_width() -> None:
    """Ignore a width that no line fits in, such as ``COLUMNS=0``, or no memory holds."""
    with contextlib.suppress(KeyError, ValueError):
        if not LEAST_COLUMNS <= int(os.environ["COLUMNS"]) <= MOST_COLUMNS:
            del os.environ["COLUMNS"]


def quiet_opencv() -> None:
    """Have OpenCV print nothing of its own; to be called before it is imported."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def encode_stdout(*, json: bool = False) -> None:
    """Settle how names that are no text, or not in the console's alphabet, are printed.

    Where paths are expected as the bytes that they are, if the console is UTF-8; else, and in
    JSON, which is UTF-8 everywhere, escaped. Does nothing where ``sys.stdout`` is no text stream
    of the system, as in a test.
    """
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return
    if json:
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    else:
        in_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if in_utf8 else "backslashreplace")
