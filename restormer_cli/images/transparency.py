"""What cannot be seen has no influence on what can, and comes back as it was."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from restormer_cli.images.codecs.base import Pixels
from restormer_cli.images.picture import Picture
from restormer_cli.images.pixels import normalise, quantise

#: Of opacity, one part in so many is the least that counts as visible. Below that, what tools
#: leave in a pixel is seldom a colour, and nobody sees it.
LEAST_VISIBLE = 32
#: Level of a background colour, which has 16 bits.
WHITE = 65535
ROWS = 64


def fill_invisible(pixels: Pixels, alpha: Pixels | None) -> Pixels:
    """Pixels for the network, those that cannot be seen in the colour of the nearest that can.

    Parameters
    ----------
    pixels
        ``(H, W, C)``; left as they are, and given back themselves if all or none are visible.
    alpha
        ``(H, W)`` of the same dtype.
    """
    if alpha is None:
        return pixels
    invisible = _invisible(alpha)
    if not invisible.any() or invisible.all():
        return pixels
    # Each zero of the mask has a label of its own, and so has what is nearest to it.
    labels = cv2.distanceTransformWithLabels(
        invisible.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )[1]
    visible = ~invisible
    colours = np.empty((int(labels.max()) + 1, pixels.shape[2]), pixels.dtype)
    colours[labels[visible]] = pixels[visible]
    filled: Pixels = pixels.copy()
    filled[invisible] = colours[labels[invisible]]
    return filled


def with_alpha(picture: Picture, restored: Pixels) -> Picture:
    """The picture with restored pixels, but for those that cannot be seen, and its own alpha.

    Both are bit for bit as they were, unless the result has another bit depth.
    """
    if picture.alpha is None:
        return replace(picture, pixels=restored, notes=())
    invisible = _invisible(picture.alpha)
    if invisible.any():
        restored = restored.copy()
        restored[invisible] = _like(picture.pixels[invisible], restored)
    return replace(picture, pixels=restored, alpha=_like(picture.alpha, restored), notes=())


def flatten(picture: Picture) -> Picture:
    """Lay a picture with alpha over its background colour, or over white, as browsers do."""
    pixels, alpha = picture.pixels, picture.alpha
    assert alpha is not None
    largest = np.float32(np.iinfo(pixels.dtype).max)
    ground = np.array(picture.metadata.background or (WHITE,) * 3, np.float32) / WHITE * largest
    flat = np.empty_like(pixels)
    for top in range(0, len(pixels), ROWS):  # lest floats of a large picture fill the memory
        rows = slice(top, top + ROWS)
        share = (alpha[rows] / largest)[..., None]
        flat[rows] = np.rint(pixels[rows] * share + (1 - share) * ground[: pixels.shape[2]])
    return replace(picture, pixels=flat, alpha=None)


def _invisible(alpha: Pixels) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.less(alpha, np.iinfo(alpha.dtype).max // LEAST_VISIBLE + 1)


def _like(values: Pixels, pixels: Pixels) -> Pixels:
    """In the bit depth of the result."""
    if values.dtype == pixels.dtype:
        return values
    return quantise(normalise(values), 8 * pixels.dtype.itemsize)
