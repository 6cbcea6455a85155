"""A folder split into shards: each image once, one record, and nobody in anybody's way."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import io
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pytest
from helpers import make_images, names, random_pixels, restormer, save, tiny_network, write
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.batch.discovery import find_work
from restormer_cli.batch.items import Item, Work
from restormer_cli.batch.journal import FOLDER, SPARE_JOURNALS, Journal
from restormer_cli.batch.lock import folder_lock
from restormer_cli.batch.resume import DONE, decide
from restormer_cli.batch.shards import Shard, exclude_each_other
from restormer_cli.errors import BusyError
from restormer_cli.evaluation.run_log import read_run_log
from restormer_cli.settings import Settings
from restormer_cli.system.atomic import atomic_file, sweep
from restormer_cli.system.files import Stamp
from restormer_cli.system.line_file import LineFile

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such thing")
COMMAND = [sys.executable, "-m", "restormer_cli.cli"]
OUT = Path("results")


def shards(count: int) -> list[Shard]:
    return [Shard(index, count) for index in range(count)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_network(), tmp_path_factory.mktemp("weights") / "net.safetensors")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(folder)}


def journals(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / FOLDER))  # noqa: PTH208 - hidden ones as well


# --- which images a shard takes ----------------------------------------------------------


@given(
    st.lists(st.text(st.characters(blacklist_characters="/\0", codec="utf-8"), min_size=1)),
    st.lists(st.binary(min_size=1).map(os.fsdecode).filter(lambda name: "\0" not in name)),
    st.integers(1, 40),
)
def test_every_path_is_in_one_shard(texts: list[str], raw: list[str], count: int) -> None:
    for name in [*texts, *raw]:
        assert sum(shard.takes(PurePath(name)) for shard in shards(count)) == 1


def test_split_is_the_same_for_ever() -> None:
    # The first 16 digits of `printf %s a.png | b2sum -l 64`, modulo 1000.
    thousandth = {
        "a.png": 982,
        "sub/IMG 0001.JPG": 905,
        "ü/日本.tif": 117,
    }
    for name, index in thousandth.items():
        assert Shard(index, 1000).takes(PurePath(name)), name
        assert Shard(index, 1000).takes(PurePosixPath(name)), name


@posix
def test_split_of_names_that_are_no_text_is_that_of_their_bytes() -> None:
    assert Shard(424, 1000).takes(PurePath(os.fsdecode(b"\xff\xfe.png")))


def test_shards_are_of_about_the_same_size() -> None:
    paths = [PurePath(f"{i // 100}/IMG_{i:05d}.jpg") for i in range(8000)]
    sizes = [sum(map(shard.takes, paths)) for shard in shards(16)]
    assert sum(sizes) == 8000
    assert 400 < min(sizes) <= max(sizes) < 600  # 500 with a deviation of 22


def facts(work: Work) -> list[Any]:
    items = [(item.sources, item.result) for item in work.items]
    return sorted(map(repr, [*items, *work.problems, *work.notices]))


NAMES = st.sampled_from(
    [f"{folder}{name}" for folder in ("", "x/", "X/") for name in ("a", "A", "a.jpg", "b")]
)


@posix  # for the link
@given(st.sets(st.tuples(NAMES, st.sampled_from([".jpg", ".png", ".PNG"])), min_size=1))
def test_results_are_called_as_in_the_whole_run_whatever_the_shard(
    tmp_path_factory: pytest.TempPathFactory, chosen: set[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("in")
    for name, suffix in chosen:
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (folder / "dangling.png").symlink_to("nothing")
    (folder / "c.png").touch()
    whole = find_work(str(folder), folder, recursive=True)
    parts = [find_work(str(folder), folder, recursive=True, shard=s) for s in shards(3)]
    assert facts(whole) == sorted(fact for part in parts for fact in facts(part))
    for part in parts:  # in the same order, too
        assert part.items == [item for item in whole.items if item in part.items]


def test_pairs_count_as_one_and_listed_paths_as_they_are_given(tmp_path: Path) -> None:
    for side, number in itertools.product(("inputL", "inputR"), range(12)):
        (tmp_path / side).mkdir(exist_ok=True)
        (tmp_path / side / f"{number}.png").touch()
    (tmp_path / "inputL" / "alone.png").touch()
    listing = "".join(f"{side}/{n}.png\n" for side in ("in", "../in") for n in range(12)).encode()
    for find in (
        functools.partial(find_work, str(tmp_path), OUT, sides=("inputL", "inputR")),
        lambda **words: find_work("-", OUT, stdin=io.BytesIO(listing), **words),
    ):
        parts = [find(shard=shard) for shard in shards(3)]
        assert facts(find()) == sorted(fact for part in parts for fact in facts(part))
        assert all(part.items for part in parts)


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "1/0", "0/0", "a/b", "1/3/5", "1.0/3", "١/٣"])
def test_shard_that_is_none_is_wrong_usage(tmp_path: Path, weights: Path, text: str) -> None:
    source = make_images(tmp_path / "in", 1)
    words = ("--input-dir", source, "--result-dir", tmp_path / "out", "--weights", weights)
    ran = restormer("derain", *words, f"--shard={text}")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"error: --shard {text}: ")
    assert ran.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_more_shards_than_images_is_no_failure(tmp_path: Path, weights: Path) -> None:
    source, out = make_images(tmp_path / "in", 2), tmp_path / "out"
    words = ("derain", "--input-dir", source, "--result-dir", out, "--weights", weights)
    ran = [restormer(*words, "--shard", f"{index}/9") for index in range(9)]
    assert [run.status for run in ran] == [0] * 9
    assert sorted(line for run in ran for line in run.lines) == [
        str(out / f"{i}.png") for i in (0, 1)
    ]
    assert sum("1 restored" in run.err for run in ran) == 2
    assert sum("0 restored" in run.err for run in ran) == 7


def test_dry_run_of_a_shard_lists_its_own(tmp_path: Path, weights: Path) -> None:
    source, out = make_images(tmp_path / "in", 9), tmp_path / "out"
    words = ("derain", "--input-dir", source, "--result-dir", out, "--weights", weights)
    ran = [restormer(*words, "--dry-run", "--shard", f"{index}/3") for index in range(3)]
    planned = sorted(line for run in ran for line in run.lines)
    assert planned == [f"{source / f'{i}.png'} -> {out / f'{i}.png'}" for i in range(9)]
    assert not out.exists()


# --- at the same time --------------------------------------------------------------------


def begin(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


@posix  # for one name that is no text
def test_shards_at_the_same_time_leave_one_record_and_the_results_of_a_plain_run(
    tmp_path: Path, weights: Path
) -> None:
    source, out, plain = make_images(tmp_path / "in", 17), tmp_path / "out", tmp_path / "plain"
    make_images(source / "ü", 3)
    write(source / "0.bmp", random_pixels(12, 12, seed=40))  # shares a name with 0.png
    (source / "1.png").rename(source / os.fsdecode(b"1\xff.png"))
    (source / "bad.png").write_bytes(b"no image")
    report = out / "report.jsonl"
    common = ("derain", "--weights", weights, "--device", "cpu", "-r", "--input-dir", source)
    assert restormer(*common, "--result-dir", plain).status == 1
    words = (*common, "--result-dir", out, "--report", report)
    runs = [begin(*words, "--json", "--shard", f"{index}/3") for index in range(3)]
    ended = [run.communicate(timeout=120) for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 0, 1], ended  # one had the bad one
    said = [json.loads(line) for output, _ in ended for line in output.splitlines()]
    assert sorted(line["status"] for line in said) == ["done"] * 21 + ["failed"]
    lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    assert sorted(map(repr, lines)) == sorted(map(repr, said))

    run_log = read_run_log(out)
    assert len(run_log.entries) == 22
    assert [entry.input for entry in run_log.entries if entry.failed] == [str(source / "bad.png")]
    report.unlink()
    assert len(read_run_log(out).entries) == 21  # from the record
    assert journals(out) == [f"shard-{index}-of-3.jsonl" for index in range(3)]
    files = {p.relative_to(out): p.read_bytes() for p in out.rglob("*.png")}
    assert files == {p.relative_to(plain): p.read_bytes() for p in plain.rglob("*.png")}

    again = restormer(*common, "--result-dir", out)
    assert again.lines == []
    assert "0 restored, 21 skipped, 1 failed" in again.err
    other = restormer(*common, "--result-dir", out, "--shard", "0/1")  # of another split
    assert "0 restored, 21 skipped, 1 failed" in other.err
    page = restormer("report", out, "--input-dir", source, "-r")
    assert page.status == 0, page.err


@posix
def test_shard_that_is_killed_goes_on_where_it_was(tmp_path: Path, weights: Path) -> None:
    source, out = make_images(tmp_path / "in", 30, size=200), tmp_path / "out"
    words = ("derain", "--weights", weights, "--device", "cpu", "--input-dir", source)
    words += ("--result-dir", out, "--shard", "1/2")
    run = begin(*words)
    assert run.stdout is not None
    first = run.stdout.readline().strip()
    run.kill()
    done, _ = run.communicate()
    assert run.returncode == -signal.SIGKILL
    assert (out / FOLDER / "shard-1-of-2.lock").exists()
    known = {first, *done.splitlines()}
    rest = restormer(*words)
    assert rest.status == 0
    assert known.isdisjoint(rest.lines)
    assert "not in the record" not in rest.err
    assert restormer(*words[:-2], "--shard", "0/2").status == 0
    assert journals(out) == ["shard-0-of-2.jsonl", "shard-1-of-2.jsonl"]
    assert "0 restored, 30 skipped" in restormer(*words[:-2]).err
    assert names(out) == sorted(f"{index}.png" for index in range(30))


def test_who_may_work_beside_whom(tmp_path: Path, weights: Path) -> None:
    source, out = make_images(tmp_path / "in", 6), tmp_path / "out"
    held = out / FOLDER
    held.mkdir(parents=True)
    words = ("derain", "--input-dir", source, "--result-dir", out, "--weights", weights)
    with folder_lock(held, name="shard-1-of-3"):
        for refused in ((), ("--shard", "1/3"), ("--shard", "0/2")):
            ran = restormer(*words, *refused)
            assert ran.status == 75
            assert ran.err.count("\n") == 1
            assert f"(shard-1-of-3, process {os.getpid()} on " in ran.err
        assert restormer(*words, "--shard", "0/3").status == 0
        assert restormer(*words, "--dry-run").status == 0
        # One that works in peace leaves the lock of its sister alone.
        assert "shard-1-of-3.lock" in journals(out)
    with folder_lock(held):
        assert restormer(*words, "--shard", "2/3").status == 75
    # A dead holder is in nobody's way, and is cleared away by a run that would have minded.
    (held / "shard-7-of-9.lock").write_text("{}", encoding="utf-8")
    assert restormer(*words, "--shard", "2/3").status == 0
    assert restormer(*words).status == 0
    assert all(name.endswith(".jsonl") for name in journals(out) if sys.platform != "win32")


def test_run_waits_for_a_shard_if_asked(tmp_path: Path, weights: Path) -> None:
    source, out = make_images(tmp_path / "in", 2), tmp_path / "out"
    (out / FOLDER).mkdir(parents=True)
    with folder_lock(out / FOLDER, name="shard-0-of-3"):
        run = begin(
            *("derain", "--input-dir", source, "--result-dir", out, "--weights", weights, "--wait")
        )
        assert run.stderr is not None
        assert "waiting for another run (shard-0-of-3" in run.stderr.readline()
    run.communicate(timeout=120)
    assert run.returncode == 0
    assert names(out) == ["0.png", "1.png"]


def test_no_two_that_exclude_each_other_ever_hold_the_folder(tmp_path: Path) -> None:
    held: set[str] = set()
    guard = threading.Lock()
    counts = dict.fromkeys(("alone", "together", "busy"), 0)

    def work(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(25):
            name = choose.choice(["run", *(f"shard-{i}-of-{n}" for n in (2, 3) for i in range(n))])
            excludes = functools.partial(exclude_each_other, name)
            try:
                with folder_lock(tmp_path, name=name, excludes=excludes):
                    with guard:
                        assert not any(map(excludes, held)), (name, held)
                        counts["together" if held else "alone"] += 1
                        held.add(name)
                    time.sleep(choose.uniform(0, 0.004))
                    with guard:
                        held.remove(name)
            except BusyError:
                with guard:
                    counts["busy"] += 1

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert all(counts.values()), counts
    assert sys.platform == "win32" or names(tmp_path) == []


# --- what they share ---------------------------------------------------------------------


@posix
def test_file_that_is_being_written_is_never_swept_however_young(tmp_path: Path) -> None:
    stop = threading.Event()

    def sweep_all_the_time() -> int:
        count = 0
        while not stop.is_set():
            count += sweep([tmp_path])
        return count

    with concurrent.futures.ThreadPoolExecutor() as pool:
        sweeping = [pool.submit(sweep_all_the_time) for _ in range(2)]
        try:
            for index in range(300):
                with atomic_file(tmp_path / f"{index}.png") as file:
                    file.write(b"result")
        finally:
            stop.set()
        for each in sweeping:
            each.result()
    assert len(names(tmp_path)) == 300


def test_shard_leaves_what_is_young_to_sisters_whose_locks_it_may_not_see(
    tmp_path: Path, weights: Path
) -> None:
    source, out = make_images(tmp_path / "in", 6), tmp_path / "out"
    out.mkdir()
    young, old = (out / f".{name}.restormer-part" for name in ("young", "old"))
    for path in (young, old):
        path.write_bytes(b"half an image")
    os.utime(old, (time.time() - 3600, time.time() - 3600))
    words = ("derain", "--input-dir", source, "--result-dir", out, "--weights", weights)
    assert restormer(*words, "--shard", "0/2").status == 0
    assert (young.exists(), old.exists()) == (True, False)
    assert restormer(*words).status == 0
    assert not young.exists()


WRITER = """
import pathlib, sys
from restormer_cli.system.line_file import LineFile
file = LineFile(pathlib.Path(sys.argv[1]))
for number in range(200):
    file.append(sys.argv[2] * (20000 if number % 10 == 0 else 50))
"""


def test_lines_that_many_append_to_one_report_stay_whole(tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    runs = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(report), letter]) for letter in "abc"
    ]
    assert [run.wait(timeout=120) for run in runs] == [0, 0, 0]
    lines = report.read_text(encoding="utf-8").splitlines()
    assert sorted(lines) == sorted(
        letter * (20000 if number % 10 == 0 else 50) for letter in "abc" for number in range(200)
    )


@posix
def test_report_goes_on_beside_somebody_who_holds_it_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restormer_cli.system.line_file._LINE_PATIENCE", 0.1)
    import fcntl

    with (tmp_path / "report").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with contextlib.closing(LineFile(tmp_path / "report")) as file:
            file.append("\udcff")
    assert (tmp_path / "report").read_text() == "\\udcff\n"


@pytest.fixture
def split(tmp_path: Path) -> tuple[Path, list[Item]]:
    """A result folder with the journals of many shards, and its contents."""
    out = tmp_path / "out"
    (out / FOLDER).mkdir(parents=True)
    items = []
    settings = Settings(task="derain", weights="w")
    for shard in shards(SPARE_JOURNALS + 1):
        journal = Journal(out, settings, shard.name)
        journal.open(settings)
        for name in (f"{shard.index}", f'{shard.index}", [é'):
            source = tmp_path / "in" / f"{name}.jpg"
            source.parent.mkdir(exist_ok=True)
            source.write_bytes(b"image")
            item = Item((source,), out / f"{name}.png")
            item.result.write_bytes(name.encode())
            there = item.result.stat()
            stamp = Stamp(5, source.stat().st_mtime_ns, "")
            # Of an entry of a run that was killed before, no file came to be.
            journal.add(item, [stamp], 1, there.st_mtime_ns - 10**12)
            journal.add(item, [stamp], there.st_size, there.st_mtime_ns)
            items.append(item)
        journal.close()
        with journal.path.open("ab") as file:
            file.write(b'["cut off", [12')
    return out, items


def loaded(out: Path, results: list[Path] | None = None) -> Journal:
    journal = Journal(out, Settings(task="derain", weights="w"))
    journal.load(results)
    return journal


def test_many_journals_of_shards_become_one_when_a_run_is_alone(
    split: tuple[Path, list[Item]],
) -> None:
    out, items = split
    before = loaded(out)
    assert [decide(before, item) for item in items] == [DONE] * len(items)
    part = (out / FOLDER / "shard-3-of-17.jsonl").read_bytes()
    before.gather_shards()
    assert journals(out) == ["run.jsonl"]
    assert [decide(loaded(out), item) for item in items] == [DONE] * len(items)
    # Had it been cut off before it removed them, they would count once.
    (out / FOLDER / "shard-3-of-17.jsonl").write_bytes(part)
    assert [decide(loaded(out), item) for item in items] == [DONE] * len(items)


def test_journals_are_put_together_by_a_plain_run_and_never_by_a_shard(
    split: tuple[Path, list[Item]], weights: Path
) -> None:
    out, items = split
    words = ("derain", "--input-dir", items[0].source, "--result-dir", out, "--weights", weights)
    there = set(journals(out))
    for more in (("--shard", "0/1"), ("--dry-run",)):
        restormer(*words, *more)
        assert there <= set(journals(out))
    restormer(*words)
    assert journals(out) == ["run.jsonl"]


def test_compaction_keeps_the_newest_entry_wherever_it_stands(
    split: tuple[Path, list[Item]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, items = split
    # The oldest entries come last.
    for path in (out / FOLDER).iterdir():
        header, *entries, torn = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([header, *reversed(entries), *entries[::2] * 3, torn]))
    journal = loaded(out)
    journal.gather_shards()
    size = journal.path.stat().st_size
    monkeypatch.setattr("restormer_cli.batch.journal.SPARE_LINES", 0)
    again = loaded(out)
    again.compact()
    assert journal.path.stat().st_size < size
    assert [decide(loaded(out), item) for item in items] == [DONE] * len(items)


def test_shard_keeps_only_what_is_said_of_its_own(split: tuple[Path, list[Item]]) -> None:
    out, items = split
    own = items[4:8]
    journal = loaded(out, [item.result for item in own])
    assert sorted(journal.entries) == sorted(item.result.name for item in own)
    assert [decide(journal, item) for item in own] == [DONE] * 4
