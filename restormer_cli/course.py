"""The course of a run: how much is done of how much, what became of each image."""

from __future__ import annotations

import time
from collections.abc import Sequence

from restormer_cli.images import image_size
from restormer_cli.outcomes import Observer, Outcome, Summary
from restormer_cli.work import Item

#: Sizes that are looked up before work begins, to say how long it will take.
SAMPLED_SIZES = 256


class Course:
    """Counts a run and tells an observer; implements :class:`restormer_cli.worker.Listener`."""

    def __init__(self, summary: Summary, observer: Observer) -> None:
        self.summary, self.observer = summary, observer
        self._started = time.monotonic()
        self._known: dict[Item, float] = {}
        self._mean = self._total = 0.0

    def begin(self, items: Sequence[Item]) -> None:
        """These are to be restored. The headers of some are read, to know how long it takes."""
        for item in items[:: max(1, len(items) // SAMPLED_SIZES)]:
            size = image_size(item.source)
            if size is not None:
                self._known[item] = size[0] * size[1] / 1e6
        self._mean = sum(self._known.values()) / max(1, len(self._known))
        self._total = sum(map(self.megapixels, items))
        self.observer.begin(len(items), self._total)

    def megapixels(self, item: Item) -> float:
        """Size of an image, as far as it is known by now."""
        return self._known.get(item, self._mean)

    def notice(self, text: str, item: Item | None = None) -> None:
        self.observer.notice(text)

    def start(self, item: Item, megapixels: float) -> None:
        self._expect(item, megapixels)
        self.observer.start(item.source.name)

    def advance(self, megapixels: float) -> None:
        self.observer.advance(megapixels)

    def settle(self, item: Item, outcome: Outcome) -> None:
        if outcome.status == "failed" and outcome.seconds is None:  # nothing has been restored
            self._expect(item, 0.0)
        self.finish(outcome)

    def finish(self, outcome: Outcome) -> None:
        """Count and tell what became of an image that is not among those to be restored, too."""
        self.summary.count(outcome)
        self.summary.seconds = time.monotonic() - self._started
        self.observer.finish(outcome)

    def close(self) -> None:
        self.summary.seconds = time.monotonic() - self._started

    def _expect(self, item: Item, megapixels: float) -> None:
        self._total += megapixels - self.megapixels(item)
        self._known[item] = megapixels
        self.observer.expect(self._total)
