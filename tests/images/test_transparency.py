"""What cannot be seen: without influence on what can, and in the result as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    random_pixels,
    read,
    restormer,
    save,
    smooth_pixels,
    tiny_network,
    write,
    zero_network,
)
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.images.picture import Picture
from restormer_cli.images.transparency import fill_invisible, with_alpha

SIZE = 32


def disc() -> Any:
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    return x**2 + y**2 < (SIZE / 3) ** 2


def cut_out(bits: int, hidden: int, channels: int = 3) -> Any:
    """A disc of colour, or of gray, in what cannot be seen."""
    dtype = np.uint8 if bits == 8 else np.uint16
    colours = smooth_pixels(SIZE, SIZE)[..., :channels].astype(dtype) * (2**bits // 256)
    colours[~disc()] = hidden
    return np.dstack([colours, np.where(disc(), 2**bits - 1, 0).astype(dtype)])


def restored(folder: Path, network: Path, images: dict[str, Any], *words: object) -> dict[str, Any]:
    for name, pixels in images.items():
        write(folder / "in" / f"{name}.png", pixels)
    ran = restormer(
        *("denoise", "--kind", "color", "--weights", network, "--precision", "float32"),
        *("--input-dir", folder / "in", "--result-dir", folder / "out", *words),
    )
    assert ran.status == 0, ran.err
    return {name: read(folder / "out" / f"{name}.png") for name in images}


@pytest.mark.parametrize("bits", [8, 16])
def test_hidden_colours_do_not_change_what_is_seen_and_come_back(tmp_path: Path, bits: int) -> None:
    network = save(tiny_network("bias_free"), tmp_path / "random.safetensors")
    images = {f"{n}": cut_out(bits, n * (2**bits // 256)) for n in (0, 100, 255)}
    results = restored(tmp_path, network, images)
    seen = disc()
    assert (results["0"][seen] != images["0"][seen]).any()  # the network did something
    for name, pixels in images.items():
        np.testing.assert_array_equal(results[name][seen], results["0"][seen])
        np.testing.assert_array_equal(results[name][~seen], pixels[~seen], strict=True)
        np.testing.assert_array_equal(results[name][..., 3], pixels[..., 3])


@pytest.mark.parametrize("bits", [8, 16])
def test_a_picture_of_nothing_comes_back_as_it_was(tmp_path: Path, bits: int) -> None:
    network = save(tiny_network("bias_free"), tmp_path / "random.safetensors")
    pixels = random_pixels(SIZE, SIZE, 4, bits)
    pixels[..., 3] = 0
    np.testing.assert_array_equal(restored(tmp_path, network, {"a": pixels})["a"], pixels)


def test_hidden_colours_take_the_bit_depth_of_the_result(tmp_path: Path) -> None:
    network = save(zero_network("bias_free"), tmp_path / "zero.safetensors")
    deep = restored(tmp_path, network, {"a": cut_out(8, 77)}, "--bit-depth", 16)["a"]
    np.testing.assert_array_equal(deep, cut_out(8, 77).astype(np.uint16) * 257, strict=True)


def test_both_views_of_dual_pixels_are_filled(tmp_path: Path) -> None:
    network = save(tiny_network("dual_pixel"), tmp_path / "random.safetensors")
    results = []
    for hidden in (0, 255):
        for side, other in (("inputL", 0), ("inputR", 9)):
            pixels = cut_out(8, abs(hidden - other))
            write(tmp_path / str(hidden) / side / "a.png", pixels)
        ran = restormer(
            *("dual-pixel", "--weights", network, "--precision", "float32"),
            *("--input-dir", tmp_path / str(hidden), "--result-dir", tmp_path / f"out{hidden}"),
        )
        assert ran.status == 0, ran.err
        results.append(read(tmp_path / f"out{hidden}" / "a.png"))
    np.testing.assert_array_equal(results[0][disc()], results[1][disc()])
    assert (results[0][~disc()] == [0, 0, 0, 0]).all()
    assert (results[1][~disc()] == [255, 255, 255, 0]).all()


def test_what_can_be_seen_a_little_is_restored_and_what_can_hardly_is_not(
    tmp_path: Path,
) -> None:
    pixels = random_pixels(SIZE, SIZE, 3)
    alpha = np.full((SIZE, SIZE), 255, np.uint8)
    alpha[:, :8], alpha[:, 8:16] = 1, 64
    filled = fill_invisible(pixels, alpha)
    np.testing.assert_array_equal(filled[:, 8:], pixels[:, 8:])
    np.testing.assert_array_equal(filled[:, :8], np.repeat(pixels[:, 8:9], 8, axis=1))
    result = with_alpha(Picture(pixels, alpha), np.zeros_like(pixels))
    assert (result.pixels[:, 8:] == 0).all()
    np.testing.assert_array_equal(result.pixels[:, :8], pixels[:, :8])


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 9), st.sampled_from([8, 16]))
def test_hidden_pixels_take_a_visible_colour_that_is_near(
    height: int, width: int, seed: int, bits: int
) -> None:
    pixels = random_pixels(height, width, 3, bits, seed)
    alpha = np.random.default_rng(seed).choice([0, 2**bits - 1], (height, width))
    alpha = alpha.astype(pixels.dtype)
    before = pixels.copy()
    filled = fill_invisible(pixels, alpha)
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(filled[alpha > 0], pixels[alpha > 0])
    places = np.argwhere(alpha > 0)
    for y, x in np.argwhere(alpha == 0):
        if not len(places):
            np.testing.assert_array_equal(filled, pixels)
            break
        distances = np.hypot(*(places - (y, x)).T)
        near = places[distances <= distances.min() + 1]
        assert any((filled[y, x] == pixels[tuple(place)]).all() for place in near)
    again = with_alpha(Picture(pixels, alpha), filled)
    np.testing.assert_array_equal(again.pixels, pixels)
    np.testing.assert_array_equal(again.alpha, alpha)
