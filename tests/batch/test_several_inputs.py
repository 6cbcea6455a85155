"""Several folders and files as input: found once each, mirrored below what they have in common."""

from __future__ import annotations

import os
import sys
from pathlib import Path, PurePath, PureWindowsPath
from unittest import mock

import pytest
from helpers import names, random_pixels, read, restormer, save, write, zero_network
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.batch import discovery
from restormer_cli.batch.discovery import find_work
from restormer_cli.batch.items import Work
from restormer_cli.batch.shards import Shard
from restormer_cli.cli.restore import _named_each
from restormer_cli.errors import UsageError

OUT = Path("out")
links = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")


def touch(folder: Path, *files: str) -> Path:
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def results(work: Work) -> dict[str, str]:
    return {item.source.as_posix(): item.result.relative_to(OUT).as_posix() for item in work.items}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_files_of_one_folder_lie_side_by_side(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/b.png", "in/a.png", "in/c.png")
    work = find_work(["in/a.jpg", "in/b.png", "in/a.png"], OUT)
    assert results(work) == {
        "in/a.jpg": "a.jpg.png",
        "in/a.png": "a.png.png",
        "in/b.png": "b.png",
    }
    assert len(work.notices) == 2


def test_folders_are_mirrored_below_what_they_have_in_common(tmp_path: Path) -> None:
    touch(tmp_path, "2023/a.png", "2024/raw/a.png", "2024/raw/x/b.png", "c.png")
    assert results(find_work(["2023", "2024/raw"], OUT)) == {
        "2023/a.png": "2023/a.png",
        "2024/raw/a.png": "2024/raw/a.png",
    }
    work = find_work(("2023", "2024/raw", "c.png"), OUT, recursive=True)
    assert sorted(results(work).values()) == [
        *("2023/a.png", "2024/raw/a.png", "2024/raw/x/b.png", "c.png"),
    ]


def test_absolute_and_relative_paths_go_together(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.png", "y/a.png")
    assert sorted(results(find_work(["x", str(tmp_path / "y")], OUT)).values()) == [
        *("x/a.png", "y/a.png"),
    ]


def test_what_is_named_twice_is_restored_once(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "in/sub/b.png")
    named = ["in", "in/a.png", "in/sub", "in/../in", str(tmp_path / "in"), "in/sub/b.png"]
    for recursive in (True, False):
        work = find_work(named, OUT, recursive=recursive)
        assert sorted(results(work).values()) == ["a.png", "sub/b.png"]
        assert not work.problems


@links
def test_folder_behind_a_link_is_the_same(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "in", target_is_directory=True)
    assert len(find_work(["in", "link"], OUT).items) == 1


def test_one_that_is_missing_costs_the_others_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "empty/notes.txt")
    work = find_work(["in", "missing", "~/x", "empty", "*.jpg"], OUT)
    assert results(work) == {"in/a.png": "in/a.png"}
    said = {str(path): reason for path, reason in work.problems}
    assert said.keys() == {"missing", str(Path("~/x")), "*.jpg"}
    assert said["missing"] == "no such folder or file"
    assert "did not replace the ~" in said[str(Path("~/x"))]
    assert "no file matches the pattern" in said["*.jpg"]
    assert work.notices == ["empty: no images found"]


def test_all_missing_or_empty_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "empty/notes.txt", "more/notes.txt")
    with pytest.raises(UsageError, match=r"one: no such folder"):
        find_work(["one", "two"], OUT)
    with pytest.raises(UsageError, match=r"empty, more: no images found"):
        find_work(["empty", "more"], OUT)


@pytest.mark.parametrize("named", [["in", "-"], ["-", "in"], ["-", "-"], ["in", ""], []])
def test_lists_stand_alone_and_nothing_is_no_path(tmp_path: Path, named: list[str]) -> None:
    touch(tmp_path, "in/a.png")
    with pytest.raises(UsageError):
        find_work(named, OUT)


def test_no_input_is_overwritten(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "b.png", "out/in/a.png", "out/b.png")
    work = find_work(["in", "b.png", "out/in/a.png", "out/b.png"], OUT)
    inputs = {(tmp_path / name).resolve() for name in ("out/in/a.png", "out/b.png")}
    assert not inputs & {item.result.resolve() for item in work.items}
    assert len(work.items) + len(work.problems) == 4


def test_pairs_of_several_folders(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{day}/{side}/a.png" for day in ("mo", "tu") for side in "LR"))
    touch(tmp_path, "tu/L/b.png", "we/L/c.png")
    work = find_work(["mo", "tu", "we"], OUT, sides=("L", "R"))
    assert results(work) == {"mo/L/a.png": "mo/a.png", "tu/L/a.png": "tu/a.png"}
    assert {path.as_posix(): reason.split(";")[0] for path, reason in work.problems} == {
        "tu/L/b.png": "has no partner in R",
        "we": f"{Path('we/R')}: no such folder",
    }


def test_shards_split_several_inputs_as_one(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{n}.png" for folder in "ab" for n in range(20)))
    whole = results(find_work(["a", "b", "missing"], OUT))
    parts = [find_work(["a", "b", "missing"], OUT, shard=Shard(n, 3)) for n in range(3)]
    assert [len(part.problems) for part in parts].count(1) == 1
    split = [results(part) for part in parts]
    assert sum(map(len, split)) == len(whole) == 40
    assert split[0] | split[1] | split[2] == whole


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "C", "c"]), min_size=1, max_size=3).map("/".join),
        min_size=2,
        max_size=6,
    )
)
def test_places_never_meet_unless_folders_do(folders: list[str]) -> None:
    absolute = [os.path.abspath(folder) for folder in folders]  # noqa: PTH100 - as in the code
    places = discovery._places(absolute)
    for one, place in zip(absolute, places, strict=True):
        assert not place.is_absolute()
        assert ".." not in place.parts
        for other, elsewhere in zip(absolute, places, strict=True):
            assert (place == elsewhere) == (os.path.normcase(one) == os.path.normcase(other))


def test_drives_of_windows_become_folders() -> None:
    import ntpath

    with mock.patch.object(discovery.os, "path", ntpath):
        places = discovery._places(["C:\\photos\\x", "D:\\", "\\\\nas\\share\\photos"])
    assert [PureWindowsPath(str(place)).as_posix() for place in places] == [
        *("C/photos/x", "D", "nas_share/photos"),
    ]
    assert all(isinstance(place, PurePath) for place in places)


# --- what people type --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "read_as"),
    [
        ("--input-dir a", "--input-dir a"),
        ("--input-dir a b c -r", "--input-dir a --input-dir b --input-dir c -r"),
        ("--input-dir=a b --json", "--input-dir=a --input-dir b --json"),
        ("-r --input-dir a --input-dir b c", "-r --input-dir a --input-dir b --input-dir c"),
        ("--result-dir o --input-dir a b", "--result-dir o --input-dir a --input-dir b"),
        ("--input-dir -", "--input-dir -"),
        ("--input-dir - a", "--input-dir - --input-dir a"),
        ("--input-dir a --result-dir o b", "--input-dir a --result-dir o b"),
    ],
)
def test_words_behind_the_option_are_inputs(typed: str, read_as: str) -> None:
    assert list(_named_each(typed.split())) == read_as.split()


@pytest.mark.parametrize("way", ["glob", "repeated", "mixed"])
def test_several_inputs_from_the_command_line(tmp_path: Path, way: str) -> None:
    pixels = {name: random_pixels(9, 9, seed=n) for n, name in enumerate(("a", "b", "c"))}
    for name in ("a", "b"):
        write(tmp_path / "in" / f"{name}.png", pixels[name])
    write(tmp_path / "more" / "c.png", pixels["c"])
    weights = save(zero_network(), tmp_path / "net.safetensors")
    words = {
        "glob": ["--input-dir", "in/a.png", "in/b.png", "more/c.png"],
        "repeated": ["--input-dir", "in", "--input-dir", "more"],
        "mixed": ["--input-dir", "in", "more/c.png"],
    }[way]
    ran = restormer("derain", *words, "--result-dir", "out", "--weights", weights, "--quiet")
    assert (ran.status, ran.err) == (0, "")
    assert names(OUT) == ["in", "more"]
    for name, place in (("a", "in"), ("b", "in"), ("c", "more")):
        assert (read(OUT / place / f"{name}.png") == pixels[name]).all()


def test_word_that_belongs_to_nothing_is_named_with_the_remedy(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png")
    ran = restormer("derain", "--input-dir", "in", "--result-dir", "out", "b.jpg")
    assert ran.status == 2
    assert ran.err == ("error: b.jpg: belongs to no option; name inputs right behind --input-dir\n")
