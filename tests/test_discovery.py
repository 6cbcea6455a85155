"""Which files a run finds, in what order, and what their results are called."""

from __future__ import annotations

import io
import os
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.discovery import find_images, find_work
from restormer_cli.errors import UsageError
from restormer_cli.work import Origins, Work

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
    """What a record with these results would say."""
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
    touch(tmp_path, "in/a.HEIC", "in/sub/b.heic", "in/c.NEF", "in/d.txt")
    with pytest.raises(UsageError, match=r"no images found .*: 1 \.heic, 1 \.nef; convert"):
        find_work(str(tmp_path / "in"), OUT)
    touch(tmp_path, "in/e.png")
    work = find_work(str(tmp_path / "in"), OUT, recursive=True)
    assert [item.source.name for item in work.items] == ["e.png"]
    (notice,) = work.notices
    assert "2 .heic, 1 .nef" in notice


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
