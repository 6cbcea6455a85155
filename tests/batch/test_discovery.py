"""The files that a run finds, their order, and the names of their results."""

from __future__ import annotations

import io
import os
import sys
import unicodedata
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.batch.discovery import find_work
from restormer_cli.batch.items import Origins, Work
from restormer_cli.batch.shards import Shard
from restormer_cli.batch.walk import find_images
from restormer_cli.errors import UsageError

links = pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
OUT = Path("results")


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def found(folder: Path, recursive: bool = False, excluded: Path | None = None) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in find_images(folder, recursive, excluded)]


def results(work: Work, out: Path = OUT) -> dict[str, str]:
    """Result by input, as names."""
    return {i.source.name: i.result.relative_to(out).as_posix() for i in work.items}


def known(origins: dict[Path, str]) -> Origins:
    """The origins that a journal with these results would give."""
    return lambda folder, asked: {result: origins[result] for result in asked if result in origins}


def listed(names: list[str], out: Path = OUT, end: bytes = b"\n", null: bool = False) -> Work:
    stream = io.BytesIO(b"".join(os.fsencode(name) + end for name in names))
    return find_work("-", out, null=null, stdin=stream)


# --- what is found -----------------------------------------------------------------------


def test_images_come_in_natural_order(tmp_path: Path) -> None:
    names = ["IMG1.png", "img2.png", "IMG10.png", "img100.png", "z1.jpg"]
    assert found(touch(tmp_path, *reversed(names))) == names


def test_images_of_all_formats_are_found_in_any_case_and_nothing_else(tmp_path: Path) -> None:
    images = ["a.png", "b.jpg", "c.JPEG", "d.Bmp", "e.tif", "f.TIFF", "g.webp", "h é.PNG"]
    touch(tmp_path, *images, "i.txt", "j.gif", "png", "k.png.bak", "l.mp4", "m")
    assert found(tmp_path) == images


@pytest.mark.parametrize(
    "suffix",
    "png apng jpg jpeg jpe jfif jfi jif pjpeg pjp bmp dib tif tiff webp heic hif avif jxl dng "  # noqa: SIM905
    "cr2 cr3 nef arw raf orf rw2 pef srw".split(),
)
def test_other_names_of_plain_formats_are_images(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, f"a.{suffix}", f"b.{suffix.upper()}")
    assert len(found(tmp_path)) == 2


@pytest.mark.parametrize(
    "suffix",
    "jp2 j2k gif ppm pgm tga exr hdr xcf ico svg psd raw".split(),  # noqa: SIM905
)
def test_images_that_are_not_read_are_counted(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, "a.png", f"b.{suffix}", f"c.{suffix.upper()}")
    work = find_work(str(tmp_path), OUT)
    assert results(work) == {"a.png": "a.png"}
    assert any(f"2 .{suffix}" in notice for notice in work.notices)


def test_images_whose_names_do_not_say_so_are_named(tmp_path: Path) -> None:
    heads = {"a.png": b"", "scan": b"\xff\xd8\xff\xe0", "b.png.bak": b"\x89PNG\r\n\x1a\n",
             "c.jpg~": b"\xff\xd8\xff\xe0", "d.jpg_original": b"\xff\xd8\xff\xe0",
             "e.jpg ": b"\xff\xd8\xff\xe0", "IMG.2024": b"II*\0"}  # fmt: skip
    others = {
        "README": b"hello",
        "a.png.xmp": b"\xff\xd8\xff\xe0",
        "f.jpg.txt": b"x",
        "g.mp4": b"\xff\xd8\xff",
    }
    for name, content in {**heads, **others}.items():
        (tmp_path / name).write_bytes(content)
    work = find_work(str(tmp_path), OUT)
    assert results(work) == {"a.png": "a.png"}
    (notice,) = work.notices
    told = ", ".join(sorted(set(heads) - {"a.png"})[:3])
    assert f"{told} and 3 more" in notice


def test_photos_that_icloud_has_not_downloaded_are_named(tmp_path: Path) -> None:
    for name in (".IMG 1.HEIC.icloud", ".b.jpg.icloud", ".notes.txt.icloud", ".icloud", "a.png"):
        (tmp_path / name).write_bytes(b"bplist00")
    work = find_work(str(tmp_path), OUT)
    assert results(work) == {"a.png": "a.png"}
    assert work.notices == [
        "passed over, since they are in iCloud alone: IMG 1.HEIC, b.jpg; download them first"
    ]
    (tmp_path / "a.png").unlink()
    with pytest.raises(UsageError, match=r"no images found.*in iCloud alone"):
        find_work(str(tmp_path), OUT)


def test_sub_folders_with_images_are_told_of(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "x/notes.txt", "x/y/z/b.JPG")
    (notice,) = find_work(str(tmp_path), OUT).notices
    assert "--recursive" in notice
    assert not find_work(str(tmp_path), OUT, recursive=True).notices
    # Of the results themselves nothing is said, nor of those of other runs.
    touch(tmp_path, "in/a.png", "in/out/a.png", "in/other/a.png", "in/other/.restormer/run.jsonl")
    assert not find_work(str(tmp_path / "in"), tmp_path / "in" / "out").notices
    (tmp_path / "in" / "a.png").unlink()
    touch(tmp_path, "in/deep/a.png")
    with pytest.raises(UsageError, match=r"no images found.*--recursive"):
        find_work(str(tmp_path / "in"), tmp_path / "in" / "out")


def test_folders_of_the_system_are_not_walked(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "@eaDir/a.png/THUMB_XL.jpg", "b/@eaDir/c.jpg", "__MACOSX/a.png",
          "$RECYCLE.BIN/d.png", "b/e.png")  # fmt: skip
    work = find_work(str(tmp_path), OUT, recursive=True)
    assert sorted(results(work)) == ["a.png", "e.png"]
    (notice,) = work.notices
    assert "1 $RECYCLE.BIN, 2 @eaDir, 1 __MACOSX" in notice


def test_reports_are_no_inputs(tmp_path: Path) -> None:
    mark = b"<!-- restormer-cli report -->"
    touch(tmp_path, "a.png", "report-files/t.jpg", "page-files/t.jpg", "album-files/b.jpg")
    (tmp_path / "sheet.png").write_bytes(b"\x89PNG Software\0restormer-cli report")
    (tmp_path / "report.html").write_bytes(mark)
    (tmp_path / "page.html").write_bytes(mark)
    (tmp_path / "album.html").write_bytes(b"<html>")
    work = find_work(str(tmp_path), OUT, recursive=True)
    assert sorted(results(work)) == ["a.png", "b.jpg"]
    (notice,) = work.notices
    assert "page-files, report-files, sheet.png" in notice


def test_results_of_other_runs_in_sub_folders_are_no_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "old/.restormer/run.jsonl", "old/a.png", "old/mine.png")
    made = {tmp_path / "old" / "a.png": str(tmp_path / "a.jpg")}
    work = find_work(str(tmp_path), OUT, recursive=True, origins=known(made))
    assert sorted(results(work)) == ["a.jpg", "mine.png"]
    assert work.notices == ["1 result of an earlier run is not taken for an input"]
    # Whoever names that folder wants them.
    assert len(find_work(str(tmp_path / "old"), OUT, origins=known(made)).items) == 2


def test_folders_nested_deeper_than_python_calls(tmp_path: Path, monkeypatch: Any) -> None:
    depth = sys.getrecursionlimit() + 200
    touch(tmp_path, "in/a.png")
    monkeypatch.chdir(tmp_path / "in")
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    Path("deepest.png").touch()
    os.chdir(tmp_path)
    work = find_work("in", OUT, recursive=True)
    os.chdir(tmp_path / "in")
    for _ in range(depth):
        os.chdir("d")
    Path("deepest.png").unlink()
    for _ in range(depth):  # which shutil.rmtree cannot do before Python 3.13
        os.chdir("..")
        Path("d").rmdir()
    told = {item.source.name for item in work.items} | {path.name for path, _ in work.problems}
    assert "a.png" in told
    assert told & {"deepest.png", "d"}  # found, or what could not be read is named


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", ".b.png", "._a.png", ".thumbs/c.png", ".x.restormer-part", "d/.e.png")
    assert found(tmp_path, recursive=True) == ["a.png"]


def test_folder_called_like_an_image_is_no_image(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "album.png/b.png")
    assert found(tmp_path) == ["a.png"]
    assert found(tmp_path, recursive=True) == ["a.png", "album.png/b.png"]


def test_sub_folders_are_walked_only_when_asked_and_mirrored(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "x/a.png", "x/y/b.tif", "x/notes.txt")
    assert found(tmp_path) == ["a.png"]
    work = find_work(str(tmp_path), OUT, recursive=True)
    assert {item.result for item in work.items} == {
        OUT / "a.png",
        OUT / "x" / "a.png",
        OUT / "x" / "y" / "b.png",
    }
    assert not work.notices
    assert not work.problems


def test_result_folder_inside_the_input_folder_is_not_walked(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "x/b.png", "x/out/a.png", "x/out/deep/c.png", "x/outer/d.png")
    out = tmp_path / "x" / "out"
    assert found(tmp_path, True, out) == ["a.png", "x/b.png", "x/outer/d.png"]
    work = find_work(str(tmp_path), out, recursive=True)
    assert len(work.items) == 3


def test_result_folder_that_does_not_exist_yet_is_no_obstacle(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    assert found(tmp_path, True, tmp_path / "out") == ["a.png"]


def test_folder_can_be_given_relative_and_with_dots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "in/a.png", "in/out/a.png", "in/x/b.png")
    monkeypatch.chdir(tmp_path / "in")
    work = find_work(".", Path("x/../out"), recursive=True)
    assert sorted(item.source.as_posix() for item in work.items) == ["a.png", "x/b.png"]


@links
def test_links_to_files_are_followed_and_those_to_folders_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.png", "in/sub/b.png")
    source = tmp_path / "in"
    (source / "c.png").symlink_to(tmp_path / "real" / "a.png")
    (source / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (source / "loop").symlink_to(source, target_is_directory=True)
    (source / "sub" / "up").symlink_to(tmp_path, target_is_directory=True)
    (source / "self.png").symlink_to(source / "self.png")
    assert found(source, recursive=True) == ["c.png", "sub/b.png"]
    (source / "album.png").symlink_to(tmp_path / "real", target_is_directory=True)
    (source / "results").symlink_to(tmp_path / "out", target_is_directory=True)
    (tmp_path / "out").mkdir()
    work = find_work(str(source), tmp_path / "out", recursive=True)
    (notice,) = work.notices
    assert "3 links to folders" in notice
    assert "album.png, loop, up" in notice


@links
def test_result_folder_is_known_by_whatever_path(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "in/out/a.png", "in/out/deep/b.png")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "in" / "out", target_is_directory=True)
    work = find_work(str(tmp_path / "in"), tmp_path / "elsewhere", recursive=True)
    assert [item.source for item in work.items] == [tmp_path / "in" / "a.png"]


@links
def test_input_folder_can_be_a_link(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.png")
    (tmp_path / "in").symlink_to(tmp_path / "real", target_is_directory=True)
    assert found(tmp_path / "in") == ["a.png"]


def test_one_file_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    touch(tmp_path, "photo.dat")
    work = find_work(str(tmp_path / "photo.dat"), OUT)
    assert results(work) == {"photo.dat": "photo.png"}


def test_nothing_to_do_is_refused_with_a_sentence(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.txt", "in/.b.png", "in/sub/c.png", "file")
    with pytest.raises(UsageError, match="no images found"):
        find_work(str(tmp_path / "in"), OUT)
    with pytest.raises(UsageError, match="no such folder or file"):
        find_work(str(tmp_path / "missing"), OUT)
    with pytest.raises(UsageError, match="is a file"):
        find_work(str(tmp_path / "in"), tmp_path / "file")


def test_photos_of_kinds_that_are_not_read_are_told_of(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.PSD", "in/sub/b.psd", "in/c.EXR", "in/d.txt")
    with pytest.raises(UsageError, match=r"no images found .*: 1 \.exr, 1 \.psd; convert"):
        find_work(str(tmp_path / "in"), OUT)
    touch(tmp_path, "in/e.png")
    work = find_work(str(tmp_path / "in"), OUT, recursive=True)
    assert [item.source.name for item in work.items] == ["e.png"]
    (notice,) = work.notices
    assert "1 .exr, 2 .psd" in notice


# --- standard input ----------------------------------------------------------------------


def test_an_empty_list_is_nothing_to_do() -> None:
    assert listed([]) == Work([])


def test_a_file_that_is_listed_twice_is_taken_once() -> None:
    work = listed(["x/a.png", "b.png", "x/a.png", "./x//a.png", "y/../b.png"])
    assert [item.result.name for item in work.items] == ["a.png", "b.png"]
    assert not work.problems


def test_pairs_are_not_listed() -> None:
    with pytest.raises(UsageError, match="not from a list"):
        find_work("-", OUT, sides=("inputL", "inputR"), stdin=io.BytesIO(b"a.png"))


def test_listed_files_keep_their_order_and_lose_their_folders() -> None:
    work = listed(["z/b 2.png", "a/a1.jpg", "ü.tif"])
    assert [item.source for item in work.items] == [
        Path("z/b 2.png"),
        Path("a/a1.jpg"),
        Path("ü.tif"),
    ]
    assert [item.result.name for item in work.items] == ["b 2.png", "a1.png", "ü.png"]


def test_lists_may_have_empty_lines_carriage_returns_and_no_last_line_feed() -> None:
    work = find_work("-", OUT, stdin=io.BytesIO(b"a.png\r\n\nb.png\n\n c.png"))
    assert [item.source.name for item in work.items] == ["a.png", "b.png", " c.png"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-16-le"])
def test_lists_may_begin_with_a_byte_order_mark(encoding: str, end: str) -> None:
    names = ["é 1.png", "b.png "]
    text = "".join(name + end for name in names)
    if encoding in {"utf-16-be", "utf-16-le"}:
        text = "\ufeff" + text
    work = find_work("-", OUT, stdin=io.BytesIO(text.encode(encoding)))
    assert [item.source.name for item in work.items] == names


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be there")
def test_a_file_that_is_called_so_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(touch(tmp_path, "\ufeffa.png"))
    assert [item.source.name for item in listed(["\ufeffa.png"]).items] == ["\ufeffa.png"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ('"a.png"', "quotation marks"),
        ("'a.png'", "quotation marks"),
        ("file:///x/a.png", "not addresses"),
        ("~/a.png", "for ~"),
        ("a.png ", "blanks"),
    ],
)
def test_paths_mean_just_what_they_say_and_a_hint_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, said: str
) -> None:
    monkeypatch.chdir(touch(tmp_path, "a.png"))
    ((path, reason),) = listed([typed]).problems
    assert path == Path(typed)
    assert said in reason
    if "/" not in typed and sys.platform != "win32":
        touch(tmp_path, typed)
        assert [item.source for item in listed([typed]).items] == [Path(typed)]


def test_a_list_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="UTF-16"):
        find_work("-", OUT, stdin=io.BytesIO(b"\xff\xfea\0b"))
    with pytest.raises(UsageError, match="standard input cannot be read"):
        find_work("-", OUT, stdin=_Broken())


class _Broken(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise IsADirectoryError(21, "Is a directory")


def test_an_empty_input_is_refused() -> None:
    with pytest.raises(UsageError, match="--input-dir is empty"):
        find_work("", OUT)


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be there")
def test_null_separated_lists_may_hold_line_feeds() -> None:
    work = listed(["a\nb.png", "c\r.png"], end=b"\0", null=True)
    assert [item.source.name for item in work.items] == ["a\nb.png", "c\r.png"]
    assert [item.result.name for item in work.items] == ["a\nb.png", "c\r.png"]


def test_null_is_refused_where_no_list_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(UsageError, match="--null: is for paths on standard input"):
        find_work(str(tmp_path), OUT, null=True)


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="such names cannot be there")
def test_names_that_are_not_utf_8_pass_through() -> None:
    work = find_work("-", OUT, stdin=io.BytesIO(b"caf\xe9.jpg\n"))
    assert os.fsencode(work.items[0].source) == b"caf\xe9.jpg"
    assert os.fsencode(work.items[0].result.name) == b"caf\xe9.png"


def test_listed_files_of_one_name_never_share_a_result() -> None:
    work = listed(["x/a.png", "y/a.png", "y/a.jpg"])
    names = [item.result for item in work.items]
    assert len(set(names)) == len(names) == 2
    assert [path for path, _ in work.problems] == [Path("y/a.png")]
    assert "--recursive" in work.problems[0][1]


def test_a_listed_path_that_cannot_be_looked_at_costs_no_other(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    good, long = str(tmp_path / "a.png"), "x" * 300 + ".png"
    work = listed([long, good, "b.png\0c.png", ".", "/"])
    assert [item.source for item in work.items] == [Path(good)]
    problems = dict(work.problems)
    assert list(problems) == [Path(long), Path("b.png"), Path(), Path("/")]
    assert "--null" in problems[Path("b.png")]


@links
def test_a_listed_link_to_itself_costs_no_other(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    work = listed([str(tmp_path / "loop.png"), str(tmp_path / "a.png")])
    assert str(tmp_path / "a.png") in {str(item.source) for item in work.items}


@pytest.mark.parametrize("which", ["source", "result_dir"])
def test_a_folder_that_cannot_be_looked_at_is_named(tmp_path: Path, which: str) -> None:
    touch(tmp_path, "a.png")
    folders = {"source": str(tmp_path), "result_dir": OUT, which: Path("x" * 300)}
    with pytest.raises(UsageError, match="xxx: cannot be looked at"):
        find_work(str(folders["source"]), Path(folders["result_dir"]))


# --- names of results --------------------------------------------------------------------


def test_result_is_called_like_the_input_but_png(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.tar.png", "c c é.TIF", "d..bmp")
    assert results(find_work(str(tmp_path), OUT)) == {
        "a.jpg": "a.png",
        "b.tar.png": "b.tar.png",
        "c c é.TIF": "c c é.png",
        "d..bmp": "d..png",
    }


def test_inputs_that_would_share_a_result_keep_their_suffix_and_a_notice_says_so(
    tmp_path: Path,
) -> None:
    work = find_work(str(touch(tmp_path, "a.jpg", "a.png", "b.png")), OUT)
    assert results(work) == {"a.jpg": "a.jpg.png", "a.png": "a.png.png", "b.png": "b.png"}
    assert len(work.notices) == 2
    assert any("a.jpg.png" in notice for notice in work.notices)
    assert not work.problems


def test_a_result_keeps_its_name_when_a_namesake_comes_later(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.tif", "a.webp")
    origins = known({OUT / "a.png": str(tmp_path / "a.jpg")})
    work = find_work(str(tmp_path), OUT, origins=origins)
    assert results(work) == {"a.jpg": "a.png", "a.tif": "a.tif.png", "a.webp": "a.webp.png"}
    assert not work.problems


def test_longer_names_may_collide_again(tmp_path: Path) -> None:
    work = find_work(str(touch(tmp_path, "a.jpg", "a.png", "a.jpg.png")), OUT)
    assert results(work) == {
        "a.jpg": "a.jpg.png",
        "a.png": "a.png.png",
        "a.jpg.png": "a.jpg.png.png",
    }
    assert not work.problems


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("A.jpg", "a.png"),
        (unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.png")),
        ("STRASSE.jpg", "straße.png"),
    ],
)
def test_names_that_a_file_system_may_take_for_equal_get_results_of_their_own(
    first: str, second: str
) -> None:
    assert results(listed([first, second])) == {first: f"{first}.png", second: f"{second}.png"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("A.png", "a.png"),
        (unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")),
    ],
)
def test_inputs_that_differ_in_case_or_form_alone_never_overwrite_each_other(
    first: str, second: str
) -> None:
    work = listed([first, second])
    assert len(work.items) + len(work.problems) == 2
    folded = [unicodedata.normalize("NFC", i.result.name).casefold() for i in work.items]
    assert len(set(folded)) == len(folded) >= 1
    assert all("same result" in reason for _, reason in work.problems)


@pytest.mark.parametrize("letter", ["x", "é", "語"])
@pytest.mark.parametrize("number", [1, 2])
def test_names_of_results_are_never_too_long(tmp_path: Path, letter: str, number: int) -> None:
    stem = letter * (251 // len(letter.encode()))
    suffixes = [".png", ".jpg", ".bmp", ".tif"]
    alone = listed([f"{stem}.png"])
    assert [i.result.name for i in alone.items] == [f"{stem}.png"]
    names = [stem + suffix for suffix in suffixes]
    work = listed(names)
    got = [item.result.name for item in work.items]
    assert len(set(got)) == len(names)
    assert got[0] == f"{stem}.png"  # one keeps the shorter name
    assert all(len(os.fsencode(name)) <= 255 for name in got)
    assert len(work.notices) == len(names) - 1
    # The same in each shard, and whatever the order.
    parts = [listed_shard(names, index) for index in range(3)]
    assert {k: v for part in parts for k, v in results(part).items()} == results(work)
    for name in got:
        (tmp_path / name).touch()


def listed_shard(names: list[str], index: int) -> Work:
    stream = io.BytesIO("\n".join(names).encode())
    return find_work("-", OUT, shard=Shard(index, 3), stdin=stream)


def test_a_file_without_suffix_may_have_the_longest_name() -> None:
    (item,) = listed(["x" * 255]).items
    assert len(item.result.name) == 255


def test_same_stem_in_other_folders_is_no_collision(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jpg", "y/a.png", "a.tif")
    work = find_work(str(tmp_path), OUT, recursive=True)
    assert [item.result.name for item in work.items] == ["a.png"] * 3
    assert not work.notices


NAMES = st.builds(
    lambda stem, *ends: stem + "".join(ends),
    st.sampled_from(["a", "A", "b", "a.png", "ß", "ss", "é", unicodedata.normalize("NFD", "é")]),
    st.sampled_from(["", ".jpg", ".png"]),
    st.sampled_from([".jpg", ".png", ".PNG", ".tif"]),
)


@given(st.lists(NAMES, max_size=7, min_size=1, unique=True))
def test_no_two_results_are_ever_the_same_file(names: list[str]) -> None:
    work = listed(names)
    folded = [unicodedata.normalize("NFC", i.result.name).casefold() for i in work.items]
    assert len(set(folded)) == len(folded)
    # Each input is either restored or named as a problem.
    handled = [i.source.name for i in work.items] + [path.name for path, _ in work.problems]
    assert sorted(handled) == sorted(names)


# --- an input is never its own result ----------------------------------------------------


def test_input_that_would_be_overwritten_is_a_problem(tmp_path: Path) -> None:
    work = find_work(str(touch(tmp_path, "a.png", "b.jpg")), tmp_path)
    assert results(work, tmp_path) == {"b.jpg": "b.png"}
    assert [path.name for path, _ in work.problems] == ["a.png"]
    assert "overwrite" in work.problems[0][1]


def test_results_of_earlier_runs_are_no_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png", "sub/b.jpg", "sub/b.png", "c.png")
    made = {tmp_path / "a.png": "a.jpg", tmp_path / "sub" / "b.png": "sub/b.jpg"}
    origins = known({result: str(tmp_path / name) for result, name in made.items()})
    work = find_work(str(tmp_path / "."), tmp_path, recursive=True, origins=origins)
    assert work.notices == ["2 results of earlier runs are not taken for inputs"]
    assert results(work, tmp_path) == {"a.jpg": "a.png", "b.jpg": "sub/b.png"}
    assert [path.name for path, _ in work.problems] == ["c.png"]  # which nobody made
    for path in (tmp_path / "a.jpg", tmp_path / "c.png", *tmp_path.glob("sub/*.jpg")):
        path.unlink()
    with pytest.raises(UsageError, match="nothing but results"):
        find_work(str(tmp_path), tmp_path, recursive=True, origins=origins)


def test_input_that_would_be_overwritten_by_another_ones_result_is_a_problem(
    tmp_path: Path,
) -> None:
    work = find_work(str(touch(tmp_path, "a.jpg", "a.png", "a.jpg.png")), tmp_path)
    inputs = {tmp_path / name for name in ("a.jpg", "a.png", "a.jpg.png")}
    assert not inputs & {item.result for item in work.items}
    assert len(work.items) + len(work.problems) == 3


def test_listed_inputs_in_the_result_folder_are_protected(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "out/a.png")
    inputs = [str(tmp_path / "in" / "a.png"), str(tmp_path / "out" / "a.png")]
    work = listed(inputs, tmp_path / "out")
    assert not {item.result for item in work.items} & set(map(Path, inputs))


@links
def test_input_behind_a_link_is_protected(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png")
    (tmp_path / "out").symlink_to(tmp_path / "in", target_is_directory=True)
    work = find_work(str(tmp_path / "in"), tmp_path / "out")
    assert not work.items
    assert "overwrite" in work.problems[0][1]


@links
def test_input_that_another_ones_result_would_reach_through_a_link_is_protected(
    tmp_path: Path,
) -> None:
    source = touch(tmp_path / "in", "a.jpg", "a.png", "a.jpg.png", "b.png")
    (tmp_path / "out").symlink_to(source, target_is_directory=True)
    work = find_work(str(source), tmp_path / "out")
    assert not {i.result.resolve() for i in work.items} & set(source.iterdir())
    assert len(work.items) + len(work.problems) == 4


@links
def test_hard_link_of_an_input_in_the_result_folder_is_protected(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "out/b.png")
    os.link(tmp_path / "in" / "a.png", tmp_path / "out" / "a.png")
    work = find_work(str(tmp_path / "in"), tmp_path / "out")
    assert not work.items


def test_result_folder_given_with_dots_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "in/a.png", "in/a.jpg", "in/a.jpg.png", "x/b")
    monkeypatch.chdir(tmp_path)
    work = find_work("in", Path("x/../in"))
    inputs = set((tmp_path / "in").iterdir())
    assert not {i.result.resolve() for i in work.items} & inputs


# --- pairs -------------------------------------------------------------------------------


def pairs(folder: Path, recursive: bool = False) -> Work:
    return find_work(str(folder), OUT, recursive=recursive, sides=("L", "R"))


def test_images_of_the_same_name_are_paired_whatever_their_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "L/10.png", "L/9.png", "R/10.tif", "R/9.png", "L/notes.txt", "c.png")
    work = pairs(tmp_path)
    assert [item.sources for item in work.items] == [
        (tmp_path / "L" / "9.png", tmp_path / "R" / "9.png"),
        (tmp_path / "L" / "10.png", tmp_path / "R" / "10.tif"),
    ]
    assert [item.result for item in work.items] == [OUT / "9.png", OUT / "10.png"]
    assert not work.problems


def test_names_are_paired_in_either_unicode_form(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    touch(tmp_path, f"L/{composed}", f"R/{apart}")
    assert len(pairs(tmp_path).items) == 1


def test_sides_are_two_folders(tmp_path: Path) -> None:
    touch(tmp_path, "L/a.png")
    with pytest.raises(UsageError, match="one folder"):
        find_work(str(tmp_path), OUT, sides=("L", "L/"))
    with pytest.raises(UsageError, match="is empty"):
        find_work(str(tmp_path), OUT, sides=("L", ""))


def test_results_inside_a_side_are_no_views(tmp_path: Path) -> None:
    touch(tmp_path, "L/a.png", "R/a.png", "L/out/a.png")
    work = find_work(str(tmp_path), tmp_path / "L" / "out", recursive=True, sides=("L", "R"))
    assert len(work.items) == 1
    assert not work.problems


def test_every_file_without_a_partner_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "L/a.png", "L/b.png", "R/b.png", "R/c.png", "R/d.png")
    work = pairs(tmp_path)
    assert results(work) == {"b.png": "b.png"}
    assert {path.relative_to(tmp_path).as_posix(): reason for path, reason in work.problems} == {
        "L/a.png": "has no partner in R",
        "R/c.png": "has no partner in L",
        "R/d.png": "has no partner in L",
    }


def test_ambiguous_pairs_are_named_and_not_guessed(tmp_path: Path) -> None:
    touch(tmp_path, "L/a.png", "L/a.tif", "R/a.png")
    work = pairs(tmp_path)
    assert not work.items
    assert len(work.problems) == 3
    assert all("ambiguous" in reason for _, reason in work.problems)


def test_pairs_in_sub_folders_are_mirrored(tmp_path: Path) -> None:
    touch(tmp_path, "L/x/a.png", "R/x/a.png", "L/a.png", "R/a.png")
    assert [i.result for i in pairs(tmp_path).items] == [OUT / "a.png"]
    work = pairs(tmp_path, recursive=True)
    assert {i.result for i in work.items} == {OUT / "a.png", OUT / "x" / "a.png"}


def test_pairs_never_overwrite_a_view(tmp_path: Path) -> None:
    touch(tmp_path, "L/a.png", "R/a.png")
    for side in ("L", "R"):
        work = find_work(str(tmp_path), tmp_path / side, sides=("L", "R"))
        assert not work.items
        assert "overwrite" in work.problems[0][1]


def test_missing_and_empty_sides_are_refused_with_a_sentence(tmp_path: Path) -> None:
    touch(tmp_path, "one/L/a.png", "none/L/a.txt", "none/R/a.txt")
    with pytest.raises(UsageError, match="no such folder"):
        pairs(tmp_path / "one")
    with pytest.raises(UsageError, match="no images found in L and R"):
        pairs(tmp_path / "none")


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "webp", "bmp", "gif", "avif", "jpeg2k"])
def test_images_of_every_codec_are_missed_without_a_suffix(tmp_path: Path, kind: str) -> None:
    encode = getattr(imagecodecs, f"{kind}_encode")
    content = encode(np.zeros((8, 8) if kind == "gif" else (8, 8, 3), np.uint8))
    for name, data in {
        "photo": content,
        "notes": b"BM is how this text begins, and it goes on",
    }.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "a.png").write_bytes(b"")
    notices = find_work(str(tmp_path), tmp_path / "out").notices
    assert [notice.partition("; ")[0].rpartition(": ")[2] for notice in notices] == ["photo"]
