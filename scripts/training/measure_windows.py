#!/usr/bin/env python3
"""Which window is best for weights, and what a self-ensemble gains: ``measure_windows.py RECIPE…``.

On a megapixel of each held-out photo, degraded as the recipe is validated, it measures the PSNR in
dB over whole images, over local windows of several sizes, with ``--tiles`` also in tiles, and, with
``--ensemble`` instead, of means over flips and turns. What is measured is kept in ``--log FILE``
and not measured again, so that it can be stopped at any time. Prints tables as they stand in the
cards.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from degradations.images import Image
from numpy.typing import NDArray
from patches import read_photo, split_photos
from recipes import RECIPES

from restormer_cli import Restorer, load_restorer
from restormer_cli.symmetries import SYMMETRIES, Symmetry
from restormer_cli.tasks import VARIANTS, Variant

WINDOWS = (None, 512, 384, 256, 192, 128, 96, 64)
#: Pixels of what is measured, if the photo has as many.
AREA = 1 << 20
#: Means over further symmetries than those that an options file may name.
SETS = {**SYMMETRIES, "flips": tuple(Symmetry(turns, m) for turns in (0, 2) for m in (False, True))}

Key = tuple[str, str, int, str]
"""Recipe, degradation, number of the photo, and what was measured, such as ``window 384``."""


def middle(photo: NDArray[np.uint8], margin: int) -> NDArray[np.uint8]:
    """A megapixel from the middle, about square, with a margin around it."""
    rows = min(photo.shape[0] - 2 * margin, round(AREA**0.5))
    columns = min(photo.shape[1] - 2 * margin, -(-AREA // rows))
    rows = min(photo.shape[0] - 2 * margin, -(-AREA // columns))
    size = rows + 2 * margin, columns + 2 * margin
    top, left = ((whole - part) // 2 for whole, part in zip(photo.shape, size, strict=False))
    return photo[top : top + size[0], left : left + size[1]]


def psnr(restored: Image, clean: Image) -> float:
    """In dB, of what a file of 8 bit would hold."""
    rounded = np.rint(255 * np.clip(restored, 0, 1)) / 255
    return float(-10 * np.log10(np.mean((rounded - clean) ** 2)))


def variant_of(recipe: str) -> Variant:
    """The variant whose embedded weights the recipe makes."""
    return next(v for v in VARIANTS if v.compact == RECIPES[recipe].options)


def load(recipe: str, weights: str, precision: str) -> Restorer:
    """What restores over whole images, once."""
    variant = variant_of(recipe)
    return load_restorer(
        variant.task, variant.kind, weights=weights, precision=precision, window="none"
    )


def heading(window: int | None) -> str:
    """What is measured over windows of so many pixels."""
    return f"window {window or 'none'}"


def over_symmetries(restorer: Restorer, degraded: Image, clean: Image) -> dict[str, float]:
    """PSNR of each way to hold the image by itself, and of the means over several."""
    restored = {}
    for symmetry in SETS["all"]:
        held = np.ascontiguousarray(symmetry.apply(degraded))
        restored[symmetry] = symmetry.undo(restorer.unrounded(held))
    alone = {
        f"turns {symmetry.turns}{', mirrored' if symmetry.mirrored else ''}": psnr(image, clean)
        for symmetry, image in restored.items()
    }
    means = {
        f"mean {name}": psnr(np.mean([restored[s] for s in chosen], axis=0), clean)
        for name, chosen in SETS.items()
    }
    return alone | means


@dataclass(frozen=True)
class Sample:
    """One degraded photo, and what was measured of it."""

    log: Log
    of: tuple[str, str, int]

    def lacks(self, what: str) -> bool:
        return (*self.of, what) not in self.log.figures

    def add(self, what: str, figure: float) -> None:
        self.log.add((*self.of, what), figure)


class Log:
    """What was measured, in a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.figures: dict[Key, float] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                *key, figure = json.loads(line)
                self.figures[tuple(key)] = figure

    def add(self, key: Key, figure: float) -> None:
        self.figures[key] = figure
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([*key, figure]) + "\n")

    def sample(self, recipe: str, degradation: str, photo: int) -> Sample:
        return Sample(self, (recipe, degradation, photo))

    def table(self, recipe: str, kind: str) -> list[str]:
        """Means over the photos; only photos that all columns have count."""
        by_photo: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
        for (of, degradation, photo, what), figure in self.figures.items():
            if of == recipe and (what == "degraded" or what.startswith(kind)):
                by_photo[degradation, photo][what] = figure
        most = max(map(len, by_photo.values()), default=0)
        whole = {key: row for key, row in by_photo.items() if len(row) == most}
        rows: dict[str, list[dict[str, float]]] = defaultdict(list)
        for (degradation, _), row in whole.items():
            rows[degradation].append(row)
        if most < 2:
            return []
        order = ["degraded", *map(heading, WINDOWS)]
        columns = sorted(
            next(iter(whole.values())), key=lambda c: order.index(c) if c in order else len(order)
        )
        heads = [column.removeprefix(f"{kind} ") for column in columns]
        lines = [f"| {recipe} | photos | {' | '.join(heads)} |", f"|---|---|{'---|' * most}"]
        for degradation, photos in rows.items():
            means = [np.mean([photo[column] for photo in photos]) for column in columns]
            cells = " | ".join(f"{mean:.2f}" for mean in means)
            lines.append(f"| {degradation} | {len(photos)} | {cells} |")
        return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", choices=sorted(RECIPES), nargs="+", metavar="RECIPE")
    parser.add_argument("--photos", type=Path, required=True, help="folder of clean photos")
    parser.add_argument("--log", type=Path, required=True, metavar="FILE", help="of JSON lines")
    parser.add_argument("--weights", default="compact", help="as of the command")
    parser.add_argument("--precision", default="auto", help="as of the command")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these degradations")
    parser.add_argument("--count", type=int, default=12, help="held-out photos at most")
    parser.add_argument("--windows", nargs="+", type=int, help="these instead of all")
    parser.add_argument("--tiles", nargs="+", type=int, default=[], help="tiles of so many pixels")
    parser.add_argument("--ensemble", action="store_true", help="flips and turns, not windows")
    parser.add_argument("--window", type=int, help="of the ensemble")
    arguments = parser.parse_args()

    _, held_out = split_photos(arguments.photos)
    log = Log(arguments.log)
    windows = [None, *arguments.windows] if arguments.windows else list(WINDOWS)
    ways = {heading(window): (window, None) for window in windows}
    ways |= {f"tile {tile}": (None, tile) for tile in arguments.tiles}
    for name in arguments.recipes:
        recipe, restorer = RECIPES[name], load(name, arguments.weights, arguments.precision)
        chosen = arguments.only or list(recipe.validate)
        for number, path in enumerate(held_out[: arguments.count]):
            photo = middle(read_photo(path, 512), recipe.margin)
            for degradation in chosen:
                sample = log.sample(name, degradation, number)
                wanted = ["mean all"] if arguments.ensemble else ways
                if not any(map(sample.lacks, wanted)):
                    continue
                degrade = recipe.validate[degradation]
                degraded, clean = recipe.pair(photo, np.random.default_rng(1000 + number), degrade)
                if sample.lacks("degraded"):
                    views = np.split(degraded, restorer.views, axis=2)
                    sample.add("degraded", psnr(np.mean(views, axis=0), clean))
                if arguments.ensemble:
                    restorer.window = arguments.window
                    for what, figure in over_symmetries(restorer, degraded, clean).items():
                        sample.add(what, figure)
                    continue
                for what, (window, tile) in ways.items():
                    if sample.lacks(what):
                        restorer.window, restorer.tile = window, tile
                        sample.add(what, psnr(restorer.unrounded(degraded), clean))
    for name in dict.fromkeys(key[0] for key in log.figures):
        for kind in ("window", "tile", "turns", "mean"):
            print(*log.table(name, kind), sep="\n", flush=True)


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main()
