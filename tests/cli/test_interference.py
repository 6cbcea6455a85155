"""Interference with a run's files: a record that is removed, replaced or invalid."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Ran, make_images, names, restormer, save, zero_network

if sys.platform == "win32":
    pytest.skip("Windows removes no open files and has no pipes", allow_module_level=True)
PATIENCE = 120
"""Seconds after which a command is said to hang."""


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Options of a run over twelve images."""
    save(zero_network(), tmp_path / "net.safetensors")
    make_images(tmp_path / "in", 12)
    return [f"--weights={tmp_path / 'net.safetensors'}", f"--input-dir={tmp_path / 'in'}",
            f"--result-dir={tmp_path / 'out'}"]  # fmt: skip


def command(*words: object) -> Ran:
    """Run the command as a process that is ended where it hangs."""
    program = [sys.executable, "-m", "restormer_cli.cli", *map(str, words)]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE)
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, folders: list[str], act: Callable[[], object]
) -> Ran:
    """A run in which something happens when the third result is about to get its name."""
    from restormer_cli.batch.journal import Journal

    add, calls = Journal.add, []

    def add_and_act(self: Journal, *words: object) -> None:
        calls.append(words)
        if len(calls) == 3:
            act()
        add(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "add", add_and_act)
    try:
        return restormer("derain", *folders)
    finally:
        monkeypatch.setattr(Journal, "add", add)


def test_results_are_known_whose_journal_was_removed_meanwhile(
    tmp_path: Path, folders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "out" / ".restormer" / "run.jsonl"
    ran = meanwhile(monkeypatch, folders, journal.unlink)
    assert ran.status == 0
    again = restormer("derain", *folders)
    assert "not in the record of this folder: 2 results are kept" in again.err
    assert "12 skipped" in again.err


@pytest.mark.parametrize("part", ["out", "out/.restormer"])
def test_a_result_folder_that_goes_away_ends_the_run_with_a_word(
    tmp_path: Path, folders: list[str], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    gone = tmp_path / part
    ran = meanwhile(monkeypatch, folders, lambda: gone.rename(tmp_path / "elsewhere"))
    assert ran.status == 1
    assert "cannot be noted in" in ran.err
    results = tmp_path / "elsewhere" if part == "out" else tmp_path / "out"
    assert len(list(results.glob("*.png"))) == 2  # none without a line in the record
    assert restormer("derain", *folders).status == 0
    assert len(names(tmp_path / "out")) == 12


def test_a_journal_that_takes_no_more_ends_the_run(tmp_path: Path, folders: list[str]) -> None:
    code = """
import resource, sys
from restormer_cli.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
main()
"""
    program = [sys.executable, "-c", code, "derain", *folders]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE)
    assert ran.returncode == 1
    assert "cannot be noted in" in ran.stderr
    assert restormer("derain", *folders).status == 0
    assert len(names(tmp_path / "out")) == 12


@pytest.mark.parametrize("what", ["pipe", "device"])
def test_journals_that_are_no_files_are_passed_over(
    tmp_path: Path, folders: list[str], what: str
) -> None:
    record = tmp_path / "out" / ".restormer"
    record.mkdir(parents=True)
    for name in ("0-of-2.jsonl", "run-worker-1.jsonl", "other.jsonl"):
        if what == "pipe":
            os.mkfifo(record / name)
        else:
            (record / name).symlink_to("/dev/zero")
    ran = command("derain", *folders)
    assert (ran.status, len(ran.lines)) == (0, 12), ran.err
    score = command(
        "evaluate", f"--result-dir={tmp_path / 'out'}", f"--target-dir={tmp_path / 'in'}"
    )
    assert (score.status, len(score.lines)) == (0, 14), score.err


@pytest.mark.parametrize("what", ["pipe", "device", "folder"])
def test_the_own_journal_that_is_no_file_is_named(
    tmp_path: Path, folders: list[str], what: str
) -> None:
    journal = tmp_path / "out" / ".restormer" / "run.jsonl"
    journal.parent.mkdir(parents=True)
    if what == "pipe":
        os.mkfifo(journal)
    elif what == "device":
        journal.symlink_to("/dev/full")
    else:
        journal.mkdir()
    ran = (restormer if what == "folder" else command)("derain", *folders)  # the others may hang
    assert ran.status == 2
    assert f"{journal}: cannot be written (is a {what}, not a file)" in ran.err


def test_one_file_through_two_folders_is_one_image_of_a_list(
    tmp_path: Path, folders: list[str]
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "own").mkdir()
    shutil.copy(tmp_path / "in" / "1.png", tmp_path / "own")
    (tmp_path / "own" / "0.png").symlink_to(tmp_path / "in" / "0.png")  # a name of its own
    listed = [tmp_path / place / "0.png" for place in ("in", "link", "own")]
    ran = restormer("derain", folders[0], folders[2], "--input-dir=-", "--json",
                    stdin="\n".join(map(str, listed)).encode())  # fmt: skip
    inputs = [json.loads(line)["input"] for line in ran.lines]
    assert sorted(inputs) == [str(listed[0]), str(listed[2])]
