"""The metrics, :class:`Metrics`: a row for each. How they are computed, strip by strip.

A protocol (:mod:`restormer_cli.evaluation.protocols`) says which planes of two images are compared
and which SSIM is meant. Metrics are computed in float64 on planes in [0, 1]. The data range does
not change them: the constants of SSIM scale with it. Planes are made for one strip of rows at a
time, with as many rows around it as a window of SSIM reaches; the sums are those of whole images.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Any, get_type_hints

import cv2
import numpy as np
import skimage.metrics
from numpy.typing import NDArray

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs.base import Pixels

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

# Its functions carry no types.
_skimage: Any = skimage.metrics


# --- the planes that are compared ---------------------------------------------------------------


def rgb_planes(pixels: Pixels) -> Planes:
    """All channels, in [0, 1] for any bit depth."""
    planes: Planes = pixels / np.float64(np.iinfo(pixels.dtype).max)
    return planes


def y_plane(pixels: Pixels) -> Planes:
    """Luma of BT.601 in studio range, rounded to the image's own bit depth.

    MATLAB's ``rgb2ycbcr`` gives uint8 for uint8 and uint16 for uint16, so the deraining script
    compares rounded values: 16 to 235 in 8 bit. Halves go up. An image of one channel is already
    luma, as in that script.
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
    """A kind of SSIM: its map, and the values of it that count."""

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
        """Check that a window fits into an image.

        Raises
        ------
        ImageError
            If none does.
        """
        if not self.borders and min(height, width) < self.window:
            raise ImageError(
                f"{width}×{height} pixels are too few for SSIM, whose window is "
                f"{self.window}×{self.window}"
            )


def _uniform_map(result: Planes, target: Planes, **options: Any) -> Planes:
    _, ssim_map = _skimage.structural_similarity(
        target, result, data_range=1, channel_axis=2, full=True, **options
    )
    planes: Planes = ssim_map
    return planes


def _gaussian_map(result: Planes, target: Planes) -> Planes:
    return _uniform_map(
        result, target, gaussian_weights=True, sigma=SIGMA, use_sample_covariance=False
    )


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
#: over the planes. scikit-image has it as an option; its default, the uniform window, gives 0.002
#: less to 0.03 more.
GAUSSIAN = Similarity(_gaussian_map, WINDOW)
#: As scikit-image computes it by default: a uniform window, sample covariance.
UNIFORM = Similarity(_uniform_map, UNIFORM_WINDOW)
#: As MATLAB's own ``ssim`` computes it for an array of H×W×3, which it takes for a volume: the
#: Gaussian window is 11×11×11, so it runs across the channels too, and samples outside repeat the
#: nearest one. Every voxel counts. scikit-image cannot do this (it needs 11 channels).
VOLUME = Similarity(_volume_map, WINDOW, borders=True)


# --- metrics, strip by strip --------------------------------------------------------------------


@dataclass(frozen=True)
class Strip:
    """Some rows of a result and its target, and the rows around them that SSIM needs."""

    result: Planes
    target: Planes
    mask: Planes | None
    """1 where a sample counts, 0 elsewhere; None if all count."""
    similarity: Similarity
    own: slice
    """The rows of the strip itself."""
    inner: tuple[slice, slice]
    """Rows and columns of the strip itself at which values of SSIM count."""

    @functools.cached_property
    def difference(self) -> Planes:
        """The result minus its target, in the strip's own rows."""
        return self.result[self.own] - self.target[self.own]

    def total(self, values: Planes, part: slice | tuple[slice, slice]) -> Total:
        """Sum the values at some rows and columns, as far as the mask lets them count."""
        if self.mask is None:
            return float(values.sum()), values.size
        return float((values * self.mask[part]).sum()), float(self.mask[part].sum())


Total = tuple[float, float]
"""A sum of values, and how many values it has."""


@dataclass(frozen=True)
class Metric:
    """One row of the table: how a metric is computed, and how it is shown."""

    label: str
    """In tables and reports."""
    total: Callable[[Strip], Total]
    """Computes the metric in one strip. The totals of all strips make one mean."""
    finish: Callable[[float], float] = float
    """Turns the mean into the metric."""
    unit: str = ""
    decimals: int = 4
    paper_decimals: int = 3
    """Of published figures."""
    higher_is_better: bool = True


def _squared_error(strip: Strip) -> Total:
    return strip.total(np.square(strip.difference), strip.own)


def _decibels(error: float) -> float:
    return 10 * math.log10(1 / error) if error else math.inf


def _absolute_error(strip: Strip) -> Total:
    return strip.total(np.abs(strip.difference), strip.own)


def _similarity(strip: Strip) -> Total:
    values = strip.similarity.map(strip.result, strip.target)
    return strip.total(values[strip.inner], strip.inner)


@dataclass(frozen=True)
class Metrics:
    """How close a result is to its target: the table of all metrics, a row for each.

    The name of a row is its key in JSON, CSV and ``papers/*.yml``. PSNR is infinite where nothing
    differs. MAE is the mean absolute error of values in [0, 1].
    """

    psnr: Annotated[
        float, Metric("PSNR", _squared_error, _decibels, unit="dB", decimals=2, paper_decimals=2)
    ]
    ssim: Annotated[float, Metric("SSIM", _similarity)]
    mae: Annotated[float, Metric("MAE", _absolute_error, higher_is_better=False)]

    @property
    def figures(self) -> dict[str, float]:
        """Each metric by its name."""
        return {key: getattr(self, key) for key in METRICS}


METRICS: Mapping[str, Metric] = {
    key: hint.__metadata__[0] for key, hint in get_type_hints(Metrics, include_extras=True).items()
}
"""The rows of :class:`Metrics`, by name."""


def mean_metrics(rows: Iterable[Metrics]) -> Metrics | None:
    """The mean of each metric over all images; None if there are none.

    One infinite PSNR makes the mean infinite, as in the papers' scripts.
    """
    images = [metrics.figures for metrics in rows]
    if not images:
        return None
    return Metrics(**{key: fmean(image[key] for image in images) for key in METRICS})


Rows = Callable[[int, int], tuple[Planes, Planes, Planes | None]]
"""Gives rows ``[first, last)`` of a result, of its target and of the mask, or None."""


def strips(height: int, width: int, channels: int) -> list[tuple[int, int]]:
    """Row ranges that cover an image, each of about :data:`STRIP_VALUES` samples.

    None has fewer rows than the halo of a window and one more, unless the image has.
    """
    rows = max(STRIP_ROWS, STRIP_VALUES // max(1, width * channels))
    count = max(1, -(-height // rows))
    edges = [height * number // count for number in range(count + 1)]
    return list(itertools.pairwise(edges))


def measure(shape: tuple[int, int, int], rows: Rows, similarity: Similarity) -> Metrics:
    """Compute all metrics of two images.

    Parameters
    ----------
    shape
        Height, width and channels of the planes.
    rows
        Called for each strip, with the first row and the one after the last.
    similarity
        The SSIM that is meant.

    Raises
    ------
    ImageError
        If the images are smaller than the window of SSIM.
    """
    height, width, _ = shape
    similarity.check_size(height, width)
    halo = similarity.halo
    border = 0 if similarity.borders else halo
    sums, counts = dict.fromkeys(METRICS, 0.0), dict.fromkeys(METRICS, 0.0)
    for a, b in strips(*shape):
        first = max(a - halo, 0)
        inner = slice(max(a, border) - first, min(b, height - border) - first)
        strip = Strip(
            *rows(first, min(b + halo, height)),
            similarity,
            own=slice(a - first, b - first),
            inner=(inner, slice(border, width - border)),
        )
        for key, metric in METRICS.items():
            total, count = metric.total(strip)
            sums[key] += total
            counts[key] += count
    means = {key: sums[key] / counts[key] for key in METRICS}
    return Metrics(**{key: metric.finish(means[key]) for key, metric in METRICS.items()})
