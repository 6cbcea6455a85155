"""Motion blur by kernels that vary over the image, to measure on, and on single photos."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from degradations.images import (
    Image,
    convolve,
    smooth_field,
    to_encoded,
    to_linear,
    unclip_highlights,
)
from degradations.noise import gaussian_noise
from degradations.shake import random_sample, shake

#: Points of a camera's path.
PATH_POINTS = 96


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
    """A blur of :mod:`degradations.shake`, which makes batches of squares for training."""
    margin, (height, width) = 32, clean.shape[:2]
    bottom, right = (max(height, width) - length + margin for length in (height, width))
    padded = cv2.copyMakeBorder(clean, margin, bottom, margin, right, cv2.BORDER_REFLECT_101)
    crop = torch.from_numpy(np.rint(255 * padded).astype(np.uint8)).permute(2, 0, 1)[None]
    noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
    blurred, _ = shake(crop, [random_sample(rng)], noise, margin)
    return blurred[0, :, :height, :width].permute(1, 2, 0).contiguous().numpy()
