"""Floating-point TIFF, as darktable and RawTherapee exchange it: 16 bit, with what is clipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers import random_pixels, read, restormer, save, zero_network
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from image_files import tiff_by_library

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs.base import FLOATS_TOGETHER, from_floats
from restormer_cli.images.picture import Picture
from restormer_cli.images.reading import decode_image

HEIGHT, WIDTH = 20, 30
KINDS = [np.float16, np.float32, np.float64]


def floats(kind: Any, channels: int = 3) -> Any:
    return (random_pixels(HEIGHT, WIDTH, channels, 16) / 65535).astype(kind)


def in_16_bit(samples: Any) -> Any:
    wide = samples.astype(np.result_type(samples.dtype, np.float32))
    return np.rint(wide * wide.dtype.type(65535)).astype(np.uint16)


def all_of(picture: Picture) -> Any:
    alpha = [] if picture.alpha is None else [picture.alpha[..., None]]
    return np.concatenate([picture.pixels, *alpha], axis=2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw", "rowsperstrip": 7},
        {"tile": (16, 16), "bigtiff": True},
        {"byteorder": ">"},
    ],
    ids=str,
)
def test_samples_are_spread_over_16_bit(kind: Any, channels: int, settings: Any) -> None:
    samples = floats(kind, channels)
    kinds = {1: {"photometric": "minisblack"}, 3: {"photometric": "rgb"},
             4: {"photometric": "rgb", "extrasamples": ["unassalpha"]}}  # fmt: skip
    picture = decode_image(tiff_by_library(samples.squeeze(), **kinds[channels], **settings))
    np.testing.assert_array_equal(all_of(picture), in_16_bit(samples))
    assert picture.bit_depth == 16
    assert picture.notes == ()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_every_value_of_16_bit_comes_back(kind: Any) -> None:
    levels = np.arange(65536).reshape(256, 256)
    samples = (levels / 65535).astype(kind)
    picture = decode_image(tiff_by_library(samples, photometric="minisblack"))
    np.testing.assert_array_equal(picture.pixels[..., 0], levels)


def test_planes_and_black_for_white_are_as_they_should_be() -> None:
    samples = floats(np.float32)
    planes = np.ascontiguousarray(samples.transpose(2, 0, 1))
    picture = decode_image(tiff_by_library(planes, photometric="rgb", planarconfig="separate"))
    np.testing.assert_array_equal(picture.pixels, in_16_bit(samples))
    picture = decode_image(tiff_by_library(samples[..., 0], photometric="miniswhite"))
    np.testing.assert_array_equal(picture.pixels, 65535 - in_16_bit(samples[..., :1]))


def test_colours_that_alpha_has_darkened_are_light_again() -> None:
    samples = floats(np.float32, 4)
    samples[..., 3] = np.maximum(samples[..., 3], 0.5)
    darkened = samples * np.dstack([samples[..., 3:]] * 3 + [np.ones_like(samples[..., :1])])
    picture = decode_image(
        tiff_by_library(darkened, photometric="rgb", extrasamples=["assocalpha"])
    )
    assert np.abs(all_of(picture).astype(int) - in_16_bit(samples)).max() <= 2


@pytest.mark.parametrize("kind", KINDS)
def test_values_beyond_black_and_white_are_clipped_and_counted(kind: Any) -> None:
    samples = floats(kind)
    samples[0, 0], samples[1, 1] = (-0.5, 0, 1), (2, 1.01, -0.0)
    picture = decode_image(tiff_by_library(samples, photometric="rgb"))
    assert picture.pixels[0, 0].tolist() == [0, 0, 65535]
    assert picture.pixels[1, 1].tolist() == [65535, 65535, 0]
    assert picture.notes == (
        "has 3 of 1800 floating-point samples outside of 0 to 1; they are clipped",
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(kind: Any, value: float) -> None:
    samples = floats(kind)
    samples[3, 4, 1] = samples[5, 6] = value
    with pytest.raises(ImageError, match=r"has 4 of 1800 .* not a number \(NaN\); mend them"):
        decode_image(tiff_by_library(samples, photometric="rgb"))


@given(arrays(np.float32, st.integers(1, 50), elements=st.floats(width=32)))
def test_any_values_are_clipped_or_refused(samples: Any) -> None:
    usable = np.isfinite(samples)
    if not usable.all():
        with pytest.raises(ImageError, match=f"has {np.count_nonzero(~usable)} of {samples.size}"):
            from_floats(samples)
        return
    pixels, notes = from_floats(samples)
    np.testing.assert_array_equal(pixels, in_16_bit(np.clip(samples, 0, 1)))
    outside = np.count_nonzero((samples < 0) | (samples > 1))
    assert bool(notes) == bool(outside)
    assert not notes or f"has {outside} of {samples.size} " in notes[0]


def test_samples_that_are_looked_at_in_parts_are_counted_in_all() -> None:
    samples = np.full(2 * FLOATS_TOGETHER + 5, 0.25, np.float32)
    samples[[0, FLOATS_TOGETHER, -1]] = 9
    pixels, (note,) = from_floats(samples)
    assert f"has 3 of {samples.size} " in note
    assert np.count_nonzero(pixels == 16384) == samples.size - 3
    samples[-1] = np.nan
    with pytest.raises(ImageError, match="has 1 of"):
        from_floats(samples)


def test_a_float_tiff_that_is_cut_off_is_damaged() -> None:
    data = tiff_by_library(floats(np.float32), photometric="rgb", compression="zlib")
    for kept in (0.5, 0.99):
        with pytest.raises(ImageError, match=r"damaged|cut off"):
            decode_image(data[: int(kept * len(data))])


def test_the_command_restores_floats_to_16_bit(tmp_path: Path) -> None:
    weights = save(zero_network(), tmp_path / "net.safetensors")
    for name in ("in", "bad"):
        (tmp_path / name).mkdir()
    samples = floats(np.float32)
    samples[0, 0, 0] = 3
    tifffile.imwrite(tmp_path / "in" / "a.tif", samples, photometric="rgb")
    samples[0, 0, 0] = np.nan
    tifffile.imwrite(tmp_path / "in" / "b.tif", samples, photometric="rgb")
    ran = restormer(
        "derain", "--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out",
        "--weights", weights, "--precision", "float32",
    )  # fmt: skip
    assert ran.status == 1
    assert "a.tif: has 1 of 1800 floating-point samples outside of 0 to 1" in ran.err
    assert "b.tif: has 1 of 1800 floating-point samples that are infinite or not" in ran.err
    result = read(tmp_path / "out" / "a.png")
    np.testing.assert_array_equal(result, in_16_bit(np.clip(np.nan_to_num(samples, nan=3), 0, 1)))
