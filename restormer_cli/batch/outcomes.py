"""Outcomes of images, totals of a run, and the observer that is called with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Status = Literal["done", "skipped", "failed", "planned"]


@dataclass(frozen=True)
class Provenance:
    """Facts that are the same for all outcomes of a run."""

    weights: str | None = None
    device: str | None = None
    precision: str | None = None
    window: int | None = None
    """Pixels of local windows of attention; None: the whole image."""
    self_ensemble: str | None = None
    """The flips and turns that results are means over; None: the image as it is."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one image; the fields of a line of ``--json``."""

    input: str
    result: str
    status: Status
    seconds: float | None = None
    width: int | None = None
    height: int | None = None
    weights: str | None = None
    device: str | None = None
    precision: str | None = None
    window: int | None = None
    self_ensemble: str | None = None
    error: str | None = None


@dataclass
class Summary:
    """Totals of a run."""

    done: int = 0
    skipped: int = 0
    failed: int = 0
    planned: int = 0
    left: int = 0
    """Images that were not processed."""
    reason: str = ""
    """Why, as half a sentence."""
    megapixels: float = 0.0
    seconds: float = 0.0
    peak_memory: int = 0
    """Peak main memory of a restoring process, in bytes."""

    def count(self, outcome: Outcome) -> None:
        """Add an outcome to the totals."""
        setattr(self, outcome.status, getattr(self, outcome.status) + 1)
        self.left -= 1
        if outcome.status == "done" and outcome.width and outcome.height:
            self.megapixels += outcome.width * outcome.height / 1e6

    @property
    def what_is_left(self) -> str:
        """A sentence on the images that were not processed; empty if there are none."""
        images = "1 image was" if self.left == 1 else f"{self.left} images were"
        reason = self.reason or "by a fault of restormer-cli; please report it"
        return f"{images} not begun: {reason}" if self.left else ""

    def __str__(self) -> str:
        parts = [f"{self.done} restored", f"{self.skipped} skipped", f"{self.failed} failed"]
        if self.planned:
            parts.append(f"{self.planned} to do")
        if self.left:
            parts.append(f"{self.left} not begun")
        line = ", ".join(parts)
        if self.done:
            line += f"; {self.megapixels:.2f} megapixels in {self.seconds:.1f} s"
            line += f" ({self.megapixels / max(self.seconds, 1e-9):.3f} MP/s)"
        return line


class Observer(Protocol):
    """Callbacks for the progress of a run, all called in the main thread."""

    def begin(self, images: int, megapixels: float) -> None:
        """Called when work begins, with the number and size of images to restore."""

    def expect(self, megapixels: float) -> None:
        """Called with a new estimate of the megapixels of all images."""

    def notice(self, text: str) -> None:
        """Called with a sentence for people."""

    def start(self, name: str) -> None:
        """Called when an image enters the network, where others may be, too."""

    def advance(self, megapixels: float) -> None:
        """Called with the megapixels restored since the last call; negative if lost again."""

    def finish(self, outcome: Outcome) -> None:
        """Called once for each image."""


class Collector:
    """An observer that collects outcomes and ignores the rest."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def begin(self, images: int, megapixels: float) -> None: ...
    def expect(self, megapixels: float) -> None: ...
    def notice(self, text: str) -> None: ...
    def start(self, name: str) -> None: ...
    def advance(self, megapixels: float) -> None: ...

    def finish(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
