"""A folder in, a folder out: skip what is done, read ahead, restore, write behind, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from restormer_cli.discovery import Item, Work, find_work
from restormer_cli.errors import ImageError
from restormer_cli.images import (
    Picture,
    Pixels,
    normalise,
    quantise,
    read_image,
    write_png,
)

Status = Literal["done", "skipped", "failed", "planned"]


@dataclass(frozen=True)
class Outcome:
    """What became of one image; the fields of a line of ``--json``."""

    input: str
    result: str
    status: Status
    seconds: float | None = None
    width: int | None = None
    height: int | None = None
    weights: str | None = None
    device: str | None = None
    precision: str | None = None
    error: str | None = None


@dataclass
class Summary:
    """Totals of a run."""

    done: int = 0
    skipped: int = 0
    failed: int = 0
    planned: int = 0
    megapixels: float = 0.0
    seconds: float = 0.0

    def count(self, outcome: Outcome) -> None:
        setattr(self, outcome.status, getattr(self, outcome.status) + 1)
        if outcome.status == "done" and outcome.width and outcome.height:
            self.megapixels += outcome.width * outcome.height / 1e6

    def __str__(self) -> str:
        parts = [f"{self.done} restored", f"{self.skipped} skipped", f"{self.failed} failed"]
        if self.planned:
            parts.append(f"{self.planned} to do")
        line = ", ".join(parts)
        if self.done:
            line += f"; {self.megapixels:.2f} megapixels in {self.seconds:.1f} s"
            line += f" ({self.megapixels / max(self.seconds, 1e-9):.3f} MP/s)"
        return line


class Observer(Protocol):
    """Who is told how a run goes, all in the main thread."""

    def begin(self, images: int) -> None: ...
    def notice(self, text: str) -> None: ...
    def start(self, item: Item, width: int, height: int) -> None: ...
    def advance(self, share: float) -> None: ...
    def finish(self, outcome: Outcome) -> None: ...


class Restore(Protocol):
    """What a :class:`~restormer_cli.restorer.Restorer` is to a run."""

    def __call__(
        self, *views: Pixels, bit_depth: int | None, progress: Callable[[float], None]
    ) -> Pixels: ...


@dataclass(frozen=True)
class Labels:
    """What every outcome of a run says of how it was made."""

    weights: str | None = None
    device: str | None = None
    precision: str | None = None


@dataclass(frozen=True)
class Job:
    """A run as the command line describes it."""

    source: str
    result_dir: Path
    recursive: bool = False
    sides: tuple[str, ...] = ()
    null: bool = False
    overwrite: bool = False
    bit_depth: int | None = None
    dry_run: bool = False
    fail_fast: bool = False
    max_pixels: int | None = None

    def find_work(self) -> Work:
        return find_work(
            self.source,
            self.result_dir,
            recursive=self.recursive,
            sides=self.sides,
            null=self.null,
        )


@dataclass
class _Loaded:
    """An image on its way from the reader to the network."""

    item: Item
    pictures: list[Picture] = field(default_factory=list)
    error: str | None = None


def run(
    job: Job, work: Work, load: Callable[[], tuple[Restore, Labels]], observer: Observer
) -> Summary:
    """Restore all that ``work`` holds.

    ``load`` gives the network; it is called only once there is an image to restore. One image
    that fails costs no other its result. Reading and decoding the next image, restoring, and
    encoding and writing the last one go on at the same time.
    """
    summary = Summary()
    started = time.monotonic()

    def settle(outcome: Outcome) -> None:
        summary.count(outcome)
        summary.seconds = time.monotonic() - started
        observer.finish(outcome)

    observer.begin(len(work.items) + len(work.problems))
    for text in work.notices:
        observer.notice(text)
    for path, reason in work.problems:
        settle(Outcome(str(path), "", "failed", error=f"{path}: {reason}"))
        if job.fail_fast:
            return summary
    todo = []
    for item in work.items:
        if item.result.exists() and not job.overwrite:
            settle(Outcome(str(item.source), str(item.result), "skipped"))
        elif job.dry_run:
            settle(Outcome(str(item.source), str(item.result), "planned"))
        else:
            todo.append(item)
    if todo:
        restore, labels = load()
        _Pipeline(job, restore, labels, observer, settle).run(todo)
    summary.seconds = time.monotonic() - started
    return summary


class _Pipeline:
    """One reader, the network in the calling thread, one writer; one image between each."""

    def __init__(
        self,
        job: Job,
        restore: Restore,
        labels: Labels,
        observer: Observer,
        settle: Callable[[Outcome], None],
    ) -> None:
        self.job, self.restore, self.labels = job, restore, labels
        self.observer, self.settle = observer, settle
        self.writing: tuple[Future[None], Outcome] | None = None
        self.failed = False

    def run(self, items: list[Item]) -> None:
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            try:
                for loaded in self._read_ahead(reader, items):
                    outcome, picture = self._restore(loaded)
                    self._await_writer()
                    if picture is None:
                        self._finish(outcome)
                    else:
                        target = loaded.item.result
                        self.writing = (writer.submit(write_png, target, picture), outcome)
                    if self.failed and self.job.fail_fast:
                        break
            finally:
                # Also when stopped: what is restored is written.
                self._await_writer()

    def _read_ahead(self, reader: ThreadPoolExecutor, items: list[Item]) -> Iterator[_Loaded]:
        ahead: Future[_Loaded] | None = None
        try:
            for index, _ in enumerate(items):
                current = ahead or reader.submit(self._read, items[index])
                following = items[index + 1 : index + 2]
                loaded = current.result()
                ahead = reader.submit(self._read, following[0]) if following else None
                yield loaded
        finally:
            if ahead is not None:
                ahead.cancel()

    def _read(self, item: Item) -> _Loaded:
        limit = {} if self.job.max_pixels is None else {"max_pixels": self.job.max_pixels}
        try:
            return _Loaded(item, [read_image(path, **limit) for path in item.sources])
        except ImageError as error:
            return _Loaded(item, error=str(error))
        except MemoryError:
            return _Loaded(item, error=f"{item.source}: not enough memory to decode it")

    def _restore(self, loaded: _Loaded) -> tuple[Outcome, Picture | None]:
        item = loaded.item
        facts: dict[str, Any] = {"input": str(item.source), "result": str(item.result)}
        facts |= vars(self.labels)
        if loaded.error is not None:
            return Outcome(**facts, status="failed", error=loaded.error), None
        first = loaded.pictures[0]
        height, width = first.pixels.shape[:2]
        facts |= {"width": width, "height": height}
        for path, picture in zip(item.sources, loaded.pictures, strict=True):
            for note in picture.notes:
                self.observer.notice(f"{path}: {note}")
        self.observer.start(item, width, height)
        started = time.monotonic()
        try:
            pixels = self.restore(
                *(picture.pixels for picture in loaded.pictures),
                bit_depth=self.job.bit_depth,
                progress=self._advance,
            )
        except ImageError as error:
            return Outcome(**facts, status="failed", error=f"{item.source}: {error}"), None
        seconds = round(time.monotonic() - started, 3)
        restored = Picture(pixels, _alpha_like(first.alpha, pixels), first.icc, first.dpi)
        return Outcome(**facts, status="done", seconds=seconds), restored

    def _advance(self, share: float) -> None:
        # A result is reported when it is written, not when the next image is restored.
        if self.writing is not None and self.writing[0].done():
            self._await_writer()
        self.observer.advance(share)

    def _await_writer(self) -> None:
        if self.writing is None:
            return
        future, outcome = self.writing
        self.writing = None
        error = future.exception()
        if isinstance(error, ImageError):
            outcome = Outcome(**{**vars(outcome), "status": "failed", "error": str(error)})
        elif error is not None:
            raise error
        self._finish(outcome)

    def _finish(self, outcome: Outcome) -> None:
        self.failed = self.failed or outcome.status == "failed"
        self.settle(outcome)


def _alpha_like(alpha: Pixels | None, pixels: Pixels) -> Pixels | None:
    """Alpha in the bit depth of the result; untouched where that is the input's."""
    if alpha is None or alpha.dtype == pixels.dtype:
        return alpha
    return quantise(normalise(alpha), 8 * pixels.dtype.itemsize)


class _Silent:
    """An observer that only collects."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def begin(self, images: int) -> None: ...
    def notice(self, text: str) -> None: ...
    def start(self, item: Item, width: int, height: int) -> None: ...
    def advance(self, share: float) -> None: ...

    def finish(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def restore_folder(
    restorer: Restore,
    input_dir: Path | str,
    result_dir: Path | str,
    **settings: Any,
) -> list[Outcome]:
    """Restore every image of a folder into another; the Python face of the subcommands.

    Parameters
    ----------
    restorer
        A :class:`~restormer_cli.Restorer`, or anything that is called like one.
    settings
        Further fields of :class:`Job`, such as ``recursive=True``.

    Returns
    -------
    list of Outcome
        One for each image, failed ones included.

    Raises
    ------
    UsageError
        If there is nothing to do or the folders make no sense.
    """
    collector = _Silent()
    job = Job(str(input_dir), Path(result_dir), **settings)
    run(job, job.find_work(), lambda: (restorer, Labels()), collector)
    return collector.outcomes
