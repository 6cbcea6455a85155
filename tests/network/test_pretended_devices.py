"""The paths of CUDA and MPS, on devices that are pretended (see tests/pretended.py)."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from helpers import KINDS, tiny_network
from pretended import needs_linux, pretended
from torch import Tensor

from restormer_cli.network.architecture import Restormer
from restormer_cli.network.memory_plan import Plan, Storage
from restormer_cli.network.streaming import StreamingRestormer

pytestmark = needs_linux
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
#: Images at once and their height, numbers in a strip (a row, some rows, or all), and the layout of
#: what convolutions give.
CASES = [(1, 8, 1, "nhwc"), (1, 24, 1500, "nchw"), (3, 16, 1 << 26, "nhwc")]
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
    exact, cpu = copy.deepcopy(network).double(), StreamingRestormer(network, dtype=dtype)
    found = []
    for count, height, strip, _ in CASES:
        image = seeded(count, network.config.inp_channels, height, 16)
        with torch.no_grad():
            expected = exact(image.double())
        found.append((image, expected, error(cpu(image, Plan(strip, "device", 0)), expected)))
    return found


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_device_gives_what_the_plain_forward_gives(
    device: str, dtype: torch.dtype, kind: str
) -> None:
    # Each storage meets each case, for one kind of network or another.
    turn = sorted(KINDS).index(kind)
    storages = STORAGES[turn % 3 :] + STORAGES[: turn % 3]
    cases = zip(CASES, storages, on_cpu(kind, dtype), strict=True)
    for (_, _, strip, layout), storage, (image, expected, least) in cases:
        with pretended(device, layout=layout):
            engine = StreamingRestormer(network_of(kind), device, dtype)
            made = engine(image, Plan(strip, storage, 0))
        assert made.device == image.device
        assert error(made, expected) <= 1.5 * least + 1e-6
