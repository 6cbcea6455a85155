"""What all degradations have in common (scripts/training/degradations)."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from degradations.defocus import blind_defocus_blur, blind_dual_pixel, defocus_blur, dual_pixel
from degradations.images import (
    convolve,
    jpeg,
    smooth_field,
    to_encoded,
    to_gray,
    to_linear,
    unchanged,
)
from degradations.motion import blind_motion_blur, motion_blur
from degradations.noise import blind_camera_noise, blind_gaussian, camera_noise, gaussian_noise
from degradations.rain import blind_rain, rain
from hypothesis import given
from hypothesis import strategies as st
from photos import few, generator, photo, seeds, sizes

BLIND = {
    "gaussian": blind_gaussian,
    "camera_noise": blind_camera_noise,
    "rain": blind_rain,
    "motion_blur": blind_motion_blur,
    "defocus_blur": blind_defocus_blur,
    "dual_pixel": blind_dual_pixel,
}
# One of each kind that is strong, so that it cannot happen to do nothing.
STRONG = {
    "gaussian": lambda clean, rng: gaussian_noise(clean, rng, 25, in_file=True),
    "camera_noise": lambda clean, rng: camera_noise(clean, rng, 0.006, smoothing=0.8),
    "rain": lambda clean, rng: rain(clean, rng, 0.5, layers=3, haze=0.2),
    "motion_blur": lambda clean, rng: motion_blur(clean, rng, 15, noise=1),
    "defocus_blur": lambda clean, rng: defocus_blur(clean, rng, 5, noise=1),
    "dual_pixel": lambda clean, rng: dual_pixel(clean, rng, 5, noise=1),
}
NONE = {
    "gaussian": lambda clean, rng: gaussian_noise(clean, rng, 0, in_file=True),
    "camera_noise": lambda clean, rng: camera_noise(clean, rng, 0),
    "rain": lambda clean, rng: rain(clean, rng, 0, layers=3),
    "motion_blur": lambda clean, rng: motion_blur(clean, rng, 0),
    "defocus_blur": lambda clean, rng: defocus_blur(clean, rng, 0),
    "unchanged": unchanged,
}


@pytest.mark.parametrize("name", BLIND)
@few
@given(seed=seeds, height=sizes, width=sizes)
def test_result_is_float32_in_range_and_of_the_same_size(
    name: str, seed: int, height: int, width: int
) -> None:
    clean = photo(height, width)
    before = clean.copy()
    result = BLIND[name](clean, generator(seed))
    assert result.dtype == np.float32
    assert result.shape == (height, width, 6 if name == "dual_pixel" else 3)
    assert np.isfinite(result).all()
    if name != "gaussian":  # which is sometimes not clipped, on purpose
        assert result.min() >= 0
        assert result.max() <= 1
    np.testing.assert_array_equal(clean, before)


@pytest.mark.parametrize("name", STRONG)
def test_the_seed_alone_decides(name: str) -> None:
    clean = photo()
    first = STRONG[name](clean, generator(1))
    np.random.seed(0)  # a global state must not matter
    np.testing.assert_array_equal(first, STRONG[name](clean, generator(1)))
    assert not np.array_equal(first, STRONG[name](clean, generator(2)))


@pytest.mark.parametrize("name", BLIND)
def test_a_blind_kind_is_fixed_by_the_seed_too(name: str) -> None:
    clean = photo()
    for seed in range(10):
        first = BLIND[name](clean, generator(seed))
        np.testing.assert_array_equal(first, BLIND[name](clean, generator(seed)))


@pytest.mark.parametrize("name", NONE)
def test_strength_zero_gives_the_clean_photo(name: str) -> None:
    clean = photo()
    np.testing.assert_allclose(NONE[name](clean, generator(3)), clean, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(BLIND) - {"gaussian", "dual_pixel"}))
def test_training_data_hold_good_photos_too(name: str) -> None:
    clean = photo(32, 32)
    results = [BLIND[name](clean, generator(seed)) for seed in range(120)]
    good = [bool(np.abs(result - clean).max() < 1e-6) for result in results]
    assert 0 < sum(good) < 60


@pytest.mark.parametrize("name", sorted(set(STRONG) - {"dual_pixel"}))
def test_files_hold_8_bits(name: str) -> None:
    steps = STRONG[name](photo(), generator(4)) * 255
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)


def test_dual_pixel_views_hold_16_bits() -> None:
    steps = STRONG["dual_pixel"](photo(), generator(4)).astype(np.float64) * 65535
    np.testing.assert_allclose(steps, np.rint(steps), atol=0.01)


# --- What they share ---


@given(st.floats(0, 1, width=32))
def test_the_srgb_curve_is_inverted(value: float) -> None:
    image = np.full((1, 1, 3), value, np.float32)
    np.testing.assert_allclose(to_encoded(to_linear(image)), image, atol=1e-5)


def test_the_srgb_curve_has_known_values() -> None:
    encoded = np.array([0, 0.02, 0.5, 1], np.float32)
    np.testing.assert_allclose(to_linear(encoded), [0, 0.02 / 12.92, 0.21404, 1], rtol=1e-4)


def test_gray_is_bt601() -> None:
    colours = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]], np.float32)
    gray = to_gray(colours)
    assert gray.shape == (1, 4, 1)
    np.testing.assert_array_equal(np.rint(gray[0, :, 0] * 255), [76, 150, 29, 255])


def test_gaussian_noise_takes_gray() -> None:
    gray = to_gray(photo())
    noisy = gaussian_noise(gray, generator(0), 25, in_file=False)
    assert noisy.shape == gray.shape
    assert np.std(noisy - gray) == pytest.approx(25 / 255, rel=0.05)


def test_convolution_does_not_mirror_the_kernel() -> None:
    point = np.zeros((32, 32), np.float32)
    point[10, 20] = 1
    kernel = np.arange(15, dtype=np.float32).reshape(3, 5)
    np.testing.assert_allclose(convolve(point, kernel)[9:12, 18:23], kernel)


@few
@given(seed=seeds, scale=st.floats(4, 12))
def test_a_smooth_field_is_smooth(seed: int, scale: float) -> None:
    field = smooth_field((64, 48), generator(seed), scale)
    assert field.shape == (64, 48)
    # Waves of frequency N(0, 1/scale) and amplitude 1/2 add up to less than this a pixel.
    assert np.abs(np.diff(field, axis=1)).max() < 8 * 0.5 * 4 / scale


@few
@given(seed=seeds, quality=st.integers(60, 100))
def test_jpeg_keeps_size_and_place(seed: int, quality: int) -> None:
    smooth = cv2.GaussianBlur(photo(50, 61), (0, 0), 3)
    result = jpeg(smooth, generator(seed), quality)
    assert result.shape == smooth.shape
    assert np.abs(result - smooth).mean() < 0.02
