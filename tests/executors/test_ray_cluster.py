"""Several workers, on this machine and on a cluster of two nodes: as one would have done it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from helpers import names, random_pixels, restormer, save, tiny_network, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and processes of POSIX")
COMMAND = [sys.executable, "-m", "restormer_cli.cli", "derain", "--precision", "float32"]
PATIENCE = 240.0


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_network(), tmp_path_factory.mktemp("weights") / "net.safetensors")


class Calm:
    """A folder, and the results of one undisturbed process."""

    def __init__(self, folder: Path, weights: Path) -> None:
        self.folder, self.weights = folder, weights
        for index in range(24):  # small ones, which go through the network together; larger last
            size = 400 if index >= 16 else (12, 60)[index % 2]
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
    assert [line[:6] for line in errors.splitlines()].count("error:") == 1, errors
    assert f"error: {calm.folder / 'in' / 'bad.png'}: is text and not an image" in errors
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


def said(errors: str) -> list[str]:
    """Lines on stderr, but for those that only a slow machine prints."""
    slow = re.compile(r"waiting for a worker to begin|.* megapixels, .* MP/s, .* left")
    return [line for line in errors.splitlines() if not slow.fullmatch(line)]


def first_done(run: subprocess.Popen[str]) -> str:
    """The output of a run until the first image is restored."""
    assert run.stdout is not None
    lines = ""
    while '"done"' not in lines:
        line = run.stdout.readline()
        assert line, run.communicate()
        lines += line
    return lines


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
    assert "error: in/bad.png: is text and not an image" in ran.err


def test_process_that_is_killed_costs_nothing(tmp_path: Path, calm: Calm) -> None:
    run = start(calm.words(tmp_path / "out"), "--workers", 2)
    first = first_done(run)
    workers_of(run)[0].kill()
    ran = end(run, first)
    see_that_all_is_well(calm, tmp_path / "out", ran)


def see_that_it_stops(
    run: subprocess.Popen[str], workers: list[psutil.Process], number: signal.Signals
) -> None:
    """In the middle of a large image, with one line."""
    run.send_signal(number)
    status, _, errors = end(run)
    assert status == 128 + number
    assert errors.splitlines()[-1].startswith(f"stopped by {number.name}: 1 restored")
    assert len(said(errors)) == 1, errors
    wait_for(lambda: not any(map(psutil.Process.is_running, workers)), "workers outlive the driver")


@pytest.fixture
def large(tmp_path: Path, weights: Path) -> list[str]:
    """Words to restore a small image and two that take minutes."""
    write(tmp_path / "in" / "0.png", random_pixels(12, 12))
    for name in ("1.png", "2.png"):
        write(tmp_path / "in" / name, np.full((6000, 6000, 3), 9, np.uint8))
    words = [*COMMAND, "--weights", weights, "--device", "cpu"]
    words += ["--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out"]
    return list(map(str, words))


def test_signal_stops_all_processes(tmp_path: Path, large: list[str]) -> None:
    run = start(large, "--workers", 2)
    first_done(run)
    see_that_it_stops(run, workers_of(run), signal.SIGINT)
    assert names(tmp_path / "out") == ["0.png"]


def test_driver_that_is_killed_takes_its_workers_along_and_is_resumed(
    tmp_path: Path, calm: Calm
) -> None:
    run = start(calm.words(tmp_path / "out"), "--workers", 2)
    first_done(run)
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


# --- a cluster ---------------------------------------------------------------------------


class Nodes:
    """Two nodes on this machine, with room for a worker each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        self.second = self.cluster.add_node(num_cpus=1)

    def workers(self) -> list[psutil.Process]:
        """Processes that restore, on all nodes."""
        raylets = [
            node.all_processes["raylet"][0].process.pid for node in self.cluster.list_all_nodes()
        ]
        found = []
        for raylet in raylets:
            with contextlib.suppress(psutil.NoSuchProcess):
                children = psutil.Process(raylet).children(recursive=True)
                found += [c for c in children if "ray::WorkerEndpoint" in " ".join(c.cmdline())]
        return found

    def start(self, words: list[str]) -> subprocess.Popen[str]:
        return start(words, "--engine", "ray", "--ray-address", self.cluster.address)

    def both_at_work(self, run: subprocess.Popen[str]) -> tuple[list[psutil.Process], str]:
        """The two workers once images are coming, and the first line."""
        first = first_done(run)
        return wait_for(lambda: (w := self.workers()) and len(w) == 2 and w, "two workers"), first


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    pytest.importorskip("ray")
    nodes = Nodes()
    yield nodes
    nodes.cluster.shutdown()


def test_cluster_does_what_one_process_does(tmp_path: Path, calm: Calm, nodes: Nodes) -> None:
    ran = end(nodes.start(calm.words(tmp_path / "out")))
    see_that_all_is_well(calm, tmp_path / "out", ran)
    assert len(said(ran[2])) == 2, ran[2]  # the bad file and the totals: Ray says nothing


def test_worker_of_a_cluster_that_is_killed_costs_nothing(
    tmp_path: Path, calm: Calm, nodes: Nodes
) -> None:
    run = nodes.start(calm.words(tmp_path / "out"))
    workers, first = nodes.both_at_work(run)
    workers[0].kill()
    see_that_all_is_well(calm, tmp_path / "out", end(run, first))


def test_driver_of_a_cluster_that_is_killed_is_resumed(
    tmp_path: Path, calm: Calm, nodes: Nodes
) -> None:
    run = nodes.start(calm.words(tmp_path / "out"))
    workers, _ = nodes.both_at_work(run)
    run.kill()
    run.communicate()
    wait_for(lambda: not any(map(psutil.Process.is_running, workers)), "workers outlive the driver")
    done = len(contents(tmp_path / "out"))
    assert done
    see_that_all_is_well(
        calm, tmp_path / "out", end(nodes.start(calm.words(tmp_path / "out"))), 24 - done
    )


def test_signal_ends_the_workers_of_a_cluster(
    tmp_path: Path, large: list[str], nodes: Nodes
) -> None:
    run = nodes.start(large)
    workers, _ = nodes.both_at_work(run)
    see_that_it_stops(run, workers, signal.SIGTERM)
    assert names(tmp_path / "out") == ["0.png"]


def test_node_that_is_lost_costs_nothing(tmp_path: Path, calm: Calm, nodes: Nodes) -> None:
    """The last one: afterwards there is a node less."""
    run = nodes.start(calm.words(tmp_path / "out"))
    _, first = nodes.both_at_work(run)
    nodes.cluster.remove_node(nodes.second, allow_graceful=False)
    see_that_all_is_well(calm, tmp_path / "out", end(run, first))


# --- what cannot be had ------------------------------------------------------------------


def test_without_the_extra_one_line_says_how_to_get_it(
    tmp_path: Path, calm: Calm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ran = restormer(*calm.words(tmp_path / "out")[3:], "--engine", "ray")
    assert ran.status == 2
    assert ran.err == "error: Ray is not installed: pip install 'restormer-cli[ray]'\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--engine", "ray", "--ray-address", "127.0.0.1:1"), "nobody answers"),
        (("--engine", "ray", "--ray-address", "ray://head:10001"), "say HOST:PORT"),
        (("--engine", "ray", "--device", "cuda:1"), "say --device cuda"),
        (("--ray-address", "head:6379"), "need --engine ray"),
        (("--gpus-per-worker", "1"), "need --engine ray"),
    ],
)
def test_workers_that_cannot_be_had_are_named_in_one_line(
    tmp_path: Path, calm: Calm, words: tuple[str, ...], said: str
) -> None:
    pytest.importorskip("ray")
    ran = restormer(*calm.words(tmp_path / "out")[3:], *words)
    assert ran.status == 2
    assert ran.err.count("\n") == 1
    assert said in ran.err


def test_help_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from restormer_cli.cli import main, run; "
        "from restormer_cli.executors import launch, process_pool, ray_cluster, scheduler; "
        "print({'torch', 'ray'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
