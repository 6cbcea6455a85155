"""The report without a browser: contents of the file, files beside it, refusals."""

from __future__ import annotations

import base64
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from helpers import random_pixels, read, restormer, save, smooth_pixels, write, zero_network

from restormer_cli.errors import UsageError
from restormer_cli.evaluation.evaluate import evaluate_folder
from restormer_cli.report.build import write_report
from restormer_cli.report.page import as_json
from restormer_cli.report.pictures import eight_bit, thumbnail, type_in_browser, url_of_file


def values(html: Path) -> Any:
    """The data of the page."""
    text = html.read_text(encoding="utf-8")
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def rows(html: Path) -> dict[str, Any]:
    return {row["name"]: row for row in values(html)["rows"]}


def decoded(url: str) -> Any:
    """Pixels of a data URL."""
    header, _, data = url.partition(",")
    assert re.fullmatch(r"data:image/(png|jpeg|webp|bmp);base64", header)
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Two results with inputs and targets, one of them in a sub-folder, and one of another size."""
    paths = {name: tmp_path / name for name in ("in", "out", "gt")}
    for number, name in enumerate(("10", "9", "sub/8", "bad"), start=1):
        target = smooth_pixels(30 + number, 40)
        write(paths["gt"] / f"{name}.png", target if name != "bad" else smooth_pixels(20, 20))
        write(paths["out"] / f"{name}.png", np.minimum(target, 250))
        write(paths["in"] / f"{name}.tif", np.minimum(target, 128))
    return paths


# --- what is in it ------------------------------------------------------------------------------


def test_results_alone_make_a_report(folders: dict[str, Path]) -> None:
    ran = restormer("report", folders["out"])
    assert ran.status == 0, ran.err
    html = folders["out"] / "report.html"
    assert ran.lines == [str(html)]
    assert ran.err == ""
    found = values(html)
    assert [row["name"] for row in found["rows"]] == ["9.png", "10.png", "bad.png"]
    assert found["title"] == "out"
    assert (found["protocol"], found["mean"]) == (None, {"before": None, "after": None})
    assert found["versions"]["restormer-cli"]
    assert sorted(p.name for p in folders["out"].iterdir()) == sorted(
        ["9.png", "10.png", "bad.png", "sub", "report.html"]
    )


def test_inputs_targets_and_figures_are_those_of_evaluate(folders: dict[str, Path]) -> None:
    out = folders["out"]
    ran = restormer(
        *("report", out, "-r", "--input-dir", folders["in"], "--target-dir", folders["gt"]),
        *("--protocol", "y"),
    )
    assert ran.status == 0, ran.err
    found = rows(out / "report.html")
    assert list(found) == ["9.png", "10.png", "bad.png", "sub/8.png"]
    after = evaluate_folder(out, folders["gt"], "y", recursive=True)
    before = evaluate_folder(folders["in"], folders["gt"], "y", recursive=True)
    for scores, key in ((after.scores, "after"), (before.scores, "before")):
        for score in scores:
            row = found[score.name.replace(".tif", ".png")]
            assert row[key] == {"psnr": score.psnr, "ssim": score.ssim, "mae": score.mae}
            assert row["status"] == "restored"
    assert found["bad.png"]["status"] == "uncompared"
    assert "differs in size from its target" in found["bad.png"]["reason"]
    assert after.mean is not None
    assert values(out / "report.html")["mean"]["after"]["psnr"] == after.mean.psnr
    view = found["9.png"]["views"]["input"]
    assert (view["width"], view["height"]) == (40, 32)
    # Browsers do not show TIFF: the same pixels as PNG.
    assert np.array_equal(decoded(view["full"])[..., ::-1], np.minimum(smooth_pixels(32, 40), 128))


def test_the_file_stands_alone(folders: dict[str, Path]) -> None:
    restormer("report", folders["out"], "--input-dir", folders["in"])
    html = folders["out"] / "report.html"
    for row in rows(html).values():
        for view in row["views"].values():
            assert decoded(view["thumbnail"]) is not None
            assert decoded(view["full"]).shape == (view["height"], view["width"], 3)
    text = html.read_text(encoding="utf-8")
    assert not re.findall(r"https?://", text)
    assert "default-src 'none'" in text


def test_perfect_results_have_an_infinite_psnr(folders: dict[str, Path]) -> None:
    restormer("report", folders["gt"], "--target-dir", folders["gt"])
    found = values(folders["gt"] / "report.html")
    assert {row["after"]["psnr"] for row in found["rows"]} == {"inf"}
    assert found["mean"]["after"]["psnr"] == "inf"


def test_a_run_says_what_failed_and_how_it_was_made(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "b.jpg"):
        write(source / name, smooth_pixels(24, 24))
    (source / "broken.png").write_bytes(b"no image")
    weights = save(zero_network("bias_free"), tmp_path / "zero.pth")
    command = ("denoise", "--input-dir", source, "--result-dir", out, "--weights", weights)
    assert restormer(*command, "--report", out / "run.jsonl").status == 1
    write(source / "later.png", smooth_pixels(8, 8))
    write(source / "twice.png", smooth_pixels(8, 8))
    # Inputs are known from the run's lines; what was added since is known from --input-dir alone.
    restormer("report", out)
    assert list(rows(out / "report.html")) == ["a.png", "b.png", "broken.png"]
    restormer("report", out, "--input-dir", source)
    found = rows(out / "report.html")
    assert {name: row["status"] for name, row in found.items()} == {
        "a.png": "restored",
        "b.png": "restored",
        "broken.png": "failed",
        "later.png": "missing",
        "twice.png": "missing",
    }
    assert found["broken.png"]["reason"].startswith("is text and not an image")
    assert set(found["b.png"]["views"]) == {"input", "result"}
    assert found["a.png"]["seconds"] > 0
    settings = values(out / "report.html")["settings"]
    assert settings["weights"] == [["zero.pth", 3]]
    assert settings["device"] == [["cpu", 3]]
    # A second run skips what is done, which takes nothing from what is known of it.
    restormer(*command, "--report", out / "run.jsonl")
    restormer("report", out, "--input-dir", source)
    assert rows(out / "report.html")["a.png"]["seconds"] == found["a.png"]["seconds"]
    assert rows(out / "report.html")["later.png"]["status"] == "restored"


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "wait\u0085.png", "a\u2028b.png"])
def test_failures_of_any_name_are_shown(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    write(tmp_path / "a.png", smooth_pixels(24, 24))
    listed = f"{tmp_path / 'a.png'}\n{tmp_path / name}\n"
    weights = save(zero_network("bias_free"), tmp_path / "zero.pth")
    command = ("denoise", "--input-dir", "-", "--result-dir", out, "--weights", weights)
    assert restormer(*command, "--report", out / "run.jsonl", stdin=listed.encode()).status == 1
    assert restormer("report", out).status == 0
    found = rows(out / "report.html")
    assert [row["status"] for row in found.values()] == ["restored", "failed"]


def test_a_moved_folder_still_finds_itself_in_its_lines(tmp_path: Path) -> None:
    write(tmp_path / "in" / "deep" / "a.png", smooth_pixels(16, 16))
    out, moved = tmp_path / "out", tmp_path / "moved"
    weights = save(zero_network("bias_free"), tmp_path / "zero.pth")
    restormer(
        *("denoise", "-r", "--input-dir", tmp_path / "in", "--result-dir", out),
        *("--weights", weights, "--report", out / "run.jsonl"),
    )
    out.rename(moved)
    restormer("report", moved, "-r")
    found = rows(moved / "report.html")
    assert set(found["deep/a.png"]["views"]) == {"input", "result"}
    assert found["deep/a.png"]["seconds"] is not None


def test_results_of_other_tools_find_their_inputs(tmp_path: Path) -> None:
    for folder, name in (("in", "a.jpg"), ("in", "b.png"), ("out", "a.jpg"), ("out", "b.tif")):
        write(tmp_path / folder / name, smooth_pixels(16, 16))
    restormer("report", tmp_path / "out", "--input-dir", tmp_path / "in")
    found = rows(tmp_path / "out" / "report.html")
    assert {name: set(row["views"]) for name, row in found.items()} == {
        "a.jpg": {"input", "result"},
        "b.tif": {"input", "result"},
    }


def test_a_damaged_result_is_a_failure_and_costs_only_itself(folders: dict[str, Path]) -> None:
    (folders["out"] / "9.png").write_bytes(b"torn")
    assert restormer("report", folders["out"]).status == 0
    found = rows(folders["out"] / "report.html")
    assert found["9.png"]["status"] == "failed"
    assert "is text and not an image" in found["9.png"]["reason"]
    assert found["10.png"]["status"] == "restored"


# --- what lies beside it ------------------------------------------------------------------------


def test_full_size_pictures_stay_where_they_are_when_they_are_large(
    folders: dict[str, Path],
) -> None:
    out = folders["out"]
    # Six thumbnails fit, as do the results; the TIFF files, 4 kB each, do not.
    thumbnails = write_report(out, input_dir=folders["in"], limit=10**6)
    size = sum(
        len(view["thumbnail"])
        for row in rows(thumbnails.html).values()
        for view in row["views"].values()
    )
    written = write_report(out, input_dir=folders["in"], limit=size)
    assert written.beside == out / "report-files"
    for name, row in rows(out / "report.html").items():
        for view in row["views"].values():
            assert view["thumbnail"].startswith("data:image/jpeg")
        assert row["views"]["result"]["full"] == f"./{name}"
        # The copy of a TIFF has a place beside; its name is not taken for a photo by a command.
        copy = PIL.Image.open(out / row["views"]["input"]["full"])
        original = PIL.Image.open((folders["in"] / name).with_suffix(".tif"))
        assert np.array_equal(np.asarray(copy), np.asarray(original))
    assert len(evaluate_folder(out, out, recursive=True).scores) == 4  # sub/8.png included


def test_thumbnails_move_beside_when_they_are_large_and_are_swept(
    folders: dict[str, Path],
) -> None:
    out = folders["out"]
    beside = out / "report-files"
    first = write_report(out, input_dir=folders["in"], limit=100)
    assert first.beside == beside
    for row in rows(out / "report.html").values():
        for view in row["views"].values():
            assert PIL.Image.open(out / view["thumbnail"]).size == (view["width"], view["height"])
    names = {path.name for path in beside.iterdir()}
    (beside / "mine.txt").write_text("not ours")
    write(out / "9.png", random_pixels(50, 50))
    write_report(out, input_dir=folders["in"], limit=100)
    again = {path.name for path in beside.iterdir()}
    assert len(again - names) == 2  # the new thumbnail and what is not ours
    assert len(names - again) == 1
    # And the next report that fits into one file leaves nothing of ours behind.
    assert write_report(out, input_dir=folders["in"]).beside is None
    assert [path.name for path in beside.iterdir()] == ["mine.txt"]
    ran = restormer("report", out, "--output", out.parent / "elsewhere.html")
    assert ran.lines == [str(out.parent / "elsewhere.html")]


def test_urls_survive_strange_names_and_can_move_with_the_folder(tmp_path: Path) -> None:
    base = tmp_path / "out"
    assert url_of_file(base / "a b#1?.png", base) == "./a%20b%231%3F.png"
    assert url_of_file(base / "x:y.png", base) == "./x%3Ay.png"
    assert url_of_file(tmp_path / "in" / "é.png", base) == "./../in/%C3%A9.png"


def test_browsers_are_given_what_they_show_by_content(tmp_path: Path) -> None:
    pixels = smooth_pixels(9, 9)
    for suffix, media in ((".png", "png"), (".jpg", "jpeg"), (".webp", "webp"), (".bmp", "bmp")):
        file = write(tmp_path / f"a{suffix}", pixels).rename(tmp_path / "b.tif")
        assert type_in_browser(file) == f"image/{media}"
    assert type_in_browser(write(tmp_path / "a.tif", pixels)) is None


# --- what is refused ----------------------------------------------------------------------------


def test_only_reports_are_replaced_without_being_asked(folders: dict[str, Path]) -> None:
    out = folders["out"]
    mine = out.parent / "mine.html"
    mine.write_text("<p>my own page</p>")
    ran = restormer("report", out, "--output", mine)
    assert ran.status == 2
    assert "mine.html: exists and is not a report; --overwrite replaces it" in ran.err
    assert mine.read_text() == "<p>my own page</p>"
    assert restormer("report", out, "--output", mine, "--overwrite").status == 0
    assert restormer("report", out, "--output", mine).status == 0
    photo = write(out.parent / "photo.png", smooth_pixels(8, 8))
    ran = restormer("report", out, "--contact-sheet", photo)
    assert ran.status == 2
    assert "photo.png: exists" in ran.err
    link = out.parent / "link.html"
    link.symlink_to(out.parent / "a disk that is away" / "a.html")
    ran = restormer("report", out, "--output", link)
    assert ran.status == 2
    assert "link.html: is a link to a file that is not there" in ran.err
    assert link.is_symlink()
    sheet = out.parent / "sheet.png"
    for _ in range(2):
        assert restormer("report", out, "--contact-sheet", sheet).status == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("missing",), "missing: no such folder"),
        (("empty",), "empty: no images found"),
        (("out", "--target-dir", "empty"), "empty: no images found"),
        (("out", "--input-dir", "nowhere"), "nowhere: no such folder"),
        (("out", "--output", "gt/9.png/r.html"), "cannot be written"),
        (("out", "--output", "gt"), "gt: is a folder"),
        (("out", "--contact-sheet", "out/sheet.png"), "lies among the results"),
        (("out", "--protocol", "best"), "no protocol 'best'"),
    ],
)
def test_wrong_usage_is_one_line(
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(folders["out"].parent)
    Path("empty").mkdir()
    ran = restormer("report", *words)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1
    assert not Path("out/report.html").exists()


def test_a_folder_that_cannot_be_written_keeps_the_old_report(folders: dict[str, Path]) -> None:
    out = folders["out"]
    write_report(out)
    before = (out / "report.html").read_bytes()
    (out / "report-files").write_text("in the way")
    with pytest.raises(UsageError, match="report-files: cannot be written"):
        write_report(out, limit=100)
    assert (out / "report.html").read_bytes() == before
    assert sorted(p.suffix for p in out.iterdir()) == ["", "", ".html", ".png", ".png", ".png"]


# --- escaping -----------------------------------------------------------------------------------


def test_no_value_can_leave_its_script_element() -> None:
    nasty = {"name": "</script><script>alert(1)</script><!-- & \u2028 \udcff", "psnr": 1.5}
    text = as_json(nasty)
    assert not set(text) & set("<>&")
    assert text.isascii()
    assert json.loads(text) == nasty
    with pytest.raises(ValueError, match="Out of range"):
        as_json({"psnr": math.nan})


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are not text")
def test_names_that_are_not_text_are_shown(tmp_path: Path) -> None:
    target = os.fsencode(write(tmp_path / "out" / "a.png", smooth_pixels(8, 8)))
    os.rename(target, target.replace(b"a.png", b"\xff{{data}}.png"))  # noqa: PTH104 - bytes
    write_report(tmp_path / "out", limit=0)
    (row,) = values(tmp_path / "out" / "report.html")["rows"]
    assert row["views"]["result"]["full"] == "./%FF%7B%7Bdata%7D%7D.png"


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be on Windows")
def test_a_folder_called_like_standard_input_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for side in ("-", "out"):
        write(Path(side) / "a.png", smooth_pixels(16, 16))
    ran = restormer("report", "out", "--input-dir", "./-", stdin=b"nothing.png")
    assert ran.status == 0, ran.err
    assert set(rows(Path("out/report.html"))["a.png"]["views"]) == {"input", "result"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes among files")
def test_pipes_and_devices_are_not_replaced(folders: dict[str, Path]) -> None:
    pipe = folders["out"].parent / "pipe.html"
    os.mkfifo(pipe)
    ran = restormer("report", folders["out"], "--output", pipe, "--overwrite")
    assert (ran.status, ran.err) == (2, f"error: {pipe}: is a pipe\n")
    assert pipe.is_fifo()


def test_a_picture_that_goes_meanwhile_leaves_its_thumbnail(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def embed_when_it_is_gone(shown: Any, store: Any) -> bool:
        (folders["out"] / "9.png").unlink()
        (folders["in"] / "9.tif").unlink()
        return True

    monkeypatch.setattr("restormer_cli.report.values._embed", embed_when_it_is_gone)
    written = write_report(folders["out"], input_dir=folders["in"])
    for view in rows(written.html)["9.png"]["views"].values():
        assert view["full"] == view["thumbnail"]


def test_deep_pictures_are_shown_in_8_bit() -> None:
    deep = random_pixels(30, 40, bits=16)
    assert np.array_equal(eight_bit(deep), np.rint(deep / 257).astype(np.uint8))
    shown = cv2.imdecode(np.frombuffer(thumbnail(deep), np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (30, 40, 3)


# --- contact sheets -----------------------------------------------------------------------------


def test_contact_sheets_show_every_image(folders: dict[str, Path]) -> None:
    sheet = folders["out"].parent / "sheet.png"
    ran = restormer(
        *("report", folders["out"], "--input-dir", folders["in"], "--target-dir", folders["gt"]),
        *("--contact-sheet", sheet),
    )
    assert ran.status == 0, ran.err
    assert ran.lines == [str(folders["out"] / "report.html"), str(sheet)]
    page = read(sheet)
    assert page.shape[1] > 1200
    # The three tiles of 9.png: the input is darker than the other two.
    means = [page[100:270, 50 + 284 * n : 300 + 284 * n].mean() for n in range(3)]
    assert means[0] < means[1] - 10
    assert means[2] == pytest.approx(means[1], abs=2)


def test_many_images_make_several_sheets(tmp_path: Path) -> None:
    first = write(tmp_path / "out" / "0.png", smooth_pixels(8, 8))
    for number in range(1, 41):
        (tmp_path / "out" / f"{number}.png").hardlink_to(first)
    sheet = tmp_path / "all.png"
    ran = restormer("report", tmp_path / "out", "--contact-sheet", sheet)
    assert ran.lines[1:] == [str(sheet), str(tmp_path / "all-2.png")]
    assert read(tmp_path / "all-2.png").shape[0] < read(sheet).shape[0]


def test_progress_is_told_image_by_image(folders: dict[str, Path]) -> None:
    told: list[tuple[int, int]] = []
    written = write_report(folders["out"], progress=lambda *counts: told.append(counts))
    assert told == [(number, written.images) for number in range(1, written.images + 1)]
    assert told
