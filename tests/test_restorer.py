"""A Restorer: local windows and the mean over flips and turns, from the outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tlc
import torch
from helpers import NO_SHRINKING, random_pixels, tiny_network
from hypothesis import given, settings
from hypothesis import strategies as st

from restormer_cli import restorer as module
from restormer_cli.errors import ImageError, UsageError
from restormer_cli.images.pixels import normalise, quantise
from restormer_cli.network.memory_plan import MemoryBudgetError
from restormer_cli.restorer import Restorer, pad
from restormer_cli.symmetries import SYMMETRIES, Symmetry

NETWORK = tiny_network()
DUAL = tiny_network("dual_pixel")

#: What a person would write, in the order of no program.
BY_HAND = {
    "mirror": [(lambda x: x, lambda y: y), (np.fliplr, np.fliplr)],
    "flip": [(lambda x: x, lambda y: y), (np.flipud, np.flipud)],
    "all": [(lambda x, k=k: np.rot90(x, k), lambda y, k=k: np.rot90(y, -k)) for k in range(4)]
    + [
        (lambda x, k=k: np.rot90(np.fliplr(x), k), lambda y, k=k: np.fliplr(np.rot90(y, -k)))
        for k in range(4)
    ],
}


def floats(height: int, width: int, channels: int = 3, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((height, width, channels), dtype=np.float32)


def close(result: Any, expected: Any, tolerance: float = 1e-5) -> bool:
    """True if they differ by rounding alone, relative to values above 1."""
    allowed = tolerance * max(1.0, float(np.abs(expected).max()))
    return result.shape == expected.shape and float(np.abs(result - expected).max()) <= allowed


def test_every_set_of_symmetries_is_tried_here() -> None:
    assert BY_HAND.keys() == SYMMETRIES.keys()


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    symmetry=st.builds(Symmetry, turns=st.integers(0, 3), mirrored=st.booleans()),
)
def test_what_is_undone_is_as_it_was(height: int, width: int, symmetry: Symmetry) -> None:
    image = floats(height, width)
    assert (symmetry.undo(symmetry.apply(image)) == image).all()
    assert (symmetry.undo(symmetry.apply(image[None])) == image).all()


def test_all_are_eight_and_each_another() -> None:
    image = floats(3, 3)
    held = {symmetry.apply(image).tobytes() for symmetry in SYMMETRIES["all"]}
    assert len(held) == 8


@pytest.mark.parametrize(
    ("size", "window", "tile"),
    [
        ((33, 27), None, None),
        ((40, 24), 16, None),
        ((24, 40), None, 16),
        ((33, 17), 16, 24),
        ((1, 19), 16, None),
    ],
)
@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_self_ensemble_is_the_mean_of_explicit_passes(name, size, window, tile) -> None:
    once = Restorer(NETWORK, window=window, tile=tile, tile_overlap=8)
    several = Restorer(NETWORK, window=window, tile=tile, tile_overlap=8, self_ensemble=name)
    image = floats(*size)
    passes = [
        back(once.unrounded(np.ascontiguousarray(there(image)))) for there, back in BY_HAND[name]
    ]
    assert close(several.unrounded(image), np.mean(passes, axis=0))


@pytest.mark.parametrize(("kind", "channels"), [("dual_pixel", 3), ("gray", 1), ("gray", 3)])
def test_self_ensemble_of_other_kinds(kind: str, channels: int) -> None:
    network = tiny_network(kind)
    views = 2 if kind == "dual_pixel" else 1
    pixels = [random_pixels(70, 90, channels, bits=16, seed=seed) for seed in range(views)]
    several = Restorer(network, views=views, self_ensemble="flip")(*pixels)
    once = Restorer(network, views=views)
    inputs = np.concatenate([normalise(view) for view in pixels], axis=2)
    if kind == "gray":
        parts = [inputs[..., plane : plane + 1] for plane in range(channels)]
    else:
        parts = [inputs]
    expected = [
        (once.unrounded(part) + once.unrounded(part[::-1].copy())[::-1]) / 2 for part in parts
    ]
    assert several.shape == pixels[0].shape
    expected_pixels = quantise(np.concatenate(expected, axis=2), 16).astype(int)
    assert np.abs(several - expected_pixels).max() <= 2


@pytest.mark.parametrize(("size", "window"), [((45, 61), None), ((48, 40), 24), ((5, 7), 24)])
@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_results_follow_what_is_averaged_over(name, window, size) -> None:
    """A mirrored or turned photo gives the mirrored or turned result; one pass does not."""
    image = floats(*size)
    several = Restorer(NETWORK, self_ensemble=name, window=window)
    once = Restorer(NETWORK, window=window)
    as_it_is, alone = several.unrounded(image), once.unrounded(image)
    for there, back in BY_HAND[name][1::4]:  # of all, a turn and a turned mirror image
        held = np.ascontiguousarray(there(image))
        assert close(back(several.unrounded(held)), as_it_is)
        assert np.abs(back(once.unrounded(held)) - alone).max() > 1e-2


def test_a_mirror_alone_is_not_what_an_ensemble_of_flips_follows() -> None:
    image = floats(40, 32)
    several = Restorer(NETWORK, self_ensemble="flip")
    difference = several.unrounded(image[:, ::-1].copy())[:, ::-1] - several.unrounded(image)
    assert np.abs(difference).max() > 1e-2


@pytest.mark.parametrize("tile", [None, 32])
def test_progress_counts_all_passes(tile: int | None) -> None:
    shares: list[float] = []
    restorer = Restorer(NETWORK, self_ensemble="all", tile=tile, tile_overlap=8)
    restorer(random_pixels(56, 64), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] == 1.0
    for passed in range(1, 9):
        assert any(share == pytest.approx(passed / 8) for share in shares)


def test_progress_counts_the_channels_that_a_gray_network_restores_one_by_one() -> None:
    shares: list[float] = []
    Restorer(tiny_network("gray"))(random_pixels(72, 80), progress=shares.append)
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.2
    assert any(share == pytest.approx(1 / 3) for share in shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize(("name", "window"), [("all", None), ("mirror", 16)])
def test_small_images_together_are_as_they_are_alone(name: str, window: int | None) -> None:
    restorer = Restorer(NETWORK, self_ensemble=name, window=window)
    images = [random_pixels(17, 24, seed=seed) for seed in range(2)]
    assert restorer.images_together(17, 24, 3) > 1
    together = restorer.restore_together([(image,) for image in images])
    for image, result in zip(images, together, strict=True):
        assert (restorer(image) == result).all()


def test_what_memory_cannot_hold_turned_is_refused_before_any_pass(monkeypatch) -> None:
    """No hour of passes that ends in a refusal."""
    plan = module.plan_memory

    def refuse_tall(config, height, width, *others, **named):
        if height > width:
            raise MemoryBudgetError("too little memory")
        return plan(config, height, width, *others, **named)

    monkeypatch.setattr(module, "plan_memory", refuse_tall)
    restorer = Restorer(NETWORK, self_ensemble="all")
    worked: list[float] = []
    with pytest.raises(ImageError, match="too little memory"):
        restorer(random_pixels(72, 96), progress=worked.append)
    assert worked == []
    Restorer(NETWORK, self_ensemble="mirror")(random_pixels(72, 96), progress=worked.append)
    assert worked[-1] == 1.0


def test_memory_for_the_sum_and_for_small_windows_is_asked_for() -> None:
    once = Restorer(NETWORK).room_for(2000, 3000)[1]
    several = Restorer(NETWORK, self_ensemble="mirror").room_for(2000, 3000)[1]
    windowed = Restorer(NETWORK, window=8).room_for(2000, 3000)[1]
    assert several - once == 2000 * 3000 * 3 * 4
    assert windowed > once


@settings(max_examples=25, phases=NO_SHRINKING)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    window=st.integers(1, 10).map(lambda n: 8 * n),
)
def test_windows_are_those_of_the_padded_image(height: int, width: int, window: int) -> None:
    image = floats(height, width)
    padded = torch.from_numpy(pad(image)).permute(2, 0, 1)[None]
    expected = tlc.forward(NETWORK, padded, window)[0, :, :height, :width].permute(1, 2, 0).numpy()
    result = Restorer(NETWORK, window=window).unrounded(image)
    assert close(result, expected)


def test_tiles_with_windows_are_windows_in_tiles() -> None:
    image = floats(40, 72)
    tiled = Restorer(NETWORK, window=16, tile=40, tile_overlap=8).unrounded(image)
    parts = torch.from_numpy(image).permute(2, 0, 1)[None]
    left, right = (tlc.forward(NETWORK, part, 16)[0] for part in (parts[..., :40], parts[..., 32:]))
    expected = torch.cat(
        [left[..., :32], (left[..., 32:] + right[..., :8]) / 2, right[..., 8:]], dim=2
    )
    assert close(tiled, expected.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("window", [0, -8, 4, 100])
def test_odd_windows_are_refused(window: int) -> None:
    with pytest.raises(UsageError, match=f"--window must be a multiple of 8, not {window}"):
        Restorer(NETWORK, window=window)


def test_unknown_symmetries_are_refused() -> None:
    with pytest.raises(UsageError, match="'round'"):
        Restorer(NETWORK, self_ensemble="round")


def test_settings_tell_windows_and_ensembles_apart() -> None:
    made = [
        Restorer(NETWORK, **values).settings  # type: ignore[arg-type]
        for values in ({}, {"window": 64}, {"window": 72}, {"self_ensemble": "all"})
    ]
    assert len(set(made)) == 4
    assert made[0].changes_from(made[1]) == ["window"]
    assert made[3].changes_from(made[0]) == ["self ensemble"]
