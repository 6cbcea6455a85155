"""A run that goes on: files arrive in every way, and each is restored once it is whole."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import watchfiles
from helpers import names, random_pixels, read, write
from hypothesis import given, settings
from hypothesis import strategies as st

from restormer_cli.batch import watch as module
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Collector, Outcome, Provenance, Summary
from restormer_cli.batch.run import run
from restormer_cli.errors import BusyError, Stopped, UsageError, WatchError
from restormer_cli.executors.in_process import InProcess
from restormer_cli.settings import Settings
from restormer_cli.system import changes
from restormer_cli.system.stopping import signals_stop

#: Seconds after which a test that waits for an event fails.
TOO_LONG = 60
links = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such thing")


class Seen(Collector):
    """What a run tells, for a thread that waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.notices: list[str] = []
        self.change = threading.Condition()

    def notice(self, text: str) -> None:
        with self.change:
            self.notices.append(text)
            self.change.notify_all()

    def finish(self, outcome: Outcome) -> None:
        with self.change:
            self.outcomes.append(outcome)
            self.change.notify_all()

    def wait_for(self, there: Callable[[], object]) -> None:
        with self.change:
            assert self.change.wait_for(there, TOO_LONG), (self.outcomes, self.notices)

    def wait_for_outcomes(self, *wanted: tuple[str, str]) -> None:
        """Wait until so many have come; they are these, by name and status."""
        self.wait_for(lambda: len(self.outcomes) >= len(wanted))
        assert sorted(self.told) == sorted(wanted)

    def wait_for_count(self, outcomes: int) -> None:
        self.wait_for(lambda: len(self.outcomes) == outcomes)

    def wait_for_told(self, name: str) -> None:
        self.wait_for(lambda: (name, "done") in self.told)

    def wait_until_watching(self) -> None:
        self.wait_for(lambda: any("watching" in text for text in self.notices))

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(Path(outcome.input).name, outcome.status) for outcome in self.outcomes]


def unchanged(*views: Any, bit_depth: Any, progress: Any) -> Any:
    return views[0]


def go(
    options: RunOptions,
    user: Callable[[Seen], None],
    network: Callable[..., Any] = unchanged,
    ends: type[BaseException] | None = Stopped,
) -> tuple[Seen, Summary]:
    """Watch while ``user`` does things in another thread; then a signal stops it.

    Parameters
    ----------
    ends
        How it ends by itself; None if it only returns.
    """
    seen, summary = Seen(), Summary()
    faults: list[BaseException] = []

    def act() -> None:
        try:
            user(seen)
        except BaseException as error:
            faults.append(error)
        if faults or ends is Stopped:
            signal.raise_signal(signal.SIGTERM)

    thread = threading.Thread(target=act)
    executor = InProcess(network, Provenance())
    with signals_stop():
        thread.start()
        ended: BaseException | None = None
        try:
            module.watch(options, lambda: executor, seen, summary)
        except BaseException as error:
            ended = error
        thread.join()
    if faults:
        raise faults[0]
    assert type(ended) is (type(None) if ends is None else ends), ended
    return seen, summary


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    (tmp_path / "in").mkdir()
    task = Settings(task="derain", weights="w")
    return RunOptions(str(tmp_path / "in"), tmp_path / "out", settings=task)


@pytest.fixture(autouse=True)
def rest(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Say how long files must have been at rest; by default not at all."""

    def seconds(value: float) -> None:
        monkeypatch.setattr(module, "REST_SECONDS", value)

    seconds(0.0)
    monkeypatch.setattr(module, "ODD_SECONDS", 0.0)
    return seconds


def bring(path: Path, size: int = 8, seed: int = 0) -> Any:
    """Rename an image to ``path``, made some time ago elsewhere; its pixels."""
    pixels = random_pixels(size, size, seed=seed)
    name = path.name.removesuffix(".part")
    made = write(path.parent.parent / f".elsewhere-{name}", pixels)
    os.utime(made, (1e9 + seed, 1e9 + seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    made.replace(path)
    return pixels


def test_what_is_there_is_restored_and_what_comes(tmp_path: Path, options: RunOptions) -> None:
    first = bring(tmp_path / "in" / "a.png")

    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        seen.wait_for_outcomes(("a.png", "done"))
        bring(tmp_path / "in" / "b.png", seed=1)
        seen.wait_for_outcomes(("a.png", "done"), ("b.png", "done"))

    _, summary = go(options, user)
    assert names(tmp_path / "out") == ["a.png", "b.png"]
    assert (read(tmp_path / "out" / "a.png") == first).all()
    assert (summary.done, summary.failed, summary.left) == (2, 0, 0)
    # A plain run knows all of it.
    assert run(options, options.find_work(), pytest.fail, Collector()).skipped == 2


def test_empty_folder_waits(tmp_path: Path, options: RunOptions) -> None:
    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        bring(tmp_path / "in" / "a.png")
        seen.wait_for_outcomes(("a.png", "done"))

    go(options, user)


@posix
def test_file_that_is_renamed_is_taken_at_once_and_one_that_is_written_is_not(
    tmp_path: Path, options: RunOptions, rest: Callable[[float], None]
) -> None:
    rest(1e9)
    whole = write(tmp_path / "whole.png", random_pixels(30, 30)).read_bytes()

    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        with (tmp_path / "in" / "slow.png").open("wb") as slow:
            slow.write(whole[:500])
            slow.flush()
            bring(tmp_path / "in" / "quick.png")
            seen.wait_for_outcomes(("quick.png", "done"))
            slow.write(whole[500:])
        bring(tmp_path / "in" / "quicker.png")
        seen.wait_for_count(2)
        assert ("quicker.png", "done") in seen.told
        rest(0.0)
        seen.wait_for_count(3)
        assert ("slow.png", "done") in seen.told

    go(options, user)
    assert (read(tmp_path / "out" / "slow.png") == random_pixels(30, 30)).all()


def test_what_is_not_whole_at_the_end_is_left(
    tmp_path: Path, options: RunOptions, rest: Callable[[float], None]
) -> None:
    rest(1e9)

    def user(seen: Seen) -> None:
        write(tmp_path / "in" / "a.png", random_pixels(8, 8))
        seen.wait_until_watching()

    seen, summary = go(options, user)
    assert seen.outcomes == []
    assert summary.left == (tmp_path / "in" / "a.png").exists()


def test_time_at_rest_is_counted_from_the_last_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that the test moves."""
    looks = (module._Look(1, 1, 1),)
    item: Any = None
    assert not module._is_whole(module._Arrival(item, looks, 10.0), now=11.9, rest=2.0)
    assert module._is_whole(module._Arrival(item, looks, 10.0), now=12.0, rest=2.0)
    assert module._is_whole(module._Arrival(item, looks, -math.inf), now=0.0, rest=2.0)


@pytest.mark.parametrize("way", ["renamed", "written", "longer"])
def test_file_that_is_replaced_is_restored_again(
    tmp_path: Path, options: RunOptions, way: str
) -> None:
    path = tmp_path / "in" / "a.png"
    bring(path)
    new = random_pixels(9, 9, seed=5) if way == "longer" else random_pixels(8, 8, seed=5)

    def user(seen: Seen) -> None:
        seen.wait_for_outcomes(("a.png", "done"))
        if way == "renamed":
            bring(path, seed=5)
        else:
            write(tmp_path / "new.png", new)
            path.write_bytes((tmp_path / "new.png").read_bytes())
        # What is written in place may be met in between, and is then restored once more.
        seen.wait_for(lambda: len(seen.outcomes) > 1 and seen.told[-1] == ("a.png", "done"))

    seen, _ = go(options, user)
    assert (read(tmp_path / "out" / "a.png") == new).all()
    assert any("input changed" in text for text in seen.notices)


def test_result_that_a_person_has_changed_is_kept(tmp_path: Path, options: RunOptions) -> None:
    mine = random_pixels(3, 3)

    def user(seen: Seen) -> None:
        bring(tmp_path / "in" / "a.png")
        seen.wait_for_outcomes(("a.png", "done"))
        write(tmp_path / "out" / "a.png", mine)
        bring(tmp_path / "in" / "a.png", seed=3)
        seen.wait_for_outcomes(("a.png", "done"), ("a.png", "skipped"))

    go(options, user)
    assert (read(tmp_path / "out" / "a.png") == mine).all()


def test_renamed_files_are_new_ones_and_deleted_ones_keep_their_results(
    tmp_path: Path, options: RunOptions
) -> None:
    for name in ("a.png", "b.png"):
        bring(tmp_path / "in" / name)

    def user(seen: Seen) -> None:
        seen.wait_for_count(2)
        (tmp_path / "in" / "a.png").unlink()
        (tmp_path / "in" / "b.png").rename(tmp_path / "in" / "c.png")
        seen.wait_for_outcomes(("a.png", "done"), ("b.png", "done"), ("c.png", "done"))

    go(options, user)
    assert names(tmp_path / "out") == ["a.png", "b.png", "c.png"]


def test_result_that_is_deleted_is_made_again_by_the_next_run_only(
    tmp_path: Path, options: RunOptions
) -> None:
    bring(tmp_path / "in" / "a.png")

    def user(seen: Seen) -> None:
        seen.wait_for_outcomes(("a.png", "done"))
        (tmp_path / "out" / "a.png").unlink()
        bring(tmp_path / "in" / "b.png", seed=1)
        seen.wait_for_outcomes(("a.png", "done"), ("b.png", "done"))

    go(options, user)
    assert names(tmp_path / "out") == ["b.png"]
    go(options, lambda seen: seen.wait_for_outcomes(("a.png", "done"), ("b.png", "skipped")))


def test_a_thousand_at_once(tmp_path: Path, options: RunOptions) -> None:
    made = [
        write(tmp_path / "made" / f"{number}.png", random_pixels(4, 4, seed=number))
        for number in range(1000)
    ]

    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        for path in made:
            path.rename(tmp_path / "in" / path.name)
        seen.wait_for_count(1000)

    seen, summary = go(options, user)
    assert {status for _, status in seen.told} == {"done"}
    assert (summary.done, summary.left) == (1000, 0)
    assert len(names(tmp_path / "out")) == 1000


def test_bad_file_fails_once_and_again_only_when_it_has_changed(
    tmp_path: Path, options: RunOptions
) -> None:
    bad = tmp_path / "in" / "bad.png"

    def user(seen: Seen) -> None:
        (tmp_path / "text").write_text("no image")
        (tmp_path / "text").replace(bad)
        seen.wait_for_outcomes(("bad.png", "failed"))
        bring(tmp_path / "in" / "a.png")
        seen.wait_for_outcomes(("bad.png", "failed"), ("a.png", "done"))
        bring(bad, seed=2)
        seen.wait_for_outcomes(("bad.png", "failed"), ("a.png", "done"), ("bad.png", "done"))

    go(options, user)


def test_what_is_odd_is_said_once(tmp_path: Path, options: RunOptions) -> None:
    (tmp_path / "in" / "old.xyz.gif").write_bytes(b"GIF89a")
    (tmp_path / "in" / "folder.png").mkdir()

    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        for number in range(3):
            bring(tmp_path / "in" / f"{number}.png")
            seen.wait_for_count(number + 1)

    seen, _ = go(options, user)
    assert len([text for text in seen.notices if "passed over" in text]) == 1


def test_download_that_is_not_finished_is_passed_over_until_it_is(
    tmp_path: Path, options: RunOptions
) -> None:
    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        for name in ("a.png", "b.png"):
            bring(tmp_path / "in" / f"{name}.part")
            bring(tmp_path / "in" / f"_{name}")
            seen.wait_for_told(f"_{name}")
            (tmp_path / "in" / f"{name}.part").rename(tmp_path / "in" / name)
            seen.wait_for_told(name)

    seen, _ = go(options, user)
    assert not any("passed over" in text for text in seen.notices)
    bring(tmp_path / "in" / "c.png.part")
    assert "passed over, since they are not finished: c.png.part" in options.find_work().notices


@links
def test_problems_are_told_once_and_again_when_they_come_back(
    tmp_path: Path, options: RunOptions
) -> None:
    link = tmp_path / "in" / "link.png"
    link.symlink_to(tmp_path / "nothing.png")

    def user(seen: Seen) -> None:
        seen.wait_for_outcomes(("link.png", "failed"))
        bring(tmp_path / "in" / "a.png")
        seen.wait_for_outcomes(("link.png", "failed"), ("a.png", "done"))
        link.unlink()
        bring(tmp_path / "in" / "b.png")
        seen.wait_for_count(3)
        link.symlink_to(tmp_path / "nothing.png")
        seen.wait_for_count(4)

    seen, summary = go(options, user)
    assert seen.told[-1] == ("link.png", "failed")
    assert (summary.failed, summary.left) == (2, 0)


def test_new_sub_folders_are_walked_and_watched(tmp_path: Path, options: RunOptions) -> None:
    made = tmp_path / "made" / "x" / "y"
    write(made / "a.png", random_pixels(4, 4))

    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        (tmp_path / "made").rename(tmp_path / "in" / "album")
        seen.wait_for_outcomes(("a.png", "done"))
        bring(tmp_path / "in" / "album" / "x" / "y" / "b.png")
        seen.wait_for_outcomes(("a.png", "done"), ("b.png", "done"))
        shutil.rmtree(tmp_path / "in" / "album")
        bring(tmp_path / "in" / "later" / "c.png")
        seen.wait_for_outcomes(("a.png", "done"), ("b.png", "done"), ("c.png", "done"))

    go(replace(options, recursive=True), user)
    assert (tmp_path / "out" / "album" / "x" / "y" / "b.png").exists()
    assert (tmp_path / "out" / "later" / "c.png").exists()


@links
def test_links_to_folders_are_not_followed_and_links_to_files_are(
    tmp_path: Path, options: RunOptions
) -> None:
    write(tmp_path / "other" / "x.png", random_pixels(4, 4))
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in" / "other").symlink_to(tmp_path / "other", target_is_directory=True)

    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        (tmp_path / "in" / "y.png").symlink_to(tmp_path / "other" / "x.png")
        seen.wait_for_outcomes(("y.png", "done"))

    seen, _ = go(replace(options, recursive=True), user)
    assert any("2 links to folders" in text for text in seen.notices)


@links
def test_folder_that_is_reached_by_a_link_is_watched(tmp_path: Path, options: RunOptions) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "in", target_is_directory=True)

    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        bring(tmp_path / "in" / "a.png")
        seen.wait_for_outcomes(("a.png", "done"))

    go(replace(options, sources=str(tmp_path / "link")), user)


@pytest.mark.parametrize("where", ["in/out", "in"])
def test_results_inside_or_beside_inputs_are_no_inputs(
    tmp_path: Path, options: RunOptions, where: str
) -> None:
    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        for name in ("a", "b"):
            pixels = np.full((8, 8, 3), 90, np.uint8)
            write(tmp_path / f"{name}.jpg", pixels).rename(tmp_path / "in" / f"{name}.jpg")
            seen.wait_for_told(f"{name}.jpg")

    seen, _ = go(replace(options, result_dir=tmp_path / where, recursive=True), user)
    assert seen.told == [("a.jpg", "done"), ("b.jpg", "done")]
    assert not any("results of earlier runs" in text for text in seen.notices)
    assert sorted(p.name for p in (tmp_path / where).glob("*.png")) == ["a.png", "b.png"]


def test_images_that_would_share_a_result_have_longer_names(
    tmp_path: Path, options: RunOptions
) -> None:
    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        bring(tmp_path / "in" / "a.png")
        seen.wait_for_outcomes(("a.png", "done"))
        bring(tmp_path / "in" / "a.jpg")
        seen.wait_for_outcomes(("a.png", "done"), ("a.jpg", "done"))

    go(options, user)
    assert names(tmp_path / "out") == ["a.jpg.png", "a.png"]


def test_pairs_wait_for_each_other(tmp_path: Path, options: RunOptions) -> None:
    options = replace(options, sides=("L", "R"))
    for side in options.sides:
        (tmp_path / "in" / side).mkdir()

    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        bring(tmp_path / "in" / "L" / "a.png")
        seen.wait_for(lambda: any("has no partner in R as yet" in text for text in seen.notices))
        assert seen.outcomes == []
        bring(tmp_path / "in" / "R" / "a.png")
        seen.wait_for_outcomes(("a.png", "done"))
        bring(tmp_path / "in" / "R" / "b.png")
        seen.wait_for(lambda: any("has no partner in L as yet" in text for text in seen.notices))

    seen, summary = go(options, user)
    assert seen.told == [("a.png", "done"), ("b.png", "failed")]
    assert summary.left == 0


def test_several_folders_are_watched(tmp_path: Path, options: RunOptions) -> None:
    (tmp_path / "more").mkdir()
    sources = (options.named[0], str(tmp_path / "more"))

    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        bring(tmp_path / "more" / "a.png")
        seen.wait_for_outcomes(("a.png", "done"))
        bring(tmp_path / "in" / "a.png")
        seen.wait_for_outcomes(("a.png", "done"), ("a.png", "done"))

    go(replace(options, sources=sources), user)
    assert (tmp_path / "out" / "in" / "a.png").exists()
    assert (tmp_path / "out" / "more" / "a.png").exists()


@pytest.mark.parametrize("again", [False, True])
def test_folder_that_vanishes_ends_it(tmp_path: Path, options: RunOptions, again: bool) -> None:
    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        (tmp_path / "in").rename(tmp_path / "gone")
        if again:
            (tmp_path / "in").mkdir()

    go(options, user, ends=WatchError)


def test_only_one_watches_a_result_folder(tmp_path: Path, options: RunOptions) -> None:
    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        with pytest.raises(BusyError):
            module.watch(options, pytest.fail, Collector(), Summary())
        bring(tmp_path / "in" / "a.png")
        with pytest.raises(BusyError):
            run(options, options.find_work(), pytest.fail, Collector())

    go(options, user)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dry_run": True}, "--dry-run"),
        ({"sources": "-"}, "standard input"),
        ({"sources": ("in", "-")}, "standard input"),
        ({"sources": "in/a.png"}, "in/a.png: is no folder"),
        ({"sources": ("in", "missing")}, "missing: no such folder"),
        ({"sides": ("L", "R")}, "no such folder; it should hold one view"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    tmp_path: Path,
    options: RunOptions,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    bring(tmp_path / "in" / "a.png")
    with pytest.raises(UsageError, match=said):
        module.watch(
            replace(options, **{"sources": "in", **values}), pytest.fail, Collector(), Summary()
        )


def test_shard_takes_its_own_alone(tmp_path: Path, options: RunOptions) -> None:
    from restormer_cli.batch.shards import Shard

    shard = Shard(0, 2)
    wanted = [n for n in range(20) if shard.takes(Path(f"{n}.png"))]
    assert 0 < len(wanted) < 20

    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        for number in range(20):
            bring(tmp_path / "in" / f"{number}.png")
        seen.wait_for_outcomes(*((f"{number}.png", "done") for number in wanted))

    go(replace(options, shard=shard), user)


def test_first_failure_ends_it_if_asked_to(tmp_path: Path, options: RunOptions) -> None:
    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        (tmp_path / "text").write_text("no image")
        (tmp_path / "text").replace(tmp_path / "in" / "bad.png")

    _, summary = go(replace(options, fail_fast=True), user, ends=None)
    assert (summary.failed, summary.reason) == (1, "--fail-fast stops at the first failure")


def test_network_that_fails_image_after_image_ends_it(tmp_path: Path, options: RunOptions) -> None:
    def broken(*views: Any, **words: Any) -> Any:
        raise RuntimeError("device lost")

    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        for number in range(3):  # one after the other, each a round of its own
            bring(tmp_path / "in" / f"{number}.png")
            seen.wait_for_count(number + 1)

    _, summary = go(options, user, network=broken, ends=None)
    assert "failed 3 times in a row" in summary.reason


def test_folder_that_is_looked_at_is_as_good(
    tmp_path: Path, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_on_network", lambda folder: True)
    monkeypatch.setattr(changes, "POLL", 50)

    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        bring(tmp_path / "in" / "sub" / "a.png")
        seen.wait_for_outcomes(("a.png", "done"))
        bring(tmp_path / "in" / "sub" / "a.png", seed=9)
        seen.wait_for_outcomes(("a.png", "done"), ("a.png", "done"))

    go(replace(options, recursive=True), user)


def test_where_the_system_watches_no_more_folders_they_are_looked_at(
    tmp_path: Path, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = watchfiles.watch

    def limited(*paths: Any, force_polling: bool | None, **words: Any) -> Iterator[Any]:
        if not force_polling:
            raise OSError("OS file watch limit reached.")
        return real(*paths, force_polling=True, **words)

    monkeypatch.setattr(watchfiles, "watch", limited)
    monkeypatch.setattr(changes, "POLL", 50)

    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        bring(tmp_path / "in" / "a.png")
        seen.wait_for_outcomes(("a.png", "done"))

    go(options, user)


@pytest.mark.parametrize(
    ("kind", "mount", "network"),
    [
        ("ext4", "", False),
        ("nfs4", "", True),
        ("CIFS", "", True),
        ("fuse.sshfs", "", True),
        ("fuseblk", "", False),
        ("nfs", "elsewhere", False),
    ],
)
def test_network_folders_are_known_by_their_mounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, mount: str, network: bool
) -> None:
    root = type("Mount", (), {"mountpoint": tmp_path.anchor, "fstype": "ext4", "opts": "rw"})()
    place = str(tmp_path.resolve() / mount)
    own = type("Mount", (), {"mountpoint": place, "fstype": kind, "opts": "rw"})()
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [own, root])
    assert changes.is_on_network(tmp_path / "in") is network


ACTS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "delete", "rename"]), st.integers(0, 4)), max_size=12
)


@settings(max_examples=12)
@given(st.lists(ACTS, min_size=1, max_size=3))
def test_in_the_end_each_file_has_its_result(
    tmp_path_factory: pytest.TempPathFactory, bursts: list[list[tuple[str, int]]]
) -> None:
    folder = tmp_path_factory.mktemp("watch")
    (folder / "in").mkdir()
    task = Settings(task="derain", weights="w")
    options = RunOptions(str(folder / "in"), folder / "out", settings=task)
    there: dict[str, Any] = {}

    def user(seen: Seen) -> None:
        seen.wait_until_watching()
        seed = 0
        for number, acts in enumerate(bursts):
            for act, which in acts:
                seed += 1
                path = folder / "in" / f"{which}.png"
                if act == "put":
                    there[path.name] = bring(path, seed=seed)
                elif path.name in there:
                    pixels = there.pop(path.name)
                    if act == "delete":
                        path.unlink()
                    else:
                        # Its size and time go along, so a result of this name stays as it is.
                        new = path.with_name(f"{which}-{seed}.png")
                        path.rename(new)
                        there[new.name] = pixels
            # What comes last is restored last.
            bring(folder / "in" / f"z{number}.png", seed=99)
            seen.wait_for_told(f"z{number}.png")

    seen, summary = go(options, user)
    for name, pixels in there.items():
        assert (read(folder / "out" / name) == pixels).all(), (name, seen.told)
    assert {status for _, status in seen.told} <= {"done"}
    assert summary.left == 0
