"""Rain streaks and haze (scripts/training/degradations/rain.py)."""

from __future__ import annotations

import numpy as np
import pytest
from degradations.rain import HAZE, rain, streak_kernel, streak_layer
from hypothesis import given
from hypothesis import strategies as st
from photos import few, flat, generator, photo, seeds


@few
@given(seed=seeds, amount=st.floats(0, 1), layers=st.integers(1, 5), haze=st.floats(0, HAZE))
def test_rain_only_brightens(seed: int, amount: float, layers: int, haze: float) -> None:
    clean = photo(48, 48)
    assert (rain(clean, generator(seed), amount, layers, haze) >= clean - 1e-6).all()


def test_haze_veils_what_no_streak_covers() -> None:
    clean = flat(0.2)
    hazy = rain(clean, generator(2), 0.02, haze=0.2)
    assert hazy.min() > 0.21
    assert hazy.max() < 1


def test_more_rain_covers_more() -> None:
    clean = flat(0.3)

    def light(amount: float) -> float:
        return float(np.mean([rain(clean, generator(s), amount, 2).mean() for s in range(20)]))

    assert 0.3 < light(0.1) < light(0.4) < light(1)


@pytest.mark.parametrize("angle", [-40, 0, 25])
def test_streaks_have_the_direction_asked_for(angle: float) -> None:
    kernel = streak_kernel(angle, 30, 1.5)
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
        kernel = streak_kernel(20, 40, 6, flatness, fade)
        return int(((kernel > 0.1) & (kernel < 0.9)).sum())

    assert between(6, 0.05) < 0.7 * between(6, 0.4)
    assert between(6, 0.05) < 0.6 * between(2, 0.05)


@pytest.mark.parametrize(("width", "length"), [(0.8, 12), (2, 60), (4, 32)])
def test_streaks_cover_what_was_asked_for(width: float, length: float) -> None:
    covered = [
        float((streak_layer((192, 192), generator(s), 5, length, width, 0.1) > 0.15).mean())
        for s in range(8)
    ]
    assert 0.04 < np.mean(covered) < 0.16


def test_light_rain_leaves_most_pixels_alone() -> None:
    streaks = streak_layer((256, 256), generator(0), 10, 25, 1.2, coverage=0.09)
    assert 0.02 < (streaks > 0.1).mean() < 0.25
