"""Memory of devices that are pretended: plans hold, running out is known, main memory counts."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from helpers import random_pixels, tiny_network
from pretended import Pretended, needs_linux, pretended

from restormer_cli.errors import ImageError
from restormer_cli.network import device_memory, feature_map, memory_plan
from restormer_cli.network.architecture import RestormerConfig
from restormer_cli.network.device_errors import is_out_of_memory, unusable
from restormer_cli.network.device_memory import Shares, available_memory
from restormer_cli.network.memory_plan import MemoryBudgetError, Plan, plan_memory
from restormer_cli.network.streaming import StreamingRestormer
from restormer_cli.restorer import Restorer
from restormer_cli.system.memory import FREE_MEMORY_SHARE

pytestmark = needs_linux
GB = 10**9
#: Bytes of what does not grow with the image, as matrices of channels × channels do.
SMALL = 1 << 16
FULL = RestormerConfig()
#: What devices and their libraries say when they get no memory, or too much to do at once.
REFUSALS = [
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    "CUDA driver error: out of memory",
    "HIP out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "GET was unable to find an engine to execute this computation",
    "FIND was unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm to run convolution",
    "miopenStatusAllocFailed",
    "Expected canUse32BitIndexMath(input) && canUse32BitIndexMath(output) to be true",
    "MPS backend out of memory (MPS allocated: 8.89 GB, max allowed: 9.07 GB)",
    "Invalid buffer size: 4.29 GiB",
    "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
    "MPSGraph does not support tensor dims larger than INT_MAX",
    "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory",
]
#: And what is wrong that less work does not mend.
OTHERS = [
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: device-side assert triggered",
    "CUDA error: unspecified launch failure",
    "CUDA error: no kernel image is available for execution on the device",
    "Expected all tensors to be on the same device",
    "mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)",
]


@pytest.fixture
def no_overhead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of library code and slack, so that what is left is what tensors take."""
    monkeypatch.setattr(memory_plan, "OVERHEAD_BYTES", 0)


def main_memory(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(device_memory, "free_memory", lambda: free)


@pytest.mark.parametrize("text", REFUSALS)
def test_every_refusal_of_memory_is_known(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))


@pytest.mark.parametrize("text", OTHERS)
def test_other_errors_are_not_taken_for_it(text: str) -> None:
    assert not is_out_of_memory(RuntimeError(text))


def test_pytorch_2_4_names_it_for_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "OutOfMemoryError")
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("no more"))
    assert is_out_of_memory(RuntimeError(REFUSALS[0]))


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("CUDA error: no kernel image is available for execution on the device", "PyTorch"),
        ("CUDA error: all CUDA-capable devices are busy or unavailable", "wait until"),
        ("CUDA error: out of memory", "free some"),
        ("The NVIDIA driver on your system is too old (found version 11040)", "update its driver"),
        ("CUDA error: uncorrectable ECC error encountered", ""),
    ],
)
def test_a_device_that_fails_is_told_in_a_line_with_the_remedy(text: str, remedy: str) -> None:
    said = str(unusable("cuda:0", RuntimeError(f"{text}\nCUDA kernel errors might be reported")))
    assert said.startswith(f"cuda:0 cannot be used ({text})")
    assert remedy in said
    assert said.endswith("say --device cpu")
    assert "\n" not in said


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("text", [REFUSALS[0], REFUSALS[4], REFUSALS[7], REFUSALS[16]])
def test_memory_that_runs_out_is_tried_with_less(device: str, text: str) -> None:
    network, pixels = tiny_network(), random_pixels(16, 24)
    expected = Restorer(network)(pixels)
    raised = []

    def refuse(name: str) -> None:
        if not raised and name.startswith(("mm", "addmm")):
            raised.append(name)
            raise RuntimeError(text)

    with pretended(device) as pretence:
        restorer = Restorer(network, device=device)
        pretence.before = refuse
        made = restorer(pixels)
        assert pretence.emptied == [0]
    assert raised
    assert np.abs(made.astype(int) - expected).max() <= 1


def test_memory_that_never_suffices_costs_one_image() -> None:
    with pretended("cuda") as card:
        restorer = Restorer(tiny_network(), device="cuda")

        def refuse(name: str) -> None:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

        card.before = refuse
        said = r"cuda:0 ran out of memory for 40×64 pixels \(cuDNN error: CUDNN_STATUS_ALLOC_FAILED"
        with pytest.raises(ImageError, match=said):
            restorer(random_pixels(64, 40))
        card.before = None
        assert restorer(random_pixels(64, 40)).shape == (64, 40, 3)
        assert card.held[0] < 1 << 20  # nothing of the failed attempts is kept


def test_a_device_that_has_gone_is_not_tried_again() -> None:
    calls = []
    with pretended("cuda") as card:
        restorer = Restorer(tiny_network(), device="cuda")

        def fail(name: str) -> None:
            calls.append(name)
            raise RuntimeError(OTHERS[0])

        card.before = fail
        with pytest.raises(RuntimeError, match="illegal memory access"):
            restorer(random_pixels(64, 40))
    assert len(calls) == 1


def test_the_cache_is_emptied_on_the_card_in_use() -> None:
    """A call that names no card makes a context on the first one, and takes memory there."""
    with pretended("cuda", cards=2) as cards:
        restorer = Restorer(tiny_network(), device="cuda:1")
        left = [RuntimeError(REFUSALS[0])]

        def refuse(name: str) -> None:
            if left:
                raise left.pop()

        cards.before = refuse
        restorer(random_pixels(64, 40))
        assert cards.emptied == [1]
        assert cards.current == 0
        assert cards.peak[0] == 0


@pytest.mark.usefixtures("no_overhead")
@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("storage", "height", "width"),
    [("device", 16, 24), ("device", 8, 96), ("host", 16, 24), ("scratch", 16, 24)],
)
def test_a_plan_is_an_upper_bound(
    device: str, dtype: torch.dtype, storage: Any, height: int, width: int
) -> None:
    """In one strip, in several, and in as many as there are rows."""
    network = tiny_network("bias_free")
    image = torch.rand(1, 3, height, width)
    for values in (1 << 26, 1 << 11, 1):
        with pretended(device) as pretence:
            engine = StreamingRestormer(network, device, dtype)
            evaluation = memory_plan._Evaluation(
                network.config, height, width, engine.device, dtype
            )
            plan = evaluation.predict(Plan(values, storage, 0, threads=0), main=GB)
            before = pretence.held[0]
            pretence.peak.clear()
            engine(image, plan)
            assert pretence.peak[0] - before <= plan.peak_bytes + SMALL


@pytest.mark.usefixtures("no_overhead")
def test_a_card_that_others_fill_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less and less is left, and the image is restored all the same."""
    network, pixels = tiny_network(), random_pixels(24, 272)
    expected = Restorer(network)(pixels)
    with pretended("cuda") as card:
        restorer = Restorer(network, device="cuda")
        plans = []
        evaluate = StreamingRestormer.__call__

        def note(self: Any, image: Any, plan: Plan, *others: Any) -> Any:
            plans.append(plan)
            # Another process takes all but a quarter of what the plan counts on.
            if len(plans) < 3:
                card.taken[0] = card.memory - card.held[0] - plan.peak_bytes // 4
            return evaluate(self, image, plan, *others)

        monkeypatch.setattr(StreamingRestormer, "__call__", note)
        made = restorer(pixels)
    assert len(plans) > 2
    for plan, next_plan in itertools.pairwise(plans):
        assert next_plan.peak_bytes < plan.peak_bytes
    assert np.abs(made.astype(int) - expected).max() <= 1


# Main memory


def plan_on(device: str, megapixels: int, memory: int, **others: Any) -> Plan:
    side = 8 * round((megapixels * 10**6) ** 0.5 / 8)
    with pretended(device, memory=memory):
        return plan_memory(FULL, side, side, torch.device(device, 0), torch.bfloat16, **others)


def test_maps_in_main_memory_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    main_memory(monkeypatch, 64 * GB)
    plan = plan_on("cuda", 100, 7 * GB)
    assert plan.storage == "host"
    assert plan.main_bytes > 100 * 10**6 * (96 * 2 + 48)
    assert plan.peak_bytes < 7 * GB


def test_maps_that_main_memory_cannot_hold_go_to_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "_scratch_fits", lambda plan: True)
    main_memory(monkeypatch, 8 * GB)
    plan = plan_on("cuda", 100, 7 * GB)
    assert plan.storage == "scratch"
    assert plan.scratch_bytes > 20 * GB
    assert plan.main_bytes < 8 * GB


def test_pixels_that_main_memory_cannot_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    main_memory(monkeypatch, 4 * GB)
    said = "10000×10000 pixels need at least .* more than the main memory that is free"
    with pytest.raises(MemoryBudgetError, match=said):
        plan_on("cuda", 100, 80 * GB)


@pytest.mark.parametrize("free", [16 * GB, 64 * GB])
def test_only_some_of_main_memory_is_pinned(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    main_memory(monkeypatch, free)
    plan = plan_on("cuda", 24, 2 * GB)
    assert plan.storage == "host"
    assert plan.pinned == (free > 32 * GB)
    assert plan.main_bytes <= free / 2 or not plan.pinned


def test_an_apple_gpu_has_no_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    main_memory(monkeypatch, 9 * GB)
    plan = plan_on("mps", 12, 10 * GB)
    assert plan.storage == "device"
    assert plan.main_bytes == plan.peak_bytes <= 9 * GB
    main_memory(monkeypatch, 3 * GB)
    plan = plan_on("mps", 12, 10 * GB)
    assert plan.storage == "scratch"
    assert plan.main_bytes == plan.peak_bytes <= 3 * GB
    # And what Metal recommends is the bound where more is free.
    main_memory(monkeypatch, 60 * GB)
    assert plan_on("mps", 12, 3 * GB).peak_bytes <= 3 * GB


def test_what_the_driver_of_an_apple_gpu_holds_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    main_memory(monkeypatch, 60 * GB)
    with pretended("mps", memory=10 * GB):
        monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 6 * GB)
        monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 5 * GB)
        free = available_memory(torch.device("mps"), None, Shares())
        assert free == int(FREE_MEMORY_SHARE * 5 * GB)
        monkeypatch.delattr(torch.mps, "recommended_max_memory")  # PyTorch 2.4
        assert available_memory(torch.device("mps"), None, Shares()) > free


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_room_for_an_image_is_of_main_memory(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    main_memory(monkeypatch, 64 * GB)
    with pretended(device, memory=7 * GB):
        where, dtype = torch.device(device, 0), torch.bfloat16
        available, needed = memory_plan.room_for(FULL, 6000, 8000, where, dtype, None)
        plan = plan_memory(FULL, 6000, 8000, where, dtype)
    assert needed == plan.main_bytes
    assert available == int(FREE_MEMORY_SHARE * (64 if device == "cuda" else 7) * GB)
    if device == "cuda":
        assert plan.storage == "host"
        assert needed > 48 * 10**6 * 96 * 2


# Several processes on one device


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("workers", [2, 3])
def test_shares_of_a_device_fit_together(
    device: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    main_memory(monkeypatch, 200 * GB)
    where, shares = torch.device(device, 0), Shares(1 / workers, 1 / workers)
    with pretended(device, memory=24 * GB):
        plans = [
            plan_memory(FULL, 3000, 4000, where, torch.bfloat16, shares=shares)
            for _ in range(workers)
        ]
        alone = plan_memory(FULL, 3000, 4000, where, torch.bfloat16)
    assert sum(plan.peak_bytes for plan in plans) <= 24 * GB
    assert plans[0].peak_bytes <= alone.peak_bytes


def test_shares_of_main_memory_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cards of one machine, on each of which maps do not fit."""
    monkeypatch.setattr(memory_plan, "_scratch_fits", lambda plan: True)
    main_memory(monkeypatch, 100 * GB)
    plan = plan_on("cuda", 50, 4 * GB, shares=Shares(1.0, 1 / 8))
    assert 8 * plan.main_bytes <= 100 * GB
    assert plan_on("cuda", 50, 4 * GB).storage == "host"


def test_pinned_memory_is_asked_for_and_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    empty = torch.empty

    def note(*shape: Any, pin_memory: bool = False, **how: Any) -> torch.Tensor:
        asked.append(pin_memory)
        if pin_memory:
            raise RuntimeError("CUDA error: OS call failed or operation not supported on this OS")
        return empty(*shape, **how)

    with pretended("cuda"):
        monkeypatch.setattr(torch, "empty", note)
        where = torch.device("cuda", 0)
        made = feature_map.allocate((1, 8, 8, 4), where, torch.float32, "host", pinned=True)
        assert made.tensor.device.type == "cpu"
    assert asked[:2] == [True, False]


# Small images


@pytest.mark.parametrize(
    ("device", "sizes"),
    [
        ("cuda", {32: 16, 64: 16, 128: 4, 256: 1, 1024: 1}),
        ("mps", {32: 1, 64: 1, 256: 1}),
        ("cpu", {32: 8, 64: 8, 256: 1}),
    ],
)
def test_images_go_together_as_suits_the_device(device: str, sizes: dict[int, int]) -> None:
    with pretended("mps" if device == "mps" else "cuda"):
        restorer = Restorer(tiny_network(), device=device)
        assert {side: restorer.images_together(side, side, 3) for side in sizes} == sizes


def test_what_goes_together_on_a_card_comes_out_as_alone() -> None:
    batch = [(random_pixels(24, 24, seed=seed),) for seed in range(3)]
    with pretended("cuda"):
        restorer = Restorer(tiny_network(), device="cuda")
        together = restorer.restore_together(batch)
        for views, made in zip(batch, together, strict=True):
            assert np.array_equal(restorer(*views), made)


def test_memory_on_a_pretended_device_is_given_back() -> None:
    with pretended("cuda") as card:
        tensor = torch.empty(1000, device="cuda")
        assert card.held[0] == 4096
        view = tensor[:10]
        del tensor
        assert card.held[0] == 4096
        del view
        assert card.held[0] == 0
        card.taken[0] = card.memory - 4095
        with pytest.raises(RuntimeError, match="out of memory"):
            torch.empty(1000, device="cuda")
    assert Pretended.active is None
