"""What each compact network learns, from what, for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import degradations as deg
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Recipe:
    """How one compact network is trained."""

    options: str
    """Name of the YAML file in ``Options/`` that holds its hyper-parameters."""
    degrade: deg.Degradation
    validate: dict[str, deg.Degradation]
    """Named, fixed degradations whose PSNR on held-out photos is the learning curve."""
    steps: int = 12_000
    batch: int = 16
    patch: int = 64
    rate: float = 1e-3
    margin: int = 0
    """Pixels around the patch that are degraded with it and cut off: what blurs into it."""
    prepare: deg.Degradation | None = None
    """Makes the target ``(H, W, C)`` of a clean RGB patch, if that is not the target itself."""

    def with_margin(self, size: int) -> int:
        """Side of the crop that a patch of ``size`` pixels is made from."""
        return size + 2 * self.margin

    def pair(
        self, crop: NDArray[np.uint8], rng: np.random.Generator, degrade: deg.Degradation
    ) -> tuple[deg.Image, deg.Image]:
        """Degraded and clean patch of a clean crop, which is larger by the margin all around."""
        clean = crop.astype(np.float32) / np.float32(255)
        if self.prepare:
            clean = self.prepare(clean, rng)
        degraded = degrade(clean, rng)
        inside = slice(self.margin, crop.shape[0] - self.margin)
        return degraded[inside, inside], clean[inside, inside]


def _fixed(function: Callable[..., deg.Image], **strength: float) -> deg.Degradation:
    return lambda clean, rng: function(clean, rng, **strength)


_GAUSSIAN = {f"sigma{s}": _fixed(deg.gaussian_noise, sigma=s, in_file=True) for s in (15, 25, 50)}

RECIPES = {
    "denoise_color": Recipe(
        options="compact_denoise_color",
        degrade=deg.blind_gaussian,
        validate=_GAUSSIAN,
    ),
    "denoise_gray": Recipe(
        options="compact_denoise_gray",
        degrade=deg.blind_gaussian,
        validate=_GAUSSIAN,
        prepare=lambda clean, rng: deg.to_gray(clean),
    ),
    "denoise_real": Recipe(
        options="compact_denoise_real",
        degrade=deg.blind_camera_noise,
        validate={
            "clean": deg.unchanged,
            "mild": _fixed(deg.camera_noise, shot=5e-4, smoothing=0.6),
            # as PolyU and CC
            "smoothed": _fixed(deg.camera_noise, shot=4e-3, smoothing=1, chroma_smoothing=2.5),
            "strong": _fixed(deg.camera_noise, shot=6e-3),  # as SIDD
        },
        prepare=deg.camera_rendering,
    ),
    "derain": Recipe(
        options="compact_derain",
        degrade=deg.blind_rain,
        validate={
            "clean": deg.unchanged,
            "light": _fixed(deg.rain, amount=0.1),  # as Rain100L
            "heavy": _fixed(deg.rain, amount=1, layers=5),  # as Rain100H
        },
        # Streaks are long, and what is no streak shows in their surroundings.
        batch=8,
        patch=96,
    ),
    # Blur is undone from a wider view than noise, so patches are larger and fewer.
    "deblur_motion": Recipe(
        options="compact_deblur_motion",
        degrade=deg.blind_motion_blur,
        validate={
            "sharp": deg.unchanged,
            "extent2": _fixed(deg.motion_blur, extent=2, noise=1),
            "extent8": _fixed(deg.motion_blur, extent=8, noise=1),
            "extent20": _fixed(deg.motion_blur, extent=20, noise=1),
        },
        batch=8,
        patch=96,
        margin=16,
    ),
    "deblur_defocus": Recipe(
        options="compact_deblur_defocus",
        degrade=deg.blind_defocus_blur,
        validate={
            "sharp": deg.unchanged,
            "radius2": _fixed(deg.defocus_blur, radius=2, noise=1),
            "radius6": _fixed(deg.defocus_blur, radius=6, noise=1),
        },
        batch=8,
        patch=96,
        margin=12,
    ),
    "dual_pixel": Recipe(
        options="compact_dual_pixel",
        degrade=deg.blind_dual_pixel,
        validate={
            "sharp": _fixed(deg.dual_pixel, radius=0),
            "radius2": _fixed(deg.dual_pixel, radius=2, noise=1),
            "radius6": _fixed(deg.dual_pixel, radius=6, noise=1),
        },
        batch=8,
        patch=96,
        margin=12,
    ),
}
