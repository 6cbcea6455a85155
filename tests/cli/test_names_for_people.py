"""Names of files and typed words cannot forge or break the output."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from helpers import Ran, make_images, names, random_pixels, restormer, save, write, zero_network
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.cli.report import report
from restormer_cli.cli.weights import convert, verify
from restormer_cli.system.terminal import harmless, harmless_json, shown_on

posix = pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be there")
EVIL = [
    "\x1b[2J\x1b]0;title\x07.png",
    "a\nerror: forged.png",
    "tab\there.png",
    "\u202egnp.exe.png",
    "c1\x9b31m.png",
    "line\u2028end.png",
    "-rf.png",
    "100%s{0}[*].png",
]


@pytest.fixture
def run(tmp_path: Path):  # type: ignore[no-untyped-def]  # a function
    save(zero_network(), tmp_path / "net.safetensors")

    def denoise(*words: object, stdin: bytes = b"") -> Ran:
        return restormer("denoise", "--kind", "color", "--weights", tmp_path / "net.safetensors",
                         "--result-dir", tmp_path / "out", *words, stdin=stdin)  # fmt: skip

    return denoise


def shown(text: str) -> None:
    """Every line is one that we print, of visible characters only."""
    assert all(line.isprintable() for line in text.split("\n"))
    assert not any(line.startswith("error: forged") for line in text.split("\n"))


@posix
@pytest.mark.parametrize("good", [True, False])
def test_names_do_no_harm_on_stderr_and_are_exact_for_machines(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, good: bool
) -> None:
    for name in EVIL:
        if good:
            write(tmp_path / "in" / "x.png", random_pixels(8, 8)).rename(tmp_path / "in" / name)
        else:
            (tmp_path / "in").mkdir(exist_ok=True)
            (tmp_path / "in" / name).write_bytes(b"no image")
    report = tmp_path / "run.jsonl"
    ran = run("--input-dir", tmp_path / "in", "--json", "--report", report)
    assert ran.status == (0 if good else 1)
    shown(ran.err)
    shown(ran.out)
    for text in (ran.out, report.read_text(encoding="utf-8")):
        outcomes = [json.loads(line) for line in text.splitlines()]
        assert {Path(outcome["input"]).name for outcome in outcomes} == set(EVIL)
    if good:
        assert names(tmp_path / "out") == sorted(EVIL)


@posix
def test_names_that_are_no_text_are_printed_as_they_are(tmp_path: Path) -> None:
    save(zero_network(), tmp_path / "net.safetensors")
    write(tmp_path / "in" / "x.png", random_pixels(8, 8))
    try:
        (tmp_path / "in" / "x.png").rename(tmp_path / "in" / os.fsdecode(b"\xe9\n.png"))
    except OSError:
        pytest.skip("names are text here")
    ran = subprocess.run(
        [sys.executable, "-m", "restormer_cli.cli", "denoise", "--kind", "color", "--weights",
         tmp_path / "net.safetensors", "--input-dir", tmp_path / "in", "--result-dir",
         tmp_path / "out"],
        capture_output=True, env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert ran.returncode == 0
    assert ran.stdout == os.fsencode(tmp_path / "out") + b"/\xe9\n.png\n"


@given(st.text())
def test_harmless_text_is_one_visible_line_and_json_means_the_same(text: str) -> None:
    assert harmless(text).splitlines() in ([], [harmless(text)])
    assert not {"\x1b", "\x9b", "\u202e", "\r"} & set(harmless(text))
    line = harmless_json(json.dumps({text: text}, ensure_ascii=False))
    assert json.loads(line) == {text: text}
    assert "\x1b" not in line
    assert "\u202e" not in line


def test_ordinary_names_stay_as_they_are() -> None:
    for text in ("Ünïcode 語 👨‍👩‍👧.png", "100% {a} [b] 'c' \\n.png", "سلام.png"):
        assert harmless(text) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_shown_what_a_program_is_not() -> None:
    assert shown_on(io.StringIO(), "\x1b[2J") == "\x1b[2J"
    assert shown_on(Terminal(), "\x1b[2J") == r"\x1b[2J"


@posix
def test_every_command_spares_a_terminal_the_names_of_files(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "a\x1b[2Jb", 1)
    known, target = "compact_derain.safetensors", folder / "b.safetensors"
    with contextlib.redirect_stdout(Terminal()) as out:
        report(folder)
        convert(known, target)
    lines = [str(folder / "report.html"), str(target)]
    assert out.getvalue().splitlines() == [harmless(line) for line in lines]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        report(folder)
        convert(known, target, overwrite=True)
    assert out.getvalue().splitlines() == lines


@posix
def test_a_terminal_is_spared_the_name_of_the_folder_of_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "a\x1b[2Jb"
    home.mkdir()
    (home / "deraining.pth").write_bytes(b"wrong")
    monkeypatch.setenv("RESTORMER_HOME", str(home))
    with contextlib.redirect_stdout(Terminal()) as out, pytest.raises(typer.Exit):
        verify()
    assert harmless(str(home)) in out.getvalue()
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("value", ["", "-", "~/out", "~"])
@pytest.mark.parametrize("option", ["--result-dir", "--report", "--options"])
def test_paths_that_nobody_means_are_refused(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "in", 1)
    before = sorted(tmp_path.iterdir())
    ran = run("--input-dir", tmp_path / "in", option, value)
    assert ran.status == 2
    assert option in ran.err
    assert sorted(tmp_path.iterdir()) == before


def test_such_paths_can_be_named_with_their_folder(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "in", 1)
    assert run("--input-dir", "in", "--report", "./-", "--result-dir", "./~").status == 0
    assert names(tmp_path / "~") == ["0.png"]
    assert (tmp_path / "-").is_file()


@pytest.mark.parametrize("form", ["in", "in/", "./in", "in/.", "in/../in", "."])
def test_an_input_folder_may_be_given_in_any_form(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    make_images(tmp_path / "in", 1)
    monkeypatch.chdir(tmp_path / "in" if form == "." else tmp_path)
    assert run("--input-dir", form).status == 0
    assert names(tmp_path / "out") == ["0.png"]


def test_a_home_that_the_shell_did_not_put_in_is_hinted_at(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    ran = run("--input-dir", "~/photos-of-nobody")
    assert ran.status == 2
    assert "did not replace the ~" in ran.err


def test_results_of_another_run_below_the_input_are_no_inputs(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    make_images(tmp_path / "in", 2)
    assert run("--input-dir", tmp_path / "in", "--result-dir", tmp_path / "in" / "old").status == 0
    write(tmp_path / "in" / "old" / "mine.png", random_pixels(8, 8))
    ran = run("--input-dir", tmp_path / "in", "-r")
    assert ran.status == 0
    assert "2 results of earlier runs are not taken for inputs" in ran.err
    assert names(tmp_path / "out") == ["0.png", "1.png", "old"]
    assert names(tmp_path / "out" / "old") == ["mine.png"]
