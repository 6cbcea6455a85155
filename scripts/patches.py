"""From clean photos to the pairs of patches that a compact network learns from.

Sample ``i`` of a step depends on the seed, the step and ``i`` alone, so a training that was
interrupted sees the same data as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import degradations as deg
import numpy as np
import torch
from numpy.typing import NDArray
from recipes import Recipe
from torch import Tensor

#: Pairs of a degraded and a clean image, each ``(1, C, H, W)``, by name of the degradation.
Pairs = dict[str, list[tuple[Tensor, Tensor]]]

HELD_OUT = 12
VALIDATION_SIZE = 256
#: A crop is the most detailed of this many, or skies and soft backgrounds would prevail.
CROP_CANDIDATES = 3
#: Training photos are reduced at random by up to this. Small pictures, those of the benchmarks
#: among them, are sharper than full-size ones, and have more in them for each pixel.
LARGEST_REDUCTION = 3.0
#: Share of training patches whose darkest parts become black and whose brightest become white.
#: Photos seldom are, and what a network has hardly seen it gives back as dark gray.
STRETCHED_SHARE = 0.1
#: Patches of fewer grey levels are left as they are: stretched, they would be mostly noise.
LEAST_RANGE = 64


def split_photos(folder: Path) -> tuple[list[Path], list[Path]]:
    """Training and held-out photos: every seventh by name, up to :data:`HELD_OUT`."""
    photos = sorted(p for p in folder.iterdir() if p.suffix.lower() in deg.PHOTO_SUFFIXES)
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


def read_photos(folder: Path, recipe: Recipe) -> tuple[list[NDArray[np.uint8]], Pairs]:
    """The photos that a network learns from, and the :data:`Pairs` that it is measured on."""
    training, held_out = split_photos(folder)
    photos = [read_photo(path, recipe.with_margin(recipe.patch)) for path in training]
    return photos, validation_pairs(held_out, recipe)


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


def stretched(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A crop with more contrast: about a quarter of it, at most, black and another one white."""
    low, high = np.percentile(crop, [rng.uniform(0, 25), rng.uniform(75, 100)])
    if high - low < LEAST_RANGE:
        return crop
    levels = (np.arange(256) - low) * (255 / (high - low))
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)[crop]


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
        if rng.random() < STRETCHED_SHARE:
            crop = stretched(crop, rng)
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


def validation_pairs(held_out: list[Path], recipe: Recipe) -> Pairs:
    """One fixed, detailed crop of each held-out photo under each validation degradation."""
    pairs: Pairs = {name: [] for name in recipe.validate}
    for index, path in enumerate(held_out):
        size = recipe.with_margin(VALIDATION_SIZE)
        crop = detailed_crop([read_photo(path, size)], size, np.random.default_rng(index))
        for name, degrade in recipe.validate.items():
            degraded, clean = recipe.pair(crop, np.random.default_rng(1000 + index), degrade)
            pairs[name].append((to_tensor([degraded]), to_tensor([clean])))
    return pairs
