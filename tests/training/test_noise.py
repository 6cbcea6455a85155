"""Noise as cameras make it (scripts/training/degradations/noise.py)."""

from __future__ import annotations

import numpy as np
import pytest
from degradations.images import LUMA, Curve, Image, to_linear
from degradations.noise import (
    SHOT_NOISE,
    blind_camera_noise,
    camera_noise,
    camera_rendering,
    demosaic_bilinear,
    demosaicked,
    typical_read_noise,
)
from hypothesis import given
from hypothesis import strategies as st
from photos import few, flat, generator, photo, seeds, sizes


def test_camera_noise_grows_with_the_signal() -> None:
    def variance(value: float) -> float:
        noisy = [camera_noise(flat(value), generator(s), 0.002) for s in range(20)]
        return float(np.var(to_linear(np.stack(noisy)) - to_linear(flat(value))))

    dark, middle, bright = variance(0.3), variance(0.5), variance(0.7)
    assert dark < middle < bright
    # Variance = shot · light (+ little read noise), and the light of these is 0.073, 0.214, 0.448.
    assert bright / middle == pytest.approx(0.448 / 0.214, rel=0.25)


def test_camera_noise_keeps_the_mean_colour() -> None:
    clean = np.broadcast_to(np.array([0.6, 0.5, 0.4], np.float32), (128, 128, 3)).copy()
    noisy = camera_noise(clean, generator(0), 0.002)
    mean = to_linear(noisy).mean(axis=(0, 1))
    np.testing.assert_allclose(mean, to_linear(clean)[0, 0], rtol=0.02)


def test_camera_noise_is_correlated_between_neighbours() -> None:
    noise = camera_noise(flat(0.5, 128), generator(0), 0.002) - np.float32(0.5)
    for channel in np.moveaxis(noise, -1, 0):
        assert np.corrcoef(channel[:, 1:].ravel(), channel[:, :-1].ravel())[0, 1] > 0.15


def test_a_camera_renders_by_its_response() -> None:
    """Noise is made in light: where a response is steep, the file shows it larger."""
    grid = np.linspace(0, 1, 512)
    level = flat(0.3, 96)

    def deviation(response: Curve) -> float:
        return float(np.std(camera_noise(level, generator(3), 0.002, response=response)))

    # The same code stands for the light 0.3 ** (1 / power); the slope there is power · 0.3 / light.
    shares = []
    for power in (0.45, 0.6, 0.8):
        light = 0.3 ** (1 / power)
        slope = power * 0.3 / light
        shot = np.sqrt(0.002 * light + typical_read_noise(0.002))
        shares.append(deviation(grid**power) / (slope * shot))
    # Demosaicking and development change it by the same share.
    assert max(shares) < 1.15 * min(shares)
    clean = photo()
    for response in (grid**0.3, np.sin(grid * np.pi / 2)):
        unharmed = camera_noise(clean, generator(1), 0, response=response)
        np.testing.assert_allclose(unharmed, clean, atol=1.01 / 255)


def test_measured_responses_change_some_samples_alone() -> None:
    clean, responses = photo(32, 32), np.linspace(0, 1, 64)[None] ** 0.6
    same = [
        np.array_equal(
            blind_camera_noise(clean, generator(seed)),
            blind_camera_noise(clean, generator(seed), responses),
        )
        for seed in range(60)
    ]
    assert 15 < sum(same) < 45


def test_neighbours_are_as_much_alike_as_in_real_cameras() -> None:
    noise = [blind_camera_noise(flat(0.5, 96), generator(s)) - np.float32(0.5) for s in range(60)]
    luma = [n @ LUMA for n in noise if n.std() > 1 / 255]
    alike = [np.corrcoef(n[:, 1:].ravel(), n[:, :-1].ravel())[0, 1] for n in luma]
    assert np.median(alike) == pytest.approx(0.7, abs=0.1)


def test_a_camera_that_smooths_chroma_leaves_coarse_blotches_of_colour() -> None:
    noise = camera_noise(flat(0.5, 128), generator(0), 0.01, smoothing=0.6, chroma_smoothing=3)
    luma = noise @ LUMA
    chroma = noise[..., 2] - luma

    def correlation(channel: Image) -> float:
        """Between pixels that are three columns apart."""
        return float(np.corrcoef(channel[:, 3:].ravel(), channel[:, :-3].ravel())[0, 1])

    assert correlation(chroma) > 0.4
    assert abs(correlation(luma)) < 0.1


def test_a_saturated_sensor_has_no_noise() -> None:
    clean = flat(0.4, 64)
    clean[:, 32:] = 1
    noisy = camera_noise(clean, generator(0), 0.006, smoothing=0.5, chroma_smoothing=2)
    assert np.abs(noisy[:, 40:] - 1).max() == 0
    far, near = (np.std(noisy[:, columns]) for columns in (slice(0, 16), slice(26, 30)))
    assert near < 1.5 * far


def test_camera_noise_does_not_soften_the_photo() -> None:
    clean = photo()
    noisy = np.mean([camera_noise(clean, generator(s), 3e-4) for s in range(40)], axis=0)
    assert np.abs(noisy - clean).mean() < 0.005


def test_camera_noise_covers_good_and_bad_cameras() -> None:
    def psnr(shot: float) -> float:
        clean = photo()
        errors = [np.mean((camera_noise(clean, generator(s), shot) - clean) ** 2) for s in range(5)]
        return float(-10 * np.log10(np.mean(errors)))

    assert psnr(SHOT_NOISE[0]) > 38
    assert psnr(SHOT_NOISE[1]) < 24


def test_demosaicking_keeps_what_was_seen_and_flat_colours() -> None:
    rows, columns = np.ogrid[:16, :16]
    green = ((rows + columns) % 2).astype(np.float32)
    red = ((rows % 2 == 0) & (columns % 2 == 0)).astype(np.float32)
    blue = 1 - green - red
    mosaic = 0.2 * red + 0.5 * green + 0.7 * blue
    full = demosaic_bilinear(mosaic.astype(np.float32), green, red)
    np.testing.assert_allclose(full, np.broadcast_to([0.2, 0.5, 0.7], full.shape), atol=1e-6)
    mosaic = generator(0).random((16, 16), dtype=np.float32)
    full = demosaic_bilinear(mosaic, green, red)
    seen = (full * np.dstack([red, green, blue])).sum(axis=-1)
    np.testing.assert_allclose(seen, mosaic, atol=1e-6)


@few
@given(seed=seeds, height=sizes, width=sizes, colour=st.tuples(*[st.integers(5, 250)] * 3))
def test_a_rendering_keeps_flat_colours(
    seed: int, height: int, width: int, colour: tuple[int, int, int]
) -> None:
    clean = np.empty((height, width, 3), np.float32)
    clean[:] = np.float32(colour) / 255
    rendered = demosaicked(clean, generator(seed))
    assert rendered.dtype == np.float32
    assert rendered.shape == clean.shape
    np.testing.assert_allclose(rendered, clean, atol=1.01 / 255)


def test_a_rendering_differs_at_edges_and_nowhere_else() -> None:
    clean = flat(0.3)
    clean[:, 33:] = [0.9, 0.6, 0.5]
    rendered = demosaicked(clean, generator(1))
    error = np.abs(rendered - clean).max(axis=(0, 2))
    assert error[30:36].max() > 0.03
    assert max(error[:30].max(), error[36:].max()) < 0.01


def test_half_of_the_truth_of_camera_noise_is_rendered() -> None:
    clean = photo(32, 32)
    same = [bool((camera_rendering(clean, generator(s)) == clean).all()) for s in range(60)]
    assert 20 < sum(same) < 40
