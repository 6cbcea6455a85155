"""Each image that was found is restored, skipped, failed, planned or counted as left."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from helpers import make_images, names, random_pixels, restormer, save, tiny_network, write
from hypothesis import example, given
from hypothesis import strategies as st
from imagecodecs import png_decode

from restormer_cli.batch import run as run_module
from restormer_cli.batch import worker
from restormer_cli.batch.journal import Journal
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Collector, Outcome, Provenance, Summary
from restormer_cli.batch.resume import decide
from restormer_cli.errors import ImageError, Stopped
from restormer_cli.executors import in_process
from restormer_cli.images import reading, writing
from restormer_cli.settings import Settings
from restormer_cli.system.files import Stamp
from restormer_cli.system.stopping import interruptible, signals_stop, uninterrupted

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such thing")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_network(), tmp_path_factory.mktemp("weights") / "net.safetensors")


# --- whatever fails, wherever --------------------------------------------------------------

#: Where an image can meet an error, besides the network: a function, and which of its arguments
#: names the image.
PLACES: dict[str, tuple[Any, str, Callable[..., str]]] = {
    "reader": (reading, "read_file", lambda path, *_: path.stem),
    "decoder": (reading, "decode_image", lambda data, *_: str(png_decode(data)[0, 0, 0])),
    "alpha": (worker, "with_alpha", lambda picture, pixels: str(pixels[0, 0, 0])),
    "encoder": (writing, "encode_image", lambda picture, *_: str(picture.pixels[0, 0, 0])),
    "writer": (writing, "write_file", lambda path, *_: path.stem),
    "journal": (Journal, "add", lambda journal, item, *_: item.result.stem),
    "rename": (Path, "replace", lambda temporary, path: path.stem),
}
ERRORS = [
    MemoryError(),
    MemoryError("out of memory"),
    RuntimeError("out of memory"),
    KeyError("a bug"),
    RecursionError(),
    OSError(errno.EIO, "Input/output error"),
    PermissionError(errno.EACCES, "Permission denied"),
    BrokenPipeError(errno.EPIPE, "Broken pipe"),
    ImageError("says so"),
]


@dataclass
class Network:
    """Returns its input, and reports progress twice."""

    errors: dict[str, Exception] = field(default_factory=dict)

    def __call__(self, *views: Any, bit_depth: int | None, progress: Any) -> Any:
        progress(0.5)
        if error := self.errors.get(str(views[0][0, 0, 0])):
            raise error
        progress(1.0)
        return views[0]


class Watcher(Collector):
    """An observer that fails, in a method at a certain call of it."""

    def __init__(self, method: str = "", call: int = 0, error: Exception | None = None) -> None:
        super().__init__()
        self.calls = 0
        if error is not None:
            told = getattr(self, method)

            def fail(*words: Any) -> None:
                told(*words)
                self.calls += 1
                if self.calls == call:
                    raise error

            setattr(self, method, fail)


@contextmanager
def failing(where: dict[str, tuple[str, Exception]]) -> Iterator[Network]:
    """Let images, by their numbers, meet errors at places, by their names."""
    network = Network({k: error for k, (place, error) in where.items() if place == "network"})
    with ExitStack() as stack:
        for place, (owner, name, number_of) in PLACES.items():
            real = getattr(owner, name)
            errors = {k: error for k, (at, error) in where.items() if at == place}

            def broken(
                *words: Any,
                real: Any = real,
                errors: Any = errors,
                of: Any = number_of,
                **more: Any,
            ) -> Any:
                if error := errors.get(of(*words)):
                    raise error
                return real(*words, **more)

            if errors:
                stack.enter_context(mock.patch.object(owner, name, broken))
        yield network


def numbered(folder: Path, count: int) -> RunOptions:
    """Images of which each pixel is the number of the image."""
    for number in range(count):
        pixels = random_pixels(4, 5)
        pixels[:] = number
        write(folder / "in" / f"{number}.png", pixels)
    return RunOptions(
        str(folder / "in"), folder / "out", settings=Settings(task="derain", weights="w")
    )


def run(run_options: RunOptions, network: Network, watcher: Collector) -> Summary:
    summary = Summary()
    with suppress(Exception):  # of the watcher
        run_module.run(
            run_options,
            run_options.find_work(),
            lambda: in_process.InProcess(network, Provenance()),
            watcher,
            summary,
        )
    return summary


def see_that_it_adds_up(
    run_options: RunOptions, summary: Summary, outcomes: list[Outcome], count: int
) -> None:
    told = summary.done + summary.skipped + summary.failed + summary.planned
    assert told + summary.left == count
    assert summary.left >= 0
    assert len({outcome.input for outcome in outcomes}) == len(outcomes) <= told
    done = [Path(outcome.result).name for outcome in outcomes if outcome.status == "done"]
    there = names(run_options.result_dir) if run_options.result_dir.exists() else []
    assert set(done) <= set(there)
    assert len(there) == summary.done
    # All that is there is known.
    again = Journal(run_options.result_dir, run_options.settings)
    again.load()
    work = [item for item in run_options.find_work().items if item.result.exists()]
    assert {decide(again, item).reason for item in work} <= {""}


@given(
    st.dictionaries(
        st.integers(0, 7).map(str),
        st.tuples(st.sampled_from([*PLACES, "network"]), st.sampled_from(ERRORS)),
    ),
    st.tuples(
        st.sampled_from(["begin", "expect", "start", "advance", "finish"]),
        st.integers(1, 9),
        st.none() | st.sampled_from(ERRORS),
    ),
    st.booleans(),
)
@example({"0": ("encoder", MemoryError())}, ("finish", 1, None), False)
@example({}, ("finish", 1, MemoryError("out of memory")), False)
@example({}, ("advance", 2, ImageError("not the network's")), False)
@example({"3": ("rename", OSError(errno.ENOSPC, "full"))}, ("finish", 1, None), True)
def test_whatever_fails_wherever_each_image_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory,
    where: dict[str, tuple[str, Exception]],
    watching: tuple[str, int, Exception | None],
    fail_fast: bool,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    run_options = numbered(folder, 8)
    run_options = RunOptions(
        run_options.sources,
        run_options.result_dir,
        fail_fast=fail_fast,
        settings=run_options.settings,
    )
    watcher = Watcher(*watching)
    with failing(where) as network:
        summary = run(run_options, network, watcher)
    see_that_it_adds_up(run_options, summary, watcher.outcomes, 8)
    failed = {Path(outcome.input).stem for outcome in watcher.outcomes if outcome.error}
    assert failed <= set(where)
    for outcome in watcher.outcomes:
        assert (outcome.status == "failed") == (outcome.error is not None)
        if outcome.error is not None:
            number = Path(outcome.input).stem
            assert outcome.error.startswith((outcome.input, outcome.result)), outcome.error
            if isinstance(where[number][1], (KeyError, RecursionError)):
                assert "a fault of restormer-cli" in outcome.error
    if summary.left and watcher.calls < watching[1]:  # the watcher has not failed
        assert summary.reason
    if not summary.left:
        assert failed == set(where) or watcher.calls >= watching[1]
        assert summary.done == 8 - len(where)


def test_error_of_the_writer_is_that_of_its_own_image(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network, which frees memory and tries again, must not take it for its own."""
    source = write(tmp_path / "in" / "0.png", random_pixels(80, 80)).parent
    for number in (1, 2):
        write(source / f"{number}.png", random_pixels(200, 300, seed=number))
    write_image = worker.write_image

    def full(path: Path, *words: Any) -> None:
        if path.stem == "0":
            raise MemoryError
        write_image(path, *words)

    monkeypatch.setattr(worker, "write_image", full)
    words = ("derain", "--input-dir", source, "--result-dir", tmp_path / "out")
    ran = restormer(*words, "--weights", weights, "--json", "--report", tmp_path / "r.jsonl")
    assert ran.status == 1
    statuses = {Path(o["input"]).name: o["status"] for o in map(json.loads, ran.lines)}
    assert statuses == {"0.png": "failed", "1.png": "done", "2.png": "done"}
    assert (tmp_path / "r.jsonl").read_text() == ran.out
    assert f"error: {tmp_path / 'out' / '0.png'}: not enough memory to write it" in ran.err
    assert "2 restored, 0 skipped, 1 failed;" in ran.err.splitlines()[-1]


def test_fault_of_ours_is_called_one_and_its_traceback_is_logged(
    tmp_path: Path, weights: Path
) -> None:
    source = make_images(tmp_path / "in", 2, size=70)
    words = ("derain", "--input-dir", source, "--result-dir", tmp_path / "out")
    line = "a fault of restormer-cli (KeyError: 'no such'); please report it"
    with mock.patch.object(worker, "write_image", side_effect=KeyError("no such")):
        ran = restormer(*words, "--weights", weights)
        all_of_it = restormer(*words, "--weights", weights, "-vv")
    assert ran.status == all_of_it.status == 1
    assert ran.err.count(line) == all_of_it.err.count(line) == 2
    assert "Traceback" not in ran.err
    assert all_of_it.err.count("Traceback") == 2


def test_network_that_fails_on_everything_stops_the_run_and_says_why(tmp_path: Path) -> None:
    run_options = numbered(tmp_path, 8)
    watcher = Collector()
    bug = RuntimeError("CUDA error: an illegal memory access was encountered")
    summary = run(run_options, Network({str(number): bug for number in range(8)}), watcher)
    assert (summary.failed, summary.left) == (worker.FAULTS, 8 - worker.FAULTS)
    assert summary.what_is_left == (
        f"{summary.left} images were not begun: the network failed 3 times in a row"
    )


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_what_is_left_is_said_and_makes_the_status(
    tmp_path: Path, weights: Path, quiet: tuple[str, ...]
) -> None:
    source = make_images(tmp_path / "in", 9, size=70)
    (source / "0.png").write_bytes(b"no image")
    words = ("derain", "--input-dir", source, "--result-dir", tmp_path / "out", "--fail-fast")
    ran = restormer(*words, "--weights", weights, *quiet)
    assert ran.status == 1
    assert "8 images were not begun: --fail-fast stops at the first failure" in ran.err
    assert "1 failed, 8 not begun" in ran.err.splitlines()[-1]


def test_image_that_nobody_accounts_for_is_never_passed_over(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_images(tmp_path / "in", 3)
    work = worker.work

    def forgetful(
        run_options: Any,
        journal: Any,
        restore: Any,
        provenance: Any,
        chunks: Any,
        told: Any,
        **more: Any,
    ) -> str:
        fewer = [chunk[1:] for chunk in chunks]
        return work(run_options, journal, restore, provenance, fewer, told, **more)

    monkeypatch.setattr(worker, "work", forgetful)
    words = ("derain", "--input-dir", source, "--result-dir", tmp_path / "out")
    ran = restormer(*words, "--weights", weights)
    assert ran.status == 1
    assert "1 image was not begun: by a fault of restormer-cli; please report it" in ran.err


# --- stopped at any moment -----------------------------------------------------------------


@posix
@given(moment=st.integers(1, 60), place=st.sampled_from(["call", "return", "line"]))
def test_stop_at_any_moment_loses_and_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory, moment: int, place: str
) -> None:
    """The signal comes at a step of the main thread that hypothesis picks, in our modules."""
    run_options = numbered(tmp_path_factory.mktemp("stop"), 5)
    watcher, summary, left = Collector(), Summary(), moment * 20
    ours = ("worker.py", "pipeline.py", "course.py", "outcomes.py", "stopping.py")

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(ours):
            return trace if event == "call" else None
        left -= event == place
        if left == 0:
            signal.raise_signal(signal.SIGTERM)
        return trace

    stopped = False
    before = sys.gettrace()
    with signals_stop():
        sys.settrace(trace)
        try:
            run_module.run(
                run_options,
                run_options.find_work(),
                lambda: in_process.InProcess(Network(), Provenance()),
                watcher,
                summary,
            )
        except Stopped:
            stopped = True
        finally:
            sys.settrace(before)
    see_that_it_adds_up(run_options, summary, watcher.outcomes, 5)
    assert len(watcher.outcomes) == 5 - summary.left
    assert stopped or not summary.left


@posix
def test_stop_waits_for_what_is_uninterrupted_and_for_nothing_else() -> None:
    seen = []

    def stop() -> None:
        signal.raise_signal(signal.SIGTERM)
        seen.append("held")

    def let_through() -> None:
        with interruptible():
            stop()

    def held() -> None:
        with uninterrupted():
            stop()
        seen.append("never")

    with signals_stop(), pytest.raises(Stopped):
        held()
    with signals_stop(), uninterrupted():
        with pytest.raises(Stopped):
            let_through()
        seen.append("raised once")
    assert seen == ["held", "raised once"]


@posix
@pytest.mark.parametrize("late", ["before", "after"])
def test_late_write_is_noted_or_undoes_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """The disk takes longer than a run that is stopped gives it."""
    monkeypatch.setattr(worker, "LAST_WRITE_SECONDS", 0.0)
    run_options = numbered(tmp_path, 2)
    slow, go_on = threading.Event(), threading.Event()
    sync_file, replace = worker.write_image.__globals__["write_file"], Path.replace

    def before(*words: Any) -> None:
        slow.set()
        assert go_on.wait(60)
        sync_file(*words)

    def after(temporary: Path, path: Path) -> Any:
        slow.set()
        assert go_on.wait(60)
        return replace(temporary, path)

    if late == "before":
        monkeypatch.setattr(writing, "write_file", before)
    else:  # it has been noted, so the run waits for its name
        monkeypatch.setattr(Path, "replace", after)
        threading.Timer(0.2, go_on.set).start()

    class Stopping(Network):
        def __call__(self, *views: Any, bit_depth: int | None, progress: Any) -> Any:
            if views[0][0, 0, 0] == 1:
                assert slow.wait(60)
                signal.raise_signal(signal.SIGTERM)
            return views[0]

    watcher, summary = Collector(), Summary()
    with signals_stop(), pytest.raises(Stopped):
        run_module.run(
            run_options,
            run_options.find_work(),
            lambda: in_process.InProcess(Stopping(), Provenance()),
            watcher,
            summary,
        )
    counts = (summary.done, summary.left)
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "writer":
            thread.join(60)
    assert counts == ((0, 2) if late == "before" else (1, 1))
    see_that_it_adds_up(run_options, summary, watcher.outcomes, 2)


def test_nothing_is_noted_in_a_record_that_is_closed(tmp_path: Path) -> None:
    run_options = numbered(tmp_path, 1)
    (run_options.result_dir / ".restormer").mkdir(parents=True)
    journal = Journal(run_options.result_dir, run_options.settings)
    journal.open(run_options.settings)
    journal.close()
    with pytest.raises(OSError, match="closed"):
        journal.add(run_options.find_work().items[0], [Stamp(1, 1, "")], 1, 1)


@posix
def test_system_without_a_further_thread_is_named(tmp_path: Path, weights: Path) -> None:
    source = make_images(tmp_path / "in", 1)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name in {"reader", "writer"}:
            raise RuntimeError("can't start new thread")
        start(thread)

    words = ("derain", "--input-dir", source, "--result-dir", tmp_path / "out")
    with mock.patch.object(threading.Thread, "start", refuse):
        ran = restormer(*words, "--weights", weights)
    assert ran.status == 2
    assert ran.err.splitlines()[-1].startswith("error: the system allows no further thread")


@posix
def test_disk_that_loses_the_journal_is_named(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_images(tmp_path / "in", 1)
    fsync = os.fsync

    def broken(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".jsonl":
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", broken)
    words = ("derain", "--input-dir", source, "--result-dir", tmp_path / "out")
    ran = restormer(*words, "--weights", weights)
    assert "may not be known to the next run (Input/output error)" in ran.err


def test_disk_that_knows_no_flushing_takes_results(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_images(tmp_path / "in", 1)

    def none(descriptor: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", none)
    words = ("derain", "--input-dir", source, "--result-dir", tmp_path / "out")
    assert restormer(*words, "--weights", weights).status == 0
