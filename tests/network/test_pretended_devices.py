"""The paths of CUDA and MPS, on devices that are pretended (see tests/pretended.py)."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import tlc
import torch
from helpers import KINDS, tiny_network
from hypothesis import given
from hypothesis import strategies as st
from pretended import needs_linux, pretended
from torch import Tensor

from restormer_cli.network import feature_map, layer_norm, native, tf32
from restormer_cli.network.architecture import Restormer
from restormer_cli.network.attention_sums import AttentionSums, CellProducts
from restormer_cli.network.buffers import Buffers
from restormer_cli.network.feature_map import RemoteMap
from restormer_cli.network.kernels import Memory
from restormer_cli.network.memory_plan import Plan, Storage
from restormer_cli.network.packed import Attention, Block
from restormer_cli.network.streaming import StreamingRestormer
from restormer_cli.network.strips import Strips
from restormer_cli.network.windows import Grid

pytestmark = needs_linux
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
#: Images at once and their height, numbers in a strip (a row, some rows, or all), pixels of local
#: windows, and the layout of what convolutions give.
CASES = [(1, 8, 1, None, "nhwc"), (1, 24, 1500, 8, "nchw"), (3, 16, 1 << 26, None, "nhwc")]
STORAGES: list[Storage] = ["device", "host", "scratch"]


def network_of(kind: str) -> Restormer:
    return tiny_network(kind, bias=kind in {"bias_free", "dual_pixel"})


def seeded(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def error(made: Tensor, expected: Tensor) -> float:
    return (made - expected).square().mean().sqrt().item()


@functools.cache
def on_cpu(kind: str, dtype: torch.dtype) -> list[tuple[Tensor, Tensor, float]]:
    """For each case an image, its exact result, and the error of the CPU in this precision."""
    network = network_of(kind)
    exact = copy.deepcopy(network).double()
    found = []
    # Kernels of our own are more exact than PyTorch's, and no device has them.
    with mock.patch.object(native, "kernels_for", return_value=None):
        cpu = StreamingRestormer(network, dtype=dtype)
        for count, height, strip, window, _ in CASES:
            image = seeded(count, network.config.inp_channels, height, 16)
            with torch.no_grad():
                whole = exact(image.double())
            expected = tlc.forward(exact, image.double(), window) if window else whole
            made = cpu(image, Plan(strip, "device", 0), None, window)
            found.append((image, expected, error(made, expected)))
    return found


def see_that_it_is_exact(device: str, dtype: torch.dtype, kind: str) -> None:
    """What a device gives is as near to the plain forward as what the CPU gives."""
    # Each storage meets each case, for one kind of network or another.
    turn = sorted(KINDS).index(kind)
    storages = STORAGES[turn % 3 :] + STORAGES[: turn % 3]
    cases = zip(CASES, storages, on_cpu(kind, dtype), strict=True)
    for (_, _, strip, window, layout), storage, (image, expected, least) in cases:
        with pretended(device, layout=layout):
            engine = StreamingRestormer(network_of(kind), device, dtype)
            made = engine(image, Plan(strip, storage, 0), None, window)
        assert made.device == image.device
        assert error(made, expected) <= 1.5 * least + 1e-6


@pytest.mark.parametrize(
    ("device", "dtype", "kind"),
    [
        *itertools.product(["cuda"], DTYPES, sorted(KINDS)),
        *zip(itertools.repeat("mps"), itertools.cycle(DTYPES), sorted(KINDS)),
    ],
)
def test_a_device_gives_what_the_plain_forward_gives(
    device: str, dtype: torch.dtype, kind: str
) -> None:
    see_that_it_is_exact(device, dtype, kind)


# Defects in our code, which the tests of this file must not miss.


def by_address(target: Tensor, rows: Tensor) -> None:
    if rows.device != target.device or rows.data_ptr() != target.data_ptr():
        target.copy_(rows)


def in_float64(self: AttentionSums, total: Tensor, groups: Tensor) -> None:
    total += groups.sum(dim=1, dtype=torch.float64)


def on_the_cpu(self: Attention, softmaxed: Tensor) -> Tensor:
    return torch.eye(self.channels, dtype=softmaxed.dtype).expand(*softmaxed.shape[:-3], -1, -1)


def of_another_precision(self: Block, rows: Tensor, memory: Memory, *scales: Tensor) -> Tensor:
    return layer_norm.layer_norm(rows.float(), self.center, 1e-5, memory, *scales)


DEFECTS: dict[str, tuple[str, torch.dtype, Any, str, Any]] = {
    "TF32": ("cuda", torch.float32, tf32, "can_forbid_tf32", lambda _: False),
    "addresses": ("mps", torch.float32, feature_map, "_put", by_address),
    "float64": ("mps", torch.float32, AttentionSums, "_add", in_float64),
    "devices mixed": ("cuda", torch.float32, Attention, "projected", on_the_cpu),
    "rows lost": ("cuda", torch.float32, RemoteMap, "flush", lambda _: None),
    "rows dropped": ("mps", torch.bfloat16, RemoteMap, "_write_back", lambda *_: None),
    "precisions mixed": ("mps", torch.bfloat16, Block, "normalise", of_another_precision),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device, dtype, where, attribute, defect = DEFECTS[name]
    layer_norm.has_layer_norm.cache_clear()
    monkeypatch.setattr(where, attribute, defect)
    with pytest.raises((AssertionError, RuntimeError, TypeError)):
        see_that_it_is_exact(device, dtype, "bias_free")


# What the host program has settled on


def high() -> None:
    torch.set_float32_matmul_precision("high")


def allowed() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True


def by_new_name() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"


@pytest.fixture
def matmul_settings() -> Iterator[None]:
    yield
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        torch.backends.cuda.matmul.fp32_precision = "none"
    else:
        torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.usefixtures("matmul_settings")
@pytest.mark.parametrize("settle", [high, allowed, by_new_name])
def test_float32_is_float32_whatever_the_host_program_allows(settle: Any) -> None:
    if settle is by_new_name and not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("PyTorch before 2.9 has no such name")
    settle()
    see_that_it_is_exact("cuda", torch.float32, "bias_free")


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_autocast_of_the_host_program_changes_nothing(device: str) -> None:
    network = network_of("with_bias")
    image = seeded(1, 3, 16, 16)
    plan = Plan(1500, "device", 0)
    with pretended("mps" if device == "mps" else "cuda"):
        engine = StreamingRestormer(network, device)
        expected = engine(image, plan)
        with torch.autocast(device, dtype=torch.bfloat16):
            assert torch.equal(engine(image, plan), expected)


def test_no_setting_of_the_process_is_changed() -> None:
    def settings() -> list[object]:
        cudnn = torch.backends.cudnn
        return [cudnn.allow_tf32, cudnn.enabled, torch.get_float32_matmul_precision()]

    before, during = settings(), []
    with pretended("cuda") as card:
        card.before = lambda _: during.append(settings())
        StreamingRestormer(network_of("gray"), "cuda")(seeded(1, 1, 8, 8))
    assert settings() == before
    assert during
    assert all(found == before for found in during)


# What a device is given


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_network_that_is_on_a_device_already(device: str, dtype: torch.dtype) -> None:
    network = network_of("dual_pixel").to(dtype)
    image = seeded(1, 6, 16, 16)
    plan = Plan(1500, "device", 0)
    expected = StreamingRestormer(network)(image, plan)
    with pretended(device):
        state = {name: tensor.to(device) for name, tensor in network.state_dict().items()}
        network.load_state_dict(state, assign=True)
        assert next(network.parameters()).device.type == device
        for target in (device, "cpu"):
            made = StreamingRestormer(network, target)(image, plan)
            assert torch.allclose(made, expected, atol=1e-4)


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("storage", ["host", "scratch"])
def test_rows_move_once_each_way(device: str, storage: Storage) -> None:
    """A pass reads each row, and the second pass writes it as well."""
    network = network_of("with_bias")
    height, width = 64, 8
    with pretended(device) as pretence:
        engine = StreamingRestormer(network, device)
        shape = (1, height, width, network.config.dim)
        plan = Plan(8 * 64, storage, 0, threads=0)
        (part,) = plan.parts(network.config, 1, height, width)
        image = torch.empty(1, 3, height, width)
        strips = Strips(engine.packed, plan, part, image, lambda: None)
        strips.x = feature_map.allocate(shape, engine.device, torch.float32, storage)
        strips.x.write(0, height, torch.zeros(shape))
        pretence.copied.clear()
        block = engine.packed.encoders[0][0]
        sums = AttentionSums(block.attention, 1, [[0, height], [0, width]], Grid(height, width))
        strips.attend(Buffers({}, engine.packed.like), block, sums)
        products = CellProducts(sums.fold(), None, engine.packed.like)
        strips.apply(Buffers({}, engine.packed.like), block, products)
    size = math.prod(shape) * 4
    assert pretence.copied["to"] == 2 * size
    assert pretence.copied["from"] == size


@given(st.data())
def test_a_remote_map_is_read_as_it_was_written(data: st.DataObject) -> None:
    """Whatever the order of reads and writes, in place or not, two maps in one memory included."""
    height = data.draw(st.integers(1, 12))
    device = torch.device("cpu")
    wide = RemoteMap(torch.zeros(1, height, 2, 2), device)
    narrow = wide.narrowed(1)
    assert isinstance(narrow, RemoteMap)
    expected = torch.zeros(1, height, 2, 1)
    for step in range(data.draw(st.integers(1, 12))):
        first = data.draw(st.integers(0, height - 1))
        last = data.draw(st.integers(first + 1, height))
        rows = narrow.read(first, last)
        assert torch.equal(rows, expected[:, first:last])
        what = data.draw(st.sampled_from(["read", "change", "write", "flush"]))
        if what == "change":
            rows += step + 1
            narrow.write(first, last, rows)
            expected[:, first:last] += step + 1
        elif what == "write":
            narrow.write(first, last, torch.full_like(rows, -step))
            expected[:, first:last] = -step
        elif what == "flush":
            narrow.flush()
    narrow.flush()
    assert torch.equal(wide.narrowed(1).read(0, height), expected)


def test_host_memory_that_is_refused_becomes_a_scratch_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty, asked = torch.empty, []

    def refuse(*shape: Any, **how: Any) -> Tensor:
        if "pin_memory" in how:
            asked.append(how["pin_memory"])
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
        return empty(*shape, **how)

    with pretended("cuda"):
        engine = StreamingRestormer(network_of("gray"), "cuda")
        image, plan = seeded(1, 1, 16, 16), Plan(1500, "device", 0)
        expected = engine(image, plan)
        monkeypatch.setattr(torch, "empty", refuse)
        assert torch.equal(engine(image, Plan(1500, "host", 0, pinned=True)), expected)
    assert asked[:2] == [True, False]
