"""The paper's figures as data, and the authors' layouts, at toy size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import random_pixels, restormer, save, tiny_network, write, zero_network
from whole_image_metrics import psnr

from restormer_cli.errors import ImageError, UsageError
from restormer_cli.evaluation.data_sets import add_noise
from restormer_cli.evaluation.evaluate import evaluate_folder
from restormer_cli.evaluation.metrics import rgb_planes
from restormer_cli.evaluation.paper_tables import find_table, tables
from restormer_cli.evaluation.protocols import PROTOCOLS
from restormer_cli.evaluation.reproduce import Restore, reproduce
from restormer_cli.images.pixels import normalise, quantise
from restormer_cli.network.architecture import RestormerConfig
from restormer_cli.tasks import VARIANTS, Variant, shipped_options


def unchanged(variant: Variant) -> Restore:
    """Restores nothing: the metrics are then those of the input."""
    return lambda image: image[..., :3]


def near(pixels: Any, seed: int = 9) -> Any:
    noise = np.random.default_rng(seed).integers(-20, 20, pixels.shape)
    return np.clip(pixels.astype(int) + noise, 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)


# --- the paper's figures ------------------------------------------------------------------------


def test_all_tables_of_the_paper_are_there() -> None:
    assert [(table.number, table.name) for table in tables()] == [
        (1, "deraining"),
        (2, "motion-deblurring"),
        (3, "defocus-deblurring"),
        (4, "gray-denoising"),
        (5, "color-denoising"),
        (6, "real-denoising"),
    ]
    assert all("2111.09881" in table.source for table in tables())
    assert [len(table.sets) for table in tables()] == [5, 4, 2, 18, 24, 2]


def test_every_set_names_a_network_and_a_protocol() -> None:
    names = {variant.name for variant in VARIANTS}
    for table in tables():
        for dataset in table.sets:
            assert dataset.network in names
            assert dataset.protocol in PROTOCOLS
            assert dataset.paper or dataset.parts


def test_the_figures_agree_among_themselves() -> None:
    deraining = find_table("1")
    for key, digits in (("psnr", 2), ("ssim", 3)):
        mean = np.mean([dataset.paper[key] for dataset in deraining.sets])
        assert round(float(mean), digits) == deraining.average[key]
    for dataset in find_table("defocus-deblurring").sets:
        inside, outside, both = (dataset.parts[p] for p in ("indoor", "outdoor", "combined"))
        for key in set(inside) & set(both):
            mean = (37 * inside[key] + 39 * outside[key]) / 76
            assert mean == pytest.approx(both[key], abs=0.01 if key == "psnr" else 0.001)


def test_an_unknown_table_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no table '7'; there are deraining \(1\), motion"):
        find_table("7")


# --- noise --------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_noise_is_the_authors_to_the_last_bit(sigma: int, channels: int) -> None:
    image = normalise(random_pixels(9, 7, channels=channels))
    expected = image.copy()
    np.random.seed(seed=0)
    expected += np.random.normal(0, sigma / 255.0, expected.shape)
    for _ in range(2):  # the seed is set anew for each image
        noisy = add_noise(image, sigma)
        assert noisy.dtype == np.float32
        assert np.array_equal(noisy, expected)


# --- layouts ------------------------------------------------------------------------------------


@pytest.fixture
def rain(tmp_path: Path) -> Path:
    for name in ("Test100", "Rain100H", "Rain100L", "Test2800", "Test1200"):
        for number in (1, 2, 10):
            pixels = random_pixels(13, 12, seed=number + len(name))
            write(tmp_path / "test" / name / "target" / f"norain-{number}.png", pixels)
            write(tmp_path / "test" / name / "input" / f"rain-{number}.png", near(pixels))
    return tmp_path


def test_pairs_score_as_evaluate_does_and_end_with_the_average(rain: Path) -> None:
    rows = list(reproduce("deraining", rain, unchanged))
    assert [row.dataset for row in rows] == [s.name for s in find_table("1").sets] + ["Average"]
    folder = rain / "test" / "Rain100L"
    mean = evaluate_folder(folder / "input", folder / "target", "y").mean
    assert mean is not None
    assert rows[2].ours == {"psnr": mean.psnr, "ssim": mean.ssim, "mae": mean.mae}
    assert rows[2].paper == {"psnr": 38.99, "ssim": 0.978}
    assert (rows[2].images, rows[2].variant) == (3, "derain")
    assert rows[-1].ours["psnr"] == pytest.approx(np.mean([row.ours["psnr"] for row in rows[:-1]]))
    assert rows[-1].paper == {"psnr": 33.96, "ssim": 0.935}


@pytest.mark.parametrize("below", ["", "test"])
def test_some_sets_can_be_chosen_and_have_no_average(rain: Path, below: str) -> None:
    seen: list[tuple[str, int, int]] = []
    rows = list(
        reproduce(
            "1",
            rain / below,
            unchanged,
            only=["rain100l"],
            progress=lambda dataset, *numbers: seen.append((dataset.name, *numbers)),
        )
    )
    assert [row.dataset for row in rows] == ["Rain100L"]
    assert seen == [("Rain100L", 1, 3), ("Rain100L", 2, 3), ("Rain100L", 3, 3)]
    with pytest.raises(UsageError, match="deraining has no data set 'Rain200'; there are Test100"):
        reproduce("1", rain, unchanged, only=["Rain200"])


def test_the_network_sees_float32_and_its_result_is_rounded_to_8_bit(rain: Path) -> None:
    def network(variant: Variant) -> Restore:
        assert variant.name == "derain"

        def restore(image: Any) -> Any:
            assert (image.dtype, image.shape) == (np.float32, (13, 12, 3))
            # Less than half a level: lost in rounding. And what leaves [0, 1] is clamped.
            return np.where(image == 1, 2, np.where(image == 0, -1, image + np.float32(0.4 / 255)))

        return restore

    (row,) = reproduce("1", rain, network, only=["Rain100H"])
    (plain,) = reproduce("1", rain, unchanged, only=["Rain100H"])
    assert row.ours == plain.ours


def test_files_whose_names_say_nothing_pair_in_order(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        pixels = random_pixels(12, 12, seed=number)
        write(tmp_path / "GoPro" / "input" / f"b{number}.png", pixels)
        write(tmp_path / "GoPro" / "target" / f"s{number + 1}.png", pixels)
    (row,) = reproduce("2", tmp_path, unchanged, only=["GoPro"])
    assert row.ours["psnr"] == np.inf
    write(tmp_path / "GoPro" / "input" / "more.png", random_pixels(12, 12))
    with pytest.raises(UsageError, match="GoPro: 4 inputs and 3 targets do not pair"):
        list(reproduce("2", tmp_path, unchanged, only=["GoPro"]))


@pytest.mark.parametrize(
    ("table", "name", "folder", "channels"),
    [("gray-denoising", "Set12", "Set12", 1), ("color-denoising", "Kodak24", "Kodak", 3)],
)
def test_clean_images_get_noise(
    tmp_path: Path, table: str, name: str, folder: str, channels: int
) -> None:
    clean = random_pixels(12, 14, channels=channels)
    write(tmp_path / folder / "01.png", clean)
    asked: list[str] = []

    def network(variant: Variant) -> Restore:
        asked.append(variant.name)

        def restore(image: Any) -> Any:
            assert image.shape == clean.shape
            sigma = variant.sigma or 50
            assert variant.sigma is None or np.array_equal(
                image, add_noise(normalise(clean), sigma)
            )
            return normalise(clean)

        return restore

    rows = list(reproduce(table, tmp_path, network, only=[name]))
    assert [(row.group, row.sigma) for row in rows] == [
        (group, sigma) for group in ("blind", "non-blind") for sigma in (15, 25, 50)
    ]
    kind = table.split("-")[0]
    assert asked == [f"denoise_{kind}_{end}" for end in ("blind", "sigma15", "sigma25", "sigma50")]
    assert all(row.ours["psnr"] == np.inf for row in rows)
    (row,) = list(reproduce(table, tmp_path, network, only=[name], sigmas=[25]))[:1]
    assert row.sigma == 25
    with pytest.raises(UsageError, match="has no noise of σ 30"):
        reproduce(table, tmp_path, network, sigmas=[30])


def test_gray_tables_read_colour_files_as_gray(tmp_path: Path) -> None:
    write(tmp_path / "Urban100" / "a.png", random_pixels(12, 12))
    shapes: list[tuple[int, ...]] = []

    def network(variant: Variant) -> Restore:
        return lambda image: shapes.append(image.shape) or image  # type: ignore[func-returns-value]

    list(reproduce("4", tmp_path, network, only=["Urban100"], sigmas=[15]))
    assert shapes == [(12, 12, 1)] * 2


@pytest.fixture
def dpdd(tmp_path: Path) -> Path:
    """Four scenes of 16 bit; 1 and 3 are indoors. No two folders share names."""
    place = tmp_path / "DPDD"
    for number in range(4):
        target = random_pixels(12, 12, bits=16, seed=number)
        write(place / "target" / f"1P0A{2 * number + 1:04}.png", target)
        for offset, folder in enumerate(("inputC", "inputL", "inputR")):
            view = target // (2 + offset + number)
            write(place / folder / f"{offset}P0A{2 * number:04}.png", view)
    np.save(place / "indoor_labels.npy", np.array([1, 3]))
    np.save(place / "outdoor_labels.npy", np.array([2, 4]))
    return tmp_path


def test_dpdd_is_measured_indoors_outdoors_and_whole(dpdd: Path) -> None:
    seen: list[tuple[int, ...]] = []

    def network(variant: Variant) -> Restore:
        def restore(image: Any) -> Any:
            seen.append(image.shape)
            return image[..., -3:]  # of two views the right one

        return restore

    rows = list(reproduce("3", dpdd, network))
    parts = ["indoor", "outdoor", "combined"]
    assert [(row.dataset, row.part, row.images) for row in rows] == [
        (name, part, 4 if part == "combined" else 2)
        for name in ("DPDD-single", "DPDD-dual")
        for part in parts
    ]
    assert seen == [(12, 12, 3)] * 4 + [(12, 12, 6)] * 4
    for row, depth in ((rows[2], 8), (rows[5], 16)):
        expected = []
        for number in range(4):
            target = random_pixels(12, 12, bits=16, seed=number)
            view = target // ((2 if depth == 8 else 4) + number)
            if depth == 8:  # the upper byte, as OpenCV reads 16 bit by default
                target, view = ((p >> 8).astype(np.uint8) for p in (target, view))
            expected.append(np.abs(rgb_planes(view) - rgb_planes(target)).mean())
        assert row.ours["mae"] == pytest.approx(np.mean(expected), abs=1e-7)
        assert row.paper["lpips"] > 0
    inside, outside, both = rows[3:]
    assert both.ours["psnr"] == pytest.approx((inside.ours["psnr"] + outside.ours["psnr"]) / 2)
    assert inside.ours["psnr"] > outside.ours["psnr"]


def test_labels_that_do_not_fit_are_named(dpdd: Path) -> None:
    np.save(dpdd / "DPDD" / "indoor_labels.npy", np.array([9]))
    with pytest.raises(UsageError, match=r"indoor_labels\.npy: does not hold the numbers"):
        list(reproduce("3", dpdd, unchanged))


@pytest.mark.parametrize("numbers", [[0, 1], [-1], [5], [], [np.nan], [np.inf]])
def test_labels_count_from_one_to_the_last_scene(dpdd: Path, numbers: list[Any]) -> None:
    np.save(dpdd / "DPDD" / "indoor_labels.npy", np.array(numbers))
    with pytest.raises(UsageError, match=r"indoor_labels\.npy: does not hold the numbers"):
        list(reproduce("3", dpdd, unchanged))


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_damaged_labels_are_named_before_any_work(dpdd: Path, content: bytes) -> None:
    (dpdd / "DPDD" / "outdoor_labels.npy").write_bytes(content)

    def network(variant: Variant) -> Restore:
        raise AssertionError("no work is to be done")

    with pytest.raises(UsageError, match=r"outdoor_labels\.npy: does not hold the numbers"):
        list(reproduce("3", dpdd, network))


def test_what_lies_among_the_images_is_noted_and_stops_nothing(rain: Path) -> None:
    folder = rain / "test" / "Rain100L"
    for side in ("input", "target"):
        (folder / side / "folder.png").mkdir()
        (folder / side / "run.jsonl").mkdir()
        (folder / side / "gone.png").symlink_to("nowhere")
        (folder / side / "photo.psd").touch()
    (row,) = reproduce("1", rain, unchanged, only=["Rain100L"])
    (clean,) = reproduce("1", rain, unchanged, only=["Rain100H"])
    assert (row.images, clean.images, clean.note) == (3, 3, None)
    assert row.note is not None
    assert "without gone.png, which is a link to a file that is not there" in row.note
    assert "1 .psd" in row.note


def test_an_image_that_cannot_fit_is_refused_before_it_is_read(rain: Path) -> None:
    with pytest.raises(ImageError, match=r"rain-1\.png: needs about .* more than --max-memory"):
        list(reproduce("1", rain, unchanged, only=["Rain100L"], max_memory=1 << 20))


def test_sidds_blocks_are_measured_before_rounding_and_dnd_is_not(tmp_path: Path) -> None:
    from scipy.io import savemat

    (tmp_path / "SIDD").mkdir()
    clean = random_pixels(2 * 2 * 12, 12).reshape(2, 2, 12, 12, 3)
    for name, values in (("Noisy", near(clean)), ("Gt", clean)):
        key = f"Validation{name}BlocksSrgb"
        savemat(tmp_path / "SIDD" / f"{key}.mat", {key: values})
    offset = np.float32(0.25 / 255)

    def network(variant: Variant) -> Restore:
        return lambda image: np.clip(image + offset, 0, 1)

    sidd, dnd = reproduce("real-denoising", tmp_path, network)
    assert sidd.images == 4
    planes = [rgb_planes(a.reshape(-1, 12, 12, 3)) for a in (near(clean), clean)]
    planes[0] = np.clip(planes[0] + float(offset), 0, 1)
    expected = [psnr(a, b) for a, b in zip(*planes, strict=True)]
    assert sidd.ours["psnr"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert (dnd.ours, dnd.paper["psnr"], dnd.images) == ({}, 40.03, 0)
    assert dnd.note is not None
    assert "not public" in dnd.note


# --- what is missing ----------------------------------------------------------------------------


def _nothing(path: Path) -> None:
    pass


def _no_target(path: Path) -> None:
    write(path / "DPDD" / "inputC" / "a.png", random_pixels(12, 12))


@pytest.mark.parametrize(
    ("table", "prepare", "words"),
    [
        ("1", _nothing, r"Test100: no folder .*Test100; it should be Test100 in .*input, target"),
        ("4", _nothing, "it should be Set12 .* with the clean images"),
        ("3", _no_target, "target does not exist; .*inputC, target, indoor_labels.npy"),
        ("6", _nothing, r"ValidationNoisyBlocksSrgb\.mat, ValidationGtBlocksSrgb\.mat"),
    ],
)
def test_a_missing_folder_is_named_with_what_belongs_there(
    tmp_path: Path, table: str, prepare: Callable[[Path], None], words: str
) -> None:
    prepare(tmp_path)
    with pytest.raises(UsageError, match=words):
        reproduce(table, tmp_path, unchanged)


def test_a_file_that_is_not_sidds_is_refused(tmp_path: Path) -> None:
    for name in ("Noisy", "Gt"):
        path = tmp_path / "SIDD" / f"Validation{name}BlocksSrgb.mat"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"nothing of the kind")
    with pytest.raises(UsageError, match="is not the file of that name"):
        list(reproduce("6", tmp_path, unchanged))


def test_one_bad_image_ends_the_table_with_its_name(rain: Path) -> None:
    def network(variant: Variant) -> Restore:
        return lambda image: image * np.float32("nan")

    with pytest.raises(ImageError, match=r"rain-1\.png: .*no numbers"):
        list(reproduce("1", rain, network, only=["Rain100L"]))


# --- the command --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zeros(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny networks that give back their input; of two views something of their own."""
    folder = tmp_path_factory.mktemp("zeros")
    return {
        "with_bias": save(zero_network("with_bias"), folder / "with_bias.pth"),
        "bias_free": save(zero_network("bias_free"), folder / "bias_free.safetensors"),
        "gray": save(zero_network("gray"), folder / "gray.pth"),
        "dual_pixel": save(tiny_network("dual_pixel"), folder / "dual_pixel.pth"),
    }


def test_tables_are_listed() -> None:
    ran = restormer("reproduce")
    assert ran.status == 0
    assert len(ran.lines) == 6
    assert ran.lines[0].split() == [
        "1",
        "deraining",
        "Test100,",
        "Rain100H,",
        "Rain100L,",
        "Test2800,",
        "Test1200",
    ]


def test_the_command_prints_our_figures_beside_the_papers(
    rain: Path, zeros: dict[str, Path]
) -> None:
    command = ("reproduce", "deraining", "--data", rain, "--weights", zeros["with_bias"])
    ran = restormer(*command)
    assert ran.status == 0, ran.err
    assert ran.lines[0] == "Table 1: Image deraining"
    assert ran.lines[1].split() == [
        "data",
        "set",
        "images",
        "PSNR",
        "paper",
        "Δ",
        "SSIM",
        "paper",
        "Δ",
    ]
    mean = evaluate_folder(*(rain / "test" / "Test100" / s for s in ("input", "target")), "y").mean
    assert mean is not None
    expected = [f"{mean.psnr:.2f}", "32.00", f"{mean.psnr - 32:+.2f}"]
    expected += [f"{mean.ssim:.4f}", "0.923", f"{mean.ssim - 0.923:+.4f}"]
    assert ran.lines[2].split() == ["Test100", "3", *expected]
    assert [line.split()[0] for line in ran.lines[2:]] == [
        *(dataset.name for dataset in find_table("1").sets),
        "Average",
    ]
    assert "with_bias.pth" in ran.err
    assert "arXiv:2111.09881v2, Table 1" in ran.err

    rows = [json.loads(line) for line in restormer(*command, "--json").lines]
    assert rows[0]["ours"] == {"psnr": mean.psnr, "ssim": mean.ssim, "mae": mean.mae}
    assert rows[0]["paper"] == {"psnr": 32.0, "ssim": 0.923}
    assert (rows[0]["table"], rows[0]["dataset"], rows[0]["images"]) == ("deraining", "Test100", 3)
    assert rows[0]["weights"] == "with_bias.pth"
    assert rows[-1]["paper"] == {"psnr": 33.96, "ssim": 0.935}


def gopro(folder: Path) -> Path:
    """GoPro and HIDE with two small images each."""
    for number, name in enumerate(("GoPro", "HIDE")):
        pixels = random_pixels(40, 48, seed=number)
        write(folder / "test" / name / "target" / "1.png", pixels)
        write(folder / "test" / name / "input" / "1.png", near(pixels))
    return folder


def test_with_windows_the_figures_of_tlc_stand_beside_ours(tmp_path: Path) -> None:
    weights = save(tiny_network("with_bias"), tmp_path / "net.pth")
    command = ("reproduce", "2", "--data", gopro(tmp_path), "--weights", weights)
    command += ("--only", "GoPro", "--only", "HIDE")

    def measured(*words: object) -> list[dict[str, Any]]:
        ran = restormer(*command, "--json", *words)
        assert ran.status == 0, ran.err
        return [json.loads(line) for line in ran.lines]

    whole, windowed, small = measured(), measured("--window", 384), measured("--window", 16)
    assert [row["paper"]["psnr"] for row in whole] == [32.92, 31.22]
    assert [row["paper"] for row in windowed] == [{"psnr": 33.57, "ssim": 0.966}, {"psnr": 31.49}]
    assert [row["paper"] for row in small] == [{}, {}]  # nobody has published any
    assert [row["window"] for row in whole + windowed + small] == [None] * 2 + [384] * 2 + [16] * 2
    # The images are no larger than a window of 384, but larger than one of 16.
    assert [row["ours"] for row in windowed] == [row["ours"] for row in whole]
    assert all(a["ours"] != b["ours"] for a, b in zip(small, whole, strict=True))
    # Unknown weights are measured as in the paper, whatever is asked for.
    assert measured("--window", "auto") == whole

    said = restormer(*command, "--window", 384)
    assert "33.57" in said.out
    assert "attention: over windows of 384" in said.err
    assert "arXiv:2111.09881" in said.err
    assert "arXiv:2112.04491" in said.err
    assert "attention: over whole images" in restormer(*command).err


def test_columns_stay_where_no_figures_for_windows_were_published(
    rain: Path, zeros: dict[str, Path]
) -> None:
    command = ("reproduce", "1", "--data", rain, "--weights", zeros["with_bias"], "--window", 384)
    ran = restormer(*command)
    assert ran.status == 0, ran.err
    for line in ran.lines[2:]:  # the average, too
        _, _, psnr, paper, change, ssim, *others = line.split()
        assert float(psnr) > 0
        assert float(ssim) > 0
        assert [paper, change, *others] == ["-"] * 4
    assert ran.lines[-1].startswith("Average")


def test_a_damaged_image_is_no_wrong_usage(
    rain: Path, zeros: dict[str, Path], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(rain, data)
    damaged = sorted((data / "test" / "Rain100L" / "input").iterdir())[0]
    damaged.write_bytes(b"no image")
    words = ("reproduce", "1", "--data", data, "--weights", zeros["with_bias"])
    ran = restormer(*words, "--only", "Rain100L")
    assert ran.status == 1
    assert ran.err.splitlines()[-1].startswith(f"error: {damaged}: is text and not an image")


def test_the_command_adds_the_authors_noise(tmp_path: Path, zeros: dict[str, Path]) -> None:
    clean = random_pixels(16, 24)
    write(tmp_path / "Kodak" / "01.png", clean)
    ran = restormer(
        *("reproduce", "5", "--data", tmp_path, "--weights", zeros["bias_free"], "--json"),
        *("--only", "kodak24", "--sigma", "25", "--sigma", "50"),
    )
    assert ran.status == 0, ran.err
    rows = [json.loads(line) for line in ran.lines]
    assert [(row["group"], row["sigma"]) for row in rows] == [
        (group, sigma) for group in ("blind", "non-blind") for sigma in (25, 50)
    ]
    for row in rows:
        np.random.seed(0)
        noisy = normalise(clean) + np.random.normal(0, row["sigma"] / 255, clean.shape)
        error = np.rint(np.clip(noisy, 0, 1) * 255) - clean
        psnr = 20 * np.log10(255 / np.sqrt(np.mean(error**2)))
        assert row["ours"]["psnr"] == pytest.approx(psnr, abs=1e-3)


def test_both_kinds_of_dpdd_run_with_weights_of_their_own(
    dpdd: Path, zeros: dict[str, Path]
) -> None:
    for name, weights in (("DPDD-single", "with_bias"), ("DPDD-dual", "dual_pixel")):
        ran = restormer(
            *("reproduce", "3", "--data", dpdd, "--only", name, "--weights", zeros[weights])
        )
        assert ran.status == 0, ran.err
        assert [line.split()[:3] for line in ran.lines[2:]] == [
            [name, "indoor", "2"],
            [name, "outdoor", "2"],
            [name, "combined", "4"],
        ]
    # One file cannot do both: that is said before the second part begins.
    ran = restormer("reproduce", "3", "--data", dpdd, "--weights", zeros["with_bias"])
    assert ran.status == 2
    assert "does not fit 'dual-pixel': inp_channels is 3, expected 6" in ran.err


def test_official_weights_are_taken_for_each_network(tmp_path: Path, empty_home: Path) -> None:
    clean = random_pixels(16, 16, channels=1)
    write(tmp_path / "Set12" / "01.png", clean)
    command = ("reproduce", "4", "--data", tmp_path, "--only", "Set12", "--sigma", "25")
    ran = restormer(*command)
    assert ran.status == 2
    assert ran.out == ""
    for part in ("weights download gaussian_gray_denoising_blind", "--weights FILE"):
        assert part in ran.err
    config = RestormerConfig.from_mapping(shipped_options("denoise_gray_blind").network)
    file = save(zero_network("gray", **asdict(config)), tmp_path / "zero.pth")
    for name in ("blind", "sigma25"):
        (empty_home / f"gaussian_gray_denoising_{name}.pth").hardlink_to(file)
    try:
        ran = restormer(*command, "--json")
    finally:
        for link in empty_home.iterdir():
            link.unlink()
    assert ran.status == 0, ran.err
    rows = [json.loads(line) for line in ran.lines]
    assert [row["weights"] for row in rows] == [
        "official gaussian_gray_denoising_blind.pth",
        "official gaussian_gray_denoising_sigma25.pth",
    ]
    noisy = quantise(add_noise(normalise(clean), 25), 8)
    expected = PROTOCOLS["gray"].compare(noisy, clean).psnr
    assert [row["ours"]["psnr"] for row in rows] == [pytest.approx(expected)] * 2


def test_what_cannot_be_measured_here_says_what_to_do(
    tmp_path: Path, zeros: dict[str, Path]
) -> None:
    ran = restormer("reproduce", "6", "--only", "DND", "--weights", zeros["bias_free"])
    assert ran.status == 0
    assert ran.lines[2].split()[:5] == ["DND", "-", "-", "40.03", "-"]
    assert "send the results to" in ran.lines[2]
    for words, message in (
        (("reproduce", "rain"), "no table 'rain'"),
        (("reproduce", "1", "--weights", "none.pth"), "none.pth: no such file"),
        (("reproduce", "1", "--weights", zeros["with_bias"]), "no folder"),
    ):
        ran = restormer(*words)
        assert (ran.status, ran.out) == (2, "")
        assert message in ran.err
