"""The protocols as formulas over whole images; strips of rows must give the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import skimage.metrics
from numpy.typing import NDArray

from restormer_cli.images.codecs.base import Pixels

# isort: split
import cv2

from restormer_cli.errors import ImageError
from restormer_cli.evaluation.metrics import (
    BORDER,
    K1,
    K2,
    SIGMA,
    WINDOW,
    Metrics,
    gray_plane,
    rgb_planes,
    y_plane,
)

Planes = NDArray[np.float64]
_skimage: Any = skimage.metrics


def psnr(result: Planes, target: Planes) -> float:
    if np.array_equal(result, target):
        return math.inf
    return float(_skimage.peak_signal_noise_ratio(target, result, data_range=1))


def ssim_gaussian(result: Planes, target: Planes) -> float:
    return float(np.mean(_gaussian_map(result, target)[BORDER:-BORDER, BORDER:-BORDER]))


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


def ssim_uniform(result: Planes, target: Planes) -> float:
    return float(_skimage.structural_similarity(target, result, data_range=1, channel_axis=2))


def ssim_volume(result: Planes, target: Planes) -> float:
    c1, c2 = K1**2, K2**2
    mean_a, mean_b = _blur_volume(result), _blur_volume(target)
    both = mean_a * mean_b
    squares = mean_a**2 + mean_b**2
    variances = _blur_volume(result**2 + target**2) - squares
    covariance = _blur_volume(result * target) - both
    numerator = (2 * both + c1) * (2 * covariance + c2)
    return float(np.mean(numerator / ((squares + c1) * (variances + c2))))


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


def _measure_aligned(result: Planes, target: Planes) -> Metrics:
    result, target, mask = align(result, target)
    covered = float(mask.sum())
    error = float(((result - target) ** 2).sum()) / covered
    similarity = _gaussian_map(result, target) * mask
    inner = (slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    return Metrics(
        psnr=10 * math.log10(1 / error) if error else math.inf,
        ssim=float(similarity[inner].sum() / mask[inner].sum()),
        mae=float(np.abs(result - target).sum()) / covered,
    )


def align(result: Planes, target: Planes) -> tuple[Planes, Planes, Planes]:
    height, width, channels = target.shape
    # float32 as in the benchmark; OpenCV aligns nothing wider.
    scale = (result * target).sum() / max((result**2).sum(), np.finfo(np.float64).tiny)
    scaled = (scale * result).astype(np.float32)
    reference = target.astype(np.float32)
    start: Any = np.eye(3, dtype=np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 0)
    unmasked: Any = None
    try:
        _, warp = cv2.findTransformECC(
            _ecc_gray(reference),
            _ecc_gray(scaled),
            start,
            cv2.MOTION_HOMOGRAPHY,
            criteria,
            unmasked,
            5,
        )
    except cv2.error as error:
        raise ImageError("the result cannot be aligned with its target") from error
    size = (width, height)
    warped: Any = cv2.warpPerspective(
        scaled,
        warp,
        size,
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    inside: Any = cv2.warpPerspective(
        np.ones((height, width), np.float32),
        warp,
        size,
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0, 0),
    )
    mask = np.repeat(inside[..., None], channels, axis=2).astype(np.float64)
    if not mask[BORDER:-BORDER, BORDER:-BORDER].any() or not np.isfinite(warped).all():
        raise ImageError("the result cannot be aligned with its target")
    return warped.reshape(target.shape) * mask, reference * mask, mask


def _ecc_gray(image: Any) -> Any:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image[..., 0]


PLANES = {"y": y_plane, "gray": gray_plane}
SSIM = {"gopro": ssim_volume, "sidd": ssim_volume, "dpdd": ssim_uniform}


def compare(protocol: str, result: Pixels, target: Pixels) -> Metrics:
    planes = PLANES.get(protocol, rgb_planes)
    return compare_planes(protocol, planes(result), planes(target))


def compare_planes(protocol: str, result: Planes, target: Planes) -> Metrics:
    if protocol == "realblur":
        return _measure_aligned(result, target)
    ssim = SSIM.get(protocol, ssim_gaussian)(result, target)
    return Metrics(psnr(result, target), ssim, float(np.mean(np.abs(result - target))))
