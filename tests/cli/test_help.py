"""Help that can be read: options in groups, lines that fit a terminal, examples that work."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import make_images, restormer

from restormer_cli.cli.options import PANELS, common_parameters

TASKS = ("derain", "denoise", "deblur", "dual-pixel")
PANEL = re.compile(r"^[╭+][─-] (.+?) [─-]+[╮+]$")
OPTION = re.compile(r"^[│|] \*? *(--[a-z][\w-]*)")


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")  # Typer has read the other one already
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)


def panels(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if panel := PANEL.match(line):
            found[panel[1]] = []
        elif option := OPTION.match(line):
            list(found.values())[-1].append(option[1])
    return found


@pytest.mark.parametrize("task", TASKS)
def test_every_option_is_in_a_group(task: str) -> None:
    ran = restormer(task, "--help")
    found = panels(ran.out)
    assert found.pop("Options") == ["--help"]
    assert list(found) == list(PANELS)
    assert found["Input and output"][:2] == ["--input-dir", "--result-dir"]
    assert "--watch" in found["Input and output"]
    # Each once: the panels of all options, by the names of their parameters.
    grouped = [name for names in PANELS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    assert {parameter.name for parameter in common_parameters()} <= set(grouped)


@pytest.mark.parametrize("words", [(), ("weights",), *((task,) for task in TASKS), ("evaluate",)])
def test_help_fits_a_terminal(words: tuple[str, ...]) -> None:
    lines = restormer(*words, "--help").lines
    assert len(lines) > 5
    assert [line for line in lines if len(line) > 80] == []


def test_the_command_alone_shows_three_examples_that_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = restormer()
    examples = [
        line.split()[1:]
        for line in (ran.out + ran.err).splitlines()
        if re.match(r" *restormer \w+ --", line)
    ]
    assert len(examples) == 3
    for folder in ("photos", "phone"):
        make_images(tmp_path / folder, 1)
    make_images(tmp_path, 2)
    for number, words in enumerate(examples):
        shown = [word for word in words if word != "--watch"]  # which would go on
        if "*.jpg" in shown:  # as a shell does it
            at = shown.index("*.jpg")
            shown[at : at + 1] = ["0.png", "1.png"]
        out = f"out{number}"
        shown[shown.index("--result-dir") + 1] = out
        assert restormer(*shown, "--dry-run").status == 0
    assert any("--watch" in words for words in examples)


def test_help_loads_no_heavy_library() -> None:
    program = """
import sys
sys.argv = ["restormer", "derain", "--help"]
from restormer_cli.cli.__main__ import main
try:
    main()
except SystemExit:
    pass
print(sorted({"torch", "watchfiles", "anyio", "ray"} & sys.modules.keys()), file=sys.stderr)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stderr.splitlines()[-1] == "[]"
