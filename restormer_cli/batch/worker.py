"""One worker: reads ahead, restores, writes in the background, keeps a journal."""

from __future__ import annotations

import errno
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from restormer_cli.batch.image_restorer import ImageRestorer
from restormer_cli.batch.items import Item
from restormer_cli.batch.journal import Journal
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Outcome, Provenance
from restormer_cli.batch.threads import (
    CLOSING_SECONDS,
    SMALL_BYTES,
    BackgroundWriter,
    Prefetcher,
)
from restormer_cli.errors import ImageError, ResultFolderError, Stopped, UsageError, fault
from restormer_cli.images.codecs.base import Pixels
from restormer_cli.images.picture import Picture
from restormer_cli.images.reading import load_image
from restormer_cli.images.transparency import fill_invisible, with_alpha
from restormer_cli.images.writing import write_image
from restormer_cli.system.files import Stamp, file_size, in_the_way
from restormer_cli.system.memory import return_freed_memory
from restormer_cli.system.stopping import interruptible, uninterrupted

#: Bytes of decoded images that wait for the network, and of restored ones that wait for the
#: disk. One image more is held on either side, however large.
AHEAD_BYTES = 64 * 2**20
#: Bytes that decoding takes for each pixel at most, with 16 bit and alpha (measured: 17).
DECODING_BYTES = 24
#: Bytes that an image holds beside its pixels, also one that cannot be read.
LOADED_BYTES = 1 << 12
#: Results in a row that cannot be written, on a full disk, say, before the run stops.
REFUSED_WRITES = 2
#: Errors of files and folders that are closed to this user: another one may be open.
CLOSED = {errno.EACCES, errno.EPERM}
#: Failures of the network in a row, for no fault of the image, before the run stops.
FAULTS = 3
#: Seconds that a run which is stopped waits for results that are being written.
LAST_WRITE_SECONDS = 10.0
#: Why a run stops that is asked to.
FAIL_FAST = "--fail-fast stops at the first failure"


class Listener(Protocol):
    """Callbacks for the progress of images, all called in the thread that restores.

    None raises an exception, except :meth:`check`, which ends the work.
    """

    def check(self) -> None:
        """Raise an exception to end the work; called between images and inside the network."""

    def notice(self, text: str, item: Item | None = None) -> None:
        """Called with a sentence for people, and its image if there is one."""

    def start(self, item: Item, megapixels: float) -> None:
        """Called when an image enters the network."""

    def advance(self, megapixels: float) -> None:
        """Called with the megapixels restored since the last call."""

    def settle(self, item: Item, outcome: Outcome) -> None:
        """Called once for each image with its outcome."""


@dataclass
class Streaks:
    """What has gone wrong in a row for no fault of an image."""

    refused: int = 0
    """Results that could not be written."""
    faults: int = 0
    """Images that the network failed on."""


def work(
    options: RunOptions,
    journal: Journal,
    restorer: ImageRestorer,
    provenance: Provenance,
    chunks: Iterable[Sequence[Item]],
    listener: Listener,
    *,
    keep_on: bool = True,
    streaks: Streaks | None = None,
) -> str:
    """Restore images chunk by chunk, and record them in ``journal``.

    Small images of one size go through the network together within a chunk. One image that
    fails costs no other its result.

    Parameters
    ----------
    keep_on
        When the network fails for a reason other than the image, count the image as failed and
        go on. Else raise the exception, so that another worker may try.
    streaks
        Failures in a row of the work before, which this continues.

    Returns
    -------
    str
        The reason if not all images were processed: a failure with ``--fail-fast``, or a full
        disk. Empty if all were.

    Raises
    ------
    UsageError
        If the result folder cannot be written to.
    """
    with uninterrupted():
        try:
            journal.open(
                replace(
                    options.settings, precision=provenance.precision or options.settings.precision
                )
            )
        except OSError as error:
            raise unwritable(options, error) from error
        try:
            pipeline = _Pipeline(
                options, journal, restorer, provenance, listener, keep_on, streaks or Streaks()
            )
            return pipeline.run(chunks)
        finally:
            try:
                journal.close()
            except OSError as error:
                listener.notice(
                    f"{journal.path}: what is done may not be known to the next run "
                    f"({error.strerror or error})"
                )


def _is_closed_alone(error: BaseException | None, options: RunOptions) -> bool:
    """True if a file or sub-folder is closed to this user, and the result folder is not."""
    closed = isinstance(error, OSError) and error.errno in CLOSED
    return closed and os.access(options.result_dir, os.W_OK | os.X_OK)


def unwritable(options: RunOptions, error: OSError) -> UsageError:
    """Make the error for a result folder or journal that cannot be written to."""
    # Read-only, full or closed is the folder, whichever file of ours has met it.
    its_own = error.errno in {errno.EINVAL, errno.EISDIR, errno.EEXIST, errno.ENXIO}
    its_own |= _is_closed_alone(error, options)
    path = (its_own and error.filename) or options.result_dir
    if obstacle := in_the_way(options.result_dir):
        return UsageError(f"{options.result_dir}: cannot be made, since {obstacle}")
    return UsageError(f"{path}: cannot be written ({error.strerror or error})")


@dataclass
class _Loaded:
    """An image on its way from the reader to the network."""

    item: Item
    last: bool
    """True for the last image of a chunk."""
    pictures: list[Picture] = field(default_factory=list)
    stamps: list[Stamp] = field(default_factory=list)
    error: str | None = None

    views: tuple[Pixels, ...] = ()
    """The pixels for the network."""

    @property
    def bytes(self) -> int:
        held = {id(view): view.nbytes for view in self.views}
        held |= {id(picture.pixels): picture.pixels.nbytes for picture in self.pictures}
        return LOADED_BYTES + sum(held.values())


class _Ended(BaseException):
    """Raised by the progress callback of the network to end it; not an Exception."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(cause)
        self.cause = cause


class _Pipeline:
    """A reader, the network in the calling thread, a writer."""

    def __init__(
        self,
        options: RunOptions,
        journal: Journal,
        restorer: ImageRestorer,
        provenance: Provenance,
        listener: Listener,
        keep_on: bool,
        streaks: Streaks,
    ) -> None:
        self.options, self.journal, self.provenance = options, journal, provenance
        self.restorer, self.listener, self.keep_on = restorer, listener, keep_on
        self.streaks, self.failed = streaks, False

    def run(self, chunks: Iterable[Sequence[Item]]) -> str:
        sources = ((item, item is chunk[-1]) for chunk in chunks for item in chunk)
        self.writer: BackgroundWriter[tuple[Item, Outcome]] = BackgroundWriter(AHEAD_BYTES)
        self.reader = Prefetcher(
            sources,
            self._read,
            lambda loaded: loaded.bytes,
            AHEAD_BYTES,
            # The next chunk may come only once the results of this one are reported.
            idle=self._look_up,
        )
        patience: float | None = None
        try:
            for group in self._groups(self.reader):
                self._restore(group)
                self._look_up()
                if reason := self._reason_to_stop():
                    return reason
        except Stopped:
            patience = LAST_WRITE_SECONDS
            raise
        except _Ended as ended:
            if isinstance(ended.cause, Stopped):
                patience = LAST_WRITE_SECONDS
            raise ended.cause from None
        finally:
            try:
                self.reader.close(CLOSING_SECONDS if patience is None else 0)
                # Also when stopped: what is restored is written.
                self._report(self.writer.drain(patience))
            finally:
                self.writer.close()
                self._report(self.writer.finished())
        return self._reason_to_stop()

    def _look_up(self) -> None:
        """Between two steps, report what was written, and let the listener end the work."""
        self._report(self.writer.finished())
        self.listener.check()

    def _reason_to_stop(self) -> str:
        if self.failed and self.options.fail_fast:
            return FAIL_FAST
        if self.streaks.refused >= REFUSED_WRITES:
            return f"{self.options.result_dir} takes no more results; stopped"
        if self.streaks.faults >= FAULTS:
            return f"the network failed {FAULTS} times in a row"
        return ""

    def _read(self, source: tuple[Item, bool]) -> _Loaded:
        item, last = source
        loaded = _Loaded(item, last)
        path = item.source
        try:
            for path in item.sources:
                check = self._before_decoding(path)
                picture, stamp = load_image(path, self.options.max_pixels, check)
                if not loaded.pictures:  # whose metadata the result has
                    picture = self.options.output.prepare(picture)
                loaded.pictures.append(picture)
                loaded.stamps.append(stamp)
            loaded.views = tuple(
                fill_invisible(picture.pixels, picture.alpha) for picture in loaded.pictures
            )
        except Exception as error:
            return _Loaded(item, last, error=_sentence(path, error, "decode"))
        return loaded

    def _before_decoding(self, path: Path) -> Callable[[int, int], None]:
        """Make a check that refuses a size that can never fit, and waits for room for others."""
        waited = False

        def check(height: int, width: int) -> None:
            nonlocal waited
            self.options.output.format.check_size(height, width)
            self.restorer.check_size(height, width)
            if not waited:
                waited = True
                needed = DECODING_BYTES * height * width + file_size(path)
                self.reader.reserve(needed)
                if needed > SMALL_BYTES and self.restorer.room_for(height, width)[0] < needed:
                    return_freed_memory()

        return check

    def _make_room(self, loaded: _Loaded) -> None:
        """Make room in memory for an image beside others that are being read and written.

        If there is none, wait for those, and limit further reading to the room that is left.
        """
        height, width = loaded.pictures[0].pixels.shape[:2]
        small = DECODING_BYTES * height * width <= SMALL_BYTES

        def spare() -> int:
            available, needed = self.restorer.room_for(height, width)
            copies = self.options.output.format.encoding_copies
            beside = self.reader.reserved + copies * self.writer.bytes
            return available - needed - beside

        if small:  # of which there are many: the system is asked only for a large one
            self.reader.allow(lambda size: size <= SMALL_BYTES or size <= spare())
            return
        if (left := spare()) < 0:
            self.reader.finish_loading()
            self._report(self.writer.drain())
            return_freed_memory()
            left = spare()
        self.reader.allow(lambda size: size <= left)

    def _groups(self, reader: Iterable[_Loaded]) -> Iterator[list[_Loaded]]:
        """Group images for the network: neighbours of one size, if small."""
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
        if loaded.error is not None:
            return 1
        return self.restorer.images_together(*loaded.pictures[0].pixels.shape)

    def _restore(self, group: list[_Loaded]) -> None:
        """Put a group through the network and hand the results to the writer."""
        if group[0].error is not None:
            self._fail(group[0], group[0].error)
            return
        started = time.monotonic()
        try:
            self._make_room(group[0])
            results = self._through_network(group)
        except (ImageError, MemoryError) as error:
            if len(group) > 1:  # find out whose fault it is
                for loaded in group:
                    loaded.pictures = [replace(picture, notes=()) for picture in loaded.pictures]
                    self._restore([loaded])
            else:
                self._fail(group[0], _sentence(group[0].item.source, error, "restore"))
            return
        except Exception as error:
            if not self.keep_on:
                raise
            self.streaks.faults += 1
            for loaded in group:
                self._fail(loaded, _sentence(loaded.item.source, error, "restore"))
            return
        self.streaks.faults = 0
        seconds = round((time.monotonic() - started) / len(group), 3)
        for loaded, pixels in zip(group, results, strict=True):
            try:
                picture = with_alpha(loaded.pictures[0], pixels)
            except Exception as error:
                self._fail(loaded, _sentence(loaded.item.source, error, "restore"))
                continue
            outcome = replace(self._outcome(loaded), seconds=seconds)
            write = functools.partial(self._write, loaded.item, loaded.stamps, picture)
            self.writer.put((loaded.item, outcome), pixels.nbytes, write)

    def _through_network(self, group: list[_Loaded]) -> Sequence[Pixels]:
        """Restore a group. Raises errors of the network, or ``_Ended`` to end the work."""
        advance = self._announce(group)
        ended: list[_Ended] = []

        def progress(share: float) -> None:
            try:
                with uninterrupted():
                    advance(share)
            except BaseException as error:
                ended.append(_Ended(error))
                raise ended[0] from error

        try:
            with interruptible():
                depth = self.options.output.restored_depth
                batch = [loaded.views for loaded in group]
                if len(batch) > 1:
                    results = self.restorer.restore_together(
                        batch, bit_depth=depth, progress=progress
                    )
                else:
                    results = [self.restorer(*batch[0], bit_depth=depth, progress=progress)]
        finally:
            if ended:  # whatever has become of it on its way, and if it was eaten
                raise ended[0]
        if len(results) != len(group):
            raise ValueError(f"{len(results)} results of {len(group)} images")
        return results

    def _announce(self, group: list[_Loaded]) -> Callable[[float], None]:
        """Report the images in the network; return the callback for the fraction done."""
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
            self._look_up()
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
        return Outcome(**facts, **vars(self.provenance))

    def _fail(self, loaded: _Loaded, error: str) -> None:
        """Report a failure, after the results that are still being written."""
        self.failed = True
        self.writer.put((loaded.item, self._outcome(loaded, error)), 0, lambda: None)

    def _write(self, item: Item, stamps: list[Stamp], picture: Picture) -> None:
        def note(facts: os.stat_result) -> None:
            self.writer.commit()  # or the file is not renamed
            try:
                self.journal.add(item, stamps, facts.st_size, facts.st_mtime_ns)
            except OSError as error:  # what cannot be noted is not done, nor will the next be
                raise ResultFolderError(
                    f"{item.result}: cannot be noted in {self.journal.path} "
                    f"({error.strerror or error})"
                ) from error

        write_image(item.result, picture, self.options.output, note)

    def _report(
        self, finished: Iterable[tuple[tuple[Item, Outcome], BaseException | None]]
    ) -> None:
        for (item, outcome), error in finished:
            if error is not None:
                reason = _sentence(item.result, error, "write")
                outcome = replace(outcome, status="failed", error=reason)
                self.streaks.refused += isinstance(
                    error, ResultFolderError
                ) and not _is_closed_alone(error.__cause__, self.options)
                self.failed = True
            elif outcome.status == "done":
                self.streaks.refused = 0
            self.listener.settle(item, outcome)


def _sentence(path: Path, error: BaseException, doing: str) -> str:
    """The sentence for any error of an image; it names the file."""
    if isinstance(error, ImageError):
        text = str(error)
        return text if text.startswith(f"{path}: ") else f"{path}: {text}"
    if isinstance(error, MemoryError):
        return f"{path}: not enough memory to {doing} it"
    if isinstance(error, OSError):
        return f"{path}: cannot {doing} it ({error.strerror or error})"
    return f"{path}: {fault(error)}"


def _alike(one: _Loaded, other: _Loaded) -> bool:
    """True if two images can go through the network together."""
    kinds = [{(view.shape, view.dtype) for view in loaded.views} for loaded in (one, other)]
    return kinds[0] == kinds[1] and len(kinds[0]) == 1
