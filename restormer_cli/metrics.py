"""What PSNR, SSIM and MAE mean in each paper: planes, formulas and the protocols made of them.

A protocol says which planes of two images are compared and which SSIM is meant. All figures are
computed in float64 on planes in [0, 1], which changes none of them: the constants of SSIM scale
with the data range. MAE is the mean of ``|a - b|`` over those planes.

Where scikit-image and the papers' scripts differ is said at each protocol; the figures there were
measured on scikit-image's photographs astronaut, chelsea, coffee and rocket, 300×451 to 512×512
pixels, with noise of σ 3 and 10 (of 255) and with a blur of σ 1.5 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import skimage.metrics
from numpy.typing import NDArray

# Images first: it sets what OpenCV reads when it is imported.
from restormer_cli.images import Pixels

# isort: split
import cv2

from restormer_cli.errors import ImageError, UsageError

Planes = NDArray[np.float64]
"""``(H, W, C)`` in [0, 1]."""

WINDOW, SIGMA = 11, 1.5
BORDER = WINDOW // 2
UNIFORM_WINDOW = 7
K1, K2 = 0.01, 0.03

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


# --- metrics ------------------------------------------------------------------------------------


def psnr(result: Planes, target: Planes) -> float:
    """Peak signal-to-noise ratio in dB over all planes; infinite where nothing differs."""
    if np.array_equal(result, target):
        return math.inf
    return float(_skimage.peak_signal_noise_ratio(target, result, data_range=1))


def ssim_gaussian(result: Planes, target: Planes) -> float:
    """SSIM as in Wang's ``ssim_index.m``: Gaussian window, where it fits whole into the image.

    The mean over the planes. scikit-image gives it if asked for this window; what it does by
    default, see :func:`ssim_uniform`, comes out 0.002 lower to 0.03 higher.

    Raises
    ------
    ImageError
        If a side is shorter than the window, 11 pixels.
    """
    return float(np.mean(_gaussian_map(result, target)[BORDER:-BORDER, BORDER:-BORDER]))


def _gaussian_map(result: Planes, target: Planes) -> Planes:
    _check_size(target, WINDOW)
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
    """SSIM as scikit-image computes it by default: a uniform window of 7×7, sample covariance.

    Raises
    ------
    ImageError
        If a side is shorter than the window.
    """
    _check_size(target, UNIFORM_WINDOW)
    return float(_skimage.structural_similarity(target, result, data_range=1, channel_axis=2))


def ssim_volume(result: Planes, target: Planes) -> float:
    """SSIM as MATLAB's own ``ssim`` computes it for an array of H×W×3.

    MATLAB takes the array for a volume: the Gaussian window is 11×11×11, so it runs across the
    channels too, and whatever lies outside repeats the nearest sample. Every voxel counts.
    scikit-image has no such mode (it wants 11 channels).
    """
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


def _check_size(planes: Planes, window: int) -> None:
    height, width = planes.shape[:2]
    if min(height, width) < window:
        raise ImageError(
            f"{width}×{height} pixels are too few for SSIM, whose window is {window}×{window}"
        )


# --- protocols ----------------------------------------------------------------------------------


def _measure_aligned(result: Planes, target: Planes) -> Metrics:
    """RealBlur: match the brightness, align by a homography, compare where both have pixels."""
    _check_size(target, WINDOW)
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
    """Bring a result to where its target is, as the RealBlur benchmark does.

    The result is scaled so that its squared distance to the target is least, then warped by the
    homography that maximises the enhanced correlation coefficient of the gray images
    (``cv2.findTransformECC``: 100 iterations, Gaussian of 5×5).

    Returns
    -------
    ndarray
        Result, target and mask ``(H, W, C)``; the first two are 0 where the mask is 0.

    Raises
    ------
    ImageError
        If the images cannot be aligned, having nothing in common or no structure at all.
    """
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


@dataclass(frozen=True)
class Protocol:
    """How one benchmark compares two images."""

    name: str
    planes: Callable[[Pixels], Planes] = rgb_planes
    ssim: Callable[[Planes, Planes], float] = ssim_gaussian
    measure: Callable[[Planes, Planes], Metrics] | None = None
    """Does it all, where PSNR and SSIM of the planes are not what is wanted."""

    def compare(self, result: Pixels, target: Pixels) -> Metrics:
        """Compare two images as they lie in files, of 8 or 16 bit.

        Raises
        ------
        ImageError
            If they differ in size or channels, or are too small for this protocol.
        """
        if result.shape[:2] != target.shape[:2]:
            sizes = " against ".join(f"{p.shape[1]}×{p.shape[0]}" for p in (result, target))
            raise ImageError(f"the result differs in size from its target ({sizes})")
        a, b = self.planes(result), self.planes(target)
        if a.shape != b.shape:
            kinds = ["gray" if p.shape[2] == 1 else "in colour" for p in (result, target)]
            raise ImageError(f"the result is {kinds[0]}, its target {kinds[1]}")
        return self.compare_planes(a, b)

    def compare_planes(self, result: Planes, target: Planes) -> Metrics:
        """Compare planes in [0, 1] that need not be multiples of 1/255."""
        if self.measure is not None:
            return self.measure(result, target)
        return Metrics(
            psnr(result, target), self.ssim(result, target), float(np.mean(np.abs(result - target)))
        )


#: Sources: the evaluation scripts of the Restormer repository (``Deraining``, ``Denoising``,
#: ``Motion_Deblurring``, ``Defocus_Deblurring``) and of the RealBlur benchmark.
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            # Gaussian colour denoising: the paper reports PSNR alone, which everyone computes
            # alike. This SSIM is the one that is usual beside it.
            Protocol("rgb"),
            # Deraining. Of luma that was not rounded, PSNR comes out 0.01 to 0.03 dB higher near
            # 30 dB and 0.2 to 0.3 dB at 43 dB, SSIM up to 0.002. MATLAB's built-in ssim, which the
            # script does not call, counts the borders too and differs by up to 0.005.
            Protocol("y", y_plane),
            # Gaussian gray denoising; as with rgb.
            Protocol("gray", gray_plane),
            # GoPro and HIDE: the script calls MATLAB's psnr and ssim on uint8 RGB. PSNR is that
            # of scikit-image; SSIM is not: per channel it is 0.03 to 0.36 lower for the
            # photographs above, and with the official weights 0.950 instead of 0.961 on GoPro,
            # 0.935 instead of 0.942 on HIDE.
            Protocol("gopro", ssim=ssim_volume),
            # SIDD's validation blocks of 256×256, by the same two functions, but before the
            # result is rounded to 8 bit. DND's targets are not public: its server measures.
            Protocol("sidd", ssim=ssim_volume),
            # RealBlur-R and -J. scikit-image has the SSIM map; the mask and the mean over it are
            # the benchmark's.
            Protocol("realblur", measure=_measure_aligned),
            # DPDD. The script has 100 dB for equal images where this has infinity, and computes
            # in float32, which moves SSIM by less than 1e-6. Its single-image part reads the
            # 16-bit files as 8 bit (the upper byte), its dual-pixel part as they are.
            Protocol("dpdd", ssim=ssim_uniform),
        )
    }
)


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises
    ------
    UsageError
        If there is none.
    """
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise UsageError(f"no protocol {name!r}; there are {', '.join(PROTOCOLS)}") from None
