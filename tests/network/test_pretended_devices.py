"""The paths of CUDA and MPS, on devices that are pretended (see tests/pretended.py)."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from helpers import KINDS, tiny_network
from pretended import needs_linux, pretended
from torch import Tensor

from restormer_cli.network.architecture import Restormer
from restormer_cli.network.memory_plan import Plan
from restormer_cli.network.streaming import StreamingRestormer

pytestmark = needs_linux
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
#: Images at once, numbers in a strip (a row, some rows, or all), what convolutions give.
CASES = [(1, 1, "nhwc"), (1, 1500, "nchw"), (3, 1 << 26, "nhwc")]


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
    for count, strip, _ in CASES:
        image = seeded(count, network.config.inp_channels, 16, 24)
        with torch.no_grad():
            expected = exact(image.double())
        found.append((image, expected, error(cpu(image, Plan(strip, "device", 0)), expected)))
    return found


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("storage", ["device", "host", "scratch"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_device_gives_what_the_plain_forward_gives(
    device: str, dtype: torch.dtype, storage: Any, kind: str
) -> None:
    cases = zip(CASES, on_cpu(kind, dtype), strict=True)
    for (_, strip, layout), (image, expected, least) in cases:
        with pretended(device, layout=layout):
            engine = StreamingRestormer(network_of(kind), device, dtype)
            made = engine(image, Plan(strip, storage, 0))
        assert made.device == image.device
        assert error(made, expected) <= 1.5 * least + 1e-6
