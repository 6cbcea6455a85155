"""Aligns a result with its target, as the RealBlur benchmark does."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from restormer_cli.errors import ImageError
from restormer_cli.evaluation.memory_budget import is_out_of_memory
from restormer_cli.evaluation.metrics import BORDER, rgb_planes, strips
from restormer_cli.images.codecs.base import Pixels
from restormer_cli.images.pixels import Floats

#: Bytes a pixel that OpenCV takes to align two images, with the copies that it is given (measured).
ALIGNMENT_BYTES = 132


def align(result: Pixels, target: Pixels) -> tuple[Floats, Floats]:
    """Align a result with its target, both uint8 or uint16 ``(H, W, C)``.

    The result is scaled so that its squared distance to the target is least, then warped by the
    homography that maximises the enhanced correlation coefficient of the gray images
    (``cv2.findTransformECC``: 100 iterations, Gaussian of 5×5).

    Returns
    -------
    ndarray
        The result, float32 ``(H, W, C)``.
    ndarray
        A mask, float32 ``(H, W)``: 1 where the result has pixels.

    Raises
    ------
    ImageError
        If the images cannot be aligned, because they have nothing in common or no structure.
    """
    height, width = target.shape[:2]
    product = power = 0.0
    for a, b in strips(*target.shape):
        part = rgb_planes(result[a:b])
        product += float((part * rgb_planes(target[a:b])).sum())
        power += float((part**2).sum())
    scale = product / max(power, np.finfo(np.float64).tiny)
    # float32 as in the benchmark; OpenCV aligns nothing wider.
    scaled = np.empty(target.shape, np.float32)
    goal = np.empty((height, width), np.float32)
    for a, b in strips(*target.shape):
        scaled[a:b] = scale * rgb_planes(result[a:b])
        goal[a:b] = _ecc_gray(rgb_planes(target[a:b]).astype(np.float32))
    start: Any = np.eye(3, dtype=np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 0)
    unmasked: Any = None
    try:
        _, warp = cv2.findTransformECC(
            goal, _ecc_gray(scaled), start, cv2.MOTION_HOMOGRAPHY, criteria, unmasked, 5
        )
    except cv2.error as error:
        if is_out_of_memory(error):
            raise
        raise ImageError("the result cannot be aligned with its target") from error
    size = (width, height)
    warped: Any = cv2.warpPerspective(
        scaled,
        warp,
        size,
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    del scaled
    inside: Any = cv2.warpPerspective(
        np.ones((height, width), np.float32),
        warp,
        size,
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0, 0),
    )
    if not inside[BORDER:-BORDER, BORDER:-BORDER].any() or not np.isfinite(warped).all():
        raise ImageError("the result cannot be aligned with its target")
    return warped.reshape(target.shape), inside


def _ecc_gray(image: Any) -> Any:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image[..., 0]
