"""A GPU that computes wrongly is found out before it restores anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import KINDS, tiny_network, zero_network
from pretended import CONVOLUTION, needs_linux, pretended

from restormer_cli.errors import DeviceError
from restormer_cli.network.architecture import Restormer
from restormer_cli.network.devices import describe
from restormer_cli.network.self_check import check_device, example_network, load_checked
from restormer_cli.restorer import Restorer

pytestmark = needs_linux
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

Defect = Callable[[str, Any, Any], Any]


def layer_norm_of_tiny_variance(name: str, args: Any, out: Any) -> Any:
    """Wrong where the variance is small, as on Metal."""
    if not name.startswith("native_layer_norm"):
        return out
    normalised, mean, scale = out
    flat = args[0].float().var(-1, keepdim=True) < 1e-4
    return torch.where(flat, normalised + 1, normalised), mean, torch.where(flat, scale / 2, scale)


def grouped_convolutions(name: str, args: Any, out: Any) -> Any:
    """Groups take their neighbours' kernels."""
    depthwise = CONVOLUTION.match(name) and args[1].shape[1] == 1 < len(args[1])
    return out.roll(1, dims=1) if depthwise else out


def views_at_an_offset(name: str, args: Any, out: Any) -> Any:
    """A convolution begins to read where the memory begins."""
    if not CONVOLUTION.match(name) or not args[0].storage_offset() or out.shape[2] < 2:
        return out
    return out.roll(1, dims=2)


def products(name: str, args: Any, out: Any) -> Any:
    """Wrong in one row of many."""
    if name.startswith(("mm", "addmm")):
        out[:1] *= 3
    return out


def no_numbers(name: str, args: Any, out: Any) -> Any:
    return out * torch.nan if CONVOLUTION.match(name) else out


DEFECTS: list[Defect] = [
    layer_norm_of_tiny_variance,
    grouped_convolutions,
    views_at_an_offset,
    products,
    no_numbers,
]


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_wrong_results_are_found(defect: Defect, device: str) -> None:
    with pretended(device) as pretence:
        pretence.after = defect
        for network in (tiny_network("bias_free"), example_network()):
            with pytest.raises(DeviceError) as found:
                load_checked(network, device, torch.float32)
            said = str(found.value)
            assert said.startswith(f"{device} gives other results than the CPU in float32")
            assert said.endswith("say --device cpu")


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_right_results_are_let_through(device: str, dtype: torch.dtype) -> None:
    networks: list[Restormer] = [*map(tiny_network, KINDS), zero_network(), example_network()]
    with pretended(device):
        for network in networks:
            _, check = check_device(network, device, dtype)
            assert check.passed
            assert check.seconds > 0


def test_tf32_does_not_pass_for_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restormer_cli.network.tf32.may_be_tf32", lambda _: False)
    with pretended("cuda"), pytest.raises(DeviceError, match="other results than the CPU"):
        load_checked(example_network(), "cuda", torch.float32)


def test_a_restorer_is_checked() -> None:
    with pretended("mps") as gpu:
        gpu.after = products
        with pytest.raises(DeviceError, match="mps gives other results"):
            Restorer(tiny_network(), device="mps")
    Restorer(tiny_network())


def test_weights_that_are_no_numbers_are_not_the_device_s_fault() -> None:
    network = tiny_network()
    network.output.weight[0, 0, 0, 0] = torch.nan
    with pretended("cuda"):
        assert check_device(network, "cuda", torch.float32)[1].passed


def test_devices_shows_the_check() -> None:
    with pretended("cuda"):
        lines = list(describe("cuda:0"))
    assert any(line.startswith("cuda:0  Pretended 0, ") for line in lines)
    assert "used: cuda:0, because asked for" in lines
    assert any(line.startswith("check: results are those of the CPU, ") for line in lines)
    assert not any(line.startswith("check:") for line in describe("cpu"))


def test_devices_shows_a_check_that_fails() -> None:
    with pretended("mps") as gpu:
        gpu.after = grouped_convolutions
        lines = list(describe("auto"))
        used = [line for line in lines if line.startswith("used: cpu, because mps gives other")]
        assert used
        asked = describe("mps")
        with pytest.raises(DeviceError, match="mps gives other results"):
            list(asked)


def test_a_pretended_card_can_be_out_of_order() -> None:
    with pretended("cuda", cards=2) as cards:
        cards.broken[0] = "CUDA error: unspecified launch failure"
        with pytest.raises(RuntimeError, match="launch failure"):
            torch.zeros(2, device="cuda:0")
        there = torch.zeros(2, device="cuda:1")
        assert there.device.index == 1
        with pytest.raises(RuntimeError, match="same device"):
            torch.add(there, torch.zeros(2))
