"""Training as a person starts it: stopped, started again, exported, used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import train_compact
from helpers import make_images, names, restormer, tiny_network
from optimizer import Optimizer
from patches import stretched
from safetensors.torch import load_file, save_file

STEPS = 3


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    for name in "abcde":  # the fourth is held out
        small = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), cv2.resize(small, (320, 320)))
    return folder


def train_command(photos: Path, run: Path, *options: str, steps: int = STEPS) -> list[str]:
    command = [sys.executable, train_compact.__file__, "denoise_gray", "--threads", "1"]
    command += ["--photos", str(photos), "--run", str(run), "--steps", str(steps)]
    return [*command, *options]


def train(photos: Path, run: Path, *options: str) -> str:
    command = train_command(photos, run, *options)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory) -> tuple[Path, str]:
    run = tmp_path_factory.mktemp("runs") / "at once"
    return run, train(photos, run)


def test_an_interrupted_training_ends_with_the_same_weights(photos, finished, tmp_path):
    run = tmp_path / "run"
    for step in range(STEPS):
        out = train(photos, run, "--minutes", "0")  # one step at a time
        assert (f"continuing at step {step}" in out) == (step > 0)
    expected = torch.load(finished[0] / "checkpoint.pt", weights_only=True)
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    assert state["step"] == STEPS
    for which in ("network", "ema"):
        for name, tensor in expected[which].items():
            assert torch.equal(state[which][name], tensor), name


def test_a_stopped_training_goes_on_where_it_was(photos, tmp_path):
    run = tmp_path / "run"
    command = train_command(photos, run, "--report-every", "1", steps=100_000)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("step 1/")
        process.terminate()
        process.communicate()
    assert process.returncode == 0
    step = torch.load(run / "checkpoint.pt", weights_only=True)["step"]
    assert step >= 1

    def logged() -> list[int]:
        return [int(row.split(",")[0]) for row in (run / "log.csv").read_text().split()[1:]]

    assert logged() == list(range(1, step + 1))
    with (run / "log.csv").open("a") as log:  # as if it had gone on to there and been killed
        log.write(f"{step + 1},0.1,0.1,30,30,30\n")
    command = train_command(photos, run, "--minutes", "0", steps=100_000)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"continuing at step {step}" in done.stdout
    assert logged() == list(range(1, step + 1))


@pytest.mark.parametrize(
    ("recipe", "options", "named"),
    [
        ("derain", [], "blind_gaussian, not blind_rain"),
        ("denoise_gray", ["--seed", "7"], "seed 1, not 7"),
        ("denoise_gray", ["--steps", "9"], f"steps {STEPS}, not 9"),
        (
            "denoise_gray",
            ["--options", "compact_denoise_color"],
            "options compact_denoise_gray, not",
        ),
        ("derain", ["--export", "rain.safetensors"], "blind_gaussian, not blind_rain"),
    ],
)
def test_a_run_is_not_continued_as_another(photos, finished, recipe, options, named):
    command = [*train_command(photos, finished[0], *options)]
    command[2] = recipe
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_training_that_is_through_says_so(photos, finished):
    log = (finished[0] / "log.csv").read_bytes()
    assert f"has made all its {STEPS} steps" in train(photos, finished[0])
    assert (finished[0] / "log.csv").read_bytes() == log


@pytest.mark.parametrize(("before", "after"), [(3, 3), (3, 6), (3, 1), (1, 3)])
def test_what_was_learned_for_some_channels_holds_for_others(before, after):
    """Equal channels, such as those of a gray photo, get what they got."""
    learned = tiny_network(inp_channels=before, out_channels=before, seed=1)
    kind = "dual_pixel" if after == 6 else "with_bias"
    channels = {"inp_channels": after, "out_channels": min(after, 3)}
    network = tiny_network(kind, seed=2, **channels)
    state = learned.state_dict()
    train_compact.warm_start(network, {name: tensor.clone() for name, tensor in state.items()})
    for name, tensor in network.state_dict().items():
        if name in state and name not in {"patch_embed.proj.weight", "output.weight"}:
            assert torch.equal(tensor, state[name]), name
    gray = torch.rand(1, 1, 16, 16)
    features = learned.patch_embed(gray.expand(1, before, 16, 16))
    torch.testing.assert_close(network.patch_embed(gray.expand(1, after, 16, 16)), features)
    deep = torch.rand(1, learned.output.in_channels, 16, 16)
    torch.testing.assert_close(network.output(deep).mean(1), learned.output(deep).mean(1))


def test_stretched_patches_are_black_and_white_in_part():
    rng = np.random.default_rng(3)
    crop = rng.integers(40, 220, (64, 64, 3), dtype=np.uint8)
    for _ in range(20):
        patch = stretched(crop, rng)
        assert (patch.dtype, patch.shape) == (crop.dtype, crop.shape)
        assert patch.min() == 0
        assert patch.max() == 255
        assert (patch == 0).mean() < 0.3
        assert (patch == 255).mean() < 0.3
    flat = crop // 4 + 100
    np.testing.assert_array_equal(stretched(flat, rng), flat)


def test_the_optimizer_leaves_no_parameter_out():
    network = tiny_network().to(memory_format=torch.channels_last).requires_grad_(True)
    optimizer = Optimizer(network, rate=1e-2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network(torch.rand(1, 3, 16, 16)).square().mean().backward()
    optimizer.step(1e-2)
    for name, tensor in network.state_dict().items():
        assert not torch.equal(tensor, before[name]), name


def test_a_training_reports_and_its_export_restores(photos, finished, tmp_path):
    run, out = finished
    assert f"step {STEPS}/{STEPS}" in out
    assert (run / "log.csv").read_text().startswith("step,hours,loss,sigma15,sigma25,sigma50\n")
    weights = tmp_path / "gray.safetensors"
    train(photos, run, "--export", str(weights))
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float16}
    before = tmp_path / "before.safetensors"
    save_file({name: 3 * tensor for name, tensor in load_file(weights).items()}, before)
    mean = tmp_path / "mean.safetensors"
    train(photos, run, "--export", str(mean), "--mean-with", str(before))
    for name, tensor in load_file(mean).items():
        torch.testing.assert_close(tensor, 2 * load_file(weights)[name], atol=1e-3, rtol=2e-3)
    source, results = make_images(tmp_path / "in", 1), tmp_path / "out"
    ran = restormer(
        *("denoise", "--kind", "gray", "--weights", weights),
        *("--input-dir", source, "--result-dir", results),
    )
    assert ran.status == 0, ran.err
    assert names(results) == ["0.png"]
