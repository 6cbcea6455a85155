"""Rain streaks and the veil of distant rain."""

from __future__ import annotations

import numpy as np

from degradations.images import CLEAN_SHARE, Image, convolve, quantise, smooth_field

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
