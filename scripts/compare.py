#!/usr/bin/env python3
"""What the embedded weights do, against what people usually take: a table and a picture.

The five photos of the demo, which come with scikit-image and were in no training, are degraded
with a fixed seed, then restored by the embedded weights and by the usual remedy of OpenCV. The
remedy has an advantage: of several settings the one with the highest mean PSNR counts, which
nobody without the original can know.

``compare.py [--sheet FILE.jpg]``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from demo_photos import PHOTOS, load

from restormer_cli import Restorer, load_restorer
from restormer_cli.evaluation.protocols import find_protocol
from restormer_cli.images.codecs.base import Pixels
from restormer_cli.images.pixels import normalise, quantise

sys.path.insert(0, str(Path(__file__).resolve().parent / "training"))
from degradations import defocus, motion, noise, rain
from degradations.images import Degradation, Image, to_gray

Remedy = Callable[[Pixels], Pixels]

#: Of each photo the middle is taken, at most this high and wide: some remedies are slow.
SIZE = 384
#: Side of the crops on the sheet.
CELL = 200


def non_local_means(strength: float) -> Remedy:
    """Buades et al. 2005, as OpenCV has it; ``strength`` is its h."""

    def remedy(noisy: Pixels) -> Pixels:
        if noisy.shape[2] == 1:
            return cv2.fastNlMeansDenoising(noisy, None, strength)[..., None]
        return cv2.fastNlMeansDenoisingColored(noisy, None, strength, strength)

    return remedy


def median(size: int) -> Remedy:
    return lambda rainy: cv2.medianBlur(rainy, size)


def unsharp_mask(radius: float, amount: float) -> Remedy:
    def remedy(soft: Pixels) -> Pixels:
        return cv2.addWeighted(soft, 1 + amount, cv2.GaussianBlur(soft, (0, 0), radius), -amount, 0)

    return remedy


NON_LOCAL_MEANS = ("non-local means", [non_local_means(h) for h in (3, 5, 8, 12, 16, 24)])
MEDIAN = ("median", [median(size) for size in (3, 5)])
UNSHARP_MASK = (
    "unsharp mask",
    [unsharp_mask(radius, amount) for radius in (1, 2, 4) for amount in (0.3, 0.7, 1.5)],
)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    command: str
    """The subcommand, and the kind after it."""
    degrade: Degradation
    remedy: tuple[str, list[Remedy]]
    paper: str
    """The official weights' figure in the paper, on its own test set."""
    prepare: Callable[[Image], Image] = lambda clean: clean
    protocol: str = "rgb"
    """How the PSNR is measured; a name of ``restormer evaluate --protocol``."""


ROWS = (
    Row(
        "camera noise, strong",
        "denoise real",
        lambda clean, rng: noise.camera_noise(clean, rng, shot=6e-3),
        NON_LOCAL_MEANS,
        "40.02 (SIDD)",
    ),
    Row(
        "Gaussian noise, σ = 25",
        "denoise color",
        lambda clean, rng: noise.gaussian_noise(clean, rng, sigma=25, in_file=True),
        NON_LOCAL_MEANS,
        "31.78 (CBSD68)",
    ),
    Row(
        "Gaussian noise, σ = 25, gray",
        "denoise gray",
        lambda clean, rng: noise.gaussian_noise(clean, rng, sigma=25, in_file=True),
        NON_LOCAL_MEANS,
        "31.04 (Set12)",
        prepare=to_gray,
        protocol="gray",
    ),
    Row(
        "rain",
        "derain",
        lambda clean, rng: rain.rain(clean, rng, amount=0.3),
        MEDIAN,
        "38.99 (Rain100L)",
        protocol="y",
    ),
    Row(
        "motion blur, up to 12 pixels",
        "deblur motion",
        lambda clean, rng: motion.motion_blur(clean, rng, extent=12, noise=1),
        UNSHARP_MASK,
        "32.92 (GoPro)",
    ),
    Row(
        "defocus, radius 4",
        "deblur defocus",
        lambda clean, rng: defocus.defocus_blur(clean, rng, radius=4, noise=1),
        UNSHARP_MASK,
        "25.98 (DPDD)",
    ),
    Row(
        "defocus, radius 4, dual pixel",
        "dual-pixel",
        lambda clean, rng: defocus.dual_pixel(clean, rng, radius=4, noise=1),
        UNSHARP_MASK,
        "26.66 (DPDD)",
    ),
)


def middle(photo: Pixels) -> Image:
    """The middle of a photo as float32 ``(H, W, 3)`` in [0, 1]."""
    top, left = (max(0, (length - SIZE) // 2) for length in photo.shape[:2])
    return normalise(photo[top : top + SIZE, left : left + SIZE])


def restore(restorer: Restorer, degraded: Image) -> Pixels:
    """As a user's file goes through: in 8 bit, or dual-pixel views in 16."""
    views = np.split(degraded, restorer.views, axis=2)
    bits = 8 if restorer.views == 1 else 16
    return restorer(*(quantise(view, bits) for view in views), bit_depth=8)


def compare(row: Row) -> tuple[list[str], list[Pixels]]:
    """The cells of a line, and the pictures of one photo: input, remedy, restored, original."""
    task, _, kind = row.command.partition(" ")
    restorer = load_restorer(task, kind=kind or None, weights="compact")
    clean = [row.prepare(middle(load(name))) for name in PHOTOS]
    degraded = [row.degrade(c, np.random.default_rng([7, n])) for n, c in enumerate(clean)]
    originals = [quantise(image, 8) for image in clean]
    # Of two views people see the mean.
    seen = [quantise(np.mean(np.split(d, restorer.views, axis=2), axis=0), 8) for d in degraded]
    restored = [restore(restorer, image) for image in degraded]
    protocol = find_protocol(row.protocol)

    def mean_psnr(images: list[Pixels]) -> float:
        pairs = zip(images, originals, strict=True)
        return float(np.mean([protocol.compare(image, original).psnr for image, original in pairs]))

    name, settings = row.remedy
    tried = [[remedy(image) for image in seen] for remedy in settings]
    remedied = max(tried, key=mean_psnr)
    before, usual, after = (f"{mean_psnr(images):.2f}" for images in (seen, remedied, restored))
    cells = [row.name, f"`{row.command}`", before, f"{usual} ({name})", after, row.paper]
    shown = PHOTOS.index("chelsea")
    return cells, [images[shown] for images in (seen, remedied, restored, originals)]


def strip(pictures: list[Pixels]) -> Pixels:
    """The middle of each picture side by side, RGB uint8."""
    cells = []
    for picture in pictures:
        top, left = ((length - CELL) // 2 for length in picture.shape[:2])
        cell = picture[top : top + CELL, left : left + CELL]
        cells.append(np.broadcast_to(cell, (*cell.shape[:2], 3)))
    return np.hstack(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sheet", type=Path, metavar="FILE.jpg", help="pictures of all tasks")
    arguments = parser.parse_args()
    if arguments.sheet and not arguments.sheet.absolute().parent.is_dir():
        parser.error(f"{arguments.sheet}: there is no such folder")

    print(
        "| input | command | degraded | usual remedy | embedded weights | official, in the paper |"
    )
    print("|---|---|---|---|---|---|", flush=True)
    strips = []
    for row in ROWS:
        cells, pictures = compare(row)
        print(f"| {' | '.join(cells)} |", flush=True)
        strips.append(strip(pictures))
    if arguments.sheet:
        sheet = cv2.cvtColor(np.vstack(strips), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(arguments.sheet), sheet, [cv2.IMWRITE_JPEG_QUALITY, 90])


if __name__ == "__main__":
    main()
