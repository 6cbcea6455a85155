"""What is measured of windows: which part of a photo, what is kept, which means are printed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from measure_windows import AREA, WINDOWS, Log, heading, middle, psnr, variant_of
from recipes import RECIPES


@pytest.mark.parametrize("size", [(1598, 1600), (769, 1600), (1600, 800), (700, 900)])
@pytest.mark.parametrize("margin", [0, 24])
def test_a_megapixel_is_cut_from_the_middle(size: tuple[int, int], margin: int) -> None:
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    part = middle(np.stack([rows, columns, rows], axis=2), margin)
    inside = part.shape[0] - 2 * margin, part.shape[1] - 2 * margin
    there = (size[0] - 2 * margin) * (size[1] - 2 * margin)
    assert inside[0] * inside[1] >= min(AREA, there)
    assert inside[0] * inside[1] < 1.02 * AREA
    for axis in range(2):
        assert part[..., axis].mean() == pytest.approx((size[axis] - 1) / 2, abs=0.51)


def test_psnr_is_that_of_a_file_of_8_bit() -> None:
    clean = np.full((4, 4, 3), 0.5, np.float32)
    assert psnr(clean + 0.1, clean) == pytest.approx(20, abs=0.2)
    assert psnr(np.full_like(clean, 7), np.full_like(clean, 0.9)) == pytest.approx(20, abs=0.01)


def test_what_was_measured_is_known_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    sample = Log(path).sample("derain", "light", 3)
    assert sample.lacks("window 96")
    sample.add("window 96", 31.5)
    again = Log(path)
    assert not again.sample("derain", "light", 3).lacks("window 96")
    assert again.sample("derain", "light", 2).lacks("window 96")
    assert again.sample("derain", "heavy", 3).lacks("window 96")


def test_only_photos_that_all_columns_have_count(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    for photo, figures in enumerate([(30.0, 31.0), (32.0, 35.0), (99.0,)]):
        for what, figure in zip(("window none", "window 96"), figures, strict=False):
            log.sample("derain", "light", photo).add(what, figure)
    log.sample("derain", "light", 0).add("mean all", 12.0)
    log.sample("derain", "light", 1).add("tile 96", 13.0)
    assert log.table("derain", "window")[0] == "| derain | photos | none | 96 |"
    assert log.table("derain", "window")[2] == "| light | 2 | 31.00 | 33.00 |"
    assert log.table("deblur_motion", "window") == []


def test_columns_are_ordered_whatever_was_measured_first(tmp_path: Path) -> None:
    sample = Log(tmp_path / "log.jsonl").sample("derain", "light", 0)
    for what in ("window 96", "window none", "window 256", "degraded"):
        sample.add(what, 1.0)
    heads = sample.log.table("derain", "window")[0]
    assert heads == "| derain | photos | degraded | none | 256 | 96 |"


def test_all_recipes_and_windows_can_be_measured() -> None:
    assert {variant_of(name).compact for name in RECIPES} == {r.options for r in RECIPES.values()}
    assert len(set(map(heading, WINDOWS))) == len(WINDOWS)
    assert all(window is None or window % 8 == 0 for window in WINDOWS)
