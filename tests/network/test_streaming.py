"""The strip-wise evaluation gives what the plain forward gives, whatever the plan."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tlc
import torch
from helpers import NO_SHRINKING, PATHS, along
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

from restormer_cli.images.codecs.base import Pixels
from restormer_cli.loading import load_restorer
from restormer_cli.network import kernels, streaming
from restormer_cli.network.architecture import Restormer, RestormerConfig
from restormer_cli.network.memory_plan import Plan
from restormer_cli.network.streaming import StreamingRestormer
from restormer_cli.restorer import Restorer

TOLERANCE = 1e-5


def network(seed: int = 0, **values: object) -> Restormer:
    """A small network whose every parameter matters; outputs stay near [0, 1]."""
    settings = {"dim": 8, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1} | values
    torch.manual_seed(seed)
    made = Restormer(RestormerConfig(**settings)).eval().requires_grad_(False)  # type: ignore[arg-type]
    for name, parameter in made.named_parameters():
        if name.endswith("temperature"):
            parameter.uniform_(0.5, 4)
        elif parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
        else:
            parameter.normal_(std=0.8 * parameter[0].numel() ** -0.5)
    return made


def seeded_rand(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


VARIANTS = {
    "WithBias": {},
    "BiasFree": {"LayerNorm_type": "BiasFree"},
    "gray": {"inp_channels": 1, "out_channels": 1, "LayerNorm_type": "BiasFree"},
    "dual pixel": {"inp_channels": 6, "dual_pixel_task": True},
    "bias": {"bias": True},
    "dual pixel with bias": {"inp_channels": 6, "dual_pixel_task": True, "bias": True},
    "other heads": {"dim": 12, "heads": (2, 3, 4, 6), "ffn_expansion_factor": 2.66},
    "more blocks": {"num_blocks": (2, 1, 2, 1), "num_refinement_blocks": 0},
    "no blocks at a level": {"num_blocks": (1, 0, 1, 1)},
}
NETWORKS = {name: network(**values) for name, values in VARIANTS.items()}
ENGINES = {name: StreamingRestormer(made) for name, made in NETWORKS.items()}


@functools.cache
def engine(name: str, path: str) -> StreamingRestormer:
    with along(path):
        return StreamingRestormer(NETWORKS[name])


@settings(max_examples=60, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(VARIANTS)),
    height=st.integers(1, 8).map(lambda n: 8 * n),
    width=st.integers(1, 6).map(lambda n: 8 * n),
    count=st.integers(1, 3),
    strip_values=st.sampled_from([1, 300, 1000, 2000, 4000, 12_000, 80_000, 1 << 24]),
    storage=st.sampled_from(["device", "scratch"]),
    path=st.sampled_from(("all in C", *PATHS)),
    strip_bytes=st.sampled_from([1, 1 << 18]),
    seed=st.integers(0, 1 << 20),
)
def test_equals_the_plain_forward(
    name, height, width, count, strip_values, storage, path, strip_bytes, seed
):
    generator = torch.Generator().manual_seed(seed)
    channels = NETWORKS[name].config.inp_channels
    image = torch.rand(count, channels, height, width, generator=generator)
    with torch.no_grad():
        expected = NETWORKS[name](image)
    plan = Plan(strip_values, storage, 0)
    with along(path, strip_bytes):
        result = engine(name, path)(image, plan)
    assert result.shape == expected.shape
    # Relative to the size of the values, which for photos is 1.
    tolerance = TOLERANCE * max(1.0, expected.abs().max().item())
    assert (result - expected).abs().max().item() <= tolerance


@settings(max_examples=40, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(VARIANTS)),
    height=st.integers(1, 12).map(lambda n: 8 * n),
    width=st.integers(1, 12).map(lambda n: 8 * n),
    window=st.integers(1, 14).map(lambda n: 8 * n),
    count=st.integers(1, 2),
    strip_values=st.sampled_from([1, 1000, 4000, 1 << 24]),
    path=st.sampled_from(PATHS),
    seed=st.integers(0, 1 << 20),
)
def test_windows_equal_those_of_tlc(name, height, width, window, count, strip_values, path, seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(
        count, NETWORKS[name].config.inp_channels, height, width, generator=generator
    )
    expected = tlc.forward(NETWORKS[name], image, window)
    plan = Plan(strip_values, "device", 0)
    with along(path):
        result = engine(name, path)(image, plan, window=window)
    tolerance = TOLERANCE * max(1.0, expected.abs().max().item())
    assert (result - expected).abs().max().item() <= tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [48, 56, 4096])
def test_windows_as_large_as_the_image_change_no_bit(window, dtype):
    image = seeded_rand(1, 3, 48, 40)
    restore = StreamingRestormer(NETWORKS["WithBias"], dtype=dtype)
    whole = restore(image, Plan(4096, "device", 0))
    assert torch.equal(restore(image, Plan(4096, "device", 0), window=window), whole)
    assert not torch.equal(restore(image, Plan(4096, "device", 0), window=40), whole)


def test_bits_of_windows_do_not_depend_on_the_strips():
    image = seeded_rand(1, 3, 72, 96)
    results = [
        ENGINES["WithBias"](image, Plan(values, "device", 0), window=40)
        for values in (1 << 19, 8000, 1)
    ]
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("name", ["WithBias", "BiasFree", "dual pixel"])
def test_is_no_less_exact_than_the_plain_forward(name):
    made = NETWORKS[name]
    image = torch.rand(
        1, made.config.inp_channels, 48, 56, generator=torch.Generator().manual_seed(1)
    )
    double = network(**VARIANTS[name]).double()
    with torch.no_grad():
        truth, plain = double(image.double()), made(image)
    streamed = ENGINES[name](image, Plan(4096, "device", 0))
    plain_error = (plain - truth).square().mean().sqrt().item()
    streamed_error = (streamed - truth).square().mean().sqrt().item()
    assert streamed_error <= 1.5 * plain_error


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_equals_the_plain_forward_along_every_path(name, path, count):
    made = NETWORKS[name]
    image = seeded_rand(count, made.config.inp_channels, 24, 40)
    with torch.no_grad():
        expected = made(image)
    with along(path):
        result = engine(name, path)(image, Plan(2000, "device", 0))
    tolerance = TOLERANCE * max(1.0, expected.abs().max().item())
    assert (result - expected).abs().max().item() <= tolerance


@pytest.mark.parametrize("name", ["WithBias", "BiasFree", "gray", "dual pixel with bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_do_not_depend_on_the_strips(name, dtype):
    """So a retry with less memory, or a machine with less, gives the same picture."""
    image = seeded_rand(1, NETWORKS[name].config.inp_channels, 72, 96)
    restore = StreamingRestormer(NETWORKS[name], dtype=dtype)
    results = []
    for values, strip_bytes in ((1 << 19, 1 << 19), (8000, 20_000), (1, 1)):
        with along("all in C", strip_bytes):
            results.append(restore(image, Plan(values, "device", 0)))
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_stays_close(dtype):
    image = torch.rand(1, 3, 32, 40)
    with torch.no_grad():
        expected = NETWORKS["WithBias"](image)
    result = StreamingRestormer(NETWORKS["WithBias"], dtype=dtype)(image, Plan(4096, "device", 0))
    assert result.dtype == torch.float32
    assert (result - expected).abs().max().item() < 0.1 * expected.abs().max().item()


def test_float16_survives_large_features():
    """Squared norms over many pixels leave the range of float16; sums must be wider."""
    made = network()
    made.encoder_level1[0].attn.qkv.weight.mul_(50)
    image = torch.rand(1, 3, 64, 64)
    result = StreamingRestormer(made, dtype=torch.float16)(image, Plan(4096, "device", 0))
    assert torch.isfinite(result).all()


def test_progress_rises_from_0_to_1():
    shares: list[float] = []
    ENGINES["WithBias"](torch.rand(1, 3, 64, 64), Plan(4096, "device", 0), shares.append)
    assert len(shares) > 20
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] == 1.0


def test_progress_of_a_batch_covers_all_of_it():
    shares: list[float] = []
    ENGINES["WithBias"](torch.rand(3, 3, 32, 32), Plan(4096, "device", 0), shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def test_what_progress_raises_stops_the_work(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    class Stop(Exception):
        pass

    def stop(share: float) -> None:
        if share > 0.3:
            raise Stop

    with pytest.raises(Stop):
        ENGINES["WithBias"](torch.rand(1, 3, 64, 64), Plan(4096, "scratch", 0), stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(1, 3, 12, 16), (1, 4, 16, 16), (3, 16, 16)])
def test_unfit_input_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected|multiples of 8"):
        ENGINES["WithBias"](torch.rand(shape), Plan(4096, "device", 0))


def test_out_of_memory_means_smaller_strips_and_the_same_picture(monkeypatch):
    restorer = Restorer(NETWORKS["WithBias"])
    pixels = (
        (torch.rand(70, 90, 3, generator=torch.Generator().manual_seed(0)) * 255).byte().numpy()
    )
    undisturbed = restorer(pixels)
    tried: list[Plan] = []
    evaluate = StreamingRestormer.__call__

    def refuse_twice(self, image, plan=None, progress=None, window=None):
        tried.append(plan)
        if len(tried) <= 2:
            raise torch.OutOfMemoryError("simulated")
        return evaluate(self, image, plan, progress, window)

    monkeypatch.setattr(streaming.StreamingRestormer, "__call__", refuse_twice)
    assert (restorer(pixels) == undisturbed).all()
    assert len(tried) == 3
    assert tried[0].strip_values > tried[1].strip_values >= tried[2].strip_values


def test_rounded_taps_keep_their_sum() -> None:
    kernel = torch.randn(64, 2, 3, 3, dtype=torch.float64)
    rounded = kernels.round_taps(kernel, torch.bfloat16).double()
    one_by_one = kernel.to(torch.bfloat16).double()

    def lost(other: torch.Tensor) -> torch.Tensor:
        return (other - kernel).sum(dim=(2, 3)).abs().mean()

    assert lost(rounded) < 0.1 * lost(one_by_one)
    # A step of bfloat16 is 2^-7 of the largest value below it at most.
    assert ((rounded - kernel).abs() <= kernel.abs().amax(dim=(2, 3), keepdim=True) * 2**-7).all()


@pytest.mark.parametrize("kind", ["color", "real"])
def test_bfloat16_costs_trained_weights_next_to_nothing(kind: str) -> None:
    rng = np.random.default_rng(0)
    photos = [p()[100:260, 100:260] for p in (data.astronaut, data.chelsea, data.coffee)]
    noisy = [np.clip(np.rint(p + rng.normal(0, 15, p.shape)), 0, 255).astype("u1") for p in photos]

    def restored(precision: str) -> list[Pixels]:
        restorer = load_restorer("denoise", kind, weights="compact", precision=precision)
        return [restorer(image) for image in noisy]

    def mean_psnr(images: list[Pixels]) -> float:
        pairs = zip(images, photos, strict=True)
        return float(np.mean([peak_signal_noise_ratio(photo, image) for image, photo in pairs]))

    exact, rounded = restored("float32"), restored("bfloat16")
    assert mean_psnr(rounded) > mean_psnr(exact) - 0.02
    differing = np.abs(np.stack(exact).astype(int) - np.stack(rounded))
    assert np.mean(differing <= 1) > 0.999
