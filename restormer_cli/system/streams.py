"""Standard streams: closed ones, output of native code, and the encoding of names."""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator

#: Windows narrower or wider than these are ignored as a mistake.
LEAST_COLUMNS, MOST_COLUMNS = 20, 10_000


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Discard what native code prints to stderr; ``sys.stderr`` works as before.

    libpng, libtiff and others print to file descriptor 2 directly. It stays as it is if
    ``sys.stderr`` is no file of the system, as in a test.
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
    """Open standard streams that are closed (``2>&-``) to the null device.

    Else the next file that is opened would become stderr, and native code would write into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # Takes the lowest number that is free: this one. Of stdin nothing can be read, lest
            # a list that is missing be an empty one.
            os.open(os.devnull, os.O_WRONLY)
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def forget_unusable_width() -> None:
    """Ignore ``COLUMNS`` if no line fits into it, as into 0, or it is far too large."""
    with contextlib.suppress(KeyError, ValueError):
        if not LEAST_COLUMNS <= int(os.environ["COLUMNS"]) <= MOST_COLUMNS:
            del os.environ["COLUMNS"]


def quiet_opencv() -> None:
    """Keep OpenCV from printing; call it before OpenCV is imported."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def encode_stdout(*, json: bool = False) -> None:
    """Set how stdout encodes names that are no text or not in the console's alphabet.

    On a console in UTF-8, paths are printed as the bytes that they are. On others, and in JSON,
    which is always UTF-8, they are escaped. Does nothing if ``sys.stdout`` is no text stream of
    the system, as in a test.
    """
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return
    if json:
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    else:
        in_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if in_utf8 else "backslashreplace")
