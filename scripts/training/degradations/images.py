"""What the degradations share: images in files, in light, and as fields."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
#: A camera response, light to encoded value: samples over an even grid, both from 0 to 1.
Curve = NDArray[np.float64]
Degradation = Callable[[Image, np.random.Generator], Image]

#: Share of training samples that come back as they are. Gaussian noise needs none: its σ is
#: drawn from 0 up.
CLEAN_SHARE = 0.05

#: Weights of R, G and B in gray (ITU-R BT.601), as the gray benchmarks are made.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

#: How much brighter than white a clipped highlight may have been.
HIGHLIGHT_GAIN = 4.0


def quantise(image: Image, levels: int = 255) -> Image:
    """Clip to [0, 1] and round to ``levels`` steps, as saving to a file does."""
    return (np.rint(np.clip(image, 0, 1) * np.float32(levels)) / np.float32(levels)).astype(
        np.float32
    )


def unchanged(clean: Image, rng: np.random.Generator) -> Image:
    """The clean photo itself, ``(H, W, C)``: shows what a network does to what needs nothing."""
    return clean.copy()


def to_gray(image: Image) -> Image:
    """RGB ``(H, W, 3)`` to gray ``(H, W, 1)``, by BT.601 and rounded to 8 bits like a file."""
    return quantise((image @ LUMA)[..., None])


def to_linear(encoded: Image) -> Image:
    """sRGB values in [0, 1] to linear light in [0, 1] (IEC 61966-2-1)."""
    low = encoded / np.float32(12.92)
    high = ((np.maximum(encoded, 0) + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.where(encoded <= 0.04045, low, high).astype(np.float32)


def to_encoded(linear: Image) -> Image:
    """Linear light, clipped to [0, 1], to sRGB values in [0, 1] (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    high = np.float32(1.055) * linear ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(linear <= 0.0031308, linear * np.float32(12.92), high).astype(np.float32)


def by_curve(image: Image, curve: Curve) -> Image:
    """Values in [0, 1], clipped to it, by a ``curve`` over an even grid."""
    grid = np.linspace(0, 1, len(curve))
    return np.interp(np.clip(image, 0, 1), grid, curve).astype(np.float32)


def inverse_curve(curve: Curve) -> Curve:
    """The inverse of a rising ``curve`` over an even grid, over the same grid."""
    grid = np.linspace(0, 1, len(curve))
    return np.interp(grid, curve, grid)


def convolve(image: Image, kernel: Image) -> Image:
    """Convolve ``(H, W)`` or ``(H, W, C)`` with an odd-sized kernel, borders reflected."""
    # OpenCV correlates, so the kernel is turned around.
    return cv2.filter2D(image, -1, kernel[::-1, ::-1], borderType=cv2.BORDER_REFLECT_101)


def smooth_field(shape: tuple[int, ...], rng: np.random.Generator, scale: float) -> Image:
    """A random smooth map ``(H, W)`` of mean 0 and variance 1 with features of ``scale`` pixels.

    A sum of plane waves, so that it costs the same at any scale and has no grid.
    """
    waves = 8
    y, x = np.ogrid[: shape[0], : shape[1]]
    frequency = (rng.standard_normal((waves, 2, 1, 1)) / scale).astype(np.float32)
    phase = rng.uniform(0, 2 * np.pi, (waves, 1, 1)).astype(np.float32)
    angle = frequency[:, 0] * y.astype(np.float32) + frequency[:, 1] * x.astype(np.float32) + phase
    return np.float32(np.sqrt(2 / waves)) * np.cos(angle).sum(axis=0)


def unclip_highlights(linear: Image, rng: np.random.Generator) -> Image:
    """Give clipped highlights of linear ``(H, W, 3)`` a random brightness above 1.

    A lamp that is white in the photo was many times brighter in the scene, and blurs into a
    bright trace or disk, which a blur of the clipped value would leave gray.
    """
    gain = rng.uniform(0, HIGHLIGHT_GAIN)
    # Channel by channel, and only above grey level 254: clipping the result gives back a pixel
    # that is not blurred.
    whitest = to_linear(np.float32([254 / 255]))
    clipped = np.clip((linear - whitest) / (1 - whitest), 0, 1)
    return linear * (1 + np.float32(gain) * clipped)


def jpeg(image: Image, rng: np.random.Generator, quality: int) -> Image:
    """Save ``(H, W, 3)`` as JPEG of ``quality`` (1 to 100) and read it back."""
    # Crops of a file start anywhere in its grid of 8×8 blocks.
    top, left = rng.integers(8, size=2)
    padded = cv2.copyMakeBorder(image, top, 0, left, 0, cv2.BORDER_REFLECT_101)
    sampling = (
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    )[rng.integers(2)]
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    pixels = np.rint(np.clip(padded, 0, 1) * 255).astype(np.uint8)
    _, file = cv2.imencode(".jpg", pixels[..., ::-1], settings)
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR)[top:, left:, ::-1]
    return decoded.astype(np.float32) / np.float32(255)
