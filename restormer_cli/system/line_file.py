"""A file that several processes, on several machines, append lines to."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from restormer_cli.system.locks import try_lock, unlock

#: Seconds between two attempts to lock the file.
_LINE_POLL = 0.005
#: Seconds after which a line is appended without the lock.
_LINE_PATIENCE = 10.0


class LineFile:
    """A file that several processes, on several machines, append whole lines to.

    On one machine the system appends every line at the end. On a network file system, machines
    may disagree about the end, so each line is written under a lock.

    Raises
    ------
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(path, flags, 0o666)

    def append(self, line: str) -> None:
        """Append a line, with characters escaped that UTF-8 cannot encode.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        data = (line + "\n").encode("utf-8", "backslashreplace")
        with contextlib.ExitStack() as stack:
            until = time.monotonic() + _LINE_PATIENCE
            with contextlib.suppress(OSError):  # no locks here
                while not (ours := try_lock(self._descriptor)) and time.monotonic() < until:
                    time.sleep(_LINE_POLL)
                if ours:
                    stack.callback(unlock, self._descriptor)
            while data:
                data = data[os.write(self._descriptor, data) :]

    def close(self) -> None:
        os.close(self._descriptor)
