"""A folder in, a folder out: skip what is done, read ahead, restore, write behind, report."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from restormer_cli.discovery import Item, Work, find_work
from restormer_cli.errors import ImageError, ResultFolderError, Stopped, UsageError
from restormer_cli.files import Stamp, read_file, sweep
from restormer_cli.images import (
    MAX_PIXELS,
    Picture,
    Pixels,
    decode_image,
    image_size,
    normalise,
    quantise,
    write_png,
)
from restormer_cli.lock import folder_lock
from restormer_cli.outcomes import Collector, Labels, Observer, Outcome, Summary
from restormer_cli.pipeline import ReadAhead, WriteBehind
from restormer_cli.record import FOLDER, Record, Settings
from restormer_cli.shards import WHOLE, Shard, exclude_each_other

#: Bytes of decoded images that wait for the network, and of restored ones that wait for the
#: disk. One image more is held on either side, however large.
AHEAD_BYTES = 64 * 2**20
#: What an image holds beside its pixels, at least: those that cannot be read count, too.
LOADED_BYTES = 1 << 12
#: Sizes that are looked up before work begins, to say how long it will take.
SAMPLED_SIZES = 256
#: Results in a row that a full disk, say, refuses before the run stops.
REFUSED_WRITES = 2
#: Seconds that no result takes from its first byte to its name.
SISTERS_SECONDS = 600.0
#: Seconds that a run which is stopped gives to what is being written.
LAST_WRITE_SECONDS = 1.5


class Restore(Protocol):
    """What a :class:`~restormer_cli.restorer.Restorer` is to a run."""

    def __call__(
        self, *views: Pixels, bit_depth: int | None, progress: Callable[[float], None]
    ) -> Pixels: ...


@dataclass(frozen=True)
class Job:
    """A run as the command line describes it."""

    source: str
    result_dir: Path
    recursive: bool = False
    sides: tuple[str, ...] = ()
    null: bool = False
    overwrite: bool = False
    checksum: bool = False
    wait: bool = False
    bit_depth: int | None = None
    png_compression: int | None = None
    dry_run: bool = False
    fail_fast: bool = False
    max_pixels: int = MAX_PIXELS
    shard: Shard | None = None
    settings: Settings = field(default_factory=Settings)

    @property
    def journal(self) -> str:
        """What its journal in the record, and its lock, are called."""
        return WHOLE if self.shard is None else self.shard.name

    def find_work(self) -> Work:
        return find_work(
            self.source,
            self.result_dir,
            recursive=self.recursive,
            sides=self.sides,
            null=self.null,
            shard=self.shard,
        )


def run(
    job: Job,
    work: Work,
    load: Callable[[], tuple[Restore, Labels]],
    observer: Observer,
    summary: Summary | None = None,
) -> Summary:
    """Restore all that ``work`` holds and is not done, holding the lock of the result folder.

    ``load`` gives the network; it is called only once there is an image to restore. One image
    that fails costs no other its result. Reading and decoding the next images, restoring, and
    encoding and writing the last ones go on at the same time. Totals are counted in ``summary``,
    if one is given, so that they are known of a run that is stopped.

    Raises
    ------
    BusyError
        If another run, or a shard of another split, works in the result folder.
    UsageError
        If there is something to do and the result folder cannot be written to.
    """
    summary = Summary() if summary is None else summary
    summary.left = len(work.items) + len(work.problems)
    started = time.monotonic()

    def settle(outcome: Outcome) -> None:
        summary.count(outcome)
        summary.seconds = time.monotonic() - started
        observer.finish(outcome)

    with contextlib.ExitStack() as stack:
        obstacle = None
        if not job.dry_run:
            try:
                stack.enter_context(_occupy(job, observer.notice))
            except OSError as error:
                obstacle = error
            # Sister shards write to the same folders.
            spare = 0.0 if job.shard is None else SISTERS_SECONDS
            sweep({item.result.parent for item in work.items}, spare)
        record = Record(job.result_dir, job.settings, job.journal)
        if not job.dry_run and obstacle is None and job.shard is None:
            record.gather()
        record.load(None if job.shard is None else [item.result for item in work.items])
        todo = _survey(job, work, record, observer, settle)
        if todo:
            if obstacle is not None:
                raise _unwritable(job, obstacle) from obstacle
            restore, labels = load()
            try:
                record.open(replace(job.settings, precision=labels.precision))
            except OSError as error:
                raise _unwritable(job, error) from error
            stack.callback(record.close)
            _Pipeline(job, record, restore, labels, observer, settle).run(todo)
    summary.seconds = time.monotonic() - started
    return summary


def _unwritable(job: Job, error: OSError) -> UsageError:
    return UsageError(f"{job.result_dir}: cannot be written ({error.strerror or error})")


@contextlib.contextmanager
def _occupy(job: Job, notice: Callable[[str], None]) -> Iterator[None]:
    """Hold the result folder; folders that were made for nothing are removed in the end."""
    folder = job.result_dir / FOLDER
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        excludes = functools.partial(exclude_each_other, job.journal)
        with folder_lock(folder, name=job.journal, wait=job.wait, notice=notice, excludes=excludes):
            yield
    finally:
        with contextlib.suppress(OSError):  # not empty, so not for nothing
            for path in made:
                path.rmdir()


def _survey(
    job: Job,
    work: Work,
    record: Record,
    observer: Observer,
    settle: Callable[[Outcome], None],
) -> list[Item]:
    """What is to be restored; the rest is reported."""
    for text in work.notices:
        observer.notice(text)
    for path, reason in work.problems:
        settle(Outcome(str(path), "", "failed", error=f"{path}: {reason}"))
        if job.fail_fast:
            return []
    todo = []
    again: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for item in work.items:
        verdict = record.judge(item, checksum=job.checksum, overwrite=job.overwrite)
        facts = (str(item.source), str(item.result))
        if verdict.action == "refuse":
            settle(Outcome(*facts, "failed", error=f"{item.source}: {verdict.reason}"))
            if job.fail_fast:
                return []
        elif verdict.action == "skip":
            kept[verdict.reason] += 1
            settle(Outcome(*facts, "skipped"))
        else:
            again[verdict.reason] += 1
            if job.dry_run:
                settle(Outcome(*facts, "planned"))
            else:
                todo.append(item)
    for reason, count in again.items():
        if reason:
            observer.notice(f"{reason}: {_results(count)} to be made again")
    for reason, count in kept.items():
        if reason:
            observer.notice(f"{reason}: {_results(count)} kept; --overwrite replaces them")
    return todo


def _results(count: int) -> str:
    return "1 result is" if count == 1 else f"{count} results are"


class _Forecast:
    """How many megapixels a run has, from the headers of a sample and what is read later."""

    def __init__(self, items: list[Item]) -> None:
        step = max(1, len(items) // SAMPLED_SIZES)
        sizes = {item: image_size(item.source) for item in items[::step]}
        self.known = {item: _megapixels(*size) for item, size in sizes.items() if size}
        self.mean = sum(self.known.values()) / max(1, len(self.known))
        self.total = sum(self.known.get(item, self.mean) for item in items)

    def settle(self, item: Item, megapixels: float) -> float:
        """Put in what an image really has; the new total."""
        self.total += megapixels - self.known.get(item, self.mean)
        self.known[item] = megapixels
        return self.total


def _megapixels(width: int, height: int) -> float:
    return width * height / 1e6


@dataclass
class _Loaded:
    """An image on its way from the reader to the network."""

    item: Item
    pictures: list[Picture] = field(default_factory=list)
    stamps: list[Stamp] = field(default_factory=list)
    error: str | None = None

    @property
    def views(self) -> tuple[Pixels, ...]:
        return tuple(picture.pixels for picture in self.pictures)

    @property
    def bytes(self) -> int:
        return LOADED_BYTES + sum(view.nbytes for view in self.views)


class _Pipeline:
    """A reader, the network in the calling thread, a writer."""

    def __init__(
        self,
        job: Job,
        record: Record,
        restore: Restore,
        labels: Labels,
        observer: Observer,
        settle: Callable[[Outcome], None],
    ) -> None:
        self.job, self.record, self.restore, self.labels = job, record, restore, labels
        self.observer, self.settle = observer, settle
        self.failed = False
        self.refused = 0

    def run(self, items: list[Item]) -> None:
        self.forecast = _Forecast(items)
        self.observer.begin(len(items), self.forecast.total)
        reader = ReadAhead(items, self._read, lambda loaded: loaded.bytes, AHEAD_BYTES)
        self.writer: WriteBehind[Outcome] = WriteBehind(AHEAD_BYTES)
        patience: float | None = None
        try:
            for group in self._groups(reader):
                self._restore(group)
                self._report(self.writer.finished())
                if self.failed and self.job.fail_fast:
                    break
                if self.refused >= REFUSED_WRITES:
                    self.observer.notice(f"{self.job.result_dir}: takes no more results; stopped")
                    break
        except Stopped:
            patience = LAST_WRITE_SECONDS
            raise
        finally:
            reader.close()
            try:
                # Also when stopped: what is restored is written.
                self._report(self.writer.drain(patience))
            finally:
                self.writer.close()

    def _read(self, item: Item) -> _Loaded:
        loaded = _Loaded(item)
        try:
            for path in item.sources:
                data, stamp = read_file(path)
                loaded.pictures.append(decode_image(path, data, self.job.max_pixels))
                loaded.stamps.append(stamp)
        except ImageError as error:
            return _Loaded(item, error=str(error))
        except MemoryError:
            return _Loaded(item, error=f"{item.source}: not enough memory to decode it")
        return loaded

    def _groups(self, reader: Iterable[_Loaded]) -> Iterator[list[_Loaded]]:
        """Images that go through the network together: neighbours of one size, if small."""
        group: list[_Loaded] = []
        for loaded in reader:
            if group and not (len(group) < self._together(group[0]) and _alike(group[0], loaded)):
                yield group
                group = []
            group.append(loaded)
            if len(group) >= self._together(group[0]):
                yield group
                group = []
        if group:
            yield group

    def _together(self, loaded: _Loaded) -> int:
        together = getattr(self.restore, "images_together", None)
        if together is None or loaded.error is not None:
            return 1
        return int(together(*loaded.pictures[0].pixels.shape))

    def _restore(self, group: list[_Loaded]) -> None:
        """Put a group through the network and hand the results to the writer."""
        if group[0].error is not None:
            self._fail(group[0], group[0].error)
            return
        self._announce(group)
        started = time.monotonic()
        try:
            if len(group) > 1:  # so this is a restorer that takes several
                results = self.restore.restore_together(  # type: ignore[attr-defined]  # by _together
                    [loaded.views for loaded in group],
                    bit_depth=self.job.bit_depth,
                    progress=self._advance,
                )
            else:
                results = [
                    self.restore(
                        *group[0].views, bit_depth=self.job.bit_depth, progress=self._advance
                    )
                ]
        except ImageError as error:
            if len(group) > 1:  # find out whose fault it is
                for loaded in group:
                    loaded.pictures = [replace(picture, notes=()) for picture in loaded.pictures]
                    self._restore([loaded])
            else:
                self._fail(group[0], f"{group[0].item.source}: {error}")
            return
        seconds = round((time.monotonic() - started) / len(group), 3)
        for loaded, pixels in zip(group, results, strict=True):
            first = loaded.pictures[0]
            picture = Picture(pixels, _alpha_like(first.alpha, pixels), first.icc, first.dpi)
            outcome = replace(self._outcome(loaded), seconds=seconds)
            write = functools.partial(self._write, loaded.item, loaded.stamps, picture)
            self.writer.put(outcome, pixels.nbytes, write)

    def _announce(self, group: list[_Loaded]) -> None:
        height, width = group[0].pictures[0].pixels.shape[:2]
        megapixels = _megapixels(width, height)
        for loaded in group:
            self.observer.expect(self.forecast.settle(loaded.item, megapixels))
            for path, picture in zip(loaded.item.sources, loaded.pictures, strict=True):
                for note in picture.notes:
                    self.observer.notice(f"{path}: {note}")
        self.observer.start(group[0].item.source.name, megapixels * len(group))

    def _outcome(self, loaded: _Loaded, error: str | None = None) -> Outcome:
        facts: dict[str, Any] = {"input": str(loaded.item.source), "error": error}
        facts |= {"result": str(loaded.item.result), "status": "failed" if error else "done"}
        if loaded.pictures:
            facts["height"], facts["width"] = loaded.pictures[0].pixels.shape[:2]
        return Outcome(**facts, **vars(self.labels))

    def _fail(self, loaded: _Loaded, error: str) -> None:
        """Report a failure behind the results that are still being written."""
        self.failed = True
        self.observer.expect(self.forecast.settle(loaded.item, 0))
        self.writer.put(self._outcome(loaded, error), 0, lambda: None)

    def _write(self, item: Item, stamps: list[Stamp], picture: Picture) -> None:
        write_png(
            item.result,
            picture,
            self.job.png_compression,
            lambda facts: self.record.add(item, stamps, facts.st_size, facts.st_mtime_ns),
        )

    def _advance(self, share: float) -> None:
        # A result is reported when it is written, not when the next image is restored.
        self._report(self.writer.finished())
        self.observer.advance(share)

    def _report(self, finished: Iterable[tuple[Outcome, BaseException | None]]) -> None:
        for outcome, error in finished:
            if error is None:
                self.refused = 0 if outcome.status == "done" else self.refused
            elif isinstance(error, ImageError):
                outcome = replace(outcome, status="failed", error=str(error))
                self.refused += isinstance(error, ResultFolderError)
                self.failed = True
            else:
                raise error
            self.settle(outcome)


def _alike(one: _Loaded, other: _Loaded) -> bool:
    """Whether two images can go through the network together."""
    kinds = [{(view.shape, view.dtype) for view in loaded.views} for loaded in (one, other)]
    return kinds[0] == kinds[1] and len(kinds[0]) == 1


def _alpha_like(alpha: Pixels | None, pixels: Pixels) -> Pixels | None:
    """Alpha in the bit depth of the result; untouched where that is the input's."""
    if alpha is None or alpha.dtype == pixels.dtype:
        return alpha
    return quantise(normalise(alpha), 8 * pixels.dtype.itemsize)


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
    BusyError
        If another run works in the result folder.
    """
    collector = Collector()
    job = Job(str(input_dir), Path(result_dir), **settings)
    run(job, job.find_work(), lambda: (restorer, Labels()), collector)
    return collector.outcomes
