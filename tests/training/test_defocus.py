"""Defocus and dual-pixel views (scripts/training/degradations/defocus.py)."""

from __future__ import annotations

import numpy as np
import pytest
from degradations.defocus import (
    DEFOCUS_RADIUS,
    DISK_EDGE,
    SPLIT_SOFTNESS,
    blur_by_map,
    defocus_blur,
    defocus_map,
    disk_kernel,
    dual_pixel,
    half_disk_kernel,
)
from degradations.images import Image, convolve, quantise, to_linear
from hypothesis import example, given
from hypothesis import strategies as st
from photos import few, flat, generator, photo, seeds


@few
@given(radius=st.floats(0, DEFOCUS_RADIUS), edge=st.floats(*DISK_EDGE))
def test_disks_keep_energy_and_are_symmetric(radius: float, edge: float) -> None:
    disk = disk_kernel(radius, edge)
    assert disk.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(disk, disk[::-1, ::-1])
    np.testing.assert_allclose(disk, disk.T)


@few
@given(
    defocus=st.floats(-DEFOCUS_RADIUS, DEFOCUS_RADIUS),
    edge=st.floats(*DISK_EDGE),
    softness=st.floats(*SPLIT_SOFTNESS),
)
def test_half_disks_mirror_each_other_and_add_up(
    defocus: float, edge: float, softness: float
) -> None:
    left = half_disk_kernel(defocus, edge, softness)
    right = half_disk_kernel(-defocus, edge, softness)
    assert left.min() >= 0
    assert left.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(left, right[:, ::-1], atol=1e-7)
    np.testing.assert_allclose((left + right) / 2, disk_kernel(abs(defocus), edge), atol=1e-7)


def test_the_views_lie_apart_by_the_signed_defocus() -> None:
    def centre(defocus: float) -> float:
        kernel = half_disk_kernel(defocus)
        return float((kernel.sum(axis=0) * np.arange(kernel.shape[1])).sum() - kernel.shape[1] // 2)

    # The centroid of a half disk lies 4r/3π from the middle.
    assert centre(6) == pytest.approx(-4 * 6 / (3 * np.pi), rel=0.1)
    assert centre(-6) == pytest.approx(-centre(6))
    assert centre(3) == pytest.approx(centre(6) / 2, rel=0.1)


@few
@given(seed=seeds, radius=st.floats(0.1, DEFOCUS_RADIUS))
def test_the_mean_of_the_views_is_the_defocused_image(seed: int, radius: float) -> None:
    clean = np.minimum(photo(), np.float32(0.9))  # clipped highlights do not average
    views = to_linear(dual_pixel(clean, generator(seed), radius))
    mean = (views[..., :3] + views[..., 3:]) / 2
    defocused = to_linear(defocus_blur(clean, generator(seed), radius))
    # What hides what at the edges of things differs between the views, so only about.
    assert np.abs(mean - defocused).mean() < 0.01


def test_the_noise_of_the_views_is_independent() -> None:
    views = dual_pixel(flat(0.5, 96), generator(0), 0, noise=2)
    left, right = views[..., :3].ravel() - 0.5, views[..., 3:].ravel() - 0.5
    assert np.std(left) == pytest.approx(2 / 255, rel=0.05)
    assert np.std(right) == pytest.approx(2 / 255, rel=0.05)
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.03


def test_on_one_depth_the_mean_of_the_views_is_exact() -> None:
    scene = to_linear(photo())
    for radius in (0.7, 4.0, 7.5):
        depth = np.full(scene.shape[:2], radius, np.float32)
        views = [
            blur_by_map(scene, depth, lambda r, s=side: half_disk_kernel(s * r)) for side in (1, -1)
        ]
        whole = blur_by_map(scene, depth, lambda r: disk_kernel(abs(r)))
        np.testing.assert_allclose((views[0] + views[1]) / 2, whole, atol=1e-5)


@pytest.mark.parametrize(("near", "far"), [(-6, 0), (-2.5, 0), (-6, 6), (0, 6), (-6, -1), (2, 5)])
def test_a_thing_in_front_covers_by_its_own_blur(near: float, far: float) -> None:
    left = np.zeros((64, 64), np.float32)
    left[:, :32] = 1
    scene = np.where(left[..., None] > 0, np.float32([0.8, 0.5, 0.3]), np.float32([0.1, 0.2, 0.4]))
    depth = np.where(left > 0, np.float32(near), np.float32(far))
    blurred = blur_by_map(scene, depth, lambda signed: disk_kernel(abs(signed), 1.5))
    cover = convolve(left, disk_kernel(abs(near), 1.5)) if near else left
    seen = cover[..., None] * scene[0, 0] + (1 - cover[..., None]) * scene[0, 63]
    np.testing.assert_allclose(blurred[8:-8, 8:-8], seen[8:-8, 8:-8], atol=0.01)


@few
@given(seed=seeds, radius=st.floats(0.1, DEFOCUS_RADIUS))
def test_no_disk_is_larger_than_the_map_asks_for(seed: int, radius: float) -> None:
    used = [0.0]

    def kernel(signed: float) -> Image:
        used.append(abs(signed))
        return disk_kernel(abs(signed))

    blur_by_map(photo(), defocus_map(photo(), generator(seed), radius), kernel)
    assert max(used) <= radius * 1.0001


@few
@given(seed=seeds, value=st.floats(0, 1), radius=st.floats(0.1, DEFOCUS_RADIUS))
@example(seed=0, value=253 / 255, radius=1.0)  # nearly white, but not clipped
def test_defocus_keeps_a_flat_image(seed: int, value: float, radius: float) -> None:
    clean = quantise(flat(value, 48))
    defocused = defocus_blur(clean, generator(seed), radius)
    np.testing.assert_allclose(defocused, clean, atol=1.01 / 255)
    views = dual_pixel(clean, generator(seed), radius)
    np.testing.assert_allclose(views, np.dstack([clean, clean]), atol=1.01 / 255)


@few
@given(seed=seeds, radius=st.floats(0.1, DEFOCUS_RADIUS))
def test_the_defocus_map_reaches_the_radius_asked_for(seed: int, radius: float) -> None:
    defocus = defocus_map(photo(), generator(seed), radius)
    assert defocus.shape == (64, 64)
    assert np.abs(defocus).max() == pytest.approx(radius, rel=1e-4)


def test_a_sharp_object_hides_a_soft_background() -> None:
    scene = flat(0.1)
    scene[:, 32:] = 0.8  # in focus, in front of what is dark and out of focus
    defocus = np.where(np.arange(64) < 32, 6, 0) * np.ones((64, 1))
    result = blur_by_map(scene, defocus.astype(np.float32), lambda r: disk_kernel(abs(r)))
    np.testing.assert_allclose(result[:, :31], 0.1, atol=0.02)
    np.testing.assert_allclose(result[:, 33:], 0.8, atol=0.02)


def test_sharp_views_are_twice_the_photo() -> None:
    clean = photo()
    views = dual_pixel(clean, generator(0), 0)
    np.testing.assert_allclose(views, np.dstack([clean, clean]), atol=1e-5)
