#!/usr/bin/env python3
"""Show all degradations of a few photos: ``contact_sheet.py --photos DIR --sheet FILE.png``."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from degradations import defocus, motion, noise, rain
from degradations.images import Degradation, Image, to_gray
from numpy.typing import NDArray
from patches import list_photos, read_photo

SHEET_ROWS: dict[str, Degradation] = {
    "Gaussian noise": noise.blind_gaussian,
    "Gaussian, gray": lambda clean, rng: noise.blind_gaussian(to_gray(clean), rng),
    "camera noise": noise.blind_camera_noise,
    "rain": rain.blind_rain,
    "motion blur": motion.blind_motion_blur,
    "defocus": defocus.blind_defocus_blur,
    "dual pixel, left": lambda clean, rng: defocus.blind_dual_pixel(clean, rng)[..., :3],
    "dual pixel, right": lambda clean, rng: defocus.blind_dual_pixel(clean, rng)[..., 3:],
}


def contact_sheet(crops: list[Image], columns: int = 5, seed: int = 0) -> NDArray[np.uint8]:
    """A row for each degradation of :data:`SHEET_ROWS`: the clean crop, then ``columns`` seeds.

    ``crops`` are clean squares ``(S, S, 3)`` of one size, taken in turn; rows of dual-pixel
    views share one. Returns RGB ``(rows · S, (columns + 1) · S, 3)``.
    """
    rows = []
    names = [name.split(",")[0] for name in SHEET_ROWS]
    for name, degrade in SHEET_ROWS.items():
        clean = crops[names.index(name.split(",")[0]) % len(crops)]
        cells = [clean] + [
            degrade(clean, np.random.default_rng([seed, column])) for column in range(columns)
        ]
        cells = [np.broadcast_to(cell, clean.shape) for cell in cells]
        row = np.rint(255 * np.clip(np.hstack(cells), 0, 1)).astype(np.uint8)
        row[:24, : 10 * len(name) + 8] //= 4
        cv2.putText(row, name, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
        rows.append(row)
    return np.vstack(rows)


def _most_detailed_crop(path: Path, size: int) -> Image:
    image = read_photo(path, size)
    detail = np.abs(cv2.Laplacian(image[..., 1], cv2.CV_32F))
    mean = cv2.boxFilter(detail, -1, (size, size), anchor=(0, 0))
    mean = mean[: image.shape[0] - size + 1, : image.shape[1] - size + 1]
    top, left = np.unravel_index(mean.argmax(), mean.shape)
    crop = image[top : top + size, left : left + size]
    return crop.astype(np.float32) / np.float32(255)


def main() -> None:
    """Write the contact sheet."""
    parser = argparse.ArgumentParser(description="Show the degradations on a contact sheet.")
    parser.add_argument("--photos", type=Path, required=True, help="folder of clean photos")
    parser.add_argument("--sheet", type=Path, required=True, metavar="FILE.png", help="result")
    parser.add_argument("--columns", type=int, default=5, help="seeds to show (default 5)")
    parser.add_argument("--size", type=int, default=256, help="side of a crop (default 256)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    photos = list_photos(arguments.photos)
    if not photos:
        parser.error(f"no photos in {arguments.photos}")
    count = min(len(photos), len(SHEET_ROWS))
    chosen = np.random.default_rng(arguments.seed).choice(len(photos), count, replace=False)
    crops = [_most_detailed_crop(photos[index], arguments.size) for index in chosen]
    sheet = contact_sheet(crops, arguments.columns, arguments.seed)
    if not cv2.imwrite(str(arguments.sheet), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise SystemExit(f"{arguments.sheet}: could not be written")


if __name__ == "__main__":
    main()
