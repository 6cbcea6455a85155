"""Private operators of PyTorch are tried before they are used, and never cost a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_images, read, restormer, save, tiny_network
from torch import Tensor

from restormer_cli.network import kernels, layer_norm, native, trials
from restormer_cli.network.device_errors import is_out_of_memory
from restormer_cli.network.streaming import StreamingRestormer

CPU = torch.device("cpu")
REAL = torch.ops.mkldnn
needs_onednn = pytest.mark.skipif(
    kernels._onednn("cpu", torch.float32) is None, reason="this machine has no such operators"
)


@pytest.fixture(autouse=True)
def untried() -> Iterator[None]:
    """As in a process that has just begun, before and after."""

    def forget() -> None:
        kernels._onednn.cache_clear()
        layer_norm.has_layer_norm.cache_clear()
        trials.distrusted.clear()

    forget()
    yield
    forget()


class Changed:
    """The operators, of which one is another."""

    def __init__(self, name: str, operator: Any) -> None:
        self.name, self.operator = name, operator

    def __getattr__(self, name: str) -> Any:
        if name != self.name:
            return getattr(REAL, name)
        if self.operator is None:
            raise AttributeError(name)
        return self.operator


class Binary:
    """An operator with overloads, as the one that adds is."""

    def __init__(self, binary: Callable[..., Any]) -> None:
        self.binary = binary


def raises(*arguments: Any) -> Any:
    raise RuntimeError("could not create a primitive descriptor")


def renamed(x: Any, *, weight: Any) -> Any:
    raise AssertionError("is not reached")


def scaled(x: Any, *rest: Any) -> Any:
    return REAL._linear_pointwise(x, *rest) * 1.01


def without_bias(x: Any, weight: Any, bias: Any, *rest: Any) -> Any:
    return REAL._linear_pointwise(x, weight, None, *rest)


def not_numbers(*arguments: Any) -> Any:
    return torch.full_like(REAL._convolution_pointwise(*arguments), torch.nan)


def without_gelu(*arguments: Any) -> Any:
    return REAL._convolution_pointwise(*arguments[:-3], "none", [], "")


def other_gelu(*arguments: Any) -> Any:
    if arguments[-3] == "gelu":
        arguments = (*arguments[:-1], "tanh")
    return REAL._convolution_pointwise(*arguments)


def not_added(rows: Any, *rest: Any) -> Any:
    return REAL._convolution_pointwise_.binary(rows.clone(), *rest)


def packed_wrongly(weight: Any, *rest: Any) -> Any:
    return REAL._reorder_convolution_weight(weight.flip(-1).flip(0), *rest)


def shorter(*arguments: Any) -> Any:
    return REAL._convolution_pointwise(*arguments)[:, :, :, 1:]


FAULTS = [
    *((name, None) for name in ("_linear_pointwise", "_reorder_convolution_weight")),
    ("_linear_pointwise", raises),
    ("_linear_pointwise", renamed),
    ("_linear_pointwise", scaled),
    ("_linear_pointwise", without_bias),
    ("_reorder_linear_weight", raises),
    ("_convolution_pointwise", not_numbers),
    ("_convolution_pointwise", without_gelu),
    ("_convolution_pointwise", other_gelu),
    ("_convolution_pointwise", shorter),
    ("_convolution_pointwise_", raises),  # without overloads
    ("_convolution_pointwise_", Binary(not_added)),
    ("_reorder_convolution_weight", packed_wrongly),
]


@needs_onednn
@pytest.mark.parametrize(("name", "operator"), FAULTS)
def test_changed_operators_are_not_used_and_it_is_said(
    name: str,
    operator: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = tiny_network("with_bias", bias=True)
    image = torch.rand(1, 3, 24, 16, generator=torch.Generator().manual_seed(0))
    expected = StreamingRestormer(network)(image)
    kernels._onednn.cache_clear()
    monkeypatch.setattr(torch.ops, "mkldnn", Changed(name, operator))
    with caplog.at_level(logging.WARNING, "restormer_cli"):
        restored = StreamingRestormer(network)(image)
    assert kernels._onednn("cpu", torch.float32) is None
    assert (restored - expected).abs().max() < 1e-4
    (notice,) = kernels.notices()
    assert f"PyTorch {torch.__version__} computes without the operators of oneDNN" in notice
    assert notice in caplog.messages


@needs_onednn
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_trial_passes_here_is_made_once_and_leaves_no_trace(dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and not REAL._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bfloat16")
    before = torch.random.get_rng_state()
    assert kernels._onednn("cpu", dtype) is REAL
    kernels.try_operators(CPU, dtype)
    assert kernels._onednn.cache_info().misses == 1
    assert kernels.notices() == []
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("fault", ["missing", "raises", "wrong"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layer_norm_has_a_plain_twin(
    fault: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = torch.rand(2, 3, 5, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    monkeypatch.setattr(native, "kernels_for", lambda like: None)

    def normalised(center: bool) -> tuple[Tensor, Tensor]:
        scales = torch.empty(2, 3, 5, 1)
        return layer_norm.layer_norm(rows, center, 1e-5, torch.empty, scales), scales

    expected = [*normalised(center=True), *normalised(center=False)]
    layer_norm.has_layer_norm.cache_clear()
    plain = torch.native_layer_norm
    if fault == "missing":
        monkeypatch.delattr(torch, "native_layer_norm")
    elif fault == "raises":
        monkeypatch.setattr(torch, "native_layer_norm", raises)
    else:
        # The variance instead of what it is divided by.
        monkeypatch.setattr(
            torch, "native_layer_norm", lambda *a: (*plain(*a)[:2], plain(*a)[2] ** -2)
        )
    made = [*normalised(center=True), *normalised(center=False)]
    for a, b in zip(made, expected, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert torch.allclose(a.float(), b.float(), rtol=4 * torch.finfo(dtype).eps, atol=1e-5)
    assert "native_layer_norm" in kernels.notices()[0]


def test_gelu_needs_no_operator_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.linspace(-3, 3, 31)
    expected = torch.nn.functional.gelu(values)
    assert torch.allclose(kernels._gelu(values.clone()), expected)
    monkeypatch.setattr(torch.ops, "aten", object())
    assert torch.equal(kernels._gelu(values), expected)


@needs_onednn
def test_a_run_is_whole_and_says_that_it_is_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_images(tmp_path / "in", 2, size=24)
    weights = save(tiny_network("bias_free"), tmp_path / "net.pth")
    command = ("denoise", "--input-dir", folder, "--weights", weights, "--precision", "float32")
    assert restormer(*command, "--result-dir", tmp_path / "usual").status == 0
    kernels._onednn.cache_clear()
    monkeypatch.setattr(torch.ops, "mkldnn", Changed("_linear_pointwise", raises))
    ran = restormer(*command, "--result-dir", tmp_path / "plain")
    assert ran.status == 0
    assert ran.err.count("computes without the operators of oneDNN") == 1
    for name in ("0.png", "1.png"):
        a, b = (read(tmp_path / side / name).astype(int) for side in ("usual", "plain"))
        assert np.abs(a - b).max() <= 1
    listed = restormer("devices", "--device", "cpu", "--precision", "float32")
    assert "computes without the operators of oneDNN" in listed.out


@pytest.mark.parametrize("named", [True, False])
def test_running_out_of_memory_is_known_with_and_without_its_exception(
    named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not named:  # PyTorch 2.4
        monkeypatch.delattr(torch, "OutOfMemoryError")
    assert is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize("channels", [2, 24, 48, 384])
def test_rounded_matrices_go_on_subtracting_the_mean(channels: int) -> None:
    matrix = torch.randn(64, channels, generator=torch.Generator().manual_seed(0)).double()
    matrix -= matrix.mean(1, keepdim=True)
    rounded = kernels.round_rows(matrix, torch.bfloat16).double()
    assert torch.allclose(rounded, matrix, rtol=2**-8, atol=2**-6)
    one_by_one = matrix.to(torch.bfloat16).double()
    sums = [made.sum(1).abs().mean() for made in (rounded, one_by_one)]
    assert sums[0] <= sums[1] / (4 if channels >= 24 else 1)
