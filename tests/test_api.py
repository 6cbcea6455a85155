"""The package as a Python program uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import (
    make_images,
    random_pixels,
    read,
    restormer,
    save,
    tiny_network,
    write,
    zero_network,
)

from restormer_cli import Restorer, load_restorer, restore_folder
from restormer_cli.errors import UsageError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_images(tmp_path / "in", 2)


def states(outcomes: list[Any]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def test_a_folder_is_restored_once(photos: Path, tmp_path: Path) -> None:
    write(photos / "sub" / "c.png", random_pixels(9, 9))
    (photos / "bad.png").write_bytes(b"no image")
    restorer = Restorer(zero_network())
    outcomes = restore_folder(restorer, photos, tmp_path / "out", recursive=True)
    assert sorted(states(outcomes)) == ["done", "done", "done", "failed"]
    for name in ("0.png", "sub/c.png"):
        np.testing.assert_array_equal(read(tmp_path / "out" / name), read(photos / name))
    again = restore_folder(restorer, str(photos), str(tmp_path / "out"), recursive=True)
    assert sorted(states(again)) == ["failed", "skipped", "skipped", "skipped"]
    assert ["bad.png" in o.error for o in again if o.error] == [True]
    with pytest.raises(UsageError, match="no such folder"):
        restore_folder(restorer, tmp_path / "none", tmp_path / "other")


def test_several_folders_and_files_are_restored(photos: Path, tmp_path: Path) -> None:
    make_images(tmp_path / "more", 1)
    sources = [photos / "0.png", str(tmp_path / "more")]
    outcomes = restore_folder(Restorer(zero_network()), sources, tmp_path / "out")
    assert states(outcomes) == ["done", "done"]
    for name in ("in/0.png", "more/0.png"):
        np.testing.assert_array_equal(read(tmp_path / "out" / name), read(tmp_path / name))


@pytest.mark.parametrize(
    ("restorer", "settings"),
    [
        (Restorer(tiny_network(seed=1)), {}),
        (Restorer(tiny_network(), tile=8, tile_overlap=0), {}),
        (Restorer(tiny_network(), dtype=torch.bfloat16), {}),
        (Restorer(tiny_network()), {"bit_depth": 16}),
    ],
    ids=["network", "tiles", "precision", "bit depth"],
)
def test_results_of_other_networks_and_settings_are_made_again(
    photos: Path, tmp_path: Path, restorer: Restorer, settings: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    assert states(restore_folder(Restorer(tiny_network()), photos, out)) == ["done"] * 2
    # The same parameters are the same network.
    assert states(restore_folder(Restorer(tiny_network()), photos, out)) == ["skipped"] * 2
    before = read(out / "0.png")
    assert states(restore_folder(restorer, photos, out, **settings)) == ["done"] * 2
    after = read(out / "0.png")
    assert before.dtype != after.dtype or not np.array_equal(before, after)


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_results_of_the_command_are_known_and_the_other_way_round(
    photos: Path, tmp_path: Path, precision: str
) -> None:
    weights = save(tiny_network(), tmp_path / "net.safetensors")
    out = tmp_path / "out"
    words = ("derain", "--input-dir", photos, "--result-dir", out, "--weights", weights)
    words += ("--precision", precision)
    assert restormer(*words).status == 0
    restorer = load_restorer("derain", weights=str(weights), precision=precision)
    assert states(restore_folder(restorer, photos, out)) == ["skipped"] * 2
    assert states(restore_folder(restorer, photos, out, overwrite=True)) == ["done"] * 2
    assert restormer(*words).lines == []


def test_anything_that_is_called_like_a_restorer_will_do(photos: Path, tmp_path: Path) -> None:
    def black(*views: Any, bit_depth: int | None, progress: Any) -> Any:
        return np.zeros_like(views[0])

    assert states(restore_folder(black, photos, tmp_path / "out")) == ["done"] * 2
    assert not read(tmp_path / "out" / "0.png").any()
