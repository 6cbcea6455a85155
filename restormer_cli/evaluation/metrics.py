"""What PSNR, SSIM and MAE mean in each paper: planes, formulas and the protocols made of them.

A protocol says which planes of two images are compared and which SSIM is meant. All figures are
computed in float64 on planes in [0, 1], which changes none of them: the constants of SSIM scale
with the data range. MAE is the mean of ``|a - b|`` over those planes. Planes exist for strips of
rows only, with as many rows around them as a window of SSIM looks at; the sums are those of whole
images.

Where scikit-image and the papers' scripts differ is said at each protocol; the figures there were
measured on scikit-image's photographs astronaut, chelsea, coffee and rocket, 300×451 to 512×512
pixels, with noise of σ 3 and 10 (of 255) and with a blur of σ 1.5 pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import skimage.metrics
from numpy.typing import NDArray

from restormer_cli.errors import ImageError
from restormer_cli.evaluation.memory_budget import is_out_of_memory
from restormer_cli.images.codecs.base import Pixels
from restormer_cli.images.pixels import Floats

Planes = NDArray[np.float64]
"""``(H, W, C)`` in [0, 1]."""

WINDOW, SIGMA = 11, 1.5
BORDER = WINDOW // 2
UNIFORM_WINDOW = 7
K1, K2 = 0.01, 0.03

#: Samples in a strip of rows: few enough for the processor's cache (measured).
STRIP_VALUES = 1 << 19
#: But not fewer rows, whose halo would cost more than they do.
STRIP_ROWS = 32
#: Copies of a strip in float64 that the metrics make at once, at most.
STRIP_COPIES = 16
#: Bytes a pixel that OpenCV takes to align two images, with the copies that it is given (measured).
ALIGNMENT_BYTES = 132

# Its functions carry no types.
_skimage: Any = skimage.metrics


@dataclass(frozen=True)
class Metrics:
    """PSNR in dB (infinite where nothing differs), SSIM, and MAE on the scale of [0, 1]."""

    psnr: float
    ssim: float
    mae: float


# --- the planes that are compared ---------------------------------------------------------------


def rgb_planes(pixels: Pixels) -> Planes:
    """All channels, in [0, 1] whatever the bit depth."""
    planes: Planes = pixels / np.float64(np.iinfo(pixels.dtype).max)
    return planes


def y_plane(pixels: Pixels) -> Planes:
    """Luma of BT.601 in studio range, rounded to the image's own bit depth.

    MATLAB's ``rgb2ycbcr`` gives uint8 for uint8 and uint16 for uint16, so what the deraining
    script compares has been rounded: 16 to 235 in 8 bit. Halves go up. An image of one channel is
    taken for luma already, as in that script.
    """
    if pixels.shape[2] == 1:
        return rgb_planes(pixels)
    # Whole numbers, so that a half is a half: 65.481 R + 128.553 G + 24.966 B, over 255.
    weighted = pixels.astype(np.int64) @ np.array([65481, 128553, 24966])
    offset = 16 * np.iinfo(pixels.dtype).max // 255
    luma = (weighted + 127500) // 255000 + offset
    return rgb_planes(luma[..., None].astype(pixels.dtype))


def gray_plane(pixels: Pixels) -> Planes:
    """Gray as it is, colour as OpenCV's ``COLOR_RGB2GRAY``: BT.601 in full range, rounded."""
    if pixels.shape[2] == 3:
        gray: Any = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        pixels = gray[..., None]
    return rgb_planes(pixels)


# --- similarity ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Similarity:
    """One meaning of SSIM: the map of it, and which of its values count."""

    map: Callable[[Planes, Planes], Planes]
    """SSIM at every sample of a result and its target."""
    window: int
    """Side of the square that a value depends on."""
    borders: bool = False
    """True if values count whose window does not lie whole in the image."""

    @property
    def halo(self) -> int:
        return self.window // 2

    def check_size(self, height: int, width: int) -> None:
        """Refuse images that are smaller than the window.

        Raises
        ------
        ImageError
            If none fits.
        """
        if not self.borders and min(height, width) < self.window:
            raise ImageError(
                f"{width}×{height} pixels are too few for SSIM, whose window is "
                f"{self.window}×{self.window}"
            )


def _gaussian_map(result: Planes, target: Planes) -> Planes:
    _, ssim_map = _skimage.structural_similarity(
        target,
        result,
        data_range=1,
        gaussian_weights=True,
        sigma=SIGMA,
        use_sample_covariance=False,
        channel_axis=2,
        full=True,
    )
    planes: Planes = ssim_map
    return planes


def _uniform_map(result: Planes, target: Planes) -> Planes:
    _, ssim_map = _skimage.structural_similarity(
        target, result, data_range=1, channel_axis=2, full=True
    )
    planes: Planes = ssim_map
    return planes


def _volume_map(result: Planes, target: Planes) -> Planes:
    c1, c2 = K1**2, K2**2
    mean_a, mean_b = _blur_volume(result), _blur_volume(target)
    both = mean_a * mean_b
    squares = mean_a**2 + mean_b**2
    variances = _blur_volume(result**2 + target**2) - squares
    covariance = _blur_volume(result * target) - both
    numerator = (2 * both + c1) * (2 * covariance + c2)
    planes: Planes = numerator / ((squares + c1) * (variances + c2))
    return planes


def _blur_volume(planes: Planes) -> Planes:
    kernel = cv2.getGaussianKernel(WINDOW, SIGMA)
    blurred: Any = cv2.sepFilter2D(
        planes, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_REPLICATE
    )
    channels = planes.shape[2]
    across = np.zeros((channels, channels))
    for channel in range(channels):
        for tap, weight in enumerate(kernel[:, 0], start=channel - BORDER):
            across[channel, min(max(tap, 0), channels - 1)] += weight
    mixed: Planes = blurred.reshape(planes.shape) @ across.T
    return mixed


#: As in Wang's ``ssim_index.m``: a Gaussian window, where it fits whole into the image; the mean
#: over the planes. scikit-image gives it if asked for this window; what it does by default, the
#: uniform one, comes out 0.002 lower to 0.03 higher.
GAUSSIAN = Similarity(_gaussian_map, WINDOW)
#: As scikit-image computes it by default: a uniform window, sample covariance.
UNIFORM = Similarity(_uniform_map, UNIFORM_WINDOW)
#: As MATLAB's own ``ssim`` computes it for an array of H×W×3, which it takes for a volume: the
#: Gaussian window is 11×11×11, so it runs across the channels too, and whatever lies outside
#: repeats the nearest sample. Every voxel counts. scikit-image has no such mode (it wants 11
#: channels).
VOLUME = Similarity(_volume_map, WINDOW, borders=True)


# --- metrics, strip by strip --------------------------------------------------------------------

Rows = Callable[[int, int], tuple[Planes, Planes, Planes | None]]
"""Rows ``[first, last)`` of a result and its target, and a mask of what counts; None: all."""


def strips(height: int, width: int, channels: int) -> list[tuple[int, int]]:
    """Row ranges that cover an image, each of about :data:`STRIP_VALUES` samples.

    None has fewer rows than the halo of a window and one more, unless the image has.
    """
    rows = max(STRIP_ROWS, STRIP_VALUES // max(1, width * channels))
    count = max(1, -(-height // rows))
    edges = [height * number // count for number in range(count + 1)]
    return list(itertools.pairwise(edges))


def _measure(shape: tuple[int, int, int], rows: Rows, similarity: Similarity) -> Metrics:
    """All three metrics of planes ``(H, W, C)`` that are made when they are looked at."""
    height, width, _ = shape
    similarity.check_size(height, width)
    halo = similarity.halo
    border = 0 if similarity.borders else halo
    squared = absolute = covered = similar = weights = 0.0
    for a, b in strips(*shape):
        first = max(a - halo, 0)
        result, target, mask = rows(first, min(b + halo, height))
        own = slice(a - first, b - first)
        difference = result[own] - target[own]
        absolute += float(np.abs(difference).sum())
        squared += float(np.square(difference, out=difference).sum())
        covered += difference.size if mask is None else float(mask[own].sum())
        # Of the strip's own rows those whose window fits.
        inner = slice(max(a, border) - first, min(b, height - border) - first)
        part = (inner, slice(border, width - border))
        values = similarity.map(result, target)[part]
        similar += float(values.sum() if mask is None else (values * mask[part]).sum())
        weights += values.size if mask is None else float(mask[part].sum())
    error = squared / covered
    return Metrics(
        psnr=10 * math.log10(1 / error) if error else math.inf,
        ssim=similar / weights,
        mae=absolute / covered,
    )


# --- alignment ----------------------------------------------------------------------------------


def align(result: Pixels, target: Pixels) -> tuple[Floats, Floats]:
    """Bring a result to where its target is, as the RealBlur benchmark does.

    The result is scaled so that its squared distance to the target is least, then warped by the
    homography that maximises the enhanced correlation coefficient of the gray images
    (``cv2.findTransformECC``: 100 iterations, Gaussian of 5×5).

    Returns
    -------
    ndarray
        The result, float32 ``(H, W, C)``.
    ndarray
        The mask of where it has pixels, float32 ``(H, W)``.

    Raises
    ------
    ImageError
        If the images cannot be aligned, having nothing in common or no structure at all.
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
