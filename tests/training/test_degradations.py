"""The degradations that training data are made with (scripts/training/degradations.py)."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import degradations as deg
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from skimage import data

BLIND = {
    "gaussian": deg.blind_gaussian,
    "camera_noise": deg.blind_camera_noise,
    "rain": deg.blind_rain,
    "motion_blur": deg.blind_motion_blur,
    "defocus_blur": deg.blind_defocus_blur,
    "dual_pixel": deg.blind_dual_pixel,
}
# One of each kind that is strong, so that it cannot happen to do nothing.
STRONG = {
    "gaussian": lambda clean, rng: deg.gaussian_noise(clean, rng, 25, in_file=True),
    "camera_noise": lambda clean, rng: deg.camera_noise(clean, rng, 0.006, smoothing=0.8),
    "rain": lambda clean, rng: deg.rain(clean, rng, 0.5, layers=3, haze=0.2),
    "motion_blur": lambda clean, rng: deg.motion_blur(clean, rng, 15, noise=1),
    "defocus_blur": lambda clean, rng: deg.defocus_blur(clean, rng, 5, noise=1),
    "dual_pixel": lambda clean, rng: deg.dual_pixel(clean, rng, 5, noise=1),
}
NONE = {
    "gaussian": lambda clean, rng: deg.gaussian_noise(clean, rng, 0, in_file=True),
    "camera_noise": lambda clean, rng: deg.camera_noise(clean, rng, 0),
    "rain": lambda clean, rng: deg.rain(clean, rng, 0, layers=3),
    "motion_blur": lambda clean, rng: deg.motion_blur(clean, rng, 0),
    "defocus_blur": lambda clean, rng: deg.defocus_blur(clean, rng, 0),
    "unchanged": deg.unchanged,
}

seeds = st.integers(0, 2**32)
sizes = st.integers(32, 80)
few = settings(max_examples=25, deadline=None)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def photo(height: int = 64, width: int = 64) -> deg.Image:
    """A detailed part of a photo, dark and bright, as an 8-bit file holds it."""
    crop = data.astronaut()[150 : 150 + height, 170 : 170 + width]
    return crop.astype(np.float32) / np.float32(255)


def flat(value: float, size: int = 64) -> deg.Image:
    return np.full((size, size, 3), value, np.float32)


# --- All kinds ---


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
    np.testing.assert_allclose(deg.to_encoded(deg.to_linear(image)), image, atol=1e-5)


def test_the_srgb_curve_has_known_values() -> None:
    encoded = np.array([0, 0.02, 0.5, 1], np.float32)
    np.testing.assert_allclose(deg.to_linear(encoded), [0, 0.02 / 12.92, 0.21404, 1], rtol=1e-4)


def test_gray_is_bt601() -> None:
    colours = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]], np.float32)
    gray = deg.to_gray(colours)
    assert gray.shape == (1, 4, 1)
    np.testing.assert_array_equal(np.rint(gray[0, :, 0] * 255), [76, 150, 29, 255])


def test_gaussian_noise_takes_gray() -> None:
    gray = deg.to_gray(photo())
    noisy = deg.gaussian_noise(gray, generator(0), 25, in_file=False)
    assert noisy.shape == gray.shape
    assert np.std(noisy - gray) == pytest.approx(25 / 255, rel=0.05)


def test_convolution_does_not_mirror_the_kernel() -> None:
    point = np.zeros((32, 32), np.float32)
    point[10, 20] = 1
    kernel = np.arange(15, dtype=np.float32).reshape(3, 5)
    np.testing.assert_allclose(deg.convolve(point, kernel)[9:12, 18:23], kernel)


@few
@given(seed=seeds, scale=st.floats(4, 12))
def test_a_smooth_field_is_smooth(seed: int, scale: float) -> None:
    field = deg.smooth_field((64, 48), generator(seed), scale)
    assert field.shape == (64, 48)
    # Waves of frequency N(0, 1/scale) and amplitude 1/2 add up to less than this a pixel.
    assert np.abs(np.diff(field, axis=1)).max() < 8 * 0.5 * 4 / scale


@few
@given(seed=seeds, quality=st.integers(60, 100))
def test_jpeg_keeps_size_and_place(seed: int, quality: int) -> None:
    smooth = cv2.GaussianBlur(photo(50, 61), (0, 0), 3)
    result = deg.jpeg(smooth, generator(seed), quality)
    assert result.shape == smooth.shape
    assert np.abs(result - smooth).mean() < 0.02


# --- Camera noise ---


def test_camera_noise_grows_with_the_signal() -> None:
    def variance(value: float) -> float:
        noisy = [deg.camera_noise(flat(value), generator(s), 0.002) for s in range(20)]
        return float(np.var(deg.to_linear(np.stack(noisy)) - deg.to_linear(flat(value))))

    dark, middle, bright = variance(0.3), variance(0.5), variance(0.7)
    assert dark < middle < bright
    # Variance = shot · light (+ little read noise), and the light of these is 0.073, 0.214, 0.448.
    assert bright / middle == pytest.approx(0.448 / 0.214, rel=0.25)


def test_camera_noise_keeps_the_mean_colour() -> None:
    clean = np.broadcast_to(np.array([0.6, 0.5, 0.4], np.float32), (128, 128, 3)).copy()
    noisy = deg.camera_noise(clean, generator(0), 0.002)
    mean = deg.to_linear(noisy).mean(axis=(0, 1))
    np.testing.assert_allclose(mean, deg.to_linear(clean)[0, 0], rtol=0.02)


def test_camera_noise_is_correlated_between_neighbours() -> None:
    noise = deg.camera_noise(flat(0.5, 128), generator(0), 0.002) - np.float32(0.5)
    for channel in np.moveaxis(noise, -1, 0):
        assert np.corrcoef(channel[:, 1:].ravel(), channel[:, :-1].ravel())[0, 1] > 0.15


def test_a_camera_renders_by_its_response() -> None:
    """Noise is made in light: where a response is steep, the file shows it larger."""
    grid = np.linspace(0, 1, 512)
    level = flat(0.3, 96)

    def deviation(response: deg.Curve) -> float:
        return float(np.std(deg.camera_noise(level, generator(3), 0.002, response=response)))

    # The same code stands for the light 0.3 ** (1 / power); the slope there is power · 0.3 / light.
    shares = []
    for power in (0.45, 0.6, 0.8):
        light = 0.3 ** (1 / power)
        slope = power * 0.3 / light
        shot = np.sqrt(0.002 * light + deg.typical_read_noise(0.002))
        shares.append(deviation(grid**power) / (slope * shot))
    # Demosaicking and development change it by the same share.
    assert max(shares) < 1.15 * min(shares)
    clean = photo()
    for response in (grid**0.3, np.sin(grid * np.pi / 2)):
        unharmed = deg.camera_noise(clean, generator(1), 0, response=response)
        np.testing.assert_allclose(unharmed, clean, atol=1.01 / 255)


def test_measured_responses_change_some_samples_alone() -> None:
    clean, responses = photo(32, 32), np.linspace(0, 1, 64)[None] ** 0.6
    same = [
        np.array_equal(
            deg.blind_camera_noise(clean, generator(seed)),
            deg.blind_camera_noise(clean, generator(seed), responses),
        )
        for seed in range(60)
    ]
    assert 15 < sum(same) < 45


def test_neighbours_are_as_much_alike_as_in_real_cameras() -> None:
    noise = [
        deg.blind_camera_noise(flat(0.5, 96), generator(s)) - np.float32(0.5) for s in range(60)
    ]
    luma = [n @ deg.LUMA for n in noise if n.std() > 1 / 255]
    alike = [np.corrcoef(n[:, 1:].ravel(), n[:, :-1].ravel())[0, 1] for n in luma]
    assert np.median(alike) == pytest.approx(0.7, abs=0.1)


def test_a_camera_that_smooths_chroma_leaves_coarse_blotches_of_colour() -> None:
    noise = deg.camera_noise(flat(0.5, 128), generator(0), 0.01, smoothing=0.6, chroma_smoothing=3)
    luma = noise @ deg.LUMA
    chroma = noise[..., 2] - luma

    def correlation(channel: deg.Image) -> float:
        """Between pixels that are three columns apart."""
        return float(np.corrcoef(channel[:, 3:].ravel(), channel[:, :-3].ravel())[0, 1])

    assert correlation(chroma) > 0.4
    assert abs(correlation(luma)) < 0.1


def test_a_saturated_sensor_has_no_noise() -> None:
    clean = flat(0.4, 64)
    clean[:, 32:] = 1
    noisy = deg.camera_noise(clean, generator(0), 0.006, smoothing=0.5, chroma_smoothing=2)
    assert np.abs(noisy[:, 40:] - 1).max() == 0
    far, near = (np.std(noisy[:, columns]) for columns in (slice(0, 16), slice(26, 30)))
    assert near < 1.5 * far


def test_camera_noise_does_not_soften_the_photo() -> None:
    clean = photo()
    noisy = np.mean([deg.camera_noise(clean, generator(s), 3e-4) for s in range(40)], axis=0)
    assert np.abs(noisy - clean).mean() < 0.005


def test_camera_noise_covers_good_and_bad_cameras() -> None:
    def psnr(shot: float) -> float:
        clean = photo()
        errors = [
            np.mean((deg.camera_noise(clean, generator(s), shot) - clean) ** 2) for s in range(5)
        ]
        return float(-10 * np.log10(np.mean(errors)))

    assert psnr(deg.SHOT_NOISE[0]) > 38
    assert psnr(deg.SHOT_NOISE[1]) < 24


def test_demosaicking_keeps_what_was_seen_and_flat_colours() -> None:
    rows, columns = np.ogrid[:16, :16]
    green = ((rows + columns) % 2).astype(np.float32)
    red = ((rows % 2 == 0) & (columns % 2 == 0)).astype(np.float32)
    blue = 1 - green - red
    mosaic = 0.2 * red + 0.5 * green + 0.7 * blue
    full = deg.demosaic_bilinear(mosaic.astype(np.float32), green, red)
    np.testing.assert_allclose(full, np.broadcast_to([0.2, 0.5, 0.7], full.shape), atol=1e-6)
    mosaic = generator(0).random((16, 16), dtype=np.float32)
    full = deg.demosaic_bilinear(mosaic, green, red)
    seen = (full * np.dstack([red, green, blue])).sum(axis=-1)
    np.testing.assert_allclose(seen, mosaic, atol=1e-6)


@few
@given(seed=seeds, height=sizes, width=sizes, colour=st.tuples(*[st.integers(5, 250)] * 3))
def test_a_rendering_keeps_flat_colours(
    seed: int, height: int, width: int, colour: tuple[int, int, int]
) -> None:
    clean = np.empty((height, width, 3), np.float32)
    clean[:] = np.float32(colour) / 255
    rendered = deg.demosaicked(clean, generator(seed))
    assert rendered.dtype == np.float32
    assert rendered.shape == clean.shape
    np.testing.assert_allclose(rendered, clean, atol=1.01 / 255)


def test_a_rendering_differs_at_edges_and_nowhere_else() -> None:
    clean = flat(0.3)
    clean[:, 33:] = [0.9, 0.6, 0.5]
    rendered = deg.demosaicked(clean, generator(1))
    error = np.abs(rendered - clean).max(axis=(0, 2))
    assert error[30:36].max() > 0.03
    assert max(error[:30].max(), error[36:].max()) < 0.01


def test_half_of_the_truth_of_camera_noise_is_rendered() -> None:
    clean = photo(32, 32)
    same = [bool((deg.camera_rendering(clean, generator(s)) == clean).all()) for s in range(60)]
    assert 20 < sum(same) < 40


# --- Rain ---


@few
@given(seed=seeds, amount=st.floats(0, 1), layers=st.integers(1, 5), haze=st.floats(0, deg.HAZE))
def test_rain_only_brightens(seed: int, amount: float, layers: int, haze: float) -> None:
    clean = photo(48, 48)
    assert (deg.rain(clean, generator(seed), amount, layers, haze) >= clean - 1e-6).all()


def test_haze_veils_what_no_streak_covers() -> None:
    clean = flat(0.2)
    hazy = deg.rain(clean, generator(2), 0.02, haze=0.2)
    assert hazy.min() > 0.21
    assert hazy.max() < 1


def test_more_rain_covers_more() -> None:
    clean = flat(0.3)

    def light(amount: float) -> float:
        return float(np.mean([deg.rain(clean, generator(s), amount, 2).mean() for s in range(20)]))

    assert 0.3 < light(0.1) < light(0.4) < light(1)


@pytest.mark.parametrize("angle", [-40, 0, 25])
def test_streaks_have_the_direction_asked_for(angle: float) -> None:
    kernel = deg.streak_kernel(angle, 30, 1.5)
    half = kernel.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    tilt = 0.5 * np.arctan2(2 * (kernel * x * y).sum(), (kernel * (y**2 - x**2)).sum())
    assert np.degrees(tilt) == pytest.approx(angle, abs=1)
    assert kernel.max() == pytest.approx(1, abs=0.01)
    # A Gaussian across, and a quarter of the length fading at each end.
    assert kernel.sum() == pytest.approx(0.75 * 30 * 0.75 * np.sqrt(2 * np.pi), rel=0.05)


def test_bars_that_fade_late_have_sharper_borders() -> None:
    def between(flatness: float, fade: float) -> int:
        """Pixels that are neither in the streak nor outside."""
        kernel = deg.streak_kernel(20, 40, 6, flatness, fade)
        return int(((kernel > 0.1) & (kernel < 0.9)).sum())

    assert between(6, 0.05) < 0.7 * between(6, 0.4)
    assert between(6, 0.05) < 0.6 * between(2, 0.05)


@pytest.mark.parametrize(("width", "length"), [(0.8, 12), (2, 60), (4, 32)])
def test_streaks_cover_what_was_asked_for(width: float, length: float) -> None:
    covered = [
        float((deg.streak_layer((192, 192), generator(s), 5, length, width, 0.1) > 0.15).mean())
        for s in range(8)
    ]
    assert 0.04 < np.mean(covered) < 0.16


def test_light_rain_leaves_most_pixels_alone() -> None:
    streaks = deg.streak_layer((256, 256), generator(0), 10, 25, 1.2, coverage=0.09)
    assert 0.02 < (streaks > 0.1).mean() < 0.25


# --- Motion blur ---


@few
@given(seed=seeds, extent=st.floats(0.5, 25))
def test_motion_kernels_keep_energy_and_place(seed: int, extent: float) -> None:
    kernel = deg.path_kernel(deg.camera_path(generator(seed), extent)).astype(np.float64)
    half = kernel.shape[0] // 2
    steps = np.arange(-half, half + 1)
    assert kernel.shape == (2 * half + 1, 2 * half + 1)
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert (kernel.sum(axis=1) * steps).sum() == pytest.approx(0, abs=1e-4)
    assert (kernel.sum(axis=0) * steps).sum() == pytest.approx(0, abs=1e-4)
    assert half <= extent / 2 + 2


def test_paths_have_the_extent_asked_for() -> None:
    path = deg.camera_path(generator(7), 20)
    assert np.hypot(*path.T).max() == pytest.approx(10)


@few
@given(seed=seeds, value=st.floats(0, 1), in_light=st.booleans())
def test_motion_blur_keeps_a_flat_image(seed: int, value: float, in_light: bool) -> None:
    clean = deg.quantise(flat(value, 48))
    blurred = deg.motion_blur(clean, generator(seed), 20, in_light=in_light)
    np.testing.assert_allclose(blurred, clean, atol=1.01 / 255)


def test_motion_blur_does_not_shift() -> None:
    clean = np.full((65, 65, 3), 0.02, np.float32)
    clean[32, 32] = 0.9
    steps = np.arange(65) - 32
    for seed in range(20):
        blurred = deg.motion_blur(clean, generator(seed), 12, in_light=False)
        light = blurred[..., 1] - 0.02
        light = np.where(light > 0.004, light, 0)
        # Not exactly 0: the kernel varies over the image, and 8 bits lose the faintest parts.
        assert abs((light.sum(axis=0) * steps).sum() / light.sum()) < 2
        assert abs((light.sum(axis=1) * steps).sum() / light.sum()) < 2


def test_highlights_survive_a_blur_in_light(monkeypatch: pytest.MonkeyPatch) -> None:
    lamp = flat(0.05)
    lamp[30:34, 30:34] = 1

    def light(**how: bool) -> float:
        return float(np.mean([deg.motion_blur(lamp, generator(s), 12, **how) for s in range(10)]))

    brighter_than_white = light()
    monkeypatch.setattr(deg, "HIGHLIGHT_GAIN", 0.0)
    as_white = light()
    assert brighter_than_white > 1.05 * as_white > 1.05 * light(in_light=False)


def test_motion_blur_varies_over_the_image() -> None:
    points = flat(0.1, 96)
    points[16::32, 16::32] = 0.9

    def varies(seed: int) -> bool:
        traces = deg.motion_blur(points, generator(seed), 12, in_light=False)
        corners = [traces[y : y + 32, x : x + 32] for y in (0, 64) for x in (0, 64)]
        return bool(max(np.abs(corner - corners[0]).max() for corner in corners) > 0.02)

    assert sum(varies(seed) for seed in range(10)) >= 3


# --- Defocus and dual pixel ---


@few
@given(radius=st.floats(0, deg.DEFOCUS_RADIUS), edge=st.floats(*deg.DISK_EDGE))
def test_disks_keep_energy_and_are_symmetric(radius: float, edge: float) -> None:
    disk = deg.disk_kernel(radius, edge)
    assert disk.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(disk, disk[::-1, ::-1])
    np.testing.assert_allclose(disk, disk.T)


@few
@given(
    defocus=st.floats(-deg.DEFOCUS_RADIUS, deg.DEFOCUS_RADIUS),
    edge=st.floats(*deg.DISK_EDGE),
    softness=st.floats(*deg.SPLIT_SOFTNESS),
)
def test_half_disks_mirror_each_other_and_add_up(
    defocus: float, edge: float, softness: float
) -> None:
    left = deg.half_disk_kernel(defocus, edge, softness)
    right = deg.half_disk_kernel(-defocus, edge, softness)
    assert left.min() >= 0
    assert left.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(left, right[:, ::-1], atol=1e-7)
    np.testing.assert_allclose((left + right) / 2, deg.disk_kernel(abs(defocus), edge), atol=1e-7)


def test_the_views_lie_apart_by_the_signed_defocus() -> None:
    def centre(defocus: float) -> float:
        kernel = deg.half_disk_kernel(defocus)
        return float((kernel.sum(axis=0) * np.arange(kernel.shape[1])).sum() - kernel.shape[1] // 2)

    # The centroid of a half disk lies 4r/3π from the middle.
    assert centre(6) == pytest.approx(-4 * 6 / (3 * np.pi), rel=0.1)
    assert centre(-6) == pytest.approx(-centre(6))
    assert centre(3) == pytest.approx(centre(6) / 2, rel=0.1)


@few
@given(seed=seeds, radius=st.floats(0.1, deg.DEFOCUS_RADIUS))
def test_the_mean_of_the_views_is_the_defocused_image(seed: int, radius: float) -> None:
    clean = np.minimum(photo(), np.float32(0.9))  # clipped highlights do not average
    views = deg.to_linear(deg.dual_pixel(clean, generator(seed), radius))
    mean = (views[..., :3] + views[..., 3:]) / 2
    defocused = deg.to_linear(deg.defocus_blur(clean, generator(seed), radius))
    # What hides what at the edges of things differs between the views, so only about.
    assert np.abs(mean - defocused).mean() < 0.01


def test_the_noise_of_the_views_is_independent() -> None:
    views = deg.dual_pixel(flat(0.5, 96), generator(0), 0, noise=2)
    left, right = views[..., :3].ravel() - 0.5, views[..., 3:].ravel() - 0.5
    assert np.std(left) == pytest.approx(2 / 255, rel=0.05)
    assert np.std(right) == pytest.approx(2 / 255, rel=0.05)
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.03


def test_on_one_depth_the_mean_of_the_views_is_exact() -> None:
    scene = deg.to_linear(photo())
    for radius in (0.7, 4.0, 7.5):
        depth = np.full(scene.shape[:2], radius, np.float32)
        views = [
            deg.blur_by_map(scene, depth, lambda r, s=side: deg.half_disk_kernel(s * r))
            for side in (1, -1)
        ]
        whole = deg.blur_by_map(scene, depth, lambda r: deg.disk_kernel(abs(r)))
        np.testing.assert_allclose((views[0] + views[1]) / 2, whole, atol=1e-5)


@pytest.mark.parametrize(("near", "far"), [(-6, 0), (-2.5, 0), (-6, 6), (0, 6), (-6, -1), (2, 5)])
def test_a_thing_in_front_covers_by_its_own_blur(near: float, far: float) -> None:
    left = np.zeros((64, 64), np.float32)
    left[:, :32] = 1
    scene = np.where(left[..., None] > 0, np.float32([0.8, 0.5, 0.3]), np.float32([0.1, 0.2, 0.4]))
    depth = np.where(left > 0, np.float32(near), np.float32(far))
    blurred = deg.blur_by_map(scene, depth, lambda signed: deg.disk_kernel(abs(signed), 1.5))
    cover = deg.convolve(left, deg.disk_kernel(abs(near), 1.5)) if near else left
    seen = cover[..., None] * scene[0, 0] + (1 - cover[..., None]) * scene[0, 63]
    np.testing.assert_allclose(blurred[8:-8, 8:-8], seen[8:-8, 8:-8], atol=0.01)


@few
@given(seed=seeds, radius=st.floats(0.1, deg.DEFOCUS_RADIUS))
def test_no_disk_is_larger_than_the_map_asks_for(seed: int, radius: float) -> None:
    used = [0.0]

    def kernel(signed: float) -> deg.Image:
        used.append(abs(signed))
        return deg.disk_kernel(abs(signed))

    deg.blur_by_map(photo(), deg.defocus_map(photo(), generator(seed), radius), kernel)
    assert max(used) <= radius * 1.0001


@few
@given(seed=seeds, value=st.floats(0, 1), radius=st.floats(0.1, deg.DEFOCUS_RADIUS))
@example(seed=0, value=253 / 255, radius=1.0)  # nearly white, but not clipped
def test_defocus_keeps_a_flat_image(seed: int, value: float, radius: float) -> None:
    clean = deg.quantise(flat(value, 48))
    defocused = deg.defocus_blur(clean, generator(seed), radius)
    np.testing.assert_allclose(defocused, clean, atol=1.01 / 255)
    views = deg.dual_pixel(clean, generator(seed), radius)
    np.testing.assert_allclose(views, np.dstack([clean, clean]), atol=1.01 / 255)


@few
@given(seed=seeds, radius=st.floats(0.1, deg.DEFOCUS_RADIUS))
def test_the_defocus_map_reaches_the_radius_asked_for(seed: int, radius: float) -> None:
    defocus = deg.defocus_map(photo(), generator(seed), radius)
    assert defocus.shape == (64, 64)
    assert np.abs(defocus).max() == pytest.approx(radius, rel=1e-4)


def test_a_sharp_object_hides_a_soft_background() -> None:
    scene = flat(0.1)
    scene[:, 32:] = 0.8  # in focus, in front of what is dark and out of focus
    defocus = np.where(np.arange(64) < 32, 6, 0) * np.ones((64, 1))
    result = deg.blur_by_map(scene, defocus.astype(np.float32), lambda r: deg.disk_kernel(abs(r)))
    np.testing.assert_allclose(result[:, :31], 0.1, atol=0.02)
    np.testing.assert_allclose(result[:, 33:], 0.8, atol=0.02)


def test_sharp_views_are_twice_the_photo() -> None:
    clean = photo()
    views = deg.dual_pixel(clean, generator(0), 0)
    np.testing.assert_allclose(views, np.dstack([clean, clean]), atol=1e-5)


# --- To look at ---


def test_the_contact_sheet_has_a_row_for_each_degradation() -> None:
    sheet = deg.contact_sheet([photo(), photo()[::-1]], columns=2)
    assert sheet.shape == (64 * len(deg.SHEET_ROWS), 64 * 3, 3)
    assert sheet.dtype == np.uint8


def test_the_contact_sheet_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "a.png"), data.astronaut()[:100, :120])
    target = tmp_path / "sheet.png"
    arguments = ["--photos", str(photos), "--sheet", str(target), "--size", "64", "--columns", "1"]
    monkeypatch.setattr(sys, "argv", ["degradations.py", *arguments])
    deg.main()
    assert cv2.imread(str(target)).shape == (64 * len(deg.SHEET_ROWS), 128, 3)
