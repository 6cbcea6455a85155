"""Motion blur by kernels (scripts/training/degradations/motion.py)."""

from __future__ import annotations

import degradations.images
import numpy as np
import pytest
from degradations.images import quantise
from degradations.motion import camera_path, motion_blur, path_kernel
from hypothesis import given
from hypothesis import strategies as st
from photos import few, flat, generator, seeds


@few
@given(seed=seeds, extent=st.floats(0.5, 25))
def test_motion_kernels_keep_energy_and_place(seed: int, extent: float) -> None:
    kernel = path_kernel(camera_path(generator(seed), extent)).astype(np.float64)
    half = kernel.shape[0] // 2
    steps = np.arange(-half, half + 1)
    assert kernel.shape == (2 * half + 1, 2 * half + 1)
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert (kernel.sum(axis=1) * steps).sum() == pytest.approx(0, abs=1e-4)
    assert (kernel.sum(axis=0) * steps).sum() == pytest.approx(0, abs=1e-4)
    assert half <= extent / 2 + 2


def test_paths_have_the_extent_asked_for() -> None:
    path = camera_path(generator(7), 20)
    assert np.hypot(*path.T).max() == pytest.approx(10)


@few
@given(seed=seeds, value=st.floats(0, 1), in_light=st.booleans())
def test_motion_blur_keeps_a_flat_image(seed: int, value: float, in_light: bool) -> None:
    clean = quantise(flat(value, 48))
    blurred = motion_blur(clean, generator(seed), 20, in_light=in_light)
    np.testing.assert_allclose(blurred, clean, atol=1.01 / 255)


def test_motion_blur_does_not_shift() -> None:
    clean = np.full((65, 65, 3), 0.02, np.float32)
    clean[32, 32] = 0.9
    steps = np.arange(65) - 32
    for seed in range(20):
        blurred = motion_blur(clean, generator(seed), 12, in_light=False)
        light = blurred[..., 1] - 0.02
        light = np.where(light > 0.004, light, 0)
        # Not exactly 0: the kernel varies over the image, and 8 bits lose the faintest parts.
        assert abs((light.sum(axis=0) * steps).sum() / light.sum()) < 2
        assert abs((light.sum(axis=1) * steps).sum() / light.sum()) < 2


def test_highlights_survive_a_blur_in_light(monkeypatch: pytest.MonkeyPatch) -> None:
    lamp = flat(0.05)
    lamp[30:34, 30:34] = 1

    def light(**how: bool) -> float:
        return float(np.mean([motion_blur(lamp, generator(s), 12, **how) for s in range(10)]))

    brighter_than_white = light()
    monkeypatch.setattr(degradations.images, "HIGHLIGHT_GAIN", 0.0)
    as_white = light()
    assert brighter_than_white > 1.05 * as_white > 1.05 * light(in_light=False)


def test_motion_blur_varies_over_the_image() -> None:
    points = flat(0.1, 96)
    points[16::32, 16::32] = 0.9

    def varies(seed: int) -> bool:
        traces = motion_blur(points, generator(seed), 12, in_light=False)
        corners = [traces[y : y + 32, x : x + 32] for y in (0, 64) for x in (0, 64)]
        return bool(max(np.abs(corner - corners[0]).max() for corner in corners) > 0.02)

    assert sum(varies(seed) for seed in range(10)) >= 3
