"""Photos to degrade, and strategies that draw their sizes and seeds."""

from __future__ import annotations

import numpy as np
from degradations.images import Image
from hypothesis import settings
from hypothesis import strategies as st
from skimage import data

seeds = st.integers(0, 2**32)
sizes = st.integers(32, 80)
few = settings(max_examples=25, deadline=None)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def photo(height: int = 64, width: int = 64) -> Image:
    """A detailed part of a photo, dark and bright, as an 8-bit file holds it."""
    crop = data.astronaut()[150 : 150 + height, 170 : 170 + width]
    return crop.astype(np.float32) / np.float32(255)


def flat(value: float, size: int = 64) -> Image:
    return np.full((size, size, 3), value, np.float32)
