"""Defocus, as one sensor sees it and as the two views of a dual-pixel sensor."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from degradations.images import (
    CLEAN_SHARE,
    LUMA,
    Image,
    convolve,
    quantise,
    smooth_field,
    to_encoded,
    to_linear,
    unclip_highlights,
)
from degradations.noise import gaussian_noise

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
#: Strongest noise that goes with blur, in 8-bit grey levels.
BLUR_NOISE = 2.0


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
