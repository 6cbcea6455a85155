"""Several workers, on this machine and on a cluster of two nodes: as one would have done it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import names, random_pixels, restormer, save, tiny_network, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and processes of POSIX")
COMMAND = [sys.executable, "-m", "restormer_cli.cli", "derain", "--precision", "float32"]
PATIENCE = 120.0


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_network(), tmp_path_factory.mktemp("weights") / "net.safetensors")


class Calm:
    """A folder, and what one process makes of it undisturbed."""

    def __init__(self, folder: Path, weights: Path) -> None:
        self.folder, self.weights = folder, weights
        for index in range(24):  # small ones, which go through the network together, and larger
            size = (12, 60, 500)[index % 3]
            write(folder / "in" / "sub" / f"{index}.png", random_pixels(size, size, seed=index))
        (folder / "in" / "bad.png").write_bytes(b"no image")
        ran = restormer(*self.words(folder / "calm")[3:], "--workers", 1)
        assert ran.status == 1, ran.err
        assert len(ran.lines) == 24
        self.results = contents(folder / "calm")

    def words(self, out: Path) -> list[str]:
        words = [*COMMAND, "--input-dir", self.folder / "in", "-r", "--result-dir", out]
        return [*map(str, words), "--weights", str(self.weights), "--device", "cpu"]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Calm:
    return Calm(tmp_path_factory.mktemp("calm"), weights)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.png")}


def see_that_all_is_well(calm: Calm, out: Path, ran: tuple[int, str, str], done: int = 24) -> None:
    """All results are there, each image was told once, and the record is one that knows them."""
    status, output, errors = ran
    assert status == 1, errors
    told = [json.loads(line) for line in output.splitlines()]
    settled = [line["input"] for line in told if line["status"] != "skipped"]
    assert len(settled) == len(set(settled)), errors
    assert sorted(line["status"] for line in told).count("done") == done, errors
    assert errors.count("error: ") == 1, errors
    assert f"error: {calm.folder / 'in' / 'bad.png'}: is damaged" in errors
    assert contents(out) == calm.results
    assert not [name for name in names(out) + names(out / "sub") if name.startswith(".")]
    again = restormer(*calm.words(out)[3:], "--json")
    assert again.err.count("not in the record") == 0
    assert [json.loads(line)["status"] for line in again.lines].count("skipped") == 24
    assert os.listdir(out / ".restormer") == ["run.jsonl"]  # noqa: PTH208 - hidden ones as well


def start(words: list[str], *more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*words, "--json", *map(str, more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def end(run: subprocess.Popen[str], first: str = "") -> tuple[int, str, str]:
    output, errors = run.communicate(timeout=PATIENCE)
    return run.returncode, first + output, errors


def first_line(run: subprocess.Popen[str]) -> str:
    assert run.stdout is not None
    return run.stdout.readline()


def wait_for(condition: Any, what: str) -> Any:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(what)


# --- several processes of this machine ---------------------------------------------------


def workers_of(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """Processes that restore."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(run.pid).children()
        return [c for c in children if "spawn_main" in " ".join(c.cmdline())]
    return []


def test_processes_do_what_one_does(tmp_path: Path, calm: Calm) -> None:
    ran = end(start(calm.words(tmp_path / "out"), "--workers", 2))
    see_that_all_is_well(calm, tmp_path / "out", ran)


def test_paths_are_told_as_they_were_typed(
    tmp_path: Path, calm: Calm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(calm.folder)
    out = os.path.relpath(tmp_path / "out", calm.folder)
    words = [*COMMAND[3:], "--input-dir", "in", "-r", "--result-dir", out, "--workers", 2]
    ran = restormer(*words, "--weights", calm.weights)
    assert sorted(ran.lines) == sorted(f"{out}/{name}" for name in calm.results)
    assert "error: in/bad.png: is damaged" in ran.err


def test_process_that_is_killed_costs_nothing(tmp_path: Path, calm: Calm) -> None:
    run = start(calm.words(tmp_path / "out"), "--workers", 2)
    first = first_line(run)
    workers_of(run)[0].kill()
    ran = end(run, first)
    see_that_all_is_well(calm, tmp_path / "out", ran)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_all_soon_and_the_next_run_goes_on(
    tmp_path: Path, calm: Calm, number: signal.Signals
) -> None:
    run = start(calm.words(tmp_path / "out"), "--workers", 2)
    first = first_line(run)
    workers = workers_of(run)
    started = time.monotonic()
    run.send_signal(number)
    status, output, errors = end(run, first)
    assert time.monotonic() - started < 8  # two seconds, and some for a loaded machine
    assert status == 128 + number
    assert f"stopped by {number.name}" in errors
    assert "Traceback" not in errors
    assert not [worker for worker in workers if worker.is_running()]
    done = len(contents(tmp_path / "out"))
    assert output.count('"done"') <= done
    see_that_all_is_well(
        calm, tmp_path / "out", end(start(calm.words(tmp_path / "out"))), 24 - done
    )


def test_driver_that_is_killed_takes_its_workers_along_and_is_resumed(
    tmp_path: Path, calm: Calm
) -> None:
    run = start(calm.words(tmp_path / "out"), "--workers", 2)
    first_line(run)
    workers = workers_of(run)
    run.kill()
    run.communicate()
    wait_for(lambda: not any(map(psutil.Process.is_running, workers)), "workers outlive the driver")
    done = len(contents(tmp_path / "out"))
    assert done
    again = start(calm.words(tmp_path / "out"), "--workers", 2)
    see_that_all_is_well(calm, tmp_path / "out", end(again), 24 - done)


def test_fail_fast_stops_all(tmp_path: Path, calm: Calm) -> None:
    words = calm.words(tmp_path / "out")
    status, _, errors = end(start(words, "--workers", 2, "--fail-fast"))
    assert status == 1
    assert errors.count("error: ") == 1
    assert "not begun" in errors.splitlines()[-1]


def test_weights_that_cannot_be_used_are_named_once(tmp_path: Path, calm: Calm) -> None:
    other = save(tiny_network("gray"), tmp_path / "gray.safetensors")
    ran = restormer(*calm.words(tmp_path / "out")[3:], "--workers", 2, "--weights", other)
    assert ran.status == 2
    assert ran.err.count("does not fit") >= 1
    assert ran.out == ""
