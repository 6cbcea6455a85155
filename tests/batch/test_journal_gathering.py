"""Journals of all kinds of run stay small, whole and known; none that may live is removed."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import names, random_pixels, write
from hypothesis import example, given
from hypothesis import strategies as st

from restormer_cli.batch import journal
from restormer_cli.batch import run as run_module
from restormer_cli.batch.items import Item
from restormer_cli.batch.journal import FOLDER, Journal
from restormer_cli.batch.lock import folder_lock
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Collector, Outcome, Provenance
from restormer_cli.batch.progress import ProgressTracker
from restormer_cli.batch.shards import Shard
from restormer_cli.executors import in_process
from restormer_cli.settings import Settings
from restormer_cli.system.atomic import atomic_file, sweep
from restormer_cli.system.files import Stamp, read_file
from restormer_cli.system.locks import try_lock

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such thing")
SETTINGS = Settings(task="derain", weights="w")


class Workers:
    """An engine whose workers write journals of their own, as those in other processes do."""

    def __init__(self, count: int) -> None:
        self.count = count

    def restore(
        self, run_options: RunOptions, journal: Journal, items: list[Item], tracker: ProgressTracker
    ) -> None:
        for number in range(self.count):
            theirs = Journal.of_worker(
                run_options.result_dir, run_options.settings, run_options.journal_name
            )
            theirs.open(run_options.settings)
            for item in items[number :: self.count]:
                with atomic_file(item.result) as file:
                    file.write(b"result")
                there = item.result.stat()
                stamp = read_file(item.source)[1]
                theirs.add(item, [stamp], there.st_size, there.st_mtime_ns)
                tracker.settle(item, Outcome(str(item.source), str(item.result), "done"))
            theirs.close()

    def close(self, tracker: ProgressTracker) -> None: ...

    def peak_memory(self) -> int:
        return 0


class Alone:
    def __init__(self) -> None:
        self.engine = in_process.InProcess(
            lambda *views, bit_depth, progress: views[0], Provenance()
        )

    def restore(self, *words: Any) -> None:
        self.engine.restore(*words)

    def close(self, tracker: ProgressTracker) -> None: ...

    def peak_memory(self) -> int:
        return 0


def job_of(folder: Path, count: int = 20, **values: Any) -> RunOptions:
    for number in range(count):
        write(folder / "in" / f"{number}.png", random_pixels(3, 3, seed=number))
    return RunOptions(str(folder / "in"), folder / "out", settings=SETTINGS, **values)


def run(run_options: RunOptions, engine: Any) -> Collector:
    told = Collector()
    run_module.run(run_options, run_options.find_work(), lambda: engine, told)
    return told


def journals(run_options: RunOptions) -> list[str]:
    return sorted(path.name for path in (run_options.result_dir / FOLDER).iterdir())


def lines(run_options: RunOptions) -> int:
    return len(
        (run_options.result_dir / FOLDER / f"{run_options.journal_name}.jsonl")
        .read_bytes()
        .splitlines()
    )


# --- compaction ----------------------------------------------------------------------------


@pytest.mark.parametrize("shard", [None, Shard(0, 1)])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_journal_of_any_kind_of_run_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, shard: Shard | None
) -> None:
    monkeypatch.setattr(journal, "SPARE_LINES", 50)
    run_options = job_of(tmp_path, overwrite=True, shard=shard)
    sizes = []
    for _ in range(12):
        told = run(run_options, Workers(workers) if workers else Alone())
        assert [outcome.status for outcome in told.outcomes] == ["done"] * 20
        sizes.append(lines(run_options))
        assert journals(run_options) == [f"{run_options.journal_name}.jsonl"]
    assert max(sizes) <= 2 * 20 + 50 + 20 + 4 * max(1, workers)
    done = run(replace(run_options, overwrite=False), None)
    assert [outcome.status for outcome in done.outcomes] == ["skipped"] * 20


def test_journal_of_much_that_is_done_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SPARE_LINES", 3)
    run_options = job_of(tmp_path)
    run(run_options, Workers(2))
    path = tmp_path / "out" / FOLDER / "run.jsonl"
    before = path.stat()
    # Another folder's images, of which the journal says nothing, are as good a reason.
    assert len(run(run_options, None).outcomes) == 20
    run(RunOptions(str(tmp_path / "in" / "0.png"), run_options.result_dir, settings=SETTINGS), None)
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_small_part_of_much_that_a_shard_has_done_is_no_reason_to_write_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SPARE_LINES", 3)
    run_options = job_of(tmp_path, shard=Shard(0, 1))
    run(run_options, Workers(2))
    path = tmp_path / "out" / FOLDER / f"{run_options.journal_name}.jsonl"
    inode = path.stat().st_ino
    run(replace(run_options, sources=str(tmp_path / "in" / "0.png")), None)
    assert path.stat().st_ino == inode


def test_workers_of_shards_that_were_killed_are_put_together_by_a_whole_run(tmp_path: Path) -> None:
    run_options = job_of(tmp_path, 2)
    (run_options.result_dir / FOLDER).mkdir(parents=True)
    for name in ("shard-0-of-2", "run"):
        killed = Journal.of_worker(run_options.result_dir, SETTINGS, name)
        killed.open(SETTINGS)
        killed.close()
    run(run_options, Alone())
    assert journals(run_options) == ["run.jsonl"]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.sampled_from("abc")), max_size=30),
    st.lists(st.integers(0, 5), min_size=4, max_size=4),
    st.booleans(),
)
@example([(0, 0, "a"), (0, 1, "a"), (0, 1, "b")], [0, 0, 0, 0], False)
def test_compaction_changes_no_judgement_and_can_end_at_any_moment(
    tmp_path_factory: pytest.TempPathFactory,
    written: list[tuple[int, int, str]],
    there: list[int],
    cut: bool,
) -> None:
    """Of each result an entry with the time of the file, or of the last or last but one."""
    out = tmp_path_factory.mktemp("compact")
    (out / FOLDER).mkdir()
    source = out / "source"
    source.write_bytes(b"image")
    stamp = Stamp(5, source.stat().st_mtime_ns, "")
    items = [Item((source,), out / f"{number}.png") for number in range(4)]
    minute = 60 * 10**9
    for number, time, weights in written:
        own = Journal(out, replace(SETTINGS, weights=weights))
        own.open(own.settings)
        own.add(items[number], [stamp], 1, time * minute)
        own.close()
    latest = {n: sorted({time for m, time, _ in written if m == n})[-2:] for n in range(4)}
    for number, item in enumerate(items):
        item.result.write_bytes(b"x")
        times = latest[number]
        time = times[there[number] % len(times)] if times else 0
        os.utime(item.result, ns=(time * minute, time * minute))
    own = Journal(out, replace(SETTINGS, weights="a"))
    own.load()
    before = {item: own.entry_of(item.result) for item in items}
    spare, journal.SPARE_LINES = journal.SPARE_LINES, -(10**9)
    replace_file = Path.replace
    try:
        if cut:
            Path.replace = lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "cut"))  # type: ignore[assignment,method-assign]
        own.compact()
    finally:
        journal.SPARE_LINES, Path.replace = spare, replace_file  # type: ignore[method-assign]
    again = Journal(out, replace(SETTINGS, weights="a"))
    again.load()
    assert {item: again.entry_of(item.result) is None for item in items} == {
        item: before[item] is None for item in items
    }
    assert all(len(entries) <= 2 for entries in again.entries.values()) or cut
    assert not list((out / FOLDER).glob(".*"))


# --- locks as network file systems have them -----------------------------------------------


@pytest.fixture(params=["nfs", "ENOLCK", "EOPNOTSUPP"])
def locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """NFS locks only files open for writing (flock(2)); other file systems have no locks."""
    fcntl = pytest.importorskip("fcntl")
    flock = fcntl.flock

    def as_there(descriptor: int, operation: int) -> None:
        if request.param != "nfs":
            raise OSError(getattr(errno, request.param), "no locks")
        mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        if operation & fcntl.LOCK_EX and mode == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", as_there)
    return str(request.param)


@pytest.fixture
def living(tmp_path: Path) -> Iterator[tuple[RunOptions, Journal]]:
    """A live worker of an earlier run, and its journal."""
    run_options = job_of(tmp_path, 3)
    (run_options.result_dir / FOLDER).mkdir(parents=True)
    alive = Journal.of_worker(run_options.result_dir, SETTINGS, "run")
    alive.open(SETTINGS)
    yield run_options, alive
    alive.close()


@posix
def test_journal_of_a_living_worker_is_never_removed(
    locks: str, living: tuple[RunOptions, Journal]
) -> None:
    run_options, alive = living
    told = run(run_options, Workers(2))
    assert [outcome.status for outcome in told.outcomes] == ["done"] * 3
    assert alive.path.exists()
    # What it notes from now on is known.
    item = run_options.find_work().items[0]
    there = item.result.stat()
    stamp = read_file(item.source)[1]
    alive.add(item, [stamp], there.st_size, there.st_mtime_ns + 1)
    late = Journal(run_options.result_dir, SETTINGS)
    late.load()
    assert late.entries["0.png"][0].mtime != late.entries["0.png"][-1].mtime
    if locks == "nfs":
        assert journals(run_options) == sorted([alive.path.name, "run.jsonl"])
        alive.close()
        run(run_options, None)
        assert journals(run_options) == ["run.jsonl"]
    assert [outcome.status for outcome in run(run_options, None).outcomes] == ["skipped"] * 3


@posix
def test_without_locks_no_journal_is_written_anew_and_it_is_said(
    locks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SPARE_LINES", 0)
    run_options = job_of(tmp_path, overwrite=True)

    class Heard(Collector):
        texts: tuple[str, ...] = ()

        def notice(self, text: str) -> None:
            self.texts += (text,)

    inodes, texts = set(), set()
    for _ in range(5):
        heard = Heard()
        run_module.run(run_options, run_options.find_work(), Alone, heard)
        texts |= set(heard.texts)
        inodes.add((tmp_path / "out" / FOLDER / "run.jsonl").stat().st_ino)
    assert (len(inodes) == 1) == (locks != "nfs")
    assert any("has no locks" in text for text in texts) == (locks != "nfs")


@posix
def test_file_that_is_being_written_is_swept_nowhere(locks: str, tmp_path: Path) -> None:
    with atomic_file(tmp_path / "result") as file:
        file.write(b"half")
        assert sweep([tmp_path]) == 0
    assert names(tmp_path) == ["result"]


@posix
def test_lock_is_held_against_others_where_there_are_any(locks: str, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    with folder_lock(tmp_path / FOLDER) as held:
        assert held == (locks == "nfs")


@posix
def test_worker_whose_new_journal_is_being_taken_away_begins_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / FOLDER).mkdir()
    worker = Journal.of_worker(tmp_path, SETTINGS, "run")
    first = worker.path
    with first.open("w") as file:  # somebody looks at it between its beginning and its lock
        assert try_lock(file.fileno())
        worker.open(SETTINGS)
    first.unlink()
    assert worker.path != first
    assert worker.path.read_bytes().startswith(b'{"settings"')
    worker.close()


# --- permissions ---------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_get_what_the_umask_allows_and_nobody_touches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: int
) -> None:
    before = os.umask(mask)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda mask: pytest.fail("other threads make files"))
            run_options = job_of(tmp_path, 2)
            run(run_options, Alone())
    finally:
        os.umask(before)
    files = [*run_options.result_dir.glob("*.png"), run_options.result_dir / FOLDER / "run.jsonl"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o666 & ~mask}


@posix
def test_result_that_is_made_again_keeps_its_permissions(tmp_path: Path) -> None:
    run_options = job_of(tmp_path, 3, overwrite=True)
    run(run_options, Alone())
    modes = {"0.png": 0o600, "1.png": 0o664, "2.png": 0o444}
    for name, mode in modes.items():
        (run_options.result_dir / name).chmod(mode)
    assert len(run(run_options, Alone()).outcomes) == 3
    for name, mode in modes.items():
        assert stat.S_IMODE((run_options.result_dir / name).stat().st_mode) == mode


@posix
def test_default_access_list_of_a_folder_holds(tmp_path: Path) -> None:
    """As `setfacl -d -m u::rw,u:12345:rw,g::r,m::rw,o::-` sets it (linux/posix_acl_xattr.h)."""
    if not hasattr(os, "setxattr"):
        pytest.skip("needs Linux")
    run_options = job_of(tmp_path, 1)
    run_options.result_dir.mkdir()
    nobody = 0xFFFFFFFF
    parts = [(1, 6, nobody), (2, 6, 12345), (4, 4, nobody), (16, 6, nobody), (32, 0, nobody)]
    listed = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + may.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, may, who in parts
    )
    try:
        os.setxattr(run_options.result_dir, "system.posix_acl_default", listed)
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")
    run(run_options, Alone())
    made = run_options.result_dir / "0.png"
    assert os.getxattr(made, "system.posix_acl_access") == listed
    assert stat.S_IMODE(made.stat().st_mode) == 0o660


@posix
def test_results_have_the_group_of_a_folder_that_hands_it_down(tmp_path: Path) -> None:
    run_options = job_of(tmp_path, 1)
    run_options.result_dir.mkdir()
    try:
        os.chown(run_options.result_dir, -1, 54321)
    except PermissionError:
        pytest.skip("needs root")
    run_options.result_dir.chmod(0o2775)
    run(run_options, Alone())
    assert (run_options.result_dir / "0.png").stat().st_gid == 54321
