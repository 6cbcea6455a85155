#!/usr/bin/env python3
"""Which hyper-parameters to give a compact network: ``choose_compact.py --photos DIR``.

Every candidate is trained for the same time, as :mod:`train_compact` does it, by default on colour
photos with Gaussian noise, and measured: PSNR on held-out photos against megapixels a second.
Larger networks learn more from a step but make fewer of them, so ask with the time that there is.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from patches import batches, read_photos
from recipes import RECIPES
from train_compact import Run, keep_freed_memory, load_config

from restormer_cli.network.architecture import Restormer, RestormerConfig
from restormer_cli.network.streaming import StreamingRestormer

#: The network of the recipe, and what to change of it.
CANDIDATES: dict[str, dict[str, object]] = {
    "dim 24, blocks 1 2 2 3": {},
    "narrower: dim 16, blocks 1 2 2 3": {"dim": 16},
    "narrower and deeper: dim 16, blocks 2 3 3 4": {"dim": 16, "num_blocks": (2, 3, 3, 4)},
    "wider and shallower: dim 32, blocks 1 1 1 1": {"dim": 32, "num_blocks": (1, 1, 1, 1)},
    "deeper where it is cheap: dim 24, blocks 1 2 4 12": {"num_blocks": (1, 2, 4, 12)},
    "deeper still: dim 24, blocks 1 2 6 16": {"num_blocks": (1, 2, 6, 16)},
}
UNTIMED_STEPS, TIMED_STEPS = 2, 8
SPEED_SIZE = 512


def megapixels_a_second(config: RestormerConfig) -> float:
    """Speed of the strip-wise evaluation, whatever the weights are."""
    network = StreamingRestormer(Restormer(config).eval())
    image = torch.rand(1, config.inp_channels, SPEED_SIZE, SPEED_SIZE)
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        network(image)
        seconds.append(time.monotonic() - started)
    return SPEED_SIZE**2 / 1e6 / min(seconds)


class Contest:
    """What is the same for all candidates."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._minutes, self._seed = arguments.minutes, arguments.seed
        self._bfloat16, self._device = arguments.bfloat16, torch.device(arguments.device)
        self._recipe, self._workers = RECIPES[arguments.recipe], arguments.workers
        self._photos, self._pairs = read_photos(arguments.photos, self._recipe, self._workers)

    def _learn(self, config: RestormerConfig, folder: Path, steps: int) -> tuple[Run, float]:
        """A run of so many steps, and the seconds that each of them took."""
        recipe = replace(self._recipe, steps=steps)
        run = Run(recipe, folder, self._device, self._seed, config=config)
        if self._device.type == "cuda":
            run.compile()
        began = time.monotonic()
        for degraded, clean in batches(
            self._photos, recipe, self._seed, range(steps), self._device, self._workers
        ):
            run.learn(degraded, clean, self._bfloat16, run.progress())
            if run.step == UNTIMED_STEPS:
                if self._device.type == "cuda":
                    torch.cuda.synchronize()
                began = time.monotonic()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return run, (time.monotonic() - began) / max(1, steps - UNTIMED_STEPS)

    def enter(self, config: RestormerConfig) -> tuple[int, dict[str, float]]:
        """Steps that fit into the time, and PSNR in dB after them by name of the degradation."""
        with tempfile.TemporaryDirectory() as folder:
            _, seconds = self._learn(config, Path(folder, "probe"), UNTIMED_STEPS + TIMED_STEPS)
            steps = max(1, round(60 * self._minutes / seconds))
            run, _ = self._learn(config, Path(folder, "run"), steps)
            return steps, run.figures(self._pairs)


def main() -> None:
    """Print a row of a table for each candidate, as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of clean photos")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="denoise_color")
    parser.add_argument("--workers", type=int, default=0, help="processes that make patches")
    parser.add_argument("--minutes", type=float, default=30, help="of training for each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--bfloat16", action="store_true", help="autocast to bfloat16")
    arguments = parser.parse_args()
    keep_freed_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    contest, recipe = Contest(arguments), RECIPES[arguments.recipe]
    print(f"| network | parameters | MP/s | steps | {' | '.join(recipe.validate)} |")
    print(f"|{'---|' * (4 + len(recipe.validate))}", flush=True)
    for name, changes in CANDIDATES.items():
        config = replace(load_config(recipe.options), **changes)
        parameters = sum(parameter.numel() for parameter in Restormer(config).parameters())
        speed = megapixels_a_second(config)
        steps, figures = contest.enter(config)
        psnr = " | ".join(f"{value:.2f}" for value in figures.values())
        print(f"| {name} | {parameters:,} | {speed:.3f} | {steps} | {psnr} |", flush=True)


if __name__ == "__main__":
    main()
