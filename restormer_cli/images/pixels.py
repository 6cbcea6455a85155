"""Whole numbers of 8 or 16 bit to floats in [0, 1], and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs.base import Pixels

Floats = NDArray[np.float32]


def normalise(pixels: Pixels) -> Floats:
    """uint8 or uint16 to float32 in [0, 1]."""
    largest = np.float32(np.iinfo(pixels.dtype).max)
    floats: Floats = np.divide(pixels, largest, dtype=np.float32)
    return floats


def check_finite(image: Floats) -> None:
    """Check what a network gave.

    Raises
    ------
    ImageError
        If a value is not a number or infinite.
    """
    if not np.isfinite(image).all():
        raise ImageError("the network gave values that are no numbers; try --precision float32")


def quantise(image: Floats, bit_depth: int) -> Pixels:
    """Clamp to [0, 1] and round half to even, to uint8, or to uint16 of so many bits.

    Raises
    ------
    ImageError
        As :func:`check_finite`.
    """
    check_finite(image)
    dtype = np.uint8 if bit_depth == 8 else np.uint16
    scaled = np.clip(image, 0, 1) * np.float32((1 << bit_depth) - 1)
    return np.ascontiguousarray(np.rint(scaled, out=scaled).astype(dtype))
