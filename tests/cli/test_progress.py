"""Progress of commands when stderr is no terminal."""

from __future__ import annotations

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
