"""What each compact network learns, from what, for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import losses
import numpy as np
from degradations import defocus, films, motion, noise, rain
from degradations.images import Degradation, Image, to_gray, unchanged
from degradations.shake import Shaking
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class TrainingRecipe:
    """How one compact network is trained."""

    options: str
    """Name of the YAML file in ``Options/`` that holds its hyper-parameters."""
    degrade: Degradation | Shaking
    """Makes the degraded patch of a clean one, or draws what becomes of it in its batch."""
    validate: dict[str, Degradation]
    """Named, fixed degradations whose PSNR on held-out photos is the learning curve."""
    steps: int = 12_000
    batch: int = 16
    patch: int = 64
    rate: float = 1e-3
    margin: int = 0
    """Pixels around the patch that are degraded with it and cut off: what blurs into it."""
    crop_candidates: int = 3
    """A crop is the most detailed of so many, or skies and soft backgrounds would prevail."""
    loss: Callable[[Tensor, Tensor], Tensor] = losses.absolute
    prepare: Degradation | None = None
    """Makes the target ``(H, W, C)`` of a clean RGB patch, if that is not the target itself."""

    @property
    def degradation(self) -> str:
        """Name of what makes the training pairs."""
        if isinstance(self.degrade, Shaking):
            return "shake"
        function = self.degrade.func if isinstance(self.degrade, partial) else self.degrade
        return str(function.__name__)

    def with_responses(
        self, responses: NDArray[np.float64], held_out: NDArray[np.float64]
    ) -> TrainingRecipe:
        """Also by measured camera responses ``(N, M)``, where the degradation knows of them.

        They map light to encoded values, over an even grid from 0 to 1; those ``held_out`` are
        measured on.
        """
        if isinstance(self.degrade, Shaking):
            degrade: Degradation | Shaking = Shaking(responses)
            others = {"responses": partial(films.filmed, extent=12, responses=held_out)}
        elif self.degrade is noise.blind_camera_noise:
            degrade = partial(noise.blind_camera_noise, responses=responses)
            # Smoothed so that neighbours have the correlation of real cameras' noise, 0.7.
            by_any = partial(_noise_by_any, responses=held_out, smoothing=0.6)
            others = {
                "responses_mild": partial(by_any, shot=5e-4),
                "responses_strong": partial(by_any, shot=6e-3),
            }
        else:
            return self
        return replace(self, degrade=degrade, validate={**self.validate, **others})

    def with_margin(self, size: int) -> int:
        """Side of the crop that a patch of ``size`` pixels is made from."""
        return size + 2 * self.margin

    def pair(
        self, crop: NDArray[np.uint8], rng: np.random.Generator, degrade: Degradation
    ) -> tuple[Image, Image]:
        """Degraded and clean patch of a clean crop, which is larger by the margin all around."""
        clean = crop.astype(np.float32) / np.float32(255)
        if self.prepare:
            clean = self.prepare(clean, rng)
        degraded = degrade(clean, rng)
        inside = slice(self.margin, crop.shape[0] - self.margin)
        return degraded[inside, inside], clean[inside, inside]


def _fixed(function: Callable[..., Image], **strength: float) -> Degradation:
    return lambda clean, rng: function(clean, rng, **strength)


def _noise_by_any(
    clean: Image,
    rng: np.random.Generator,
    responses: NDArray[np.float64],
    shot: float,
    smoothing: float,
) -> Image:
    """Camera noise, rendered by one of the ``responses``."""
    response = responses[rng.integers(len(responses))]
    return noise.camera_noise(clean, rng, shot, smoothing=smoothing, response=response)


_GAUSSIAN = {f"sigma{s}": _fixed(noise.gaussian_noise, sigma=s, in_file=True) for s in (15, 25, 50)}

RECIPES = {
    "denoise_color": TrainingRecipe(
        options="compact_denoise_color",
        degrade=noise.blind_gaussian,
        validate=_GAUSSIAN,
    ),
    "denoise_gray": TrainingRecipe(
        options="compact_denoise_gray",
        degrade=noise.blind_gaussian,
        validate=_GAUSSIAN,
        prepare=lambda clean, rng: to_gray(clean),
    ),
    "denoise_real": TrainingRecipe(
        options="compact_denoise_real",
        degrade=noise.blind_camera_noise,
        validate={
            "clean": unchanged,
            "mild": _fixed(noise.camera_noise, shot=5e-4, smoothing=0.6),
            # as PolyU and CC
            "smoothed": _fixed(noise.camera_noise, shot=4e-3, smoothing=1, chroma_smoothing=2.5),
            "strong": _fixed(noise.camera_noise, shot=6e-3),  # as SIDD
        },
        prepare=noise.camera_rendering,
    ),
    "derain": TrainingRecipe(
        options="compact_derain",
        degrade=rain.blind_rain,
        validate={
            "clean": unchanged,
            "light": _fixed(rain.rain, amount=0.1),  # as Rain100L
            "heavy": _fixed(rain.rain, amount=1, layers=5),  # as Rain100H
        },
        # Streaks are long, and what is no streak shows in their surroundings.
        batch=8,
        patch=96,
    ),
    # Blur is undone from a wider view than noise, so patches are larger and fewer.
    "deblur_motion": TrainingRecipe(
        options="compact_deblur_motion",
        degrade=Shaking(),
        validate={
            "sharp": unchanged,
            "extent8": _fixed(motion.motion_blur, extent=8, noise=1),
            "film1": _fixed(films.filmed, extent=1.5),
            "film6": _fixed(films.filmed, extent=6),
            "film15": _fixed(films.filmed, extent=15, thing=True),
            "film25": _fixed(films.filmed, extent=25),
        },
        batch=4,
        patch=128,
        margin=24,
        # What was out of focus is to stay so: the network must see that it is not shake.
        crop_candidates=1,
        loss=losses.decibels,
    ),
    "deblur_defocus": TrainingRecipe(
        options="compact_deblur_defocus",
        degrade=defocus.blind_defocus_blur,
        validate={
            "sharp": unchanged,
            "radius2": _fixed(defocus.defocus_blur, radius=2, noise=1),
            "radius6": _fixed(defocus.defocus_blur, radius=6, noise=1),
        },
        batch=8,
        patch=96,
        margin=12,
    ),
    "dual_pixel": TrainingRecipe(
        options="compact_dual_pixel",
        degrade=defocus.blind_dual_pixel,
        validate={
            "sharp": _fixed(defocus.dual_pixel, radius=0),
            "radius2": _fixed(defocus.dual_pixel, radius=2, noise=1),
            "radius6": _fixed(defocus.dual_pixel, radius=6, noise=1),
        },
        batch=8,
        patch=96,
        margin=12,
    ),
}
