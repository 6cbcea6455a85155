"""What one worker does, wherever it runs: read ahead, restore, write behind, keep a journal."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from restormer_cli.errors import ImageError, ResultFolderError, Stopped, UsageError, fault
from restormer_cli.files import Stamp
from restormer_cli.images import Picture, Pixels, load_image, write_png
from restormer_cli.job import Job
from restormer_cli.outcomes import Labels, Outcome
from restormer_cli.pipeline import CLOSING_SECONDS, ReadAhead, WriteBehind
from restormer_cli.record import Record
from restormer_cli.transparency import fill_invisible, with_alpha
from restormer_cli.work import Item

#: Bytes of decoded images that wait for the network, and of restored ones that wait for the
#: disk. One image more is held on either side, however large.
AHEAD_BYTES = 64 * 2**20
#: What an image holds beside its pixels, at least: those that cannot be read count, too.
LOADED_BYTES = 1 << 12
#: Results in a row that a full disk, say, refuses before the run stops.
REFUSED_WRITES = 2
#: Seconds that a run which is stopped gives to what is being written.
LAST_WRITE_SECONDS = 10.0


class Restore(Protocol):
    """What a :class:`~restormer_cli.restorer.Restorer` is to a run."""

    def __call__(
        self, *views: Pixels, bit_depth: int | None, progress: Callable[[float], None]
    ) -> Pixels: ...


class Listener(Protocol):
    """Who is told what becomes of images, all in the thread that restores them."""

    def notice(self, text: str, item: Item | None = None) -> None: ...
    def start(self, item: Item, megapixels: float) -> None:
        """It has been read, is so large, and goes through the network."""

    def advance(self, megapixels: float) -> None:
        """So much has come out of the network since the last call."""

    def settle(self, item: Item, outcome: Outcome) -> None:
        """This became of it; each image is told once."""


def work(
    job: Job,
    record: Record,
    restore: Restore,
    labels: Labels,
    chunks: Iterable[Sequence[Item]],
    listener: Listener,
) -> bool:
    """Restore images as they come, chunk by chunk, and note them in ``record``.

    Small images of one size go through the network together within a chunk. One image that
    fails costs no other its result.

    Returns
    -------
    bool
        Whether all of them were come to: not after a failure if the job is to fail fast, nor
        when the disk is full.

    Raises
    ------
    UsageError
        If the result folder cannot be written to.
    """
    try:
        record.open(replace(job.settings, precision=labels.precision or job.settings.precision))
    except OSError as error:
        raise unwritable(job, error) from error
    try:
        return _Pipeline(job, record, restore, labels, listener).run(chunks)
    finally:
        record.close()


def unwritable(job: Job, error: OSError) -> UsageError:
    """What to say of a result folder that takes nothing."""
    return UsageError(f"{job.result_dir}: cannot be written ({error.strerror or error})")


@dataclass
class _Loaded:
    """An image on its way from the reader to the network."""

    item: Item
    last: bool
    """Of its chunk."""
    pictures: list[Picture] = field(default_factory=list)
    stamps: list[Stamp] = field(default_factory=list)
    error: str | None = None

    views: tuple[Pixels, ...] = ()
    """What the network is given of the pictures."""

    @property
    def bytes(self) -> int:
        held = {id(view): view.nbytes for view in self.views}
        held |= {id(picture.pixels): picture.pixels.nbytes for picture in self.pictures}
        return LOADED_BYTES + sum(held.values())


class _Pipeline:
    """A reader, the network in the calling thread, a writer."""

    def __init__(
        self, job: Job, record: Record, restore: Restore, labels: Labels, listener: Listener
    ) -> None:
        self.job, self.record, self.restore, self.labels = job, record, restore, labels
        self.listener = listener
        self.failed = False
        self.refused = 0

    def run(self, chunks: Iterable[Sequence[Item]]) -> bool:
        sources = ((item, item is chunk[-1]) for chunk in chunks for item in chunk)
        self.writer: WriteBehind[tuple[Item, Outcome]] = WriteBehind(AHEAD_BYTES)
        reader = ReadAhead(
            sources,
            self._read,
            lambda loaded: loaded.bytes,
            AHEAD_BYTES,
            # The next chunk may come only once the results of this one are reported.
            idle=lambda: self._report(self.writer.finished()),
        )
        patience: float | None = None
        try:
            for group in self._groups(reader):
                self._restore(group)
                self._report(self.writer.finished())
                if self.failed and self.job.fail_fast:
                    return False
                if self.refused >= REFUSED_WRITES:
                    self.listener.notice(f"{self.job.result_dir}: takes no more results; stopped")
                    return False
        except Stopped:
            patience = LAST_WRITE_SECONDS
            raise
        finally:
            reader.close(CLOSING_SECONDS if patience is None else 0)
            try:
                # Also when stopped: what is restored is written.
                self._report(self.writer.drain(patience))
            finally:
                self.writer.close()
        return True

    def _read(self, source: tuple[Item, bool]) -> _Loaded:
        item, last = source
        loaded = _Loaded(item, last)
        check_size = getattr(self.restore, "check_size", None)
        try:
            for path in item.sources:
                picture, stamp = load_image(path, self.job.max_pixels, check_size)
                loaded.pictures.append(picture)
                loaded.stamps.append(stamp)
            loaded.views = tuple(
                fill_invisible(picture.pixels, picture.alpha) for picture in loaded.pictures
            )
        except ImageError as error:
            return _Loaded(item, last, error=str(error))
        except MemoryError:
            return _Loaded(item, last, error=f"{item.source}: not enough memory to decode it")
        except Exception as error:  # it costs this image and no other
            return _Loaded(item, last, error=f"{item.source}: {fault(error)}")
        return loaded

    def _groups(self, reader: Iterable[_Loaded]) -> Iterator[list[_Loaded]]:
        """Images that go through the network together: neighbours of one size, if small."""
        group: list[_Loaded] = []
        for loaded in reader:
            if group and not (len(group) < self._together(group[0]) and _alike(group[0], loaded)):
                yield group
                group = []
            group.append(loaded)
            # What follows the last one of a chunk may be a long time coming.
            if loaded.last or len(group) >= self._together(group[0]):
                yield group
                group = []

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
        progress = self._announce(group)
        started = time.monotonic()
        try:
            if len(group) > 1:  # so this is a restorer that takes several
                results = self.restore.restore_together(  # type: ignore[attr-defined]  # by _together
                    [loaded.views for loaded in group],
                    bit_depth=self.job.bit_depth,
                    progress=progress,
                )
            else:
                results = [
                    self.restore(*group[0].views, bit_depth=self.job.bit_depth, progress=progress)
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
            picture = with_alpha(loaded.pictures[0], pixels)
            outcome = replace(self._outcome(loaded), seconds=seconds)
            write = functools.partial(self._write, loaded.item, loaded.stamps, picture)
            self.writer.put((loaded.item, outcome), pixels.nbytes, write)

    def _announce(self, group: list[_Loaded]) -> Callable[[float], None]:
        """Say what is in the network now; whom it tells which share of the work is done."""
        height, width = group[0].pictures[0].pixels.shape[:2]
        for loaded in group:
            self.listener.start(loaded.item, width * height / 1e6)
            for path, picture in zip(loaded.item.sources, loaded.pictures, strict=True):
                for note in picture.notes:
                    self.listener.notice(f"{path}: {note}", loaded.item)
        megapixels = width * height * len(group) / 1e6
        done = 0.0

        def advance(share: float) -> None:
            # A result is reported when it is written, not when the next image is restored.
            self._report(self.writer.finished())
            nonlocal done
            if share > done:
                self.listener.advance((share - done) * megapixels)
                done = share

        return advance

    def _outcome(self, loaded: _Loaded, error: str | None = None) -> Outcome:
        facts: dict[str, Any] = {"input": str(loaded.item.source), "error": error}
        facts |= {"result": str(loaded.item.result), "status": "failed" if error else "done"}
        if loaded.pictures:
            facts["height"], facts["width"] = loaded.pictures[0].pixels.shape[:2]
        return Outcome(**facts, **vars(self.labels))

    def _fail(self, loaded: _Loaded, error: str) -> None:
        """Report a failure behind the results that are still being written."""
        self.failed = True
        self.writer.put((loaded.item, self._outcome(loaded, error)), 0, lambda: None)

    def _write(self, item: Item, stamps: list[Stamp], picture: Picture) -> None:
        write_png(
            item.result,
            picture,
            self.job.png_compression,
            lambda facts: self.record.add(item, stamps, facts.st_size, facts.st_mtime_ns),
        )

    def _report(
        self, finished: Iterable[tuple[tuple[Item, Outcome], BaseException | None]]
    ) -> None:
        for (item, outcome), error in finished:
            if error is None:
                self.refused = 0 if outcome.status == "done" else self.refused
            elif isinstance(error, ImageError):
                outcome = replace(outcome, status="failed", error=str(error))
                self.refused += isinstance(error, ResultFolderError)
                self.failed = True
            else:
                raise error
            self.listener.settle(item, outcome)


def _alike(one: _Loaded, other: _Loaded) -> bool:
    """Whether two images can go through the network together."""
    kinds = [{(view.shape, view.dtype) for view in loaded.views} for loaded in (one, other)]
    return kinds[0] == kinds[1] and len(kinds[0]) == 1
