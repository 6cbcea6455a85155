"""``--watch`` from the command line: what is printed, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from helpers import names, random_pixels, restormer, save, tiny_network, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_network(), tmp_path_factory.mktemp("weights") / "net.safetensors")


def start(folder: Path, weights: Path, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "restormer_cli.cli", "derain", "--weights", str(weights)]
    command += ["--input-dir", str(folder / "in"), "--result-dir", str(folder / "out"), "--watch"]
    return subprocess.Popen(
        [*command, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def bring(path: Path, size: int = 12, seed: int = 0) -> None:
    made = write(path.parent.parent / path.name, random_pixels(size, size, seed=seed))
    os.utime(made, (1e9, 1e9))
    made.replace(path)


def line(run: subprocess.Popen[str]) -> str:
    assert run.stdout is not None
    return run.stdout.readline().rstrip("\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_the_same_as_a_plain_run_and_ends_by_the_signal(
    tmp_path: Path, weights: Path, number: signal.Signals
) -> None:
    write(tmp_path / "in" / "0.png", random_pixels(12, 12))
    run = start(tmp_path, weights, "--json", "--log-json", tmp_path / "log.jsonl")
    told = [json.loads(line(run))]
    bring(tmp_path / "in" / "1.png")
    told.append(json.loads(line(run)))
    (tmp_path / "text").write_text("no image")
    (tmp_path / "text").replace(tmp_path / "in" / "2.png")
    told.append(json.loads(line(run)))
    run.send_signal(number)
    rest, errors = run.communicate(timeout=120)
    assert (run.returncode, rest) == (128 + number, "")
    assert [(Path(one["input"]).name, one["status"]) for one in told] == [
        ("0.png", "done"),
        ("1.png", "done"),
        ("2.png", "failed"),
    ]
    assert f"stopped by {number.name}: 2 restored, 0 skipped, 1 failed; " in errors
    assert "Traceback" not in errors
    logged = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(one) for one in logged] == told
    words = ("--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out")
    again = restormer("derain", "--weights", weights, *words)
    assert "0 restored, 2 skipped, 1 failed" in again.err


def test_signal_in_the_middle_of_an_image(tmp_path: Path, weights: Path) -> None:
    write(tmp_path / "in" / "0.png", random_pixels(12, 12))
    run = start(tmp_path, weights)
    assert line(run) == str(tmp_path / "out" / "0.png")
    # In one round; the small one is written while the large one is in the network.
    for name, size in (("1.png", 12), ("2.png", 3000)):
        write(tmp_path / name, random_pixels(size, size))
        os.utime(tmp_path / name, (1e9, 1e9))
    for name in ("2.png", "1.png"):
        (tmp_path / name).replace(tmp_path / "in" / name)
    assert line(run) == str(tmp_path / "out" / "1.png")
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 143
    assert "stopped by SIGTERM: 2 restored, 0 skipped, 0 failed" in errors
    assert names(tmp_path / "out") == ["0.png", "1.png"]


def test_several_processes_stay_up_between_files(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        write(tmp_path / "in" / f"{number}.png", random_pixels(40, 40, seed=number))
    run = start(tmp_path, weights, "--workers", "2", "--device", "cpu")
    first = {line(run) for _ in range(4)}
    assert first == {str(tmp_path / "out" / f"{number}.png") for number in range(4)}
    workers = {child.pid for child in psutil.Process(run.pid).children()}
    bring(tmp_path / "in" / "9.png")
    assert line(run) == str(tmp_path / "out" / "9.png")
    assert {child.pid for child in psutil.Process(run.pid).children()} == workers
    # One that has died meanwhile is made anew.
    for child in psutil.Process(run.pid).children():
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()
    bring(tmp_path / "in" / "10.png")
    assert line(run) == str(tmp_path / "out" / "10.png")
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 143
    assert "stopped by SIGTERM: 6 restored, 0 skipped, 0 failed" in errors
    assert os.listdir(tmp_path / "out" / ".restormer") == ["run.jsonl"]  # noqa: PTH208 - all files


def test_folder_that_vanishes_costs_a_line_and_status_1(tmp_path: Path, weights: Path) -> None:
    write(tmp_path / "in" / "0.png", random_pixels(12, 12))
    run = start(tmp_path, weights, "--quiet")
    assert line(run) == str(tmp_path / "out" / "0.png")
    (tmp_path / "in").rename(tmp_path / "gone")
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 1
    assert errors == f"error: {tmp_path / 'in'}: has gone, so it is not watched any more\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--input-dir", "-"), "--watch: a list on standard input comes to an end; name a folder"),
        (("--input-dir", "in", "--dry-run"), "--watch goes on and --dry-run does nothing"),
        (("--input-dir", "in/0.png"), "in/0.png: is no folder; --watch is for folders"),
        (("--input-dir", "missing"), "missing: no such folder; --watch is for folders"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in" / "0.png", random_pixels(12, 12))
    ran = restormer("derain", "--result-dir", "out", "--watch", *words)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {said}")
    assert len(ran.err.splitlines()) == 1
