#!/usr/bin/env python3
"""How clean photos become the degraded ones that the compact networks learn from.

Every degradation is a function ``(clean, rng, ...) -> degraded``. ``clean`` is float32
``(H, W, 3)`` RGB in [0, 1], encoded in sRGB as files are, height and width 32 or more; the result
is float32 of the same height and width. All randomness comes from ``rng``, so a seed fixes the
result.

Each kind comes twice: a function with its strength as parameters, where strength 0 gives the
clean image back, for validation; and a ``blind_`` one that draws the strength, for training,
and sometimes draws none, because a network that never saw a good photo harms it.

Look at them all: ``degradations.py --photos DIR --sheet FILE.png``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from shake import random_sample, shake

Image = NDArray[np.float32]
#: A camera response, light to encoded value: samples over an even grid, both from 0 to 1.
Curve = NDArray[np.float64]
Degradation = Callable[[Image, np.random.Generator], Image]

#: Files of a folder that are taken for clean photos.
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})

#: Share of training samples that come back as they are. Gaussian noise needs none: its σ is
#: drawn from 0 up.
CLEAN_SHARE = 0.05

#: Share of Gaussian training samples whose noise is neither clipped nor rounded, as the papers'
#: tables have it. The rest is what an 8-bit file holds, which is what people restore.
FLOAT_NOISE_SHARE = 0.2

#: Weights of R, G and B in gray (ITU-R BT.601), as the gray benchmarks are made.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

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

#: Typical width and length of a layer's streaks in pixels, and the least length in widths: shorter
#: ones would be snow. Drops near the camera leave wide ones.
STREAK_WIDTH, STREAK_LENGTH, STREAK_ASPECT = (0.8, 4.0), (12.0, 100.0), 8.0
#: The exponent of a streak's super-Gaussian profile (2 is a Gaussian, larger is nearly a bar), and
#: the share of its length that it fades over at each end.
STREAK_FLATNESS, STREAK_FADE = (2.0, 6.0), (0.05, 0.4)
#: Streaks of one layer differ: so many kinds, with this scatter of angle (degrees), and of length
#: and width (shares).
STREAK_KINDS, STREAK_ANGLES, STREAK_SIZES = 3, 2.0, 0.3
#: Largest typical angle of rain from the vertical, in degrees.
RAIN_SLANT = 45.0
#: Share of rainy samples under a veil, and the share of light it holds at most.
HAZE_SHARE, HAZE = 0.3, 0.25

#: Points of a camera's path.
PATH_POINTS = 96

#: Largest radius of the circle of confusion, in pixels, and the power of a uniform draw that makes
#: small ones more frequent: of slight defocus most can be won back.
DEFOCUS_RADIUS, DEFOCUS_POWER = 8.0, 1.5
#: Width of the disk's edge, in pixels.
DISK_EDGE = (1.0, 2.5)
#: Defocus is sampled at most this finely (pixels of radius) and at about this many levels.
DEFOCUS_STEP, DEFOCUS_LEVELS = 1.0, 7
#: Half-width of the line that parts the two halves of a pixel's view, as a share of the radius:
#: micro-lenses do not split the lens sharply.
SPLIT_SOFTNESS = (0.05, 0.6)

#: How much brighter than white a clipped highlight may have been.
HIGHLIGHT_GAIN = 4.0
#: Strongest noise that goes with blur, in 8-bit grey levels.
BLUR_NOISE = 2.0


# --- What they share ------------------------------------------------------------------------


def quantise(image: Image, levels: int = 255) -> Image:
    """Clip to [0, 1] and round to ``levels`` steps, as saving to a file does."""
    return (np.rint(np.clip(image, 0, 1) * np.float32(levels)) / np.float32(levels)).astype(
        np.float32
    )


def unchanged(clean: Image, rng: np.random.Generator) -> Image:
    """The clean photo itself, ``(H, W, C)``: shows what a network does to what needs nothing."""
    return clean.copy()


def to_gray(image: Image) -> Image:
    """RGB ``(H, W, 3)`` to gray ``(H, W, 1)``, by BT.601 and rounded to 8 bits like a file."""
    return quantise((image @ LUMA)[..., None])


def to_linear(encoded: Image) -> Image:
    """sRGB values in [0, 1] to linear light in [0, 1] (IEC 61966-2-1)."""
    low = encoded / np.float32(12.92)
    high = ((np.maximum(encoded, 0) + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.where(encoded <= 0.04045, low, high).astype(np.float32)


def to_encoded(linear: Image) -> Image:
    """Linear light, clipped to [0, 1], to sRGB values in [0, 1] (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    high = np.float32(1.055) * linear ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(linear <= 0.0031308, linear * np.float32(12.92), high).astype(np.float32)


def by_curve(image: Image, curve: Curve) -> Image:
    """Values in [0, 1], clipped to it, by a ``curve`` over an even grid."""
    grid = np.linspace(0, 1, len(curve))
    return np.interp(np.clip(image, 0, 1), grid, curve).astype(np.float32)


def inverse_curve(curve: Curve) -> Curve:
    """The inverse of a rising ``curve`` over an even grid, over the same grid."""
    grid = np.linspace(0, 1, len(curve))
    return np.interp(grid, curve, grid)


def convolve(image: Image, kernel: Image) -> Image:
    """Convolve ``(H, W)`` or ``(H, W, C)`` with an odd-sized kernel, borders reflected."""
    # OpenCV correlates, so the kernel is turned around.
    return cv2.filter2D(image, -1, kernel[::-1, ::-1], borderType=cv2.BORDER_REFLECT_101)


def smooth_field(shape: tuple[int, ...], rng: np.random.Generator, scale: float) -> Image:
    """A random smooth map ``(H, W)`` of mean 0 and variance 1 with features of ``scale`` pixels.

    A sum of plane waves, so that it costs the same at any scale and has no grid.
    """
    waves = 8
    y, x = np.ogrid[: shape[0], : shape[1]]
    frequency = (rng.standard_normal((waves, 2, 1, 1)) / scale).astype(np.float32)
    phase = rng.uniform(0, 2 * np.pi, (waves, 1, 1)).astype(np.float32)
    angle = frequency[:, 0] * y.astype(np.float32) + frequency[:, 1] * x.astype(np.float32) + phase
    return np.float32(np.sqrt(2 / waves)) * np.cos(angle).sum(axis=0)


def unclip_highlights(linear: Image, rng: np.random.Generator) -> Image:
    """Give clipped highlights of linear ``(H, W, 3)`` a random brightness above 1.

    A lamp that is white in the photo was many times brighter in the scene, and blurs into a
    bright trace or disk, which a blur of the clipped value would leave gray.
    """
    gain = rng.uniform(0, HIGHLIGHT_GAIN)
    # Channel by channel, and only above grey level 254: clipping the result gives back a pixel
    # that is not blurred.
    whitest = to_linear(np.float32([254 / 255]))
    clipped = np.clip((linear - whitest) / (1 - whitest), 0, 1)
    return linear * (1 + np.float32(gain) * clipped)


def jpeg(image: Image, rng: np.random.Generator, quality: int) -> Image:
    """Save ``(H, W, 3)`` as JPEG of ``quality`` (1 to 100) and read it back."""
    # Crops of a file start anywhere in its grid of 8×8 blocks.
    top, left = rng.integers(8, size=2)
    padded = cv2.copyMakeBorder(image, top, 0, left, 0, cv2.BORDER_REFLECT_101)
    sampling = (
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    )[rng.integers(2)]
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    pixels = np.rint(np.clip(padded, 0, 1) * 255).astype(np.uint8)
    _, file = cv2.imencode(".jpg", pixels[..., ::-1], settings)
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR)[top:, left:, ::-1]
    return decoded.astype(np.float32) / np.float32(255)


# --- Gaussian noise -------------------------------------------------------------------------


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


# --- Rain -----------------------------------------------------------------------------------


def streak_kernel(
    angle: float, length: float, width: float, flatness: float = 2.0, fade: float = 0.25
) -> Image:
    """The trace of one drop, peak 1, odd and square: ``angle`` in degrees from the vertical.

    ``flatness`` is that of its profile (2 is a Gaussian, larger is a bar), ``fade`` the share of
    the length over which each end fades.
    """
    half = int(np.ceil(length / 2 + width))
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    along, across = x * sine + y * cosine, x * cosine - y * sine
    ends = np.clip((length / 2 - np.abs(along)) / (fade * length), 0, 1)
    profile = np.exp(-0.5 * np.abs(across / (0.5 * width)) ** flatness)
    return (ends * profile).astype(np.float32)


def streak_layer(
    shape: tuple[int, ...],
    rng: np.random.Generator,
    angle: float,
    length: float,
    width: float,
    coverage: float,
) -> Image:
    """Streaks of about one direction and size on black, ``(H, W)`` in [0, 1].

    ``coverage`` is the share of the image that they would cover if none lay over another.
    """
    flatness, fade = rng.uniform(*STREAK_FLATNESS), rng.uniform(*STREAK_FADE)
    layer = np.zeros(shape[:2], np.float32)
    for _ in range(STREAK_KINDS):
        longer, wider = rng.uniform(1 - STREAK_SIZES, 1 + STREAK_SIZES, 2)
        kernel = streak_kernel(
            angle + STREAK_ANGLES * rng.standard_normal(),
            longer * length,
            wider * width,
            flatness,
            fade,
        )
        # Streaks enter from outside the image too.
        pad = kernel.shape[0] // 2
        padded = (shape[0] + 2 * pad, shape[1] + 2 * pad)
        share = coverage / STREAK_KINDS / (longer * length * wider * width)
        drops = rng.random(padded, dtype=np.float32) < share
        brightness = rng.uniform(0.3, 1, padded).astype(np.float32)
        streaks = convolve(drops * brightness, kernel)
        layer += streaks[pad : pad + shape[0], pad : pad + shape[1]]
    return np.clip(layer, 0, 1)


def lighten(image: Image, share: Image, light: float) -> Image:
    """Move ``(H, W, C)`` towards ``light`` where it is darker, by ``share`` ``(H, W)``."""
    return image + share[..., None] * np.maximum(np.float32(light) - image, 0)


def rain(
    clean: Image, rng: np.random.Generator, amount: float, layers: int = 1, haze: float = 0.0
) -> Image:
    """Rain streaks over ``(H, W, 3)``, 8-bit; no pixel becomes darker.

    ``amount`` from 0 (none) over 0.1 (light, as Rain100L) to 1 (heavy, as Rain100H with several
    ``layers``; both: Yang et al., "Deep Joint Rain Detection and Removal from a Single Image",
    CVPR 2017) is shared by the layers. ``haze`` is the share of light in the veil of distant
    rain, at its thickest.
    """
    rainy = clean
    slant = rng.uniform(-RAIN_SLANT, RAIN_SLANT)
    for _ in range(layers if amount else 0):
        width = float(np.exp(rng.uniform(*np.log(STREAK_WIDTH))))
        length = float(np.exp(rng.uniform(*np.log(STREAK_LENGTH))))
        streaks = streak_layer(
            clean.shape,
            rng,
            # Heavy rain is blown about; light rain falls one way.
            angle=slant + 10 * amount * rng.standard_normal(),
            length=max(length, STREAK_ASPECT * width),
            width=width,
            coverage=0.9 * amount / layers,
        )
        streaks = streaks * np.float32(rng.uniform(0.3, 0.8))
        if rng.random() < 0.5:  # water in front of the scene hides it ...
            rainy = lighten(rainy, streaks, rng.uniform(0.8, 1))
        else:  # ... and adds its own light; data sets have either
            rainy = rainy + np.float32(0.6) * streaks[..., None]
    if haze:
        veil = np.clip(0.7 + 0.3 * smooth_field(clean.shape, rng, 150), 0, 1)
        rainy = lighten(rainy, np.float32(haze) * veil, rng.uniform(0.7, 0.95))
    return quantise(rainy)


def blind_rain(clean: Image, rng: np.random.Generator) -> Image:
    """Rain of a random amount, from none over light to heavy, sometimes with haze."""
    if rng.random() < CLEAN_SHARE:
        return quantise(clean)
    amount = rng.uniform(0.02, 1)
    # Light rain of many directions does not occur.
    layers = int(rng.integers(1, 2 + round(4 * amount)))
    haze = rng.uniform(0, HAZE) if rng.random() < HAZE_SHARE else 0.0
    return rain(clean, rng, amount, layers, haze)


# --- Motion blur ----------------------------------------------------------------------------


def camera_path(rng: np.random.Generator, extent: float) -> NDArray[np.float64]:
    """Where a shaken camera points during an exposure: ``(PATH_POINTS, 2)``, y and x in pixels.

    A random walk with inertia, from nearly straight to jittery, now and then with a jolt (after
    Boracchi and Foi, "Modeling the Performance of Image Restoration From Motion Blur", IEEE TIP
    2012). Its mean is 0, and the farthest that it goes from there is ``extent / 2``.
    """
    impulses = rng.standard_normal((PATH_POINTS, 2)) * np.exp(rng.uniform(-5, -1.5))
    angle = rng.uniform(0, 2 * np.pi)
    impulses[0] = np.sin(angle), np.cos(angle)
    if rng.random() < 0.15:
        impulses[rng.integers(PATH_POINTS // 4, PATH_POINTS)] += rng.standard_normal(2)
    age = np.subtract.outer(np.arange(PATH_POINTS), np.arange(PATH_POINTS))
    inertia = rng.uniform(0.95, 1)
    velocity = np.where(age >= 0, inertia ** np.maximum(age, 0), 0) @ impulses
    path = np.cumsum(velocity, axis=0)
    path -= path.mean(axis=0)
    return path * (extent / 2 / np.hypot(*path.T).max())


def path_kernel(path: NDArray[np.float64]) -> Image:
    """The blur kernel of a path ``(N, 2)`` around 0: sum 1, odd, square, centroid as the path's.

    A kernel that is not centred would shift the image, and the target would not lie under it.
    """
    half = int(np.ceil(np.abs(path).max())) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    corner = np.floor(path).astype(int)
    # Bilinear shares: they keep the centroid.
    below = path - corner
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.abs(1 - dy - below[:, 0]) * np.abs(1 - dx - below[:, 1])
            np.add.at(kernel, (corner[:, 0] + half + dy, corner[:, 1] + half + dx), share)
    return (kernel / len(path)).astype(np.float32)


def motion_blur(
    clean: Image,
    rng: np.random.Generator,
    extent: float,
    noise: float = 0.0,
    in_light: bool = True,
) -> Image:
    """Blur of a moving camera, ``(H, W, 3)`` to the same shape, 8-bit.

    ``extent`` is the diameter in pixels of the circle around its centroid that the kernel
    fills, ``noise`` a σ in 8-bit grey levels. The trace itself is often a little shorter.
    The kernel varies over the image, gently as from a camera that also turns, or abruptly as
    from things that move by themselves. ``in_light`` tells whether linear light is averaged,
    highlights above white included, or sRGB values.
    """
    if extent == 0:
        return gaussian_noise(clean, rng, noise, in_file=True)
    scene = unclip_highlights(to_linear(clean), rng) if in_light else clean
    first, other = camera_path(rng, extent), camera_path(rng, extent)
    change = rng.uniform(0, 0.6)
    steepness = np.exp(rng.uniform(np.log(0.3), np.log(8)))
    field = smooth_field(clean.shape, rng, rng.uniform(40, 200))
    place = np.clip(0.5 + np.float32(steepness) * field, 0, 1)
    blurred = np.zeros_like(scene)
    for at in (0, 0.5, 1):
        # A turning camera's path is linear in the place, so paths are mixed, not kernels.
        kernel = path_kernel((1 - change * at) * first + change * at * other)
        weight = np.maximum(1 - 2 * np.abs(place - np.float32(at)), 0)
        blurred += weight[..., None] * convolve(scene, kernel)
    return gaussian_noise(to_encoded(blurred) if in_light else blurred, rng, noise, in_file=True)


def blind_motion_blur(clean: Image, rng: np.random.Generator) -> Image:
    """One of the blurs of :mod:`shake`, which makes batches of squares for training."""
    margin, (height, width) = 32, clean.shape[:2]
    bottom, right = (max(height, width) - length + margin for length in (height, width))
    padded = cv2.copyMakeBorder(clean, margin, bottom, margin, right, cv2.BORDER_REFLECT_101)
    crop = torch.from_numpy(np.rint(255 * padded).astype(np.uint8)).permute(2, 0, 1)[None]
    noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
    blurred, _ = shake(crop, [random_sample(rng)], noise, margin)
    return blurred[0, :, :height, :width].permute(1, 2, 0).contiguous().numpy()


# --- Defocus --------------------------------------------------------------------------------


def disk_kernel(radius: float, edge: float = 1.0) -> Image:
    """A disk of ``radius`` pixels with an edge ``edge`` pixels wide: sum 1, odd and square."""
    half = int(np.ceil(radius + edge / 2))
    y, x = np.ogrid[-half : half + 1, -half : half + 1]
    disk = np.clip((radius - np.hypot(y, x)) / edge + 0.5, 0, 1)
    return (disk / disk.sum()).astype(np.float32)


def half_disk_kernel(defocus: float, edge: float = 1.0, softness: float = 0.1) -> Image:
    """What the left half of each pixel sees of a point; the right sees ``-defocus``.

    ``defocus`` is the disk's radius in pixels, negative in front of the plane of focus, where
    the halves change sides. The two add up to twice the disk (Punnappurath et al., "Modeling
    Defocus-Disparity in Dual-Pixel Sensors", ICCP 2020); ``softness`` is the half-width of the
    line between them, as a share of the radius.
    """
    disk = disk_kernel(abs(defocus), edge)
    half = disk.shape[1] // 2
    x = np.arange(-half, half + 1, dtype=np.float32)
    return disk * (1 - np.clip(x / max(softness * abs(defocus), 1e-3), -1, 1) * np.sign(defocus))


def defocus_map(clean: Image, rng: np.random.Generator, radius: float) -> Image:
    """A random map ``(H, W)`` of signed disk radii, negative in front of the plane of focus.

    Piecewise smooth, as depth is; its largest magnitude is ``radius`` pixels.
    """
    shape = clean.shape
    depth = rng.uniform(0, 0.6) * smooth_field(shape, rng, rng.uniform(60, 200))
    luma = cv2.GaussianBlur(clean @ LUMA, (0, 0), 4.0)
    luma = (luma - luma.mean()) / (luma.std() + np.float32(0.01))
    for _ in range(rng.integers(3)):
        # Objects end where the image has edges more often than elsewhere.
        field = smooth_field(shape, rng, rng.uniform(25, 100)) + rng.uniform(-0.7, 0.7) * luma
        depth = depth + rng.normal() * (field > rng.normal())
    focus = rng.normal()
    depth = depth - focus
    return (depth * (radius / max(float(np.abs(depth).max()), 1e-6))).astype(np.float32)


def blur_by_map(linear: Image, defocus: Image, kernel: Callable[[float], Image]) -> Image:
    """Blur ``(H, W, 3)`` by the ``kernel`` of each pixel's entry in ``defocus`` ``(H, W)``.

    The scene is laid down in layers from far to near. Each covers those behind it as its own
    blur spreads, so a sharp edge in front of a soft background stays sharp, and a soft one in
    front of a sharp background does not end abruptly.
    """
    peak = max(float(np.abs(defocus).max()), 1e-6)
    # The strongest blur is a level, so that no disk is larger than the largest of the map.
    step = peak / np.ceil(peak / max(DEFOCUS_STEP, float(np.ptp(defocus)) / DEFOCUS_LEVELS))
    defocus = defocus / np.float32(step)
    reach = 2 * int(np.ceil(peak)) + 3
    result: Image | None = None
    for level in range(int(np.ceil(defocus.max())), int(np.floor(defocus.min())) - 1, -1):
        covering = np.clip(level + 1 - defocus, 0, 1)  # this layer and all in front of it
        own = covering * np.clip(defocus - level + 1, 0, 1)
        if not own.any():
            continue
        layers = np.dstack([linear * own[..., None], own, covering])
        # A soft thing in front shows some of what it hides, which is filled in from this layer's
        # surroundings.
        fill = cv2.blur(layers[..., :4], (reach, reach), borderType=cv2.BORDER_REFLECT_101)
        if level:
            layers = convolve(layers, kernel(level * step))
        mixed = layers[..., :4] + np.float32(1e-3) * fill
        colour = (mixed[..., :3] + np.float32(1e-6) * linear) / (mixed[..., 3:] + np.float32(1e-6))
        cover = layers[..., 4:]
        result = colour if result is None else result + cover * (colour - result)
    assert result is not None
    return result


def random_radius(rng: np.random.Generator) -> float:
    """Radius in pixels of the largest circle of confusion of a training sample."""
    return DEFOCUS_RADIUS * float(rng.random()) ** DEFOCUS_POWER


def _lens_and_scene(
    clean: Image, rng: np.random.Generator, radius: float
) -> tuple[Image, Image, float]:
    """Linear scene ``(H, W, 3)``, defocus map ``(H, W)`` and edge width, alike for all views."""
    scene = unclip_highlights(to_linear(clean), rng)
    return scene, defocus_map(clean, rng, radius), rng.uniform(*DISK_EDGE)


def defocus_blur(
    clean: Image, rng: np.random.Generator, radius: float, noise: float = 0.0
) -> Image:
    """Blur of things out of focus, ``(H, W, 3)`` to the same shape, 8-bit.

    ``radius`` is that of the largest circle of confusion, in pixels; ``noise`` a σ in 8-bit grey
    levels. Depth varies over the image at random.
    """
    if radius == 0:
        return gaussian_noise(clean, rng, noise, in_file=True)
    scene, defocus, edge = _lens_and_scene(clean, rng, radius)
    blurred = blur_by_map(scene, defocus, lambda signed: disk_kernel(abs(signed), edge))
    return gaussian_noise(to_encoded(blurred), rng, noise, in_file=True)


def blind_defocus_blur(clean: Image, rng: np.random.Generator) -> Image:
    """Defocus of a random radius, 0 to :data:`DEFOCUS_RADIUS`, slightly noisy, or none."""
    if rng.random() < CLEAN_SHARE:
        return quantise(clean)
    return defocus_blur(clean, rng, random_radius(rng), noise=rng.uniform(0, BLUR_NOISE))


def dual_pixel(clean: Image, rng: np.random.Generator, radius: float, noise: float = 0.0) -> Image:
    """The views of a dual-pixel sensor: ``(H, W, 3)`` to ``(H, W, 6)``, left then right, 16-bit.

    Of the scene that :func:`defocus_blur` shows for the same ``rng``, each view gets the light
    of one half of the lens, so their mean in linear light is the defocused image (Abuolaim and
    Brown, "Defocus Deblurring Using Dual-Pixel Data", ECCV 2020). ``radius`` and ``noise`` as
    there; the noise of the views is independent.
    """
    left = right = clean
    if radius:
        scene, defocus, edge = _lens_and_scene(clean, rng, radius)
        softness = rng.uniform(*SPLIT_SOFTNESS)
        left, right = (
            to_encoded(blur_by_map(scene, defocus, half))
            for half in (
                lambda signed: half_disk_kernel(signed, edge, softness),
                lambda signed: half_disk_kernel(-signed, edge, softness),
            )
        )
    views = gaussian_noise(np.dstack([left, right]), rng, noise, in_file=False)
    return quantise(views, 65535)


def blind_dual_pixel(clean: Image, rng: np.random.Generator) -> Image:
    """Dual-pixel views of a random defocus, 0 to :data:`DEFOCUS_RADIUS`, or two sharp ones."""
    if rng.random() < CLEAN_SHARE:
        return dual_pixel(clean, rng, radius=0)
    return dual_pixel(clean, rng, random_radius(rng), noise=rng.uniform(0, BLUR_NOISE))


# --- To look at -----------------------------------------------------------------------------

SHEET_ROWS: dict[str, Degradation] = {
    "Gaussian noise": blind_gaussian,
    "Gaussian, gray": lambda clean, rng: blind_gaussian(to_gray(clean), rng),
    "camera noise": blind_camera_noise,
    "rain": blind_rain,
    "motion blur": blind_motion_blur,
    "defocus": blind_defocus_blur,
    "dual pixel, left": lambda clean, rng: blind_dual_pixel(clean, rng)[..., :3],
    "dual pixel, right": lambda clean, rng: blind_dual_pixel(clean, rng)[..., 3:],
}


def contact_sheet(crops: list[Image], columns: int = 5, seed: int = 0) -> NDArray[np.uint8]:
    """A row for each degradation of :data:`SHEET_ROWS`: the clean crop, then ``columns`` seeds.

    ``crops`` are clean squares ``(S, S, 3)`` of one size, taken in turn; rows of dual-pixel
    views share one. Returns RGB ``(rows · S, (columns + 1) · S, 3)``.
    """
    rows = []
    names = [name.split(",")[0] for name in SHEET_ROWS]
    for name, degrade in SHEET_ROWS.items():
        clean = crops[names.index(name.split(",")[0]) % len(crops)]
        cells = [clean] + [
            degrade(clean, np.random.default_rng([seed, column])) for column in range(columns)
        ]
        cells = [np.broadcast_to(cell, clean.shape) for cell in cells]
        row = np.rint(255 * np.clip(np.hstack(cells), 0, 1)).astype(np.uint8)
        row[:24, : 10 * len(name) + 8] //= 4
        cv2.putText(row, name, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
        rows.append(row)
    return np.vstack(rows)


def _most_detailed_crop(path: Path, size: int) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None or min(image.shape[:2]) < size:
        raise SystemExit(f"{path}: not a readable photo of {size} pixels or more")
    detail = np.abs(cv2.Laplacian(image[..., 1], cv2.CV_32F))
    mean = cv2.boxFilter(detail, -1, (size, size), anchor=(0, 0))
    mean = mean[: image.shape[0] - size + 1, : image.shape[1] - size + 1]
    top, left = np.unravel_index(mean.argmax(), mean.shape)
    crop = image[top : top + size, left : left + size]
    return crop.astype(np.float32) / np.float32(255)


def main() -> None:
    """Write the contact sheet."""
    parser = argparse.ArgumentParser(description="Show the degradations on a contact sheet.")
    parser.add_argument("--photos", type=Path, required=True, help="folder of clean photos")
    parser.add_argument("--sheet", type=Path, required=True, metavar="FILE.png", help="result")
    parser.add_argument("--columns", type=int, default=5, help="seeds to show (default 5)")
    parser.add_argument("--size", type=int, default=256, help="side of a crop (default 256)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    photos = sorted(p for p in arguments.photos.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)
    if not photos:
        parser.error(f"no photos in {arguments.photos}")
    count = min(len(photos), len(SHEET_ROWS))
    chosen = np.random.default_rng(arguments.seed).choice(len(photos), count, replace=False)
    crops = [_most_detailed_crop(photos[index], arguments.size) for index in chosen]
    sheet = contact_sheet(crops, arguments.columns, arguments.seed)
    if not cv2.imwrite(str(arguments.sheet), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise SystemExit(f"{arguments.sheet}: could not be written")


if __name__ == "__main__":
    main()
