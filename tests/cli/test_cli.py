"""The command from end to end, over real folders, with tiny networks."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import torch
from helpers import names, random_pixels, read, restormer, save, smooth_pixels, tiny_network, write
from helpers import zero_network as zeros
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

from restormer_cli import __version__
from restormer_cli.tasks import VARIANTS, shipped_folder, shipped_options

SIZES = [(1, 1), (3, 200), (7, 9), (8, 8), (65, 33)]
FIELDS = ["input", "result", "status", "seconds", "width", "height"]
FIELDS += ["weights", "device", "precision", "window", "self_ensemble", "error"]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny networks on disk: random ones by kind, and those that give back their input."""
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for kind, suffix in (
        ("with_bias", ".pth"),
        ("bias_free", ".safetensors"),
        ("gray", ".pth"),
        ("dual_pixel", ".safetensors"),
    ):
        files[kind] = save(tiny_network(kind), folder / f"{kind}{suffix}")
        if kind != "dual_pixel":  # it has no residual
            files[f"zero_{kind}"] = save(zeros(kind), folder / f"zero_{kind}{suffix}")
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One image of each format, each of another size."""
    folder = tmp_path / "in"
    for (height, width), name in zip(
        SIZES, ("a.png", "b.JPG", "c.webp", "d d é.tif", "e.Bmp"), strict=True
    ):
        write(folder / name, random_pixels(height, width))
    return folder


# --- the four subcommands ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("derain",), "with_bias"),
        (("denoise",), "bias_free"),
        (("denoise", "--kind", "color", "--sigma", "25"), "bias_free"),
        (("denoise", "--kind", "gray"), "gray"),
        (("deblur",), "with_bias"),
        (("deblur", "--kind", "defocus"), "with_bias"),
    ],
)
def test_subcommand_restores_a_folder_of_mixed_formats_and_sizes(
    folder: Path, tmp_path: Path, weights: dict[str, Path], words: tuple[str, ...], kind: str
) -> None:
    out = tmp_path / "deep" / "out"
    ran = restormer(*words, "--input-dir", folder, "--result-dir", out, "--weights", weights[kind])
    assert ran.status == 0, ran.err
    expected = ["a.png", "b.png", "c.png", "d d é.png", "e.png"]
    assert ran.lines == [str(out / name) for name in expected]
    assert names(out) == expected
    for name, size in zip(expected, SIZES, strict=True):
        assert read(out / name).shape == (*size, 3)
        assert read(out / name).dtype == np.uint8


@pytest.mark.parametrize("bits", [8, 16])
def test_dual_pixel_restores_pairs(tmp_path: Path, weights: dict[str, Path], bits: int) -> None:
    for name, size in (("1.png", (9, 20)), ("10.tif", (8, 8)), ("2.png", (1, 1))):
        for side in ("inputL", "inputR"):
            write(tmp_path / "in" / side / name, random_pixels(*size, bits=bits))
    out = tmp_path / "out"
    ran = restormer(
        *("dual-pixel", "--input-dir", tmp_path / "in", "--result-dir", out),
        *("--weights", weights["dual_pixel"]),
    )
    assert ran.status == 0, ran.err
    assert ran.lines == [str(out / name) for name in ("1.png", "2.png", "10.png")]
    assert read(out / "1.png").shape == (9, 20, 3)
    assert read(out / "1.png").dtype == (np.uint8 if bits == 8 else np.uint16)


def test_dual_pixel_uses_both_views_in_their_order(
    tmp_path: Path, weights: dict[str, Path]
) -> None:
    views = {"L": random_pixels(8, 16, seed=1), "R": random_pixels(8, 16, seed=2)}
    results = {}
    for left, right in ("LR", "RL", "LL"):
        source, out = tmp_path / (left + right), tmp_path / "out" / (left + right)
        write(source / "links" / "x.png", views[left])
        write(source / "rechts" / "x.png", views[right])
        ran = restormer(
            *("dual-pixel", "--input-dir", source, "--result-dir", out),
            *("--left", "links", "--right", "rechts", "--weights", weights["dual_pixel"]),
        )
        assert ran.status == 0, ran.err
        results[left + right] = read(out / "x.png")
    assert not np.array_equal(results["LR"], results["RL"])
    assert not np.array_equal(results["LR"], results["LL"])


def test_dual_pixel_names_unpaired_and_unequal_files_and_restores_the_rest(
    tmp_path: Path, weights: dict[str, Path]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("inputL/good.png", "inputR/good.tif", "inputL/lonely.png", "inputR/widow.png"):
        write(source / name, random_pixels(8, 8))
    write(source / "inputL/unequal.png", random_pixels(8, 8))
    write(source / "inputR/unequal.png", random_pixels(8, 9))
    ran = restormer(
        *("dual-pixel", "--input-dir", source, "--result-dir", out),
        *("--weights", weights["dual_pixel"]),
    )
    assert ran.status == 1
    assert ran.lines == [str(out / "good.png")]
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    for name in ("inputL/lonely.png", "inputR/widow.png", "inputL/unequal.png"):
        assert sum(str(source / name) in line for line in errors) == 1


# --- lossless: a network that gives back its input ---------------------------------------


@pytest.mark.parametrize(
    ("precision", "sizes"),
    [
        ("float32", [*SIZES, (256, 257)]),
        ("bfloat16", [(1, 1), (3, 200), (33, 17)]),
        ("float16", [(1, 1), (17, 9)]),  # which CPUs compute slowly
    ],
)
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("derain",), "zero_with_bias"),
        (("denoise",), "zero_bias_free"),
        (("denoise", "--kind", "gray"), "zero_gray"),
    ],
)
def test_zero_network_gives_back_every_bit(
    tmp_path: Path,
    weights: dict[str, Path],
    words: tuple[str, ...],
    kind: str,
    precision: str,
    sizes: list[tuple[int, int]],
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    images = {
        f"{bits}-{channels}-{height}x{width}.png": random_pixels(height, width, channels, bits)
        for bits in (8, 16)
        for channels in (1, 3)
        for height, width in sizes
    }
    for name, pixels in images.items():
        write(source / name, pixels)
    ran = restormer(
        *(*words, "--input-dir", source, "--result-dir", out),
        *("--weights", weights[kind], "--precision", precision, "--device", "cpu"),
    )
    assert ran.status == 0, ran.err
    for name, pixels in images.items():
        np.testing.assert_array_equal(read(out / name), pixels, err_msg=name, strict=True)


# With the default overlap of 32 too, which is more than the second and third have on one side.
@pytest.mark.parametrize("tiles", [(32, 8), (64, 32), (64, 56)])
@pytest.mark.parametrize("size", [(45, 70), (32, 104), (24, 104), (5, 3)])
def test_zero_network_gives_back_every_bit_in_tiles(
    tmp_path: Path, weights: dict[str, Path], size: tuple[int, int], tiles: tuple[int, int]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    pixels = random_pixels(*size)
    write(source / "a.png", pixels)
    words = ("--weights", weights["zero_with_bias"], "--tile", tiles[0], "--tile-overlap", tiles[1])
    ran = restormer("derain", "--input-dir", source, "--result-dir", out, *words)
    assert ran.status == 0, ran.err
    np.testing.assert_array_equal(read(out / "a.png"), pixels, strict=True)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_carried_over_exactly(
    tmp_path: Path, weights: dict[str, Path], channels: int, bits: int
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    pixels = random_pixels(13, 21, 4, bits)
    if channels == 1:
        pixels[..., 1] = pixels[..., 2] = pixels[..., 0]
    write(source / "a.png", pixels)
    words = ("derain", "--input-dir", source)
    zero = restormer(*words, "--result-dir", out / "zero", "--weights", weights["zero_with_bias"])
    real = restormer(*words, "--result-dir", out / "real", "--weights", weights["with_bias"])
    assert (zero.status, real.status) == (0, 0), zero.err + real.err
    np.testing.assert_array_equal(read(out / "zero" / "a.png"), pixels, strict=True)
    result = read(out / "real" / "a.png")
    np.testing.assert_array_equal(result[..., 3], pixels[..., 3], strict=True)
    assert not np.array_equal(result[..., :3], pixels[..., :3])


def test_gray_with_alpha_stays_gray_with_alpha(tmp_path: Path, weights: dict[str, Path]) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    pixels = random_pixels(9, 12, 2)
    PIL.Image.fromarray(pixels).save(source / "la.png")
    ran = restormer(
        *("derain", "--input-dir", source, "--result-dir", out),
        *("--weights", weights["zero_with_bias"]),
    )
    assert ran.status == 0, ran.err
    with PIL.Image.open(out / "la.png") as image:
        result = np.asarray(image.convert("LA"))
    np.testing.assert_array_equal(result, pixels)


@pytest.mark.parametrize(("kind", "words"), [("bias_free", ()), ("gray", ("--kind", "gray"))])
def test_gray_stays_gray_and_16_bit_stay_16_bit(
    tmp_path: Path, weights: dict[str, Path], kind: str, words: tuple[str, ...]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for bits in (8, 16):
        for channels in (1, 3):
            write(source / f"{bits}-{channels}.png", random_pixels(10, 11, channels, bits))
    ran = restormer(
        *("denoise", *words, "--input-dir", source, "--result-dir", out),
        *("--weights", weights[kind]),
    )
    assert ran.status == 0, ran.err
    for bits in (8, 16):
        for channels in (1, 3):
            result = read(out / f"{bits}-{channels}.png")
            assert result.shape == (10, 11, channels)
            assert result.dtype == (np.uint8 if bits == 8 else np.uint16)
    # Sixteen bits are really used.
    assert (read(out / "16-3.png") % 257).any()


def test_gray_network_restores_the_channels_of_a_colour_image_one_by_one(
    tmp_path: Path, weights: dict[str, Path]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    pixels = random_pixels(12, 20)
    write(source / "all.png", pixels)
    for channel in range(3):
        write(source / f"{channel}.png", pixels[..., channel : channel + 1])
    ran = restormer(
        *("denoise", "--kind", "gray", "--input-dir", source, "--result-dir", out),
        *("--weights", weights["gray"], "--precision", "float32"),
    )
    assert ran.status == 0, ran.err
    apart = np.concatenate([read(out / f"{channel}.png") for channel in range(3)], axis=2)
    assert np.abs(read(out / "all.png").astype(int) - apart).max() <= 1


@pytest.mark.parametrize(("given", "asked"), [(8, 16), (16, 8), (8, 8), (16, 16)])
def test_bit_depth_of_results_can_be_chosen(
    tmp_path: Path, weights: dict[str, Path], given: int, asked: int
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    pixels = random_pixels(9, 9, 4, given)
    write(source / "a.png", pixels)
    ran = restormer(
        *("derain", "--input-dir", source, "--result-dir", out, "--bit-depth", asked),
        *("--weights", weights["zero_with_bias"]),
    )
    assert ran.status == 0, ran.err
    exact = pixels / (2**given - 1) * (2**asked - 1)
    result = read(out / "a.png")
    assert result.dtype == (np.uint8 if asked == 8 else np.uint16)
    assert np.abs(result - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_is_applied_once(
    tmp_path: Path, weights: dict[str, Path], orientation: int
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    upright = random_pixels(5, 11)
    stored = upright[::-1, ::-1] if orientation == 3 else np.rot90(upright)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(np.ascontiguousarray(stored)).save(source / "a.png", exif=exif)
    ran = restormer(
        *("derain", "--input-dir", source, "--result-dir", out),
        *("--weights", weights["zero_with_bias"]),
    )
    assert ran.status == 0, ran.err
    np.testing.assert_array_equal(read(out / "a.png"), upright)
    with PIL.Image.open(out / "a.png") as image:
        assert image.getexif().get(0x0112, 1) == 1


# --- the embedded network ----------------------------------------------------------------


def test_embedded_network_for_colour_noise_gains_over_seven_decibels(tmp_path: Path) -> None:
    clean = data.astronaut()[:160, 140:300]
    noise = np.random.default_rng(0).normal(0, 25, clean.shape)
    noisy = np.rint(np.clip(clean + noise, 0, 255)).astype(np.uint8)
    write(tmp_path / "in" / "astronaut.png", noisy)
    out = tmp_path / "out"
    ran = restormer(
        *("denoise", "--kind", "color", "--input-dir", tmp_path / "in", "--result-dir", out),
        *("--weights", "compact"),
    )
    assert ran.status == 0, ran.err
    before = peak_signal_noise_ratio(clean, noisy)
    after = peak_signal_noise_ratio(clean, read(out / "astronaut.png"))
    assert after - before > 7


def test_auto_says_that_it_uses_the_embedded_network_and_how_to_get_the_official_one(
    tmp_path: Path,
) -> None:
    name = shipped_options("denoise_color_blind").weights["file"]
    if (shipped_folder("pretrained_models") / name).exists():
        pytest.skip("the official weights are in this checkout")
    write(tmp_path / "in" / "a.png", random_pixels(8, 8))
    words = ("denoise", "--kind", "color", "--input-dir", tmp_path / "in")
    ran = restormer(*words, "--result-dir", tmp_path / "out")
    assert ran.status == 0, ran.err
    line = next(line for line in ran.err.splitlines() if line.startswith("weights: "))
    assert "compact" in line
    assert "download" in line


# --- weights that are not there or wrong -------------------------------------------------


def test_task_without_weights_exits_2_and_says_how_to_get_them(
    folder: Path, tmp_path: Path
) -> None:
    here = shipped_folder("pretrained_models")
    absent = [v for v in VARIANTS if not (here / shipped_options(v.name).weights["file"]).exists()]
    variant = next((v for v in absent if v.views == 1 and v.sigma is None), None)
    if variant is None:
        pytest.skip("all official weights are in this checkout")
    words = [variant.task, *(("--kind", variant.kind) if variant.kind else ())]
    out = tmp_path / "out"
    ran = restormer(*words, "--input-dir", folder, "--result-dir", out, "--weights", "official")
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.startswith("error: no weights for ")
    assert "download" in ran.err
    assert shipped_options(variant.name).weights["file"].removesuffix(".pth") in ran.err
    assert not out.exists()


def test_sigma_without_a_network_is_refused_and_the_choices_are_named(
    folder: Path, tmp_path: Path
) -> None:
    words = ("denoise", "--kind", "color", "--sigma", "30", "--input-dir", folder)
    ran = restormer(*words, "--result-dir", tmp_path / "out")
    assert ran.status == 2
    assert "--sigma 30" in ran.err
    assert "--sigma 25" in ran.err


class _Malicious:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"echo broken in > '{self.victim}'",))


def test_wrong_weights_exit_2_with_one_sentence_that_names_the_file(
    folder: Path, tmp_path: Path, weights: dict[str, Path]
) -> None:
    out, victim = tmp_path / "out", tmp_path / "victim"
    wrong = {"missing.pth": None, "text.pth": b"these are no weights", "empty.safetensors": b""}
    wrong["cut.pth"] = weights["with_bias"].read_bytes()[:5000]
    wrong["evil.pth"] = pickle.dumps({"params": _Malicious(victim)})
    for name, content in wrong.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    save(torch.nn.Linear(3, 3), tmp_path / "linear.pth")
    torch.save({"params": _Malicious(victim)}, tmp_path / "evil-zip.pth")
    for path in [
        *map(tmp_path.joinpath, wrong),
        tmp_path / "linear.pth",
        tmp_path / "evil-zip.pth",
    ]:
        ran = restormer("derain", "--input-dir", folder, "--result-dir", out, "--weights", path)
        assert ran.status == 2, path
        assert ran.out == ""
        assert ran.err.count("\n") == 1, ran.err
        assert ran.err.startswith("error: ")
        assert str(path) in ran.err
        assert not victim.exists()
        assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("derain",), "gray"),
        (("denoise", "--kind", "gray"), "bias_free"),
        (("deblur",), "dual_pixel"),
    ],
)
def test_weights_for_other_channels_are_refused(
    folder: Path, tmp_path: Path, weights: dict[str, Path], words: tuple[str, ...], kind: str
) -> None:
    out = tmp_path / "out"
    ran = restormer(*words, "--input-dir", folder, "--result-dir", out, "--weights", weights[kind])
    assert ran.status == 2
    assert ran.err.startswith(f"error: {weights[kind]}")
    assert "inp_channels" in ran.err


def test_options_describe_the_network_of_a_checkpoint(
    folder: Path, tmp_path: Path, weights: dict[str, Path]
) -> None:
    text = "name: mine\nnetwork_g: {type: Restormer, dim: %d, num_blocks: [1, 1, 1, 1],"
    text += " num_refinement_blocks: 1, heads: [1, 2, 4, 8], LayerNorm_type: WithBias}\n"
    path = tmp_path / "net.yml"
    words = ("derain", "--input-dir", folder, "--weights", weights["with_bias"], "--options", path)
    path.write_text(text % 8, encoding="utf-8")
    right = restormer(*words, "--result-dir", tmp_path / "right")
    assert right.status == 0, right.err
    path.write_text(text % 16, encoding="utf-8")
    wrong = restormer(*words, "--result-dir", tmp_path / "wrong")
    assert wrong.status == 2
    assert "expected (16, 3, 3, 3)" in wrong.err
    path.write_text("network_g: {type: NAFNet}", encoding="utf-8")
    other = restormer(*words, "--result-dir", tmp_path / "other")
    assert other.status == 2
    assert "NAFNet" in other.err


# --- bad input ---------------------------------------------------------------------------


def test_empty_folder_and_missing_folder_exit_2(tmp_path: Path, weights: dict[str, Path]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    for name in ("empty", "missing"):
        ran = restormer(
            *("derain", "--input-dir", tmp_path / name, "--result-dir", tmp_path / "out"),
            *("--weights", weights["with_bias"]),
        )
        assert ran.status == 2
        assert str(tmp_path / name) in ran.err
        assert ran.out == ""
    assert not (tmp_path / "out").exists()


def test_dual_pixel_without_its_folders_exits_2(tmp_path: Path, weights: dict[str, Path]) -> None:
    write(tmp_path / "inputL" / "a.png", random_pixels(8, 8))
    ran = restormer(
        *("dual-pixel", "--input-dir", tmp_path, "--result-dir", tmp_path / "out"),
        *("--weights", weights["dual_pixel"]),
    )
    assert ran.status == 2
    assert str(tmp_path / "inputR") in ran.err


def spoil(folder: Path) -> list[Path]:
    """Add files that cannot be read."""
    whole = write(folder / "whole.png", random_pixels(40, 40)).read_bytes()
    (folder / "whole.png").unlink()
    bad = {"aa cut.png": whole[: len(whole) // 2], "bb text.png": b"hello", "dd empty.jpg": b""}
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    bad["cc flipped.png"] = bytes(flipped)
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in bad]


def test_unreadable_images_are_named_and_the_others_restored(
    folder: Path, tmp_path: Path, weights: dict[str, Path]
) -> None:
    bad, out = spoil(folder), tmp_path / "out"
    ran = restormer(
        *("derain", "--input-dir", folder, "--result-dir", out),
        *("--weights", weights["with_bias"]),
    )
    assert ran.status == 1
    assert len(ran.lines) == len(SIZES)
    assert all(Path(line).is_file() for line in ran.lines)
    assert [str(out / name) for name in names(out)] == sorted(ran.lines)
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(bad)
    for path in bad:
        assert sum(str(path) in line for line in errors) == 1


def test_fail_fast_stops_at_the_first_failure(
    folder: Path, tmp_path: Path, weights: dict[str, Path]
) -> None:
    (folder / "aa.png").write_bytes(b"no image")  # behind a.png, before all others
    out = tmp_path / "out"
    words = ("derain", "--input-dir", folder, "--result-dir", out, "--fail-fast")
    ran = restormer(*words, "--weights", weights["with_bias"])
    assert ran.status == 1
    assert ran.lines == [str(out / "a.png")]
    assert ran.err.count("error: ") == 1


def test_result_that_cannot_be_written_is_a_failure_of_that_image(
    folder: Path, tmp_path: Path, weights: dict[str, Path]
) -> None:
    out = tmp_path / "out"
    (out / "c.png").mkdir(parents=True)
    words = ("derain", "--input-dir", folder, "--result-dir", out, "--overwrite")
    ran = restormer(*words, "--weights", weights["with_bias"])
    assert ran.status == 1
    assert len(ran.lines) == len(SIZES) - 1
    assert str(out / "c.png") in ran.err
    assert not [name for name in names(out) if name.startswith(".")]


# --- doing only what is asked ------------------------------------------------------------


def test_done_images_are_skipped_unless_overwriting_is_asked_for(
    folder: Path, tmp_path: Path, weights: dict[str, Path]
) -> None:
    out = tmp_path / "out"
    words = ("derain", "--input-dir", folder, "--result-dir", out)
    words += ("--weights", weights["zero_with_bias"])
    assert restormer(*words).status == 0
    (out / "a.png").write_bytes(b"mine")
    (out / "e.png").unlink()
    again = restormer(*words)
    assert again.status == 0
    assert again.lines == [str(out / "e.png")]
    assert (out / "a.png").read_bytes() == b"mine"
    assert "4 skipped" in again.err
    nothing = restormer(*words, "--json")
    assert [json.loads(line)["status"] for line in nothing.lines] == ["skipped"] * 5
    redone = restormer(*words, "--overwrite")
    assert len(redone.lines) == 5
    np.testing.assert_array_equal(read(out / "a.png"), read(folder / "a.png"))


def test_dry_run_writes_nothing(folder: Path, tmp_path: Path, weights: dict[str, Path]) -> None:
    out = tmp_path / "out"
    words = ("derain", "--input-dir", folder, "--result-dir", out, "--dry-run")
    ran = restormer(*words, "--weights", weights["with_bias"])
    assert ran.status == 0
    assert not out.exists()
    assert len(ran.lines) == len(SIZES)
    assert f"{folder / 'b.JPG'} -> {out / 'b.png'}" in ran.lines
    lines = restormer(*words, "--weights", weights["with_bias"], "--json").lines
    assert {json.loads(line)["status"] for line in lines} == {"planned"}


def test_json_has_one_line_of_all_fields_for_every_image(
    folder: Path, tmp_path: Path, weights: dict[str, Path]
) -> None:
    (folder / "z.png").write_bytes(b"no image")
    out, report = tmp_path / "out", tmp_path / "logs" / "report.jsonl"
    words = ("derain", "--input-dir", folder, "--result-dir", out, "--report", report)
    words += ("--weights", weights["with_bias"], "--precision", "float32", "--device", "cpu")
    ran = restormer(*words, "--json")
    assert ran.status == 1
    outcomes = [json.loads(line) for line in ran.lines]
    assert [list(outcome) for outcome in outcomes] == [FIELDS] * 6
    done = outcomes[1]
    assert done["input"] == str(folder / "b.JPG")
    assert done["result"] == str(out / "b.png")
    assert (done["status"], done["width"], done["height"]) == ("done", 200, 3)
    assert (done["weights"], done["device"], done["precision"]) == (
        weights["with_bias"].name,
        "cpu",
        "float32",
    )
    assert done["seconds"] >= 0
    assert done["error"] is None
    failed = outcomes[-1]
    assert failed["status"] == "failed"
    assert str(folder / "z.png") in failed["error"]
    assert "é" in ran.out
    assert report.read_text(encoding="utf-8") == ran.out
    # A second run appends.
    restormer(*words)
    assert len(report.read_text(encoding="utf-8").splitlines()) == 12


def test_quiet_says_only_errors(folder: Path, tmp_path: Path, weights: dict[str, Path]) -> None:
    words = ("derain", "--input-dir", folder, "--weights", weights["with_bias"], "--quiet")
    ran = restormer(*words, "--result-dir", tmp_path / "one")
    assert (ran.status, ran.err) == (0, "")
    assert len(ran.lines) == len(SIZES)
    (folder / "z.png").write_bytes(b"no image")
    ran = restormer(*words, "--result-dir", tmp_path / "two")
    assert ran.status == 1
    assert ran.err.count("\n") == 1


def test_verbose_says_which_device_precision_and_weights_are_used(
    folder: Path, tmp_path: Path, weights: dict[str, Path]
) -> None:
    words = ("derain", "--input-dir", folder / "a.png", "--result-dir", tmp_path / "out", "-v")
    ran = restormer(*words, "--weights", weights["with_bias"], "--device", "cpu")
    assert str(weights["with_bias"]) in ran.err
    assert "device: cpu, asked for" in ran.err
    assert "precision: " in ran.err


# --- where input comes from --------------------------------------------------------------


def test_input_can_be_one_file(folder: Path, tmp_path: Path, weights: dict[str, Path]) -> None:
    words = ("derain", "--input-dir", folder / "d d é.tif", "--result-dir", tmp_path / "out")
    ran = restormer(*words, "--weights", weights["with_bias"])
    assert ran.lines == [str(tmp_path / "out" / "d d é.png")]


@pytest.mark.parametrize("null", [False, True])
def test_input_can_be_listed_on_standard_input(
    folder: Path, tmp_path: Path, weights: dict[str, Path], null: bool
) -> None:
    names = ["d d é.tif", "a.png"]
    end = "\0" if null else "\n"
    stdin = "".join(f"{folder / name}{end}" for name in names).encode()
    words = ["derain", "--input-dir", "-", "--result-dir", tmp_path / "out"]
    words += ["--weights", weights["with_bias"], *(["-0"] if null else [])]
    ran = restormer(*words, stdin=stdin)
    assert ran.status == 0, ran.err
    assert ran.lines == [str(tmp_path / "out" / name) for name in ("d d é.png", "a.png")]


def test_listed_files_that_are_missing_are_named_and_the_others_restored(
    folder: Path, tmp_path: Path, weights: dict[str, Path]
) -> None:
    words = ("derain", "--input-dir", "-", "--result-dir", tmp_path / "out")
    stdin = f"{folder / 'missing.png'}\n{folder / 'a.png'}\n".encode()
    ran = restormer(*words, "--weights", weights["with_bias"], stdin=stdin)
    assert ran.status == 1
    assert ran.lines == [str(tmp_path / "out" / "a.png")]
    assert str(folder / "missing.png") in ran.err


def test_recursive_mirrors_sub_folders(folder: Path, tmp_path: Path, weights: Any) -> None:
    write(folder / "sub" / "deep" / "f.png", random_pixels(8, 8))
    out = tmp_path / "out"
    words = ("derain", "--input-dir", folder, "--weights", weights["with_bias"])
    assert len(restormer(*words, "--result-dir", tmp_path / "flat").lines) == len(SIZES)
    ran = restormer(*words, "--result-dir", out, "-r")
    assert ran.status == 0
    assert (out / "sub" / "deep" / "f.png").is_file()
    assert len(ran.lines) == len(SIZES) + 1


def test_inputs_of_one_stem_get_results_of_their_own(
    tmp_path: Path, weights: dict[str, Path]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    pixels = {"a.png": random_pixels(8, 8), "a.bmp": random_pixels(8, 9)}
    for name, image in pixels.items():
        write(source / name, image)
    words = ("derain", "--input-dir", source, "--result-dir", out)
    ran = restormer(*words, "--weights", weights["zero_with_bias"])
    assert ran.status == 0
    assert "a.bmp.png" in ran.err
    for name, image in pixels.items():
        np.testing.assert_array_equal(read(out / f"{name}.png"), image)


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_an_input_never_becomes_its_own_result(
    tmp_path: Path, weights: dict[str, Path], overwrite: tuple[str, ...]
) -> None:
    write(tmp_path / "a.png", random_pixels(8, 8))
    write(tmp_path / "b.bmp", random_pixels(8, 8))
    before = (tmp_path / "a.png").read_bytes()
    words = ("derain", "--input-dir", tmp_path, "--result-dir", tmp_path, *overwrite)
    ran = restormer(*words, "--weights", weights["with_bias"])
    assert (tmp_path / "a.png").read_bytes() == before
    assert ran.status == 1
    assert ran.lines == [str(tmp_path / "b.png")]
    assert str(tmp_path / "a.png") in ran.err


def test_a_second_run_in_place_finds_all_done(tmp_path: Path, weights: dict[str, Path]) -> None:
    write(tmp_path / "a.jpg", random_pixels(8, 8))
    write(tmp_path / "sub" / "b.bmp", random_pixels(8, 8))
    words = ("derain", "-r", "--input-dir", tmp_path, "--result-dir", tmp_path)
    words += ("--weights", weights["with_bias"])
    first = restormer(*words)
    assert (first.status, len(first.lines)) == (0, 2), first.err
    write(tmp_path / "a.tif", random_pixels(8, 8))
    second = restormer(*words)
    assert second.status == 0, second.err
    assert second.lines == [str(tmp_path / "a.tif.png")]
    assert "1 restored, 2 skipped" in second.err


def test_colour_profile_and_resolution_are_kept(tmp_path: Path, weights: dict[str, Path]) -> None:
    source = tmp_path / "in"
    source.mkdir()
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    PIL.Image.fromarray(smooth_pixels(20, 30)).save(
        buffer, "JPEG", icc_profile=profile, dpi=(300, 300)
    )
    (source / "a.jpg").write_bytes(buffer.getvalue())
    words = ("derain", "--input-dir", source, "--result-dir", tmp_path / "out")
    ran = restormer(*words, "--weights", weights["with_bias"])
    assert ran.status == 0, ran.err
    with PIL.Image.open(tmp_path / "out" / "a.png") as image:
        assert image.info["icc_profile"] == profile
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.02)


def test_damaged_colour_profile_does_not_cost_the_result(
    tmp_path: Path, weights: dict[str, Path]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    pixels = random_pixels(8, 8)
    PIL.Image.fromarray(pixels).save(source / "a.png", icc_profile=b"not a profile" * 20)
    words = ("derain", "--input-dir", source, "--result-dir", out)
    ran = restormer(*words, "--weights", weights["zero_with_bias"])
    assert ran.status == 0, ran.err
    np.testing.assert_array_equal(read(out / "a.png"), pixels)


# --- usage -------------------------------------------------------------------------------


def test_version_is_printed() -> None:
    ran = restormer("--version")
    assert (ran.status, ran.out, ran.err) == (0, f"restormer-cli {__version__}\n", "")


def test_devices_says_what_would_be_used_and_why() -> None:
    ran = restormer("devices", "--device", "cpu", "--precision", "float32")
    assert ran.status == 0
    assert "cpu" in ran.out
    assert "used: cpu, because asked for" in ran.out
    assert "float32" in ran.out
    assert restormer("devices").status == 0
    missing = restormer("devices", "--device", "cuda:99")
    assert missing.status == 2
    assert missing.err.startswith("error: cuda:99")


@pytest.mark.parametrize(
    "words",
    [
        ("derain",),
        ("derain", "--input-dir", "x"),
        ("sharpen",),
        ("denoise", "--kind", "sepia"),
        ("derain", "--bit-depth", "12"),
        ("derain", "--max-memory", "lots"),
        ("derain", "--precision", "int8"),
        ("derain", "--no-such-option"),
    ],
)
def test_wrong_usage_exits_2_and_leaves_stdout_empty(
    words: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    if len(words) > 1 and words[1] != "--input-dir":
        words += ("--input-dir", str(folder), "--result-dir", str(tmp_path / "out"))
    ran = restormer(*words)
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("--tile", "20"),
        ("--tile", "0"),
        ("--tile", "32", "--tile-overlap", "32"),
        ("--tile", "32", "--tile-overlap", "-1"),
        ("--device", "cuda:99"),
        ("--device", "toaster"),
        ("--device", "meta"),
    ],
)
def test_options_that_cannot_be_met_exit_2_with_one_sentence(
    words: tuple[str, ...], folder: Path, tmp_path: Path, weights: dict[str, Path]
) -> None:
    ran = restormer(
        *("derain", "--input-dir", folder, "--result-dir", tmp_path / "out", *words),
        *("--weights", weights["with_bias"]),
    )
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1


def test_result_folder_that_is_a_file_exits_2(
    folder: Path, tmp_path: Path, weights: dict[str, Path]
) -> None:
    (tmp_path / "out").write_text("a file")
    words = ("derain", "--input-dir", folder, "--result-dir", tmp_path / "out")
    ran = restormer(*words, "--weights", weights["with_bias"])
    assert ran.status == 2
    assert str(tmp_path / "out") in ran.err


def test_image_that_exceeds_the_memory_allowed_fails_before_work_begins(
    folder: Path, tmp_path: Path, weights: dict[str, Path]
) -> None:
    words = ("derain", "--input-dir", folder, "--result-dir", tmp_path / "out")
    ran = restormer(*words, "--weights", weights["with_bias"], "--max-memory", "1MB")
    assert ran.status == 1
    assert ran.out == ""
    assert ran.err.count("error: ") == len(SIZES)
    assert "--max-memory" in ran.err


# --- in a process of its own -------------------------------------------------------------


def run_process(*words: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "restormer_cli.cli", *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
        timeout=120,
        check=False,
        **settings,
    )


def test_process_keeps_data_and_messages_apart_and_reports_failures(
    folder: Path, tmp_path: Path, weights: dict[str, Path]
) -> None:
    bad = spoil(folder)
    ran = run_process(
        *("derain", "--input-dir", "in", "--result-dir", "out"),
        *("--weights", weights["with_bias"]),
        cwd=tmp_path,
    )
    assert ran.returncode == 1
    names = ["a.png", "b.png", "c.png", "d d é.png", "e.png"]
    assert ran.stdout.splitlines() == [str(Path("out") / name) for name in names]
    for path in bad:
        assert path.name in ran.stderr
    assert len(ran.stderr.splitlines()) == len(bad) + 1  # and the summary: libraries are silent
    assert "5 restored, 0 skipped, 4 failed" in ran.stderr


def test_process_does_not_run_code_in_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    evil = tmp_path / "evil.pth"
    torch.save({"params": {"patch_embed.proj.weight": _Malicious(victim)}}, evil)
    words = ("derain", "--input-dir", folder, "--result-dir", tmp_path / "out")
    ran = run_process(*words, "--weights", evil)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert str(evil) in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not victim.exists()


@pytest.mark.parametrize("words", [["--help"], ["dual-pixel", "--help"], ["--version"]])
def test_help_and_version_do_not_import_torch(words: list[str]) -> None:
    program = (
        "import sys; from restormer_cli.cli.main import main\n"
        f"sys.argv = ['restormer', *{words!r}]\n"
        "try:\n    main()\n"
        "finally:\n    print(*sorted(sys.modules), file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True
    )
    assert ran.stdout
    assert not {"torch", "cv2", "numpy", "skimage", "PIL"} & set(ran.stderr.split())


def test_importing_the_package_does_not_import_torch() -> None:
    program = "import sys, restormer_cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_evaluate_prints_scores_and_names_what_has_no_partner(tmp_path: Path) -> None:
    results, targets = tmp_path / "results", tmp_path / "targets"
    results.mkdir()
    targets.mkdir()
    pixels = np.random.default_rng(0).integers(0, 250, (32, 32, 3), dtype=np.uint8)
    for name, shift in (("a", 0), ("b", 5)):
        cv2.imwrite(str(targets / f"{name}.png"), pixels)
        cv2.imwrite(str(results / f"{name}.png"), pixels + np.uint8(shift))
    folders = ["--result-dir", results, "--target-dir", targets]
    ran = restormer("evaluate", *folders, "--json", "--csv", tmp_path / "scores.csv")
    assert ran.status == 0
    first, second, mean = (json.loads(line) for line in ran.out.splitlines())
    assert (first["name"], second["name"], mean["name"]) == ("a.png", "b.png", "mean")
    assert first["psnr"] == "inf"
    assert second["psnr"] == pytest.approx(20 * np.log10(255 / 5))
    assert (tmp_path / "scores.csv").read_text(encoding="utf-8").startswith("name,psnr,ssim,mae")
    (targets / "a.png").unlink()
    ran = restormer("evaluate", *folders)
    assert ran.status == 1
    assert "a.png: has no target" in ran.err
    assert "34.15" in ran.out
