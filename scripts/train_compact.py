#!/usr/bin/env python3
"""Train a compact Restormer on clean photos: ``train_compact.py RECIPE --photos DIR --run DIR``.

A run is a folder: ``checkpoint.pt`` (everything needed to go on), ``log.csv`` (the learning
curve) and, from ``--export FILE``, the EMA weights as safetensors. Starting the same command
again continues where the run was stopped. Sample ``i`` depends on the seed and ``i`` alone, so a
run that was interrupted sees the same data as one that was not.
"""

from __future__ import annotations

import argparse
import copy
import csv
import ctypes
import math
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import yaml
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import degradations as deg  # noqa: E402 - the scripts are on the path only now
from recipes import RECIPES, Recipe  # noqa: E402

from restormer_cli.architecture import Restormer, RestormerConfig  # noqa: E402

HELD_OUT = 12
VALIDATION_SIZE = 256
EMA_DECAY = 0.999
WARM_UP_STEPS = 200
CLIP_NORM = 0.5
#: A crop is the most detailed of this many, or skies and soft backgrounds would prevail.
CROP_CANDIDATES = 3
#: Training photos are reduced at random by up to this. Small pictures, those of the benchmarks
#: among them, are sharper than full-size ones, and have more in them for each pixel.
LARGEST_REDUCTION = 3.0


def split_photos(folder: Path) -> tuple[list[Path], list[Path]]:
    """Training and held-out photos: every seventh by name, up to :data:`HELD_OUT`."""
    photos = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".jpg", ".png"})
    held_out = photos[3::7][:HELD_OUT]
    if not held_out:
        raise SystemExit(f"{folder}: {len(photos)} JPEG or PNG photos, 4 or more are needed")
    return [p for p in photos if p not in held_out], held_out


def read_photo(path: Path, least: int) -> NDArray[np.uint8]:
    """Read as RGB uint8 ``(H, W, 3)`` of ``least`` pixels or more on each side."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise SystemExit(f"{path}: not a readable photo")
    if min(image.shape[:2]) < least:
        raise SystemExit(f"{path}: {least} pixels are needed on each side; take it out")
    return image  # type: ignore[return-value]


def detailed_crop(
    photos: list[NDArray[np.uint8]],
    size: int,
    rng: np.random.Generator,
    reduction: float = 1.0,
) -> NDArray[np.uint8]:
    """A random square, the most detailed of a few, flipped and turned at random.

    It is cut from photos that are smaller by ``reduction``, or by as much as their size allows.
    """
    best, most = None, -1.0
    for _ in range(CROP_CANDIDATES):
        photo = photos[rng.integers(len(photos))]
        before = min(round(size * reduction), *photo.shape[:2])
        top = rng.integers(photo.shape[0] - before + 1)
        left = rng.integers(photo.shape[1] - before + 1)
        crop = photo[top : top + before, left : left + before]
        if before != size:
            crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
        detail = float(np.abs(np.diff(crop[..., 1].astype(np.int16), axis=0)).mean())
        if detail > most:
            best, most = crop, detail
    assert best is not None
    best = np.rot90(best, rng.integers(4))
    return best[:, ::-1] if rng.random() < 0.5 else best


def to_tensor(images: list[deg.Image]) -> Tensor:
    """Stack ``(H, W, C)`` images to ``(N, C, H, W)``, channels last in memory."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def make_batch(
    photos: list[NDArray[np.uint8]], recipe: Recipe, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """The degraded and the clean patches of one step; ``seed`` and ``step`` fix both."""
    degraded, clean = [], []
    for sample in range(recipe.batch):
        rng = np.random.default_rng([seed, step, sample])
        size = recipe.with_margin(recipe.patch)
        reduction = math.exp(rng.uniform(0, math.log(LARGEST_REDUCTION)))
        crop = detailed_crop(photos, size, rng, reduction)
        bad, good = recipe.pair(crop, rng, recipe.degrade)
        degraded.append(bad)
        clean.append(good)
    return to_tensor(degraded), to_tensor(clean)


def batches(
    photos: list[NDArray[np.uint8]], recipe: Recipe, seed: int, steps: range
) -> Iterator[tuple[Tensor, Tensor]]:
    """Make each step's batch while the network works on the one before it."""
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(make_batch, photos, recipe, seed, steps.start)
        for step in steps:
            batch = ahead.result()
            ahead = pool.submit(make_batch, photos, recipe, seed, step + 1)
            yield batch


def validation_pairs(
    held_out: list[Path], recipe: Recipe
) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """One fixed, detailed crop of each held-out photo under each validation degradation."""
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in recipe.validate}
    for index, path in enumerate(held_out):
        size = recipe.with_margin(VALIDATION_SIZE)
        crop = detailed_crop([read_photo(path, size)], size, np.random.default_rng(index))
        for name, degrade in recipe.validate.items():
            degraded, clean = recipe.pair(crop, np.random.default_rng(1000 + index), degrade)
            pairs[name].append((to_tensor([degraded]), to_tensor([clean])))
    return pairs


@torch.inference_mode()
def mean_psnr(
    network: Restormer, pairs: list[tuple[Tensor, Tensor]], device: torch.device
) -> float:
    """Mean PSNR in dB over the pairs, of the output clamped to [0, 1]."""
    total = 0.0
    for degraded, clean in pairs:
        restored = network(degraded.to(device)).clamp(0, 1).cpu()
        # A network that leaves a clean image alone has no error at all: call that 100 dB.
        total += -10 * math.log10(max(float(F.mse_loss(restored, clean)), 1e-10))
    return total / len(pairs)


class Optimizer:
    """Muon for the weights that mix channels, AdamW for the rest.

    Muon makes the singular values of each update equal (Jordan et al., 2024,
    https://kellerjordan.github.io/posts/muon). In 400 steps of motion deblurring it gained 1.6
    times as many dB as AdamW alone, from the same weights. What mixes no channels (depthwise
    kernels, norms, temperatures) has no such singular values, the two layers at the image have
    too few of them, and keep AdamW.
    """

    #: Fewer channels than this on one side are an image's, not features.
    FEATURES = 8

    def __init__(self, network: Restormer, rate: float) -> None:
        matrices, rest = [], []
        for parameter in network.parameters():
            mixes = parameter.ndim == 4 and min(parameter.shape[:2]) >= self.FEATURES
            (matrices if mixes else rest).append(parameter)
        # Muon takes matrices. These share their memory with the kernels, which are channels-last.
        self._kernels = [(kernel, nn.Parameter(self._matrix(kernel.data))) for kernel in matrices]
        self._parts: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(
                [matrix for _, matrix in self._kernels],
                lr=rate,
                weight_decay=0.01,
                adjust_lr_fn="match_rms_adamw",  # so that both take the same learning rate
            ),
            "adamw": torch.optim.AdamW(rest, lr=rate, weight_decay=1e-4),
        }

    @staticmethod
    def _matrix(kernel: Tensor) -> Tensor:
        """``(K, C, h, w)`` in channels-last as ``(K, h·w·C)``, without a copy."""
        return kernel.permute(0, 2, 3, 1).view(len(kernel), -1)

    def step(self, rate: float) -> None:
        """Update the parameters along their gradients."""
        for kernel, matrix in self._kernels:
            assert kernel.grad is not None
            matrix.grad = kernel.grad.permute(0, 2, 3, 1).reshape(matrix.shape)
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what :meth:`state_dict` gave."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def rate_at(step: int, recipe: Recipe) -> float:
    """Learning rate: a short warm-up, then a cosine down to a thousandth."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    return recipe.rate * warm * (0.001 + 0.999 * cosine)


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks: handing them back and forth costs a quarter of a step."""
    if sys.platform == "linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
        except OSError:  # another C library: only speed is lost
            return
        mmap_max, trim_threshold, top_pad, arena_max = -4, -1, -2, -8
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 256 * 2**20)
        libc.mallopt(arena_max, 1)


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a stop at any moment leaves the old one or the new one."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_config(options: str) -> RestormerConfig:
    """Hyper-parameters of ``Options/<options>.yml``."""
    document = yaml.safe_load((ROOT / "Options" / f"{options}.yml").read_text(encoding="utf-8"))
    network = {k: v for k, v in document["network_g"].items() if k != "type"}
    return RestormerConfig.from_mapping(network)


@torch.no_grad()
def warm_start(network: Restormer, state: dict[str, Tensor]) -> None:
    """Begin with what another task has learned; what only one of the two has stays as it is.

    Where the numbers of image channels differ, the input's filters are shared out among the new
    channels and the output's are averaged, which keeps what the network does to equal channels.
    """
    own = network.state_dict()
    embed, output = state["patch_embed.proj.weight"], state["output.weight"]
    channels = own["patch_embed.proj.weight"].shape[1]
    if channels % embed.shape[1] == 0:
        times = channels // embed.shape[1]
        state["patch_embed.proj.weight"] = embed.repeat(1, times, 1, 1) / times
    else:
        mean = embed.sum(1, keepdim=True) / channels
        state["patch_embed.proj.weight"] = mean.repeat(1, channels, 1, 1)
    if len(own["output.weight"]) != len(output):
        state["output.weight"] = output.mean(0, keepdim=True).repeat(
            len(own["output.weight"]), 1, 1, 1
        )
    network.load_state_dict({k: state[k] for k in own.keys() & state.keys()}, strict=False)


def train(recipe: Recipe, arguments: argparse.Namespace) -> None:
    """Train, or continue, one run to its last step or until ``--minutes`` are over."""
    device = torch.device(arguments.device)
    torch.manual_seed(arguments.seed)
    network = Restormer(load_config(recipe.options)).to(device, memory_format=torch.channels_last)
    nn.init.zeros_(network.output.weight)  # start from "change nothing"
    if arguments.init:
        warm_start(network, load_file(arguments.init))
    ema = copy.deepcopy(network).requires_grad_(False)
    optimizer = Optimizer(network, recipe.rate)
    forward = torch.compile(network) if arguments.compile else network

    run: Path = arguments.run
    run.mkdir(parents=True, exist_ok=True)
    checkpoint, log = run / "checkpoint.pt", run / "log.csv"
    first, seconds_before = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        first, seconds_before = state["step"], state["seconds"]
        print(f"continuing at step {first} after {seconds_before / 3600:.2f} h", flush=True)

    training, held_out = split_photos(arguments.photos)
    photos = [read_photo(path, recipe.with_margin(recipe.patch)) for path in training]
    pairs = validation_pairs(held_out, recipe)
    started = time.monotonic()

    def seconds() -> float:
        return seconds_before + time.monotonic() - started

    def save(step: int) -> None:
        save_atomically(
            {
                "network": network.state_dict(),
                "ema": ema.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "seconds": seconds(),
            },
            checkpoint,
        )

    def report(step: int, loss: float) -> None:
        figures = {name: mean_psnr(ema, p, device) for name, p in pairs.items()}
        new = not log.exists()
        with log.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "hours", "loss", *figures])
            writer.writerow(
                [step, f"{seconds() / 3600:.3f}", f"{loss:.5f}"]
                + [f"{value:.3f}" for value in figures.values()]
            )
        shown = ", ".join(f"{name} {value:.2f} dB" for name, value in figures.items())
        print(
            f"step {step}/{recipe.steps}  {seconds() / 3600:.2f} h  loss {loss:.4f}  {shown}",
            flush=True,
        )

    mean_loss, saved_at = float("nan"), time.monotonic()
    steps = range(first, recipe.steps)
    for step, (degraded, clean) in zip(
        steps, batches(photos, recipe, arguments.seed, steps), strict=True
    ):
        degraded, clean = degraded.to(device), clean.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bfloat16):
            loss = F.l1_loss(forward(degraded), clean)
        network.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
        optimizer.step(rate_at(step, recipe))
        # Young averages forget fast, or the random start would linger in them.
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1 - decay)

        value = loss.item()
        mean_loss = value if math.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * value
        done = step + 1
        if done % arguments.report_every == 0 or done == recipe.steps:
            report(done, mean_loss)
        out_of_time = time.monotonic() - started > arguments.minutes * 60
        if out_of_time or done == recipe.steps or time.monotonic() - saved_at > 300:
            save(done)
            saved_at = time.monotonic()
        if out_of_time:
            break


def export(recipe: Recipe, run: Path, target: Path) -> None:
    """Write the EMA weights of a run as float16 safetensors."""
    state = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    tensors = {name: tensor.half().contiguous() for name, tensor in state["ema"].items()}
    save_file(tensors, target, metadata={"format": "pt", "options": f"{recipe.options}.yml"})
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB after {state['step']} steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument("--photos", type=Path, required=True, help="folder of clean photos")
    parser.add_argument("--run", type=Path, required=True, help="folder of this run")
    parser.add_argument("--steps", type=int, help="length of the whole schedule")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after, to go on later"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--bfloat16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network")
    parser.add_argument("--report-every", type=int, default=250, metavar="STEPS")
    parser.add_argument("--options", help="other hyper-parameters, to compare")
    parser.add_argument("--init", type=Path, metavar="FILE", help="start from these weights")
    parser.add_argument(
        "--export", type=Path, metavar="FILE", help="only write the weights of --run"
    )
    arguments = parser.parse_args()

    recipe = RECIPES[arguments.recipe]
    changes = {k: v for k in ("steps", "options") if (v := getattr(arguments, k)) is not None}
    recipe = Recipe(**{**vars(recipe), **changes})
    if arguments.export:
        export(recipe, arguments.run, arguments.export)
        return
    if not hasattr(torch.optim, "Muon"):
        parser.error(f"training needs PyTorch 2.9 or newer, this is {torch.__version__}")
    keep_freed_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    train(recipe, arguments)


if __name__ == "__main__":
    main()
