#!/usr/bin/env python3
"""Train a compact Restormer on clean photos: ``train_compact.py RECIPE --photos DIR --run DIR``.

A run is a folder: ``checkpoint.pt`` (everything needed to go on), ``log.csv`` (the learning
curve) and, from ``--export FILE``, the EMA weights as safetensors. Starting the same command
again continues where the run was stopped, and ends with the same weights.
"""

from __future__ import annotations

import argparse
import copy
import csv
import ctypes
import math
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from degradations.shake import read_responses
from optimizer import Optimizer
from patches import Pairs, batches, read_photos
from recipes import RECIPES, TrainingRecipe
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from restormer_cli.network.architecture import Restormer, RestormerConfig, TransformerBlock
from restormer_cli.tasks import shipped_options

EMA_DECAY = 0.999
WARM_UP_STEPS = 200
CLIP_NORM = 0.5
SECONDS_BETWEEN_CHECKPOINTS = 300
#: Steps of a training that ends by the clock.
STEPS_WITHOUT_END = 10**9


@torch.inference_mode()
def mean_psnr(
    network: nn.Module, pairs: list[tuple[Tensor, Tensor]], device: torch.device
) -> float:
    """Mean PSNR in dB over the pairs, of the output clamped to [0, 1]."""
    total = 0.0
    for degraded, clean in pairs:
        restored = network(degraded.to(device)).clamp(0, 1).cpu()
        # A network that leaves a clean image alone has no error at all: call that 100 dB.
        total += -10 * math.log10(max(float(F.mse_loss(restored, clean)), 1e-10))
    return total / len(pairs)


def rate_at(step: int, progress: float, recipe: TrainingRecipe) -> float:
    """Learning rate: a short warm-up, then a cosine down to a thousandth at ``progress`` 1."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
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


def load_config(options: str) -> RestormerConfig:
    """Hyper-parameters of ``Options/<options>.yml``."""
    return RestormerConfig.from_mapping(shipped_options(options).network)


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
    deepen(network, state)


def deepen(network: Restormer, state: dict[str, Tensor]) -> None:
    """Let the blocks that ``state`` does not have change nothing at first.

    Each begins as a copy of one that the stage has, whose two branches add nothing yet
    (Chen et al., "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR 2016).
    """
    for name, stage in network.named_children():
        if not isinstance(stage, nn.Sequential):
            continue
        learned = len({key.split(".")[1] for key in state if key.startswith(f"{name}.")})
        for index in range(learned, len(stage)) if learned else ():
            block = stage[index]
            block.load_state_dict(stage[index % learned].state_dict())
            nn.init.zeros_(block.attn.project_out.weight)
            nn.init.zeros_(block.ffn.project_out.weight)


class Run:
    """One training and the folder that holds it.

    Begins anew, from the weights in ``init`` if there are any, or goes on where its checkpoint
    was written. ``config`` are the hyper-parameters, by default those of the recipe.

    Raises
    ------
    SystemExit
        If the folder holds a run of another recipe, other hyper-parameters or another seed.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        folder: Path,
        device: torch.device,
        seed: int,
        init: Path | None = None,
        config: RestormerConfig | None = None,
    ) -> None:
        self._recipe, self._device, self._seed = recipe, device, seed
        self._checkpoint, self._log = folder / "checkpoint.pt", folder / "log.csv"
        torch.manual_seed(seed)
        self._network = Restormer(config or load_config(recipe.options))
        self._network.to(device, memory_format=torch.channels_last)
        if not self._network.config.dual_pixel_task:
            # The output is added to the input, so this starts from "change nothing".
            nn.init.zeros_(self._network.output.weight)
        if init:
            warm_start(self._network, load_file(init))
        self._ema = copy.deepcopy(self._network).requires_grad_(False)
        self._optimizer = Optimizer(self._network, recipe.rate)
        self.step = 0
        self._loss: Tensor | None = None
        self._started, self._seconds_before = time.monotonic(), 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if self._checkpoint.exists():
            self._go_on()
        self._saved_at = time.monotonic()

    def _go_on(self) -> None:
        state = torch.load(self._checkpoint, map_location=self._device, weights_only=True)
        for what, now in self._identity().items():
            if what in state and state[what] != now:
                folder = self._checkpoint.parent
                raise SystemExit(f"{folder}: was begun with {what} {state.get(what)}, not {now}")
        self._network.load_state_dict(state["network"])
        self._ema.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self._seconds_before = state["step"], state["seconds"]
        self._forget_rows_after(self.step)
        print(f"continuing at step {self.step} after {self.hours():.2f} h", flush=True)

    def _identity(self) -> dict[str, Any]:
        """What must stay the same when a run goes on."""
        recipe = self._recipe
        return {
            "degradation": recipe.degradation,
            "options": recipe.options,
            "hyper-parameters": asdict(self._network.config),
            "steps": recipe.steps,
            "batch": recipe.batch,
            "patch": recipe.patch,
            "rate": recipe.rate,
            "loss": recipe.loss.__name__,
            "seed": self._seed,
        }

    def _forget_rows_after(self, step: int) -> None:
        """Of steps that were made after the last checkpoint, and will be made again."""
        if self._log.exists():
            rows = self._log.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [row for row in rows[1:] if int(row.split(",")[0]) <= step]
            self._log.write_text("".join(rows[:1] + kept), encoding="utf-8")

    def hours(self) -> float:
        """Time spent on the run until now, that before it was stopped included."""
        return (self._seconds_before + time.monotonic() - self._started) / 3600

    def progress(self, within: float | None = None) -> float:
        """How much of the training is over, from 0 to 1: of its steps, or of so many minutes."""
        return self.hours() * 60 / within if within else self.step / self._recipe.steps

    def compile(self) -> None:
        """Let torch.compile make the steps faster; the first takes a minute then.

        The blocks are compiled one by one, so that those of a level share their code
        (PyTorch's "regional compilation"); the whole network takes many times as long.
        """
        for module in self._network.modules():
            if isinstance(module, TransformerBlock):
                module.compile(dynamic=False)

    def learn(self, degraded: Tensor, clean: Tensor, bfloat16: bool, progress: float) -> None:
        """One step on a batch of pairs, each ``(N, C, H, W)``.

        ``progress``, from 0 to 1, is how much of the training is over.
        """
        # Always laid out alike, or the compiler makes code for each layout.
        degraded = degraded.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=bfloat16):
            restored = self._network(degraded)
        loss = self._recipe.loss(restored.float(), clean)
        self._network.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._network.parameters(), CLIP_NORM)
        self._optimizer.step(rate_at(self.step, progress, self._recipe))
        # Young averages forget fast, or the random start would linger in them.
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            both = zip(self._ema.parameters(), self._network.parameters(), strict=True)
            for mean, parameter in both:
                mean.lerp_(parameter, 1 - decay)
        # Read when it is reported only: reading waits until a GPU has caught up.
        value = loss.detach()
        self._loss = value if self._loss is None else torch.lerp(self._loss, value, 0.02)
        self.step += 1

    def save(self) -> None:
        """Write the checkpoint, so that a stop at any moment leaves the old one or the new."""
        state = {
            "network": self._network.state_dict(),
            "ema": self._ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            **self._identity(),
            "step": self.step,
            "seconds": 3600 * self.hours(),
        }
        partial = self._checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._checkpoint)
        self._saved_at = time.monotonic()

    def save_if_due(self) -> None:
        """Write the checkpoint if the last one is old."""
        if time.monotonic() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS:
            self.save()

    def figures(self, pairs: Pairs) -> dict[str, float]:
        """Mean PSNR in dB of the EMA weights, by name of the degradation."""
        return {name: mean_psnr(self._ema, p, self._device) for name, p in pairs.items()}

    def report(self, pairs: Pairs) -> None:
        """Print the loss and the :meth:`figures`, and add them to the log."""
        hours = self.hours()
        figures = self.figures(pairs)
        loss = math.nan if self._loss is None else self._loss.item()
        with self._log.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if file.tell() == 0:
                writer.writerow(["step", "hours", "loss", *figures])
            writer.writerow(
                [self.step, f"{hours:.3f}", f"{loss:.5f}"]
                + [f"{value:.3f}" for value in figures.values()]
            )
        shown = ", ".join(f"{name} {value:.2f} dB" for name, value in figures.items())
        print(
            f"step {self.step}/{self._recipe.steps}  {hours:.2f} h  loss {loss:.4f}  {shown}",
            flush=True,
        )


def train(recipe: TrainingRecipe, arguments: argparse.Namespace) -> None:
    """Train, or continue, one run to its last step or until it is stopped."""
    device = torch.device(arguments.device)
    config = load_config(recipe.options)
    if arguments.blocks:
        config = replace(config, num_blocks=tuple(arguments.blocks))
    run = Run(recipe, arguments.run, device, arguments.seed, arguments.init, config)
    if run.progress(arguments.within) >= 1:
        print(f"{arguments.run}: has made all its {run.step} steps; --export writes its weights")
        return
    if arguments.compile:
        run.compile()
    photos, pairs = read_photos(arguments.photos, recipe, arguments.workers)
    end = time.monotonic() + arguments.minutes * 60
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())  # once the step is done
    for degraded, clean in batches(
        photos,
        recipe,
        arguments.seed,
        range(run.step, recipe.steps),
        device,
        arguments.workers,
    ):
        run.learn(degraded, clean, arguments.bfloat16, run.progress(arguments.within))
        through = run.progress(arguments.within) >= 1
        if run.step % arguments.report_every == 0 or through:
            run.report(pairs)
        if through or stopped.is_set() or time.monotonic() > end:
            run.save()
            break
        run.save_if_due()


def export(recipe: TrainingRecipe, run: Path, target: Path, mean_with: Sequence[Path] = ()) -> None:
    """Write the EMA weights of a run as float16 safetensors, or the mean of these with others.

    With the weights that the run began with: where its data differ from those before, the mean is
    often good at both (Wortsman et al., "Robust Fine-Tuning of Zero-Shot Models", CVPR 2022).
    With runs of other seeds: it is often better than each (Wortsman et al., "Model Soups",
    ICML 2022).
    """
    state = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    learned, asked = state["degradation"], recipe.degradation
    if learned != asked:
        raise SystemExit(f"{run}: has learned {learned}, not {asked}")
    tensors = state["ema"]
    for file in mean_with:
        # With blocks that change nothing where the run has more of them.
        other = Restormer(RestormerConfig(**state["hyper-parameters"]))
        warm_start(other, load_file(file))
        for name, tensor in other.state_dict().items():
            tensors[name] += tensor
    tensors = {
        name: (tensor / (1 + len(mean_with))).half().contiguous()
        for name, tensor in tensors.items()
    }
    save_file(tensors, target, metadata={"format": "pt", "options": f"{state['options']}.yml"})
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB after {state['step']} steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument("--photos", type=Path, help="folder of clean photos")
    parser.add_argument("--run", type=Path, required=True, help="folder of this run")
    parser.add_argument("--steps", type=int, help="length of the whole schedule")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after, to go on later"
    )
    parser.add_argument(
        "--within",
        type=float,
        metavar="MINUTES",
        help="let the learning rate fall over this time of training in all, not over the steps",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--bfloat16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network")
    parser.add_argument("--workers", type=int, default=0, help="processes that make patches")
    parser.add_argument(
        "--blocks", type=int, nargs=4, help="other numbers of blocks than those of the options"
    )
    parser.add_argument("--batch", type=int, help="patches a step")
    parser.add_argument("--patch", type=int, help="their side in pixels")
    parser.add_argument("--rate", type=float, help="highest learning rate")
    parser.add_argument("--responses", type=Path, metavar="DIR", help="measured camera responses")
    parser.add_argument("--report-every", type=int, default=250, metavar="STEPS")
    parser.add_argument("--options", help="other hyper-parameters, to compare")
    parser.add_argument("--init", type=Path, metavar="FILE", help="start from these weights")
    parser.add_argument(
        "--export", type=Path, metavar="FILE", help="only write the weights of --run"
    )
    parser.add_argument(
        "--mean-with",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="export the mean with these weights",
    )
    arguments = parser.parse_args()

    recipe = RECIPES[arguments.recipe]
    names = ("steps", "options", "batch", "patch", "rate")
    changes: dict[str, Any] = {k: v for k in names if (v := getattr(arguments, k)) is not None}
    if arguments.within:
        changes["steps"] = STEPS_WITHOUT_END
    recipe = replace(recipe, **changes)
    if arguments.responses:
        recipe = recipe.with_responses(
            read_responses(arguments.responses), read_responses(arguments.responses, held_out=True)
        )
    if arguments.export:
        export(recipe, arguments.run, arguments.export, arguments.mean_with)
        return
    if arguments.photos is None:
        parser.error("--photos DIR is needed to train")
    keep_freed_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.benchmark = True
    train(recipe, arguments)


if __name__ == "__main__":
    main()
