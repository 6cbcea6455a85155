"""From clean photos to the pairs of patches that a compact network learns from.

Sample ``i`` of a step depends on the seed, the step and ``i`` alone, so a training that was
interrupted sees the same data as one that was not.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from degradations.shake import Shaking, shake
from numpy.typing import NDArray
from recipes import TrainingRecipe
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

# Patches are made beside each other by processes; threads of OpenCV would not survive the fork.
cv2.setNumThreads(0)

#: Pairs of a degraded and a clean image, each ``(1, C, H, W)``, by name of the degradation.
Pairs = dict[str, list[tuple[Tensor, Tensor]]]

#: Files of a folder that are taken for clean photos.
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})

HELD_OUT = 12
VALIDATION_SIZE = 256
#: A crop to measure on is the most detailed of this many.
CROP_CANDIDATES = 3
#: Training photos are reduced at random by up to this. Small pictures, those of the benchmarks
#: among them, are sharper than full-size ones, and have more in them for each pixel.
LARGEST_REDUCTION = 3.0
#: Share of training patches whose darkest parts become black and whose brightest become white.
#: Photos seldom are, and what a network has hardly seen it gives back as dark gray.
STRETCHED_SHARE = 0.1
#: Patches of fewer grey levels are left as they are: stretched, they would be mostly noise.
LEAST_RANGE = 64


def list_photos(folder: Path) -> list[Path]:
    """The JPEG and PNG files of a folder, by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)


def split_photos(folder: Path) -> tuple[list[Path], list[Path]]:
    """Training and held-out photos: every seventh by name, up to :data:`HELD_OUT`."""
    photos = list_photos(folder)
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


def read_photos(
    folder: Path, recipe: TrainingRecipe, workers: int = 0
) -> tuple[list[NDArray[np.uint8]], Pairs]:
    """The photos that a network learns from, and the :data:`Pairs` that it is measured on."""
    training, held_out = split_photos(folder)
    least = recipe.with_margin(recipe.patch)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        photos = list(pool.map(lambda path: read_photo(path, least), training))
    return photos, validation_pairs(held_out, recipe, workers)


def detailed_crop(
    photos: list[NDArray[np.uint8]],
    size: int,
    rng: np.random.Generator,
    reduction: float = 1.0,
    candidates: int = CROP_CANDIDATES,
) -> NDArray[np.uint8]:
    """A random square, the most detailed of so many candidates, flipped and turned at random.

    It is cut from photos that are smaller by ``reduction``, or by as much as their size allows.
    """
    best, most = None, -1.0
    for _ in range(candidates):
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


def to_tensor(images: Sequence[NDArray[Any]]) -> Tensor:
    """Stack ``(H, W, C)`` images to ``(N, C, H, W)``, channels last in memory."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def training_crop(
    photos: list[NDArray[np.uint8]], recipe: TrainingRecipe, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A crop that a training patch is made from, with its margin."""
    reduction = math.exp(rng.uniform(0, math.log(LARGEST_REDUCTION)))
    size = recipe.with_margin(recipe.patch)
    crop = detailed_crop(photos, size, rng, reduction, recipe.crop_candidates)
    return stretched(crop, rng) if rng.random() < STRETCHED_SHARE else crop


class Patches(Dataset[tuple[Any, Any]]):
    """Sample ``i`` of a training: what its batch is made from.

    A pair of a degraded and a clean patch, uint8 or float32 ``(H, W, C)``; or, where whole batches
    are degraded on the device, a clean crop and what is to become of it.
    """

    def __init__(self, photos: list[NDArray[np.uint8]], recipe: TrainingRecipe, seed: int) -> None:
        self._photos, self._recipe, self._seed = photos, recipe, seed

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        recipe = self._recipe
        rng = np.random.default_rng([self._seed, *divmod(index, recipe.batch)])
        crop = training_crop(self._photos, recipe, rng)
        if isinstance(recipe.degrade, Shaking):
            return crop, recipe.degrade.draw(rng)
        return recipe.pair(crop, rng, recipe.degrade)


def _leave_interrupts_to_parent(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def batches(
    photos: list[NDArray[np.uint8]],
    recipe: TrainingRecipe,
    seed: int,
    steps: range,
    device: torch.device,
    workers: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The degraded and the clean patches of each step, on the device.

    ``workers`` processes make them while the network works on the ones before; with none, they
    are made in between.
    """
    loader = DataLoader(
        Patches(photos, recipe, seed),
        batch_size=recipe.batch,
        sampler=range(steps.start * recipe.batch, steps.stop * recipe.batch),
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=_leave_interrupts_to_parent,
        prefetch_factor=4 if workers else None,
    )

    loaded = iter(loader)  # begins its processes here, while nothing else runs in this one

    def made() -> Iterator[tuple[Tensor, Tensor]]:
        for step, samples in zip(steps, loaded, strict=True):
            first, second = zip(*samples, strict=True)
            images = to_tensor(first).to(device)
            if isinstance(recipe.degrade, Shaking):
                generator = torch.Generator(device).manual_seed(2**32 * seed + step)
                yield shake(images, list(second), generator, recipe.margin)
            else:
                yield images, to_tensor(second).to(device)

    return _on_own_stream(made(), device) if device.type == "cuda" else made()


def _on_own_stream(
    made: Iterator[tuple[Tensor, Tensor]], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Let a thread and a CUDA stream of their own make the next batch during a step.

    Whatever waits for data to arrive on the GPU would else wait for the network too.
    """
    stream = torch.cuda.Stream(device)

    def make() -> tuple[tuple[Tensor, Tensor] | None, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            return next(made, None), stream.record_event()

    with ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(make)
        while True:
            batch, ready = ahead.result()
            if batch is None:
                return
            ahead = thread.submit(make)
            training = torch.cuda.current_stream(device)
            training.wait_event(ready)
            for images in batch:
                images.record_stream(training)  # not to be overwritten before it is used
            yield batch


def validation_pairs(held_out: list[Path], recipe: TrainingRecipe, workers: int = 0) -> Pairs:
    """One fixed, detailed crop of each held-out photo under each validation degradation.

    ``workers`` threads make them; the slow parts let go of the interpreter.
    """
    size = recipe.with_margin(VALIDATION_SIZE)

    def of_photo(index: int) -> dict[str, tuple[Tensor, Tensor]]:
        crop = detailed_crop(
            [read_photo(held_out[index], size)], size, np.random.default_rng(index)
        )
        pairs = {}
        for name, degrade in recipe.validate.items():
            degraded, clean = recipe.pair(crop, np.random.default_rng(1000 + index), degrade)
            pairs[name] = to_tensor([degraded]), to_tensor([clean])
        return pairs

    with ThreadPoolExecutor(max(1, workers)) as pool:
        photos = list(pool.map(of_photo, range(len(held_out))))
    return {name: [pairs[name] for pairs in photos] for name in recipe.validate}
