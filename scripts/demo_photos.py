"""The photos of the demo and of comparisons: scikit-image ships them, and no training saw them."""

from __future__ import annotations

from typing import Any

import skimage.data

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle")


def load(name: str) -> Any:
    """A photo, RGB uint8 ``(H, W, 3)``."""
    if name == "motorcycle":
        return skimage.data.stereo_motorcycle()[0]
    return getattr(skimage.data, name)()
