"""Counts the progress of a run and passes it to an observer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from restormer_cli.batch.items import Item
from restormer_cli.batch.outcomes import Observer, Outcome, Summary
from restormer_cli.images.reading import image_size
from restormer_cli.system import stopping

#: Sizes that are looked up before work begins, to say how long it will take.
SAMPLED_SIZES = 256


class ProgressTracker:
    """Counts outcomes and calls an observer; a :class:`restormer_cli.batch.worker.Listener`.

    If the observer raises an exception, because nobody reads its output, say, it is not called
    again, and :meth:`check` raises the exception: it is no error of the image at hand, and
    outcomes are still counted.
    """

    def __init__(self, summary: Summary, observer: Observer) -> None:
        self.summary, self.observer = summary, observer
        self._started: float | None = time.monotonic()
        self._known: dict[Item, float] = {}
        self._mean = self._total = 0.0
        self._failure: Exception | None = None

    def begin(self, items: Sequence[Item]) -> None:
        """Begin with these images. Reads the headers of some, to estimate the time."""
        self._take_time()
        self._started = time.monotonic()
        self._known = {}
        for item in items[:: max(1, len(items) // SAMPLED_SIZES)]:
            size = image_size(item.source)
            if size is not None:
                self._known[item] = size[0] * size[1] / 1e6
        self._mean = sum(self._known.values()) / max(1, len(self._known))
        self._total = sum(map(self.megapixels, items))
        self._tell(self.observer.begin, len(items), self._total)

    def megapixels(self, item: Item) -> float:
        """Size of an image; the mean size of others while it is not known."""
        return self._known.get(item, self._mean)

    def notice(self, text: str, item: Item | None = None) -> None:
        self._tell(self.observer.notice, text)

    def start(self, item: Item, megapixels: float) -> None:
        self._expect(item, megapixels)
        self._tell(self.observer.start, item.source.name)

    def advance(self, megapixels: float) -> None:
        self._tell(self.observer.advance, megapixels)

    def settle(self, item: Item, outcome: Outcome) -> None:
        if outcome.status == "failed" and outcome.seconds is None:  # nothing has been restored
            self._expect(item, 0.0)
        self.finish(outcome)

    def finish(self, outcome: Outcome) -> None:
        """Count and report an outcome, also of an image that is not to be restored."""
        with stopping.uninterrupted():
            self.summary.count(outcome)
            self._take_time()
            self._tell(self.observer.finish, outcome)

    def check(self) -> None:
        """Raise a pending stop signal or error of the observer."""
        if self._failure is not None:
            raise self._failure
        stopping.check(now=True)

    def pause(self) -> None:
        """Nothing is to be done until :meth:`begin`: the time does not count."""
        self._take_time()
        self._started = None
        self._known = {}

    def close(self) -> None:
        """Take the time; raise the error of the observer, if any."""
        self._take_time()
        if self._failure is not None:
            raise self._failure

    def _take_time(self) -> None:
        if self._started is not None:
            now = time.monotonic()
            self.summary.seconds += now - self._started
            self._started = now

    def _tell(self, what: Callable[..., None], *arguments: Any) -> None:
        if self._failure is None:
            try:
                what(*arguments)
            except Exception as error:  # whatever an observer may raise, see above
                self._failure = error

    def _expect(self, item: Item, megapixels: float) -> None:
        self._total += megapixels - self.megapixels(item)
        self._known[item] = megapixels
        self._tell(self.observer.expect, self._total)
