"""Log records of workers in other processes come back whole, and are shown like others."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from restormer_cli.batch.options import RunOptions
from restormer_cli.cli.logs import log_to
from restormer_cli.executors.endpoint import Event, WorkerEndpoint
from restormer_cli.executors.scheduler import Scheduler


class Broken:
    """A spec that has a bug in the place of a network."""

    def found_here(self) -> Any:
        raise KeyError("no such thing")


@pytest.fixture
def events(tmp_path: Path) -> list[Event]:
    """The events of a worker that breaks."""
    endpoint: Any = WorkerEndpoint(RunOptions("in", tmp_path), Broken())  # type: ignore[arg-type]
    told: list[Event] = []
    while (reply := endpoint.exchange([], stop=False)).state == "starting":
        told += reply.events
    assert (reply.state, reply.reason) == ("broken", "KeyError: 'no such thing'")
    return told + reply.events


def shown(events: list[Event], verbosity: int) -> list[str]:
    lines: list[str] = []
    scheduler: Any = Scheduler.__new__(Scheduler)
    with log_to(lines.append, verbosity):
        for name, arguments in events:
            getattr(scheduler, f"_on_{name}")(1, *arguments)
    return lines


def test_traceback_of_a_worker_comes_back_whole(events: list[Event]) -> None:
    first, second, *rest = shown(events, 2)
    assert first == "worker 2: a fault of restormer-cli"
    assert second.startswith("Traceback")
    assert any('raise KeyError("no such thing")' in line for line in rest)


def test_it_is_shown_only_if_asked_for(events: list[Event]) -> None:
    assert shown(events, 0) == shown(events, 1) == []


def test_nothing_is_left_behind_in_the_process(events: list[Event]) -> None:
    assert logging.getLogger("restormer_cli").handlers == []
