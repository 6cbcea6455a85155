"""``--format``, ``--quality`` and ``--strip`` from the outside: names, record, evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from helpers import (
    make_images,
    names,
    random_pixels,
    restormer,
    save,
    smooth_pixels,
    tiny_network,
    write,
    zero_network,
)

from restormer_cli import load_restorer, restore_folder
from restormer_cli.batch.journal import Journal
from restormer_cli.errors import UsageError
from restormer_cli.images.formats import FORMATS, OutputFormat
from restormer_cli.images.reading import read_image
from restormer_cli.restorer import Restorer
from restormer_cli.settings import Settings

by_name = {"ids": lambda form: form.name}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(zero_network(), tmp_path_factory.mktemp("weights") / "zero.safetensors")


def derain(
    source: object, target: object, weights: Path, *words: object, stdin: bytes = b""
) -> Any:
    return restormer(
        *("derain", "--weights", weights, "--input-dir", source, "--result-dir", target),
        *words,
        stdin=stdin,
    )


@pytest.mark.parametrize("form", FORMATS, **by_name)
def test_a_folder_is_restored_skipped_evaluated_and_reported(
    form: OutputFormat, tmp_path: Path, weights: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for number in range(3):
        write(source / "sub" / f"{number}.png", smooth_pixels(20 + number, 30))
    words = ("-r", "--format", form.name)
    ran = derain(source, out, weights, *words)
    expected = [f"{number}{form.suffix}" for number in range(3)]
    assert (ran.status, ran.lines) == (0, [str(out / "sub" / name) for name in expected])
    assert names(out / "sub") == expected
    for number, name in enumerate(expected):
        found = read_image(out / "sub" / name).pixels.astype(int)
        assert abs(found - smooth_pixels(20 + number, 30)).max() <= (16 if form.quality else 0)
    again = derain(source, out, weights, *words)
    assert again.err.splitlines()[-1].startswith("0 restored, 3 skipped, 0 failed")
    measured = restormer("evaluate", "--result-dir", out, "--target-dir", source, "-r", "--json")
    lines = [json.loads(line) for line in measured.lines]
    assert measured.status == 0
    assert len(lines) == 4
    assert all(line["psnr"] == "inf" or line["psnr"] > 35 for line in lines)
    page = tmp_path / "page.html"
    reported = restormer(*("report", out, "--input-dir", source, "-r", "--output", page))
    assert reported.status == 0, reported.err
    text = page.read_text(encoding="utf-8")
    assert all(f"sub/{name}" in text for name in expected)
    assert "is not restored yet" not in text


def test_default_is_png(tmp_path: Path, weights: Path) -> None:
    derain(make_images(tmp_path / "in", 1), tmp_path / "out", weights)
    assert names(tmp_path / "out") == ["0.png"]


@pytest.mark.parametrize(
    ("said", "suffix"), [("JPG", ".jpg"), ("tif", ".tif"), (".webp", ".webp"), ("AVIF", ".avif")]
)
def test_formats_are_known_by_their_suffixes_too(
    tmp_path: Path, weights: Path, said: str, suffix: str
) -> None:
    ran = derain(make_images(tmp_path / "in", 1), tmp_path / "out", weights, "--format", said)
    assert (ran.status, names(tmp_path / "out")) == (0, [f"0{suffix}"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "gif"), "choose png, tiff, jpeg, webp, avif"),
        (("--quality", "90"), "--quality: PNG has none, since it loses nothing"),
        (("--format", "tiff", "--quality", "90"), "--quality: TIFF has none"),
        (("--format", "jpeg", "--quality", "0"), "--quality"),
        (("--format", "jpeg", "--quality", "101"), "--quality"),
        (("--format", "jpeg", "--bit-depth", "16"), "--bit-depth 16: JPEG has 8 bit"),
        (("--bit-depth", "12"), "--bit-depth 12: PNG has 8 or 16 bit"),
        (("--bit-depth", "9"), "choose auto, 8, 10, 12, 16"),
        (("--format", "webp", "--png-compression", "3"), "--png-compression: is for PNG"),
    ],
)
def test_what_a_format_cannot_is_refused_before_any_work(
    tmp_path: Path, weights: Path, words: tuple[str, ...], said: str
) -> None:
    ran = derain(make_images(tmp_path / "in", 1), tmp_path / "out", weights, *words)
    assert ran.status == 2
    assert said in " ".join(ran.err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_another_quality_is_another_setting(tmp_path: Path, weights: Path) -> None:
    source, out = make_images(tmp_path / "in", 2), tmp_path / "out"
    assert derain(source, out, weights, "--format", "jpeg").status == 0
    usual = (out / "0.jpg").read_bytes()
    ran = derain(source, out, weights, "--format", "jpeg", "--quality", "95")  # the usual one
    assert "0 restored, 2 skipped" in ran.err
    ran = derain(source, out, weights, "--format", "jpeg", "--quality", "40")
    assert "quality changed: 2 results are to be made again" in ran.err
    assert len((out / "0.jpg").read_bytes()) < len(usual)
    ran = derain(source, out, weights, "--format", "jpeg", "--quality", "40")
    assert "0 restored, 2 skipped" in ran.err


def test_another_format_is_another_result(tmp_path: Path, weights: Path) -> None:
    source, out = make_images(tmp_path / "in", 1), tmp_path / "out"
    for form in FORMATS:
        ran = derain(source, out, weights, "--format", form.name)
        assert ran.err.splitlines()[-1].startswith("1 restored, 0 skipped")
    assert names(out) == sorted(f"0{form.suffix}" for form in FORMATS)
    for form in FORMATS:
        ran = derain(source, out, weights, "--format", form.name)
        assert ran.err.splitlines()[-1].startswith("0 restored, 1 skipped")


def test_results_that_show_who_was_where_are_made_again_with_strip(
    tmp_path: Path, weights: Path
) -> None:
    noted = PIL.Image.Exif()
    noted[0x013B] = "A. Owner"
    (tmp_path / "in").mkdir()
    PIL.Image.fromarray(smooth_pixels(9, 9)).save(tmp_path / "in" / "a.jpg", exif=noted)
    out = tmp_path / "out"
    for form in FORMATS:
        words = ("--format", form.name)
        derain(tmp_path / "in", out, weights, *words)
        assert b"Owner" in (out / f"a{form.suffix}").read_bytes()
        ran = derain(tmp_path / "in", out, weights, *words, "--strip")
        assert "metadata changed: 1 result is to be made again" in ran.err
        assert b"Owner" not in (out / f"a{form.suffix}").read_bytes()
        ran = derain(tmp_path / "in", out, weights, *words, "--strip")
        assert "0 restored, 1 skipped" in ran.err


def test_record_of_an_older_version_is_one_of_png(tmp_path: Path, weights: Path) -> None:
    source, out = make_images(tmp_path / "in", 1), tmp_path / "out"
    derain(source, out, weights)
    path = Journal(out, Settings()).path
    header, *rest = path.read_text().splitlines()
    values = json.loads(header)
    for name in ("format", "quality", "metadata"):
        del values["settings"][name]
    path.write_text("\n".join([json.dumps(values), *rest, ""]))
    assert "0 restored, 1 skipped" in derain(source, out, weights).err
    assert "1 restored" in derain(source, out, weights, "--format", "webp").err


@pytest.mark.parametrize("form", FORMATS, **by_name)
def test_images_that_would_share_a_name_keep_theirs(
    form: OutputFormat, tmp_path: Path, weights: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for suffix in (".png", ".bmp"):
        write(source / f"a{suffix}", random_pixels(8, 8))
    assert derain(source, out, weights, "--format", form.name).status == 0
    assert names(out) == [f"a.bmp{form.suffix}", f"a.png{form.suffix}"]
    planned = derain(source, tmp_path / "other", weights, "--format", form.name, "--dry-run")
    assert planned.lines[0].endswith(f"-> {tmp_path / 'other' / 'a.bmp'}{form.suffix}")


@pytest.mark.parametrize("form", FORMATS, **by_name)
def test_an_input_never_becomes_its_own_result_nor_a_result_an_input(
    form: OutputFormat, tmp_path: Path, weights: Path
) -> None:
    folder = tmp_path / "photos"
    write(folder / "b.bmp", random_pixels(8, 8))
    own = write(folder / "a.png", random_pixels(8, 8))
    own = own.rename(folder / f"a{form.suffix}")  # its content says what it is
    before = own.read_bytes()
    ran = derain(folder, folder, weights, "--format", form.name)
    assert ran.status == 1
    assert "its result would overwrite the input" in ran.err
    assert own.read_bytes() == before
    assert names(folder) == sorted([own.name, "b.bmp", f"b{form.suffix}"])
    for other in FORMATS:  # whatever comes next
        ran = derain(folder, folder, weights, "--format", other.name)
        assert "not taken for" in ran.err
    assert f"b{form.suffix}.png" not in names(folder)


def test_paths_on_standard_input_get_the_format(tmp_path: Path, weights: Path) -> None:
    source = make_images(tmp_path / "in", 2)
    paths = "\n".join(str(source / f"{number}.png") for number in range(2)).encode()
    ran = derain("-", tmp_path / "out", weights, "--format", "tiff", stdin=paths)
    assert ran.status == 0
    assert names(tmp_path / "out") == ["0.tif", "1.tif"]


@pytest.mark.parametrize(
    ("form", "size", "other"),
    [("jpeg", (1, 65_501), "png"), ("webp", (16_384, 1), "jpeg"), ("avif", (1, 32_769), "tiff")],
)
def test_what_is_too_large_for_a_format_is_refused_before_the_network_runs(
    tmp_path: Path,
    weights: Path,
    form: str,
    size: tuple[int, int],
    other: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tmp_path / "in" / "a.png", np.zeros((*size, 1), np.uint8))
    write(tmp_path / "in" / "b.png", random_pixels(8, 8))
    shapes = []
    run = Restorer._run

    def watched(self: Any, image: Any, *words: Any) -> Any:
        shapes.append(tuple(image.shape[2:]))
        return run(self, image, *words)

    monkeypatch.setattr(Restorer, "_run", watched)
    monkeypatch.setattr(Restorer, "images_together", lambda *_: 1)
    ran = derain(tmp_path / "in", tmp_path / "out", weights, "--format", form)
    assert ran.status == 1
    assert shapes == [(8, 8)]
    line = next(line for line in ran.err.splitlines() if line.startswith("error"))
    assert f"a.png: is {size[1]}×{size[0]} pixels, and " in line
    assert other in line
    assert len(names(tmp_path / "out")) == 1


def test_what_is_lost_is_told_by_image(tmp_path: Path, weights: Path) -> None:
    source = tmp_path / "in"
    write(source / "deep.png", random_pixels(8, 8, bits=16))
    write(source / "clear.png", random_pixels(8, 8, 4))
    write(source / "plain.png", random_pixels(8, 8))
    ran = derain(source, tmp_path / "out", weights, "--format", "jpeg")
    assert ran.status == 0
    assert f"{source / 'deep.png'}: becomes 8 bit, since JPEG has no more" in ran.err
    assert "clear.png: what is transparent shows white, since JPEG has no transparency" in ran.err
    assert "plain.png:" not in ran.err
    ran = derain(source, tmp_path / "avif", weights, "--format", "avif", "--quality", "100")
    assert "deep.png: becomes 12 bit, since AVIF has no more" in ran.err
    assert read_image(tmp_path / "avif" / "deep.avif").bit_depth == 16
    assert "clear.png:" not in ran.err
    ran = derain(
        source, tmp_path / "ten", weights, "--format", "avif", "--bit-depth", "10"
    )  # on purpose
    assert "becomes" not in ran.err


def test_of_dual_pixels_the_left_view_says_what_is_lost(tmp_path: Path) -> None:
    for side in ("inputL", "inputR"):
        write(tmp_path / "in" / side / "a.png", random_pixels(8, 8, bits=16))
    weights = save(tiny_network("dual_pixel"), tmp_path / "dual.safetensors")
    ran = restormer(
        *("dual-pixel", "--weights", weights, "--input-dir", tmp_path / "in"),
        *("--result-dir", tmp_path / "out", "--format", "webp"),
    )
    assert ran.status == 0, ran.err
    assert ran.err.count("becomes 8 bit") == 1
    assert names(tmp_path / "out") == ["a.webp"]


def test_restore_folder_takes_the_same_words(tmp_path: Path, weights: Path) -> None:
    source = make_images(tmp_path / "in", 2)
    restorer = load_restorer("derain", weights=str(weights))
    made = restore_folder(restorer, source, tmp_path / "out", format="jpeg", quality=60, strip=True)
    assert [Path(outcome.result).name for outcome in made] == ["0.jpg", "1.jpg"]
    words = ("--format", "jpg", "--quality", "60", "--strip")
    assert "0 restored, 2 skipped" in derain(source, tmp_path / "out", weights, *words).err
    with pytest.raises(UsageError, match="no format 'bmp'"):
        restore_folder(restorer, source, tmp_path / "out", format="bmp")
    with pytest.raises(UsageError, match="PNG has none"):
        restore_folder(restorer, source, tmp_path / "out", quality=60)

    def doubled(pixels: Any, **_: Any) -> Any:  # heeds no bit depth
        return pixels.astype(np.uint16) * 257

    restore_folder(doubled, source, tmp_path / "plain", format="webp", quality=100)
    for number in range(2):
        found = read_image(tmp_path / "plain" / f"{number}.webp").pixels
        np.testing.assert_array_equal(found, random_pixels(12, 12, seed=number))


def test_workers_of_their_own_write_the_format(tmp_path: Path, weights: Path) -> None:
    source, out = make_images(tmp_path / "in", 6), tmp_path / "out"
    words = ("--format", "avif", "--quality", "100", "--strip")
    ran = derain(source, out, weights, *words, "--workers", "2", "--device", "cpu")
    assert ran.status == 0, ran.err
    assert names(out) == [f"{number}.avif" for number in range(6)]
    assert "0 restored, 6 skipped" in derain(source, out, weights, *words).err
    for number in range(6):
        found = read_image(out / f"{number}.avif").pixels
        np.testing.assert_array_equal(found, random_pixels(12, 12, seed=number))
