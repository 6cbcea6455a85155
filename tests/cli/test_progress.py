"""Progress of commands, on a terminal and without one."""

from __future__ import annotations

import contextlib
import os
import sys

import pytest

from restormer_cli.cli import progress
from restormer_cli.cli.progress import LINE_EVERY, Progress


def test_without_a_terminal_a_line_is_printed_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown = Progress(lambda: f"at {clock[0]:.0f} s")
    for second in range(0, int(2.5 * LINE_EVERY), 10):
        clock[0] = float(second)
        shown.show(done=second, total=200)
    assert capsys.readouterr().err.split("\n") == ["at 60 s", "at 120 s", ""]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
@pytest.mark.parametrize("columns", [0, 60])
def test_a_terminal_that_does_not_know_its_size_shows_a_bar(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", columns, columns, 0, 0))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        shown = Progress(mininterval=0)
        shown.show(1, 4, "photo.png")
        shown.show(2, 4, "photo.png")
        shown.close()
    written = b""
    with contextlib.suppress(OSError):  # the terminal ends with the last that writes to it
        while part := os.read(ours, 1 << 16):
            written += part
    os.close(ours)
    text = written.decode()
    assert "photo.png:  50%" in text
    assert max(map(len, text.split("\r"))) <= (columns or 80)
