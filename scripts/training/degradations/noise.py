"""Gaussian noise, and noise as cameras make it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from degradations.images import (
    CLEAN_SHARE,
    LUMA,
    Curve,
    Image,
    by_curve,
    convolve,
    inverse_curve,
    jpeg,
    quantise,
    to_encoded,
    to_linear,
)

#: Share of Gaussian training samples whose noise is neither clipped nor rounded, as the papers'
#: tables have it. The rest is what an 8-bit file holds, which is what people restore.
FLOAT_NOISE_SHARE = 0.2
#: Shot noise, the variance at raw value 1 (range of Brooks et al.). On detailed photos this is a
#: PSNR of about 42 dB (a good camera) down to 20 dB (a phone at night); SIDD is at 24 dB.
SHOT_NOISE = (1e-4, 1.2e-2)
#: Read noise follows shot noise: log read = slope · log shot + offset, with this scatter
#: (Brooks et al., section 3.1).
READ_NOISE_SLOPE, READ_NOISE_OFFSET, READ_NOISE_SCATTER = 2.18, 1.20, 0.26
WHITE_BALANCE_GAIN = (1.2, 2.4)
EXPOSURE_GAIN = (0.8, 1.6)
#: How far a camera's colour matrix pulls the channels apart.
COLOUR_SEPARATION = (0.0, 0.8)
#: Share of noisy samples of a camera that renders by one of the measured responses, if they are at
#: hand; the others render as sRGB says.
RESPONSE_SHARE = 0.5
#: Share of noisy samples that the camera has smoothed already, by how much (σ in pixels), and how
#: many times wider in chroma: eyes forgive blotches of colour less than lost detail.
#: Neighbours in real cameras' files have a correlation of about 0.7; demosaicking alone makes 0.45,
#: a σ of 0.6 with it 0.7.
SMOOTHING_SHARE, SMOOTHING, CHROMA_SMOOTHING = 0.7, (0.3, 1.8), (1.0, 3.0)
#: Share of clean photos that are rendered from a mosaic first. The others keep the network fit for
#: photos that were reduced.
DEMOSAICKED_SHARE = 0.5
JPEG_SHARE, JPEG_QUALITY = 0.4, (60, 100)


def gaussian_noise(clean: Image, rng: np.random.Generator, sigma: float, in_file: bool) -> Image:
    """Add white Gaussian noise of standard deviation ``sigma`` (in 8-bit grey levels).

    ``clean`` may have any number of channels, ``(H, W, C)``.
    """
    noise = rng.standard_normal(clean.shape, dtype=np.float32)
    noisy = clean + noise * np.float32(sigma / 255)
    return quantise(noisy) if in_file else noisy


def blind_gaussian(clean: Image, rng: np.random.Generator) -> Image:
    """Gaussian noise of a random strength, σ from 0 to 50, mostly as an 8-bit file holds it."""
    sigma = rng.uniform(0, 50)
    return gaussian_noise(clean, rng, sigma, in_file=rng.random() >= FLOAT_NOISE_SHARE)


# --- Camera noise ---------------------------------------------------------------------------


def typical_read_noise(shot: float) -> float:
    """The read noise variance that goes with a shot noise, both at raw values in [0, 1]."""
    if shot == 0:
        return 0.0
    return float(np.exp(READ_NOISE_SLOPE * np.log(shot) + READ_NOISE_OFFSET))


def random_development(rng: np.random.Generator) -> Image:
    """A camera's way from raw RGB to linear sRGB, ``(3, 3)``: exposure, white balance, colours."""
    separation = rng.uniform(*COLOUR_SEPARATION)
    # Rows of the colour matrix add up to 1, so that gray stays gray.
    matrix = (1 + separation) * np.eye(3) - separation / 3
    gains = np.array([rng.uniform(*WHITE_BALANCE_GAIN), 1.0, rng.uniform(*WHITE_BALANCE_GAIN)])
    gains *= rng.uniform(*EXPOSURE_GAIN)
    return (matrix * gains).astype(np.float32)


def undevelop(linear: Image, develop: Image) -> Image:
    """The raw RGB ``(H, W, 3)``, 0 or more, that is developed to ``linear``."""
    return np.maximum(linear @ np.linalg.inv(develop).T, 0)


def demosaicked(clean: Image, rng: np.random.Generator) -> Image:
    """``(H, W, 3)`` as a camera without noise renders it from a Bayer mosaic, edge-aware."""
    develop = random_development(rng)
    # The mosaic begins with any of its four colours; borders are made up, and cut off again.
    top, left = rng.integers(4, 6, size=2)
    padded = cv2.copyMakeBorder(clean, top, 4, left, 4, cv2.BORDER_REFLECT_101)
    raw = undevelop(to_linear(padded), develop)
    mosaic = raw[..., 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = raw[::2, ::2, 0], raw[1::2, 1::2, 2]
    scale = np.float32(65535) / max(float(mosaic.max()), 1e-6)
    digits = np.rint(mosaic * scale).astype(np.uint16)
    filled = cv2.cvtColor(digits, cv2.COLOR_BayerRGGB2RGB_EA).astype(np.float32) / scale
    inside = filled[top : top + clean.shape[0], left : left + clean.shape[1]]
    return quantise(to_encoded(inside @ develop.T))


def camera_rendering(clean: Image, rng: np.random.Generator) -> Image:
    """What remains of ``(H, W, 3)`` without noise: itself, or :func:`demosaicked`.

    Camera files hold the artefacts of demosaicking, at edges above all, and so does the mean of
    many shots, which benchmarks take for the truth. They are no noise.
    """
    return demosaicked(clean, rng) if rng.random() < DEMOSAICKED_SHARE else clean


def demosaic_bilinear(mosaic: Image, green: Image, red: Image) -> Image:
    """Fill in a Bayer mosaic ``(H, W)`` to ``(H, W, 3)``, each value the mean of its neighbours.

    ``green`` and ``red`` mark with 1 the pixels that see these colours; the rest see blue.
    """
    cross = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
    square = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4
    blue = 1 - green - red
    return np.dstack(
        [
            convolve(mosaic * red, square),
            convolve(mosaic * green, cross),
            convolve(mosaic * blue, square),
        ]
    )


def camera_noise(
    clean: Image,
    rng: np.random.Generator,
    shot: float,
    read: float | None = None,
    smoothing: float = 0.0,
    chroma_smoothing: float = 1.0,
    response: Curve | None = None,
) -> Image:
    """Noise as a camera makes it, ``(H, W, 3)`` to the same shape, 8-bit.

    Shot and read noise of variance ``shot · raw + read`` in the Bayer mosaic of a camera with
    random exposure, white balance and colour matrix, demosaicked and developed to sRGB (Brooks
    et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019). ``read`` is by default
    what goes with ``shot``; ``smoothing`` is the σ in pixels of a smoothing by the camera, and
    ``chroma_smoothing`` how many times wider it smooths chroma, which leaves coarse blotches. It
    renders by its ``response``, by default the curve of sRGB.
    """
    read = typical_read_noise(shot) if read is None else read
    develop = random_development(rng)
    linear = to_linear(clean) if response is None else by_curve(clean, inverse_curve(response))
    raw = undevelop(linear, develop)
    rows, columns = np.ogrid[: clean.shape[0], : clean.shape[1]]
    top, left = rng.integers(2, size=2)
    green = ((rows + columns + top + left) % 2).astype(np.float32)
    red = (((rows + top) % 2 == 0) & ((columns + left) % 2 == 0)).astype(np.float32)
    seen = np.dstack([red, green, 1 - red - green])
    mosaic = (raw * seen).sum(axis=-1)

    # Only the noise goes through this demosaicking. It is linear, so this is the demosaicked
    # noisy mosaic less the demosaicked clean one. Had the image gone through it too, it would
    # come out softer than the target, and the network would learn to sharpen.
    deviation = np.sqrt(np.float32(shot) * mosaic + np.float32(read))
    deviation[(clean * seen).max(axis=-1) == 1] = 0  # saturated
    noise = deviation * rng.standard_normal(mosaic.shape, dtype=np.float32)
    noise = demosaic_bilinear(noise, green, red) @ develop.T
    if smoothing:
        luma = (noise @ LUMA)[..., None]
        chroma = cv2.GaussianBlur(noise - luma, (0, 0), smoothing * chroma_smoothing)
        noise = cv2.GaussianBlur(luma, (0, 0), smoothing)[..., None] + chroma
    noisy = linear + noise
    return quantise(to_encoded(noisy) if response is None else by_curve(noisy, response))


def blind_camera_noise(
    clean: Image, rng: np.random.Generator, responses: NDArray[np.float64] | None = None
) -> Image:
    """Camera noise from next to none to that of a phone at night, sometimes saved as JPEG.

    ``responses`` are measured ones, a :data:`Curve` in each row.
    """
    if rng.random() < CLEAN_SHARE:
        return quantise(clean)
    shot = float(np.exp(rng.uniform(*np.log(SHOT_NOISE))))
    smoothing = rng.uniform(*SMOOTHING) if rng.random() < SMOOTHING_SHARE else 0.0
    read = typical_read_noise(shot) * float(np.exp(READ_NOISE_SCATTER * rng.standard_normal()))
    # Cameras smooth what is noisy: what they leave is coarse, but not always weak. Smoothing
    # divides the variance of white noise by 4πσ²; this one is no longer white.
    before = (1 + 4 * smoothing**2) ** rng.uniform(0, 1)
    shot, read = shot * before, read * before
    chroma, response = rng.uniform(*CHROMA_SMOOTHING), None
    measured, index = rng.random() < RESPONSE_SHARE, rng.random()
    if measured and responses is not None:
        response = responses[int(index * len(responses))]
    noisy = camera_noise(clean, rng, shot, read, smoothing, chroma, response)
    if rng.random() < JPEG_SHARE:
        return jpeg(noisy, rng, int(rng.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1)))
    return noisy
