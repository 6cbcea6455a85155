"""Training as a person starts it: stopped, started again, exported, used."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import losses
import measure_compact
import numpy as np
import pack_photos
import pytest
import torch
import train_compact
from helpers import make_images, names, restormer, tiny_network
from optimizer import Optimizer
from patches import split_photos, stretched
from recipes import RECIPES
from safetensors.torch import load_file, save_file

STEPS = 2
#: A network and batches that take no time.
SMALL = ("--patch", "16", "--batch", "2", "--blocks", "1", "1", "1", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    for name in "abcd":  # the fourth is held out
        small = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), cv2.resize(small, (320, 320)))
    return folder


def train_command(photos: Path, run: Path, *options: str, steps: int = STEPS) -> list[str]:
    command = [sys.executable, train_compact.__file__, "denoise_gray", "--threads", "1"]
    command += ["--photos", str(photos), "--run", str(run), "--steps", str(steps)]
    return [*command, *SMALL, *options]


def train(photos: Path, run: Path, *options: str) -> str:
    command = train_command(photos, run, *options)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def inside(monkeypatch) -> Callable[..., None]:
    """Runs a command that trains nothing in this process, where all is imported already."""

    def run(command: list[str], module: ModuleType = train_compact) -> None:
        monkeypatch.setattr(sys, "argv", command[1:])
        module.main()

    monkeypatch.setattr(train_compact, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)  # and so afterwards
    return run


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
def test_a_run_is_not_continued_as_another(photos, finished, recipe, options, named, inside):
    command = [*train_command(photos, finished[0], *options)]
    command[2] = recipe
    with pytest.raises(SystemExit, match=named):
        inside(command)


def test_a_training_that_is_through_says_so(photos, finished, inside, capsys):
    log = (finished[0] / "log.csv").read_bytes()
    inside(train_command(photos, finished[0]))
    assert f"has made all its {STEPS} steps" in capsys.readouterr().out
    assert (finished[0] / "log.csv").read_bytes() == log


@pytest.mark.parametrize(("before", "after"), [(3, 3), (3, 6), (3, 1), (1, 3)])
def test_what_was_learned_for_some_channels_holds_for_others(before, after):
    """Equal channels, as of a gray photo, stay equal."""
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


def test_added_blocks_change_nothing_at_first():
    learned = tiny_network(num_blocks=(1, 1, 1, 2), seed=1)
    deeper = tiny_network(num_blocks=(1, 1, 3, 5), seed=2)
    train_compact.warm_start(deeper, learned.state_dict())
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(deeper(image), learned(image))
    deeper.requires_grad_(True)(image).square().mean().backward()
    for block in (*deeper.latent, *deeper.decoder_level3):
        assert block.attn.project_out.weight.grad.abs().max() > 0


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_measured_responses_reach_the_recipes_that_know_of_them(recipe):
    """Those held out are measured on, and only they."""
    before = RECIPES[recipe]
    some, others = np.linspace(0, 1, 64)[None] ** 0.5, np.linspace(0, 1, 64)[None] ** 0.8
    after = before.with_responses(some, others)
    assert after.degradation == before.degradation
    if recipe not in {"deblur_motion", "denoise_real"}:
        assert after == before
        return
    measured = set(after.validate) - set(before.validate)
    assert measured
    clean = np.random.default_rng(1).random((32, 32, 3), dtype=np.float32)
    for name in measured:
        shots = [
            recipe.validate[name](clean, np.random.default_rng(2))
            for recipe in (
                after,
                before.with_responses(others, others),
                before.with_responses(some, some),
            )
        ]
        assert np.array_equal(shots[0], shots[1])
        assert not np.array_equal(shots[0], shots[2])


def test_slight_and_strong_errors_count_alike():
    """A tenth less error is as good for a blurred image as for one that is nearly sharp."""
    clean = torch.rand(2, 3, 16, 16)
    error = torch.ones_like(clean) * torch.tensor([0.2, 0.02])[:, None, None, None]

    def loss(*shares: float) -> float:
        scaled = error * torch.tensor(shares)[:, None, None, None]
        return float(losses.decibels(clean + scaled, clean))

    strong, slight = loss(1, 1) - loss(0.9, 1), loss(1, 1) - loss(1, 0.9)
    assert strong == pytest.approx(slight, rel=0.3)

    def pull(size: float) -> float:
        error = torch.full_like(clean, size).requires_grad_(True)
        losses.decibels(clean + error, clean).backward()
        return float(error.grad.norm())

    assert pull(1e-4) < 0.1 * pull(3e-3)  # what is at 80 dB counts less than what is at 50
    assert float(losses.decibels(clean, clean)) == pytest.approx(-45.2, abs=0.1)


def motion_command(photos: Path, run: Path, *options: str) -> list[str]:
    command = train_command(photos, run, *options)
    command[2] = "deblur_motion"
    return command


def test_motion_is_learned_the_same_with_workers_and_after_a_stop(photos, tmp_path):
    weights = []
    for name, options in {"at once": (), "workers": ("--workers", "2")}.items():
        command = motion_command(photos, tmp_path / name, *options)
        subprocess.run(command, capture_output=True, text=True, check=True)
        weights.append(torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["network"])
    for _ in range(STEPS):
        command = motion_command(photos, tmp_path / "stopped", "--minutes", "0")
        subprocess.run(command, capture_output=True, text=True, check=True)
    weights.append(torch.load(tmp_path / "stopped/checkpoint.pt", weights_only=True)["network"])
    for other in weights[1:]:
        for name, tensor in weights[0].items():
            torch.testing.assert_close(other[name], tensor, atol=1e-6, rtol=1e-5)


def test_a_training_ends_by_the_clock(photos, tmp_path, inside, capsys):
    """With its learning rate at the end of the cosine, and all that is asked for written."""
    command = train_command(photos, tmp_path / "run", "--within", "0.02", "--report-every", "9999")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "dB" in done.stdout
    state = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    assert state["step"] >= 1
    assert state["seconds"] >= 0.02 * 60
    (group, *_) = state["optimizer"]["adamw"]["param_groups"]
    assert group["lr"] < 1e-5
    inside(command)
    assert "has made all" in capsys.readouterr().out


def test_weights_are_compared_with_each_other_and_with_nothing(
    photos, finished, tmp_path, inside, capsys
):
    weights, nothing = tmp_path / "new.safetensors", tmp_path / "nothing.safetensors"
    inside(train_command(photos, finished[0], "--export", str(weights)))
    zeros = {name: torch.zeros_like(tensor) for name, tensor in load_file(weights).items()}
    save_file(zeros, nothing)
    command = [sys.executable, measure_compact.__file__, "denoise_gray", "--photos", str(photos)]
    command += [str(weights), str(nothing)]
    capsys.readouterr()
    inside(command, measure_compact)
    printed = capsys.readouterr().out.splitlines()
    head, _, degraded, new, same = (line.split(" | ") for line in printed)
    assert head == ["| weights", "sigma15", "sigma25", "sigma50 |"]
    assert degraded[1:] == same[1:]
    last = (finished[0] / "log.csv").read_text().split()[-1].split(",")
    assert [float(cell.strip(" |")) for cell in new[1:]] == pytest.approx(
        [float(figure) for figure in last[3:]], abs=0.05
    )


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_the_script_for_a_gpu_trains_and_exports(photos, finished, tmp_path, inside):
    before = tmp_path / "before.safetensors"
    inside(train_command(photos, finished[0], "--export", str(before)))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DEVICE": "cpu",
        "WORKERS": "1",
        "RUN": str(tmp_path / "run"),
    }
    script = Path(train_compact.__file__).parent / "train_on_gpu.sh"
    command = ["sh", script, "denoise_gray", before, photos, tmp_path / "out", "0.02"]
    options = ["--patch", "16", "--batch", "2", "--blocks", "1", "1", "2", "1"]
    subprocess.run([*command, *options], env=environment, check=True, capture_output=True)
    out = tmp_path / "out"
    assert names(out) == ["denoise_gray.csv", "denoise_gray.log", "denoise_gray.safetensors"]
    assert "encoder_level3.1.attn.qkv.weight" in load_file(out / "denoise_gray.safetensors")
    failed = subprocess.run(
        [*command, "--seed", "5", *options], env=environment, check=False, capture_output=True
    )
    assert failed.returncode != 0
    assert b"seed 1, not 5" in failed.stdout


def test_packed_photos_are_smaller_and_held_out_alike(photos, tmp_path, inside):
    packed = tmp_path / "packed"
    command = [sys.executable, pack_photos.__file__, str(photos), str(packed), "--side", "160"]
    inside(command, pack_photos)
    for before, after in zip(split_photos(photos), split_photos(packed), strict=True):
        assert [path.stem for path in before] == [path.stem for path in after]
        for one, other in zip(before, after, strict=True):
            small = cv2.resize(cv2.imread(str(one)), (160, 160), interpolation=cv2.INTER_AREA)
            assert np.abs(cv2.imread(str(other)).astype(int) - small).mean() < 5


def test_the_optimizer_leaves_no_parameter_out():
    network = tiny_network().to(memory_format=torch.channels_last).requires_grad_(True)
    optimizer = Optimizer(network, rate=1e-2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network(torch.rand(1, 3, 16, 16)).square().mean().backward()
    optimizer.step(1e-2)
    for name, tensor in network.state_dict().items():
        assert not torch.equal(tensor, before[name]), name


def test_a_training_reports_and_its_export_restores(photos, finished, tmp_path, inside):
    run, out = finished
    assert f"step {STEPS}/{STEPS}" in out
    assert (run / "log.csv").read_text().startswith("step,hours,loss,sigma15,sigma25,sigma50\n")
    weights = tmp_path / "gray.safetensors"
    inside(train_command(photos, run, "--export", str(weights)))
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float16}
    before = tmp_path / "before.safetensors"
    save_file({name: 3 * tensor for name, tensor in load_file(weights).items()}, before)
    mean = tmp_path / "mean.safetensors"
    others = (str(before), str(weights), str(before))
    inside(train_command(photos, run, "--export", str(mean), "--mean-with", *others))
    for name, tensor in load_file(mean).items():
        torch.testing.assert_close(tensor, 2 * load_file(weights)[name], atol=1e-3, rtol=2e-3)
    source, results = make_images(tmp_path / "in", 1), tmp_path / "out"
    ran = restormer(
        *("denoise", "--kind", "gray", "--weights", weights),
        *("--input-dir", source, "--result-dir", results),
    )
    assert ran.status == 0, ran.err
    assert names(results) == ["0.png"]
