"""Metrics against the papers' formulas written out."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
import whole_image_metrics
from helpers import random_pixels, smooth_pixels
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.errors import ImageError
from restormer_cli.evaluation import metrics as module
from restormer_cli.evaluation.alignment import align
from restormer_cli.evaluation.protocols import PROTOCOLS

DB, SIMILARITY = 1e-4, 1e-6


# --- the formulas, written out ------------------------------------------------------------------


def matlab_luma(rgb: Any) -> Any:
    """rgb2ycbcr(uint8)(:, :, 1): the matrix of its documentation, rounded half away from zero."""
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    return np.floor(16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255 + 0.5)


def matlab_psnr(a: Any, b: Any, peak: float = 255) -> float:
    difference = a.astype(float) - b.astype(float)
    return 20 * math.log10(peak / math.sqrt(np.mean(difference**2)))


def gaussian(size: int = 11, sigma: float = 1.5, axes: int = 2) -> Any:
    """fspecial('gaussian', size, sigma), of any number of axes."""
    radius = size // 2
    grid = np.meshgrid(*[np.arange(-radius, radius + 1)] * axes)
    window = np.exp(-sum(axis**2 for axis in grid) / (2 * sigma**2))
    return window / window.sum()


def valid(window: Any, image: Any) -> Any:
    """filter2(window, image, 'valid'), each output summed by itself."""
    shape = [n - w + 1 for n, w in zip(image.shape, window.shape, strict=True)]
    result = np.empty(shape)
    for index in np.ndindex(*shape):
        part = tuple(slice(i, i + w) for i, w in zip(index, window.shape, strict=True))
        result[index] = (image[part] * window).sum()
    return result


def ssim_map(a: Any, b: Any, blur: Any, peak: float = 255) -> Any:
    a, b = a.astype(float), b.astype(float)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mu1, mu2 = blur(a), blur(b)
    var1, var2 = blur(a * a) - mu1**2, blur(b * b) - mu2**2
    cov = blur(a * b) - mu1 * mu2
    return ((2 * mu1 * mu2 + c1) * (2 * cov + c2)) / ((mu1**2 + mu2**2 + c1) * (var1 + var2 + c2))


def wang_ssim(a: Any, b: Any, peak: float = 255) -> float:
    """ssim_index.m on one plane."""
    return float(ssim_map(a, b, lambda x: valid(gaussian(), x), peak).mean())


def matlab_ssim_volume(a: Any, b: Any, peak: float = 255) -> float:
    """MATLAB's ssim(a, b) for H×W×3: a Gaussian of 11×11×11 over replicated borders."""
    window = gaussian(axes=3)
    return float(ssim_map(a, b, lambda x: valid(window, np.pad(x, 5, "edge")), peak).mean())


def uniform_ssim(a: Any, b: Any, peak: float) -> float:
    """scikit-image's default on one plane: 7×7, sample covariance (n / (n - 1))."""
    n = 49
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    windows_a, windows_b = (np.lib.stride_tricks.sliding_window_view(x, (7, 7)) for x in (a, b))
    mu1, mu2 = windows_a.mean((2, 3)), windows_b.mean((2, 3))
    var1, var2 = windows_a.var((2, 3)) * n / (n - 1), windows_b.var((2, 3)) * n / (n - 1)
    cov = ((windows_a * windows_b).mean((2, 3)) - mu1 * mu2) * n / (n - 1)
    s = ((2 * mu1 * mu2 + c1) * (2 * cov + c2)) / ((mu1**2 + mu2**2 + c1) * (var1 + var2 + c2))
    return float(s.mean())


def per_channel(metric: Any, a: Any, b: Any, *rest: float) -> float:
    return float(np.mean([metric(a[..., i], b[..., i], *rest) for i in range(a.shape[2])]))


@st.composite
def pairs(draw: st.DrawFn, bits: int = 8) -> tuple[Any, Any]:
    """A target and something like it, of at least one SSIM window."""
    height, width = draw(st.integers(11, 16)), draw(st.integers(11, 16))
    seed, noise = draw(st.integers(0, 2**16)), draw(st.floats(0.002, 0.5))
    target = random_pixels(height, width, bits=bits, seed=seed)
    rng = np.random.default_rng(seed + 1)
    top = 2**bits - 1
    result = np.clip(np.rint(target + rng.normal(0, noise * top, target.shape)), 0, top)
    result[0, 0] = target[0, 0] ^ 1  # never identical
    return result.astype(target.dtype), target


# --- protocols ----------------------------------------------------------------------------------


@given(pairs())
def test_y_is_matlabs_luma_and_wangs_ssim(pair: tuple[Any, Any]) -> None:
    result, target = pair
    a, b = matlab_luma(result), matlab_luma(target)
    if (a == b).all():
        return
    metrics = PROTOCOLS["y"].compare(result, target)
    assert metrics.psnr == pytest.approx(matlab_psnr(a, b), abs=DB)
    assert metrics.ssim == pytest.approx(wang_ssim(a, b), abs=SIMILARITY)
    assert metrics.mae == pytest.approx(np.abs(a - b).mean() / 255)


def test_luma_has_studio_range_and_rounds_halves_up() -> None:
    pixels = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0]]], np.uint8)
    assert (module.y_plane(pixels) * 255).ravel().round(9).tolist() == [16, 235, 81, 145]
    deep = pixels.astype(np.uint16) * 257
    expected = [16 * 257, 235 * 257, round(257 * 81.481), round(257 * 144.553)]
    assert (module.y_plane(deep) * 65535).ravel().round(6).tolist() == expected


@given(pairs())
def test_rgb_is_plain_psnr_and_wangs_ssim_by_channel(pair: tuple[Any, Any]) -> None:
    metrics = PROTOCOLS["rgb"].compare(*pair)
    assert metrics.psnr == pytest.approx(matlab_psnr(*pair), abs=DB)
    assert metrics.ssim == pytest.approx(per_channel(wang_ssim, *pair), abs=SIMILARITY)


@given(pairs())
def test_gray_of_gray_files_and_of_colour_files(pair: tuple[Any, Any]) -> None:
    result, target = pair
    metrics = PROTOCOLS["gray"].compare(result[..., :1], target[..., :1])
    assert metrics.psnr == pytest.approx(matlab_psnr(result[..., 0], target[..., 0]), abs=DB)
    assert metrics.ssim == pytest.approx(wang_ssim(result[..., 0], target[..., 0]), abs=SIMILARITY)
    # Gray files and the same gray as three channels are one thing.
    both = [np.repeat(p[..., :1], 3, axis=2) for p in pair]
    assert PROTOCOLS["gray"].compare(*both) == metrics


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("protocol", ["gopro", "sidd"])
def test_matlabs_ssim_runs_across_the_channels(protocol: str, seed: int) -> None:
    target = random_pixels(9, 13, seed=seed)
    result = random_pixels(9, 13, seed=seed + 10) // 4 + target // 2
    metrics = PROTOCOLS[protocol].compare(result, target)
    assert metrics.psnr == pytest.approx(matlab_psnr(result, target), abs=DB)
    assert metrics.ssim == pytest.approx(matlab_ssim_volume(result, target), abs=SIMILARITY)


@given(pairs(bits=16))
def test_dpdd_keeps_16_bit_and_has_mae(pair: tuple[Any, Any]) -> None:
    result, target = (p / 65535 for p in pair)
    metrics = PROTOCOLS["dpdd"].compare(*pair)
    assert metrics.psnr == pytest.approx(matlab_psnr(result, target, 1), abs=DB)
    assert metrics.ssim == pytest.approx(
        per_channel(uniform_ssim, result, target, 1.0), abs=SIMILARITY
    )
    assert metrics.mae == pytest.approx(np.abs(result - target).mean(), abs=1e-9)


def photo(height: int = 80, width: int = 96, grain: int = 8) -> Any:
    """8 bit with structure at several scales, which alignment needs."""
    rng = np.random.default_rng(0)
    coarse = rng.random((height // grain, width // grain, 3)).astype(np.float32)
    fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(40 + 170 * fine, 0, 255).astype(np.uint8)


def moved(image: Any, dx: float, dy: float) -> Any:
    height, width = image.shape[:2]
    shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return cv2.warpAffine(image, shift, (width, height), borderMode=cv2.BORDER_REFLECT)


def test_realblur_undoes_a_shift_and_a_change_of_brightness() -> None:
    target = photo()
    result = np.rint(0.8 * moved(target, 1.5, -0.75)).astype(np.uint8)
    aligned = PROTOCOLS["realblur"].compare(result, target)
    assert PROTOCOLS["rgb"].compare(result, target).psnr < 25 < 35 < aligned.psnr
    assert aligned.ssim > 0.99


def test_realblur_counts_only_what_both_show() -> None:
    target = photo(grain=20)
    result = moved(target, 8, 7)
    warped, inside = align(result, target)
    mask = np.repeat(inside[..., None], 3, axis=2)
    a, b = warped * mask, module.rgb_planes(target) * mask
    # More is lost at the border than the window of SSIM loses anyway.
    assert 0.7 < mask.mean() < 0.9
    assert not mask[5:-5, 5:-5].all()
    metrics = PROTOCOLS["realblur"].compare(result, target)
    error = ((a - b) ** 2).sum() / mask.sum()
    assert metrics.psnr == pytest.approx(10 * math.log10(1 / error), abs=DB)
    similar = []
    for channel in range(3):
        values = ssim_map(a[..., channel], b[..., channel], lambda x: valid(gaussian(), x), peak=1)
        counted = mask[5:-5, 5:-5, channel]
        similar.append((values * counted).sum() / counted.sum())
    assert metrics.ssim == pytest.approx(np.mean(similar), abs=SIMILARITY)


@st.composite
def similar(draw: st.DrawFn) -> tuple[Any, Any]:
    """Images of any shape, depth and likeness, smaller and larger than strips."""
    bits = draw(st.sampled_from([8, 16]))
    shape = (draw(st.integers(16, 90)), draw(st.integers(11, 40)), draw(st.sampled_from([1, 3])))
    target = random_pixels(*shape, bits=bits, seed=draw(st.integers(0, 99)))
    if draw(st.booleans()):  # smooth, so that variances are small
        target = cv2.blur(target, (9, 9)).reshape(shape)
    top = 2**bits - 1
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    noise = rng.normal(0, draw(st.sampled_from([0.001, 0.05, 0.5])) * top, shape)
    result = np.clip(np.rint(target + noise), 0, top).astype(target.dtype)
    return result, target


@pytest.mark.parametrize("protocol", sorted(set(PROTOCOLS) - {"realblur"}))
@given(similar(), st.integers(16, 40))
def test_strips_add_up_to_the_whole_image(protocol: str, pair: tuple[Any, Any], rows: int) -> None:
    whole = whole_image_metrics.compare(protocol, *pair)
    with (
        mock.patch.object(module, "STRIP_VALUES", 1),
        mock.patch.object(module, "STRIP_ROWS", rows),
    ):
        assert len(module.strips(*pair[0].shape)) == -(-len(pair[0]) // rows)
        strips = PROTOCOLS[protocol].compare(*pair)
    assert_same(strips, whole)
    assert_same(PROTOCOLS[protocol].compare(*pair), whole)


@given(similar())
def test_strips_of_what_is_not_rounded_add_up(pair: tuple[Any, Any]) -> None:
    result, target = pair
    restored = (result / np.iinfo(result.dtype).max * 1.1 - 0.02).astype(np.float32)
    clamped = np.clip(restored, 0, 1).astype(np.float64)
    whole = whole_image_metrics.compare_planes("sidd", clamped, module.rgb_planes(target))
    with mock.patch.object(module, "STRIP_VALUES", 1):
        assert_same(PROTOCOLS["sidd"].compare_unrounded(restored, target), whole)


@pytest.mark.parametrize(("dx", "dy", "light"), [(1.5, -0.75, 0.8), (8, 7, 1.0), (0, 0, 0.5)])
@pytest.mark.parametrize("bits", [8, 16])
def test_strips_of_aligned_images_add_up(dx: float, dy: float, light: float, bits: int) -> None:
    target = photo(height=120, grain=20)
    result = np.rint(light * moved(target, dx, dy)).astype(np.uint8)
    if bits == 16:
        result, target = (p.astype(np.uint16) * 257 for p in (result, target))
    whole = whole_image_metrics.compare("realblur", result, target)
    with mock.patch.object(module, "STRIP_VALUES", 1):
        assert_same(PROTOCOLS["realblur"].compare(result, target), whole)


def assert_same(strips: Any, whole: Any) -> None:
    assert strips.psnr == pytest.approx(whole.psnr, abs=1e-10, rel=1e-12)
    assert strips.ssim == pytest.approx(whole.ssim, abs=1e-10)
    assert strips.mae == pytest.approx(whole.mae, abs=1e-12)


@given(st.integers(1, 5000), st.integers(1, 3000), st.sampled_from([1, 3]))
def test_strips_cover_every_row_once(height: int, width: int, channels: int) -> None:
    found = module.strips(height, width, channels)
    assert [row for a, b in found for row in range(a, b)] == list(range(height))
    # Windows fit into the first and the last strip with its halo, if they fit into the image.
    assert min(b - a for a, b in found) > module.BORDER or len(found) == 1


def test_realblur_refuses_what_cannot_be_aligned() -> None:
    black = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(ImageError, match="cannot be aligned"):
        PROTOCOLS["realblur"].compare(black, smooth_pixels(32, 32))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_identical_images_are_perfect(protocol: str) -> None:
    metrics = PROTOCOLS[protocol].compare(photo(), photo())
    assert metrics.psnr == math.inf
    assert metrics.ssim == pytest.approx(1, abs=1e-12)
    assert metrics.mae == 0


@pytest.mark.parametrize("protocol", sorted(set(PROTOCOLS) - {"realblur"}))
@given(a=st.integers(0, 255), b=st.integers(0, 255))
def test_constant_images_differ_in_luminance_alone(protocol: str, a: int, b: int) -> None:
    result, target = (np.full((12, 12, 3), value, np.uint8) for value in (a, b))
    metrics = PROTOCOLS[protocol].compare(result, target)
    if protocol == "y":
        a, b = (int(matlab_luma(p)[0, 0]) for p in (result, target))
    c1 = (0.01 * 255) ** 2
    assert metrics.mae == pytest.approx(abs(a - b) / 255)
    assert metrics.psnr == (
        pytest.approx(20 * math.log10(255 / abs(a - b)), abs=DB) if a != b else math.inf
    )
    expected = (2 * a * b + c1) / (a**2 + b**2 + c1)
    assert metrics.ssim == pytest.approx(expected, abs=SIMILARITY)


@pytest.mark.parametrize("protocol", sorted(set(PROTOCOLS) - {"realblur"}))
def test_bit_depths_meet_between_0_and_1(protocol: str) -> None:
    # Made of colours, gray and luma are rounded at the depth of the file, so those meet in gray.
    channels = 1 if protocol in ("gray", "y") else 3
    shallow, target = (random_pixels(14, 15, channels, seed=seed) for seed in (0, 1))
    deep = shallow.astype(np.uint16) * 257
    method = PROTOCOLS[protocol]
    assert method.compare(deep, shallow).psnr == math.inf
    assert method.compare(deep, target).psnr == pytest.approx(method.compare(shallow, target).psnr)


def test_images_that_do_not_fit_are_refused_in_one_line() -> None:
    rgb = PROTOCOLS["rgb"]
    with pytest.raises(ImageError, match=r"differs in size .*20×12 against 12×20"):
        rgb.compare(random_pixels(12, 20), random_pixels(20, 12))
    with pytest.raises(ImageError, match="the result is gray, its target in colour"):
        rgb.compare(random_pixels(12, 12, channels=1), random_pixels(12, 12))
    with pytest.raises(ImageError, match="10×30 pixels are too few"):
        rgb.compare(random_pixels(30, 10), random_pixels(30, 10, seed=1))
