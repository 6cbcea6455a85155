"""The driver's bookkeeping, with workers on paper that die as hypothesis wishes."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.batch.items import Item
from restormer_cli.batch.journal import Journal
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Collector, Outcome, Summary
from restormer_cli.batch.progress import ProgressTracker
from restormer_cli.errors import UsageError
from restormer_cli.executors.endpoint import Event, Reply
from restormer_cli.executors.process_pool import _ending
from restormer_cli.executors.scheduler import CHUNKS_AHEAD, LONGEST_CHUNK, LOSSES, Lost, Scheduler
from restormer_cli.settings import Settings
from restormer_cli.system.atomic import TEMPORARY_SUFFIX


class PaperPool:
    """Workers that finish one image at each call, and are lost with their images.

    Parameters
    ----------
    poisonous
        Names of images at which every worker is lost.
    deaths
        Calls, counted over all workers, at which the worker is lost for no reason.
    """

    def __init__(self, size: int, poisonous: set[str], deaths: set[int]) -> None:
        self.size, self.poisonous, self.deaths = size, poisonous, deaths
        self.calls = 0
        self.started: Counter[int] = Counter()
        self.queues: dict[int, deque[Item]] = {}
        self.answers: dict[int, Reply | Lost] = {}
        self.most = 0

    def start(self, worker: int) -> None:
        self.started[worker] += 1
        self.queues[worker] = deque()

    def call(self, worker: int, chunks: Sequence[Sequence[Item]], stop: bool) -> None:
        assert worker not in self.answers, "the last call is not answered"
        self.calls += 1
        queue = self.queues[worker]
        queue.extend(item for chunk in chunks for item in chunk)
        self.most = max(self.most, len(queue))
        if stop:
            self.answers[worker] = Reply("ended")
        elif self.calls in self.deaths or (queue and queue[0].source.name in self.poisonous):
            self.answers[worker] = Lost("on paper")
        else:
            events: list[Event] = []
            if queue:
                item = queue.popleft()
                outcome = Outcome(str(item.source), str(item.result), "done", 1.0, 100, 100)
                events = [
                    ("start", (item, 0.01)),
                    ("advance", (0.01,)),
                    ("settle", (item, outcome)),
                ]
            self.answers[worker] = Reply("working", events=events)

    def replies(self, seconds: float) -> Iterator[tuple[int, Reply | Lost]]:
        answers, self.answers = self.answers, {}
        yield from answers.items()

    def close(self) -> None: ...


def restore(
    folder: Path, pool: PaperPool, images: int, fail_fast: bool = False
) -> tuple[list[Outcome], Summary]:
    items = [Item((Path(f"in/{n}.png"),), Path(f"out/{n}.png")) for n in range(images)]
    run_options = RunOptions("in", Path("out"), fail_fast=fail_fast)
    told, summary = Collector(), Summary(left=images)
    tracker = ProgressTracker(summary, told)
    tracker.begin(items)
    scheduler = Scheduler(pool)
    try:
        scheduler.restore(run_options, Journal(folder, Settings()), items, tracker)
    finally:
        scheduler.close(tracker)
    return told.outcomes, summary


@given(
    size=st.integers(1, 4),
    images=st.integers(1, 60),
    poisonous=st.sets(st.integers(0, 59), max_size=4),
    deaths=st.sets(st.integers(1, 80).filter(lambda call: call % 7 == 0), max_size=6),
)
def test_each_image_is_told_once_and_only_those_fail_that_lose_workers(
    tmp_path_factory: pytest.TempPathFactory,
    size: int,
    images: int,
    poisonous: set[int],
    deaths: set[int],
) -> None:
    pool = PaperPool(size, {f"{n}.png" for n in poisonous}, deaths)
    outcomes, summary = restore(tmp_path_factory.getbasetemp(), pool, images)
    assert sorted(o.input for o in outcomes) == sorted(f"in/{n}.png" for n in range(images))
    failed = {o.input for o in outcomes if o.status == "failed"}
    assert {f"in/{n}.png" for n in poisonous if n < images} <= failed
    # An image can have the bad luck of being there at three deaths of others, but not at fewer.
    innocent = failed - {f"in/{n}.png" for n in poisonous}
    assert len(innocent) <= len(deaths) // (LOSSES - 1)
    assert summary.left == 0
    assert all(f"{LOSSES} workers were lost" in (o.error or "") for o in outcomes if o.error)
    assert all((o.error or o.input).startswith(o.input) for o in outcomes)


def test_workers_stay_for_what_comes_later(tmp_path: Path) -> None:
    pool = PaperPool(2, set(), {12})  # one is lost in the second round
    scheduler, told, summary = Scheduler(pool), Collector(), Summary()
    tracker = ProgressTracker(summary, told)
    journal = Journal(tmp_path, Settings())
    started = []
    for number, count in enumerate((1, 20, 0, 20)):
        items = [Item((Path(f"in/{number}-{n}.png"),), Path(f"{n}.png")) for n in range(count)]
        summary.left += count
        tracker.begin(items)
        scheduler.restore(RunOptions("in", Path("out")), journal, items, tracker)
        started.append(sum(pool.started.values()))
    scheduler.close(tracker)
    assert started == [1, 3, 3, 3]
    assert [outcome.status for outcome in told.outcomes] == ["done"] * 41
    assert summary.left == 0


def test_no_more_is_under_way_than_a_few_chunks(tmp_path: Path) -> None:
    pool = PaperPool(2, set(), set())
    outcomes, _ = restore(tmp_path, pool, 5000)
    assert len(outcomes) == 5000
    assert pool.most <= CHUNKS_AHEAD * LONGEST_CHUNK


def test_first_failure_ends_it_if_asked_to(tmp_path: Path) -> None:
    outcomes, summary = restore(tmp_path, PaperPool(2, {"0.png"}, set()), 2000, fail_fast=True)
    assert [o.status for o in outcomes].count("failed") == 1
    assert summary.left > 0


@pytest.mark.parametrize("deaths", [set(), {7}])
def test_what_lost_workers_left_half_written_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: set[int]
) -> None:
    monkeypatch.chdir(tmp_path)
    wreck = tmp_path / "out" / f".half{TEMPORARY_SUFFIX}"
    wreck.parent.mkdir()
    wreck.write_bytes(b"half")
    outcomes, _ = restore(tmp_path, PaperPool(2, set(), deaths), 20)
    assert [o.status for o in outcomes] == ["done"] * 20
    assert wreck.exists() != bool(deaths)


def test_workers_that_never_begin_are_given_up(tmp_path: Path) -> None:
    pool = PaperPool(2, set(), set(range(1, 1000)))
    with pytest.raises(UsageError, match="on paper"):
        restore(tmp_path, pool, 10)
    assert set(pool.started.values()) == {LOSSES}


@pytest.mark.skipif(sys.platform == "win32", reason="signals end no process there")
@pytest.mark.parametrize(
    ("status", "said"),
    [
        (None, "exit status None"),
        (3, "exit status 3"),
        (-9, "SIGKILL, as when memory runs out"),
        (-15, "SIGTERM"),
        (-40, "signal 40"),  # of those for programs' own use, most have no name
    ],
)
def test_every_end_of_a_process_is_told(status: int | None, said: str) -> None:
    assert _ending(status) == said
