"""The command with GPUs that are pretended: results, cards that fail, workers that share one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Ran, random_pixels, read, restormer, save, tiny_network, write
from pretended import needs_linux, pretended

from restormer_cli.batch.items import Item
from restormer_cli.batch.journal import Journal
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Collector, Outcome, Summary
from restormer_cli.batch.progress import ProgressTracker
from restormer_cli.errors import DeviceError, UsageError
from restormer_cli.executors import launch, ray_cluster
from restormer_cli.executors.endpoint import Reply
from restormer_cli.executors.launch import ExecutorOptions, share_out
from restormer_cli.executors.scheduler import Scheduler
from restormer_cli.loading import RestorerSpec, load_restorer
from restormer_cli.network import device_memory, devices
from restormer_cli.tasks import find_variant

pytestmark = needs_linux
#: What a card may say that cannot be used.
FAILURES = [
    "CUDA error: all CUDA-capable devices are busy or unavailable",
    "CUDA error: no kernel image is available for execution on the device",
    "CUDA out of memory. Tried to allocate 2.00 MiB",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "CUDA error: uncorrectable ECC error encountered",
]
#: Two that go together, one of odd sides, and one of several tiles and windows.
SIZES = [(12, 12), (12, 12), (33, 17), (24, 40)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, (height, width) in enumerate(SIZES):
        pixels = random_pixels(height, width, bits=(8, 16)[index % 2], seed=index)
        for where in ("in", "pairs/inputL", "pairs/inputR"):
            write(tmp_path / where / f"{index}.png", pixels)
    for kind in ("with_bias", "bias_free", "gray", "dual_pixel"):
        save(tiny_network(kind), tmp_path / f"{kind}.safetensors")
    return tmp_path


def run(folder: Path, out: str, *words: object, kind: str = "with_bias") -> Ran:
    task, *others = words or ("derain",)
    source = folder / ("pairs" if task == "dual-pixel" else "in")
    return restormer(
        *(task, "--input-dir", source, "--result-dir", folder / out),
        *("--weights", folder / f"{kind}.safetensors", "--json", *others),
    )


COMMANDS: list[tuple[str, tuple[str, ...]]] = [
    ("with_bias", ("derain",)),
    ("with_bias", ("derain", "--tile", "32", "--tile-overlap", "8")),
    ("bias_free", ("denoise", "--kind", "color", "--max-memory", "4GB")),
    ("gray", ("denoise", "--kind", "gray", "--bit-depth", "16")),
    ("dual_pixel", ("dual-pixel",)),
    ("with_bias", ("derain", "--window", "16", "--self-ensemble")),  # two passes, not eight
]


@pytest.mark.parametrize(("kind", "words"), COMMANDS)
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_results_are_those_of_the_cpu(
    folder: Path, device: str, kind: str, words: tuple[str, ...]
) -> None:
    words = (*words, "--precision", "float32")
    assert run(folder, "cpu", *words, "--device", "cpu", kind=kind).status == 0
    with pretended(device):
        ran = run(folder, device, *words, kind=kind)
    assert ran.status == 0, ran.err
    assert {json.loads(line)["device"] for line in ran.lines} == {
        "cuda:0" if device == "cuda" else "mps"
    }
    for index, size in enumerate(SIZES):
        made, expected = (read(folder / side / f"{index}.png") for side in (device, "cpu"))
        assert made.dtype == expected.dtype
        assert made.shape[:2] == size
        assert np.abs(made.astype(int) - expected).max() <= (1 if made.dtype == np.uint8 else 16)


@pytest.mark.parametrize(
    ("capability", "precision"), [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float32")]
)
def test_the_card_decides_on_the_precision(
    folder: Path, capability: tuple[int, int], precision: str
) -> None:
    with pretended("cuda", capability=capability):
        ran = run(folder, "out")
    assert ran.status == 0, ran.err
    assert {json.loads(line)["precision"] for line in ran.lines} == {precision}


@pytest.mark.parametrize("failure", FAILURES)
def test_auto_takes_the_cpu_where_the_card_fails(folder: Path, failure: str) -> None:
    with pretended("cuda") as card:
        card.broken[0] = failure
        ran = run(folder, "out")
        assert ran.status == 0, ran.err
        assert {json.loads(line)["device"] for line in ran.lines} == {"cpu"}
        assert ran.err.count(f"cuda:0 cannot be used ({failure.rstrip('.')}); the CPU is used") == 1
        assert "Traceback" not in ran.err
        listed = restormer("devices")
    assert listed.status == 0
    assert f"used: cpu, because cuda:0 cannot be used ({failure})" in listed.lines
    assert any(line.startswith("cuda:0  cannot be used: ") for line in listed.lines)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_card_that_is_asked_for_and_fails_is_one_line(folder: Path, failure: str) -> None:
    with pretended("cuda") as card:
        card.broken[0] = failure
        for ran in (
            run(folder, "out", "derain", "--device", "cuda"),
            restormer("devices", "--device", "cuda:0"),
        ):
            assert ran.status == 2
            assert ran.err.startswith(f"error: cuda:0 cannot be used ({failure})")
            assert ran.err.endswith("say --device cpu\n")
            assert ran.err.count("\n") == 1
        with pytest.raises(DeviceError, match="cuda:0 cannot be used"):
            load_restorer(folder / "with_bias.safetensors", device="cuda")
        assert load_restorer(folder / "with_bias.safetensors").engine.device.type == "cpu"


def test_a_gpu_that_computes_wrongly_is_not_used(folder: Path) -> None:
    def wrong(name: str, args: Any, out: Any) -> Any:
        return out * 2 if name.startswith("convolution") or name.startswith("conv2d") else out

    with pretended("mps") as gpu:
        gpu.after = wrong
        ran = run(folder, "auto")
        assert ran.status == 0
        assert "mps gives other results than the CPU" in ran.err
        assert {json.loads(line)["device"] for line in ran.lines} == {"cpu"}
        asked = run(folder, "asked", "derain", "--device", "mps")
        assert asked.status == 2
        assert asked.err.startswith("error: mps gives other results than the CPU in float32")
        assert asked.err.count("\n") == 1


def test_a_card_that_goes_in_the_middle_stops_the_run(folder: Path) -> None:
    with pretended("cuda") as card:

        def break_down(name: str) -> None:
            if card.copied["from"] > 20_000:  # behind the check
                card.broken[0] = "CUDA error: unspecified launch failure"

        for index in range(10):
            write(folder / "in" / f"more{index}.png", random_pixels(24 + index, 40))
        card.before = break_down
        ran = run(folder, "out")
    assert ran.status == 1
    assert "Traceback" not in ran.err
    assert ran.err.count("unspecified launch failure") >= 1


def test_another_card_is_left_alone(folder: Path) -> None:
    with pretended("cuda", cards=2) as cards:
        ran = run(folder, "out", "derain", "--device", "cuda:1")
        assert ran.status == 0, ran.err
        assert {json.loads(line)["device"] for line in ran.lines} == {"cuda:1"}
        assert cards.peak[1] > 0
        assert cards.peak[0] == 0


# Which cards there are


def test_of_split_cards_only_that_part_is_there_which_a_process_gets(folder: Path) -> None:
    """MIG: the driver's tools count eight cards, and CUDA has one part of one."""
    spec = RestorerSpec.find(find_variant("derain"), "compact")
    with pretended("cuda", cards=1, counted=8):
        assert devices.cards() == [0]
        assert len(share_out(ExecutorOptions(), spec)) == 1
        listed = restormer("devices")
        assert [line[:6] for line in listed.lines].count("cuda:0") == 1
        assert "cuda:1" not in listed.out
        ran = restormer("devices", "--device", "cuda:1")
        assert ran.status == 2
        assert "cuda:1 is not there: PyTorch sees 1 CUDA devices here" in ran.err


@pytest.mark.parametrize("cards", [1, 2, 3])
@pytest.mark.parametrize("workers", [1, 2, 4, 7])
@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_workers_share_the_memory_of_their_card(cards: int, workers: int, device: str) -> None:
    spec = RestorerSpec.find(find_variant("derain"), "compact", device=device)
    with pretended("cuda", cards=cards):
        specs = share_out(ExecutorOptions(workers=workers), spec)
        by_card: dict[str, list[float]] = {}
        for each in specs:
            choice = devices.choose(each.device)
            by_card.setdefault(str(choice.device), []).append(each.device_share)
    assert len(specs) == workers
    assert len(by_card) == (1 if device == "cuda:0" else min(cards, workers))
    for shares in by_card.values():
        assert sum(shares) == pytest.approx(1)


def test_what_workers_plan_fits_on_their_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four on two cards of 12 GB, each loaded as its process would."""
    spec = RestorerSpec.find(find_variant("derain"), "compact", device="cuda")
    monkeypatch.setattr(device_memory, "free_memory", lambda: 200 << 30)
    with pretended("cuda", cards=2, memory=12 << 30) as cards:
        specs = share_out(ExecutorOptions(workers=4, cpus_per_worker=1), spec)
        loaded = [each.load().restorer for each in specs]
        planned = {0: 0, 1: 0}
        for restorer in loaded:
            shape = torch.Size((1, 3, 6000, 8000))
            plan = restorer._plan(shape, failed=None, said="")
            planned[restorer.engine.device.index] += plan.peak_bytes
        assert all(0 < size <= cards.memory for size in planned.values())


# Workers without a device


class DevicelessPool:
    """Workers on paper, some of whose devices cannot be used."""

    def __init__(self, size: int, broken: set[int]) -> None:
        self.size, self.broken = size, broken
        self.queues: dict[int, list[Item]] = {}
        self.answers: dict[int, Any] = {}

    def start(self, worker: int) -> None:
        self.queues[worker] = []

    def call(self, worker: int, chunks: Any, stop: bool) -> None:
        self.queues[worker] += [item for chunk in chunks for item in chunk]
        if worker in self.broken:
            self.answers[worker] = Reply("deviceless", f"cuda:{worker} cannot be used (busy)")
            return
        queue, self.queues[worker] = self.queues[worker], []
        done = [("settle", (i, Outcome(str(i.source), str(i.result), "done"))) for i in queue]
        self.answers[worker] = Reply("ended" if stop else "working", events=done)

    def replies(self, seconds: float) -> Any:
        answers, self.answers = self.answers, {}
        yield from answers.items()

    def close(self) -> None: ...


def restore(executor: Any, folder: Path, images: int) -> list[Outcome]:
    items = [Item((Path(f"in/{n}.png"),), Path(f"out/{n}.png")) for n in range(images)]
    told = Collector()
    tracker = ProgressTracker(Summary(left=images), told)
    tracker.begin(items)
    run_options = RunOptions("in", Path("out"))
    executor.restore(run_options, Journal(folder, run_options.settings), items, tracker)
    return told.outcomes


@pytest.mark.parametrize("images", [1, 9])
@pytest.mark.parametrize("broken", [{0}, {0, 1}, {1}, set()])
def test_one_card_that_works_is_enough(tmp_path: Path, images: int, broken: set[int]) -> None:
    """Also for a single image, for which no more than one worker was begun with."""
    outcomes = restore(Scheduler(DevicelessPool(3, broken)), tmp_path, images)
    assert [outcome.status for outcome in outcomes] == ["done"] * images


def test_where_no_card_works_the_cpu_does_if_nobody_asked_for_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    used: list[RestorerSpec] = []

    class OnCpu:
        def restore(self, run_options: Any, journal: Any, items: Any, tracker: Any) -> None:
            for item in items:
                tracker.settle(item, Outcome(str(item.source), str(item.result), "done"))

    def in_process(spec: RestorerSpec) -> Any:
        used.append(spec)
        return OnCpu()

    monkeypatch.setattr(launch, "_in_process", in_process)
    monkeypatch.setattr(
        "restormer_cli.executors.process_pool.ProcessPool",
        lambda _, specs: DevicelessPool(len(specs), {0, 1}),
    )
    spec = RestorerSpec.find(find_variant("derain"), "compact", device="auto")
    run_options = RunOptions("in", tmp_path / "out")
    with pretended("cuda", cards=2):
        executor = launch.start(ExecutorOptions(), run_options, spec)
        assert [o.status for o in restore(executor, tmp_path, 5)] == ["done"] * 5
        assert [each.device for each in used] == ["cpu"]
        assert "cannot be used (busy); the CPU is used" in caplog.text
        asked = launch.start(ExecutorOptions(), run_options, replace(spec, device="cuda"))
        with pytest.raises(DeviceError, match="cannot be used"):
            restore(asked, tmp_path, 5)


# Ray


def test_ray_workers_without_a_gpu_compute_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray hides no card from them any more."""

    class Cluster:
        def __init__(self, gpus: float) -> None:
            self.gpus = gpus

        def nodes(self) -> list[dict[str, Any]]:
            return [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": self.gpus}}] * 2

        def remote(self, **_: Any) -> Any:
            return lambda endpoint: endpoint

        def shutdown(self) -> None: ...

    def spec_of(device: str, gpus: float, per_worker: float | None = None) -> RestorerSpec:
        monkeypatch.setattr(ray_cluster, "_connect", lambda _: Cluster(gpus))
        spec = RestorerSpec.find(find_variant("derain"), "compact", device=device)
        options = ExecutorOptions("ray", gpus_per_worker=per_worker)
        run_options = RunOptions("in", Path("out"))
        made: RestorerSpec = ray_cluster.RayCluster(options, run_options, spec)._arguments[1]
        return made

    assert spec_of("auto", 0).device == "cpu"
    assert spec_of("auto", 2, 0).device == "cpu"
    assert spec_of("mps", 0).device == "mps"
    assert (spec_of("auto", 2).device, spec_of("auto", 2).device_share) == ("cuda", 1)
    quarter = spec_of("cuda", 2, 0.25)
    assert (quarter.device, quarter.device_share) == ("cuda", 0.25)
    with pytest.raises(UsageError, match="no node of the Ray cluster has a GPU"):
        spec_of("cuda", 0)


def test_a_gpu_of_none_is_refused() -> None:
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match="say --gpus-per-worker 1"):
        ExecutorOptions("ray", gpus_per_worker=0).check("cuda")
