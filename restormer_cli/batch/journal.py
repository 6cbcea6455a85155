"""The journal of a result folder: the inputs, weights and settings of its results.

A journal is a file of JSON lines, ``.restormer/NAME.jsonl`` in the result folder, that is only
appended to. A database does not do: SQLite's WAL mode shares memory between processes, which
network file systems do not offer, and its other modes rely on byte-range locks that many of them
get wrong. The one writer of a journal holds the lock of the same name. So shards of a run that
share a folder have a journal each, and a reader takes all of them together. Workers of one run
have their own journals, too, which are appended to that of the run when it ends, or when the next
one begins. A line that was cut off by a crash is no valid JSON and is passed over. A hundred
thousand lines are read in under a second. Lines that later ones replace are dropped when they are
many.

An entry is written before its result is renamed, and holds size and time of that file. So every
result is known, and an entry counts only for that very file: a result that a person has changed,
or put there, is not ours and is never replaced unasked. The journals can be deleted at any time.
Then all results count as put there by a person.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from restormer_cli.batch.items import Item
from restormer_cli.batch.journal_lines import (
    JournalEntry,
    entry_line,
    header_line,
    key_of,
    parse_line,
)
from restormer_cli.batch.shards import WHOLE, is_shard
from restormer_cli.settings import Settings
from restormer_cli.system import json_lines
from restormer_cli.system.atomic import atomic_file, sweep, sync_file, sync_folder
from restormer_cli.system.files import Stamp, absolute_path, check_regular, open_regular
from restormer_cli.system.locks import is_at, try_lock

#: Folder inside the result folder; hidden, so that no run takes it for input.
FOLDER = ".restormer"
#: Between the name of a run's journal and the identifier of a worker.
WORKER = "-worker-"
#: File systems round times, to two seconds at the coarsest (FAT).
TIME_TOLERANCE = 2 * 10**9
#: Seconds between two flushes to the disk.
SYNC_EVERY = 5.0
SUFFIX = ".jsonl"
#: Most journals of shards that are not gathered.
SPARE_JOURNALS = 16
#: Replaced lines that are kept before the journal is rewritten.
SPARE_LINES = 1000


class Journal:
    """The journals of a result folder: reads all, writes that of this run.

    Parameters
    ----------
    settings
        Settings of this run.
    name
        Name of this run's journal.
    """

    def __init__(self, result_dir: Path, settings: Settings, name: str = WHOLE) -> None:
        self.result_dir = result_dir
        self.folder = result_dir / FOLDER
        self.path = self.folder / f"{name}{SUFFIX}"
        self.settings = settings
        self.entries: dict[str, list[JournalEntry]] = {}
        self._lines = self._results = 0
        self._descriptor: int | None = None
        self._size = 0
        self._synced = time.monotonic()
        self._header = ""
        self._touched: set[Path] = set()
        self._lock = threading.Lock()

    @classmethod
    def of_worker(cls, result_dir: Path, settings: Settings, name: str) -> Journal:
        """The journal that a worker of the run ``name`` writes."""
        return cls(result_dir, settings, _worker_journal(name).removesuffix(SUFFIX))

    # Reading

    def load(self, results: Iterable[Path] | None = None) -> None:
        """Read all journals of the folder, as far as they can be read.

        Parameters
        ----------
        results
            Keep only entries of these, so that a shard need not hold those of all others.
        """
        wanted = None if results is None else {key_of(self._name(path)) for path in results}
        with contextlib.suppress(OSError):
            # The one that others are put into comes last, lest a move between them be missed.
            paths = sorted(self.folder.glob(f"*{SUFFIX}"), key=lambda path: path.stem == WHOLE)
            for path in paths:
                with contextlib.suppress(OSError):
                    self._load(path, wanted)

    def _load(self, path: Path, wanted: set[bytes] | None) -> None:
        settings: Settings | None = None
        count, names = 0, set()  # of the journal of this run alone, for its compaction
        own = path == self.path
        with open_regular(path) as file:
            for _, line in json_lines.lines(file):
                # What stands before the first comma behind a quotation mark is the name as it
                # was written, unless the name itself has such marks.
                key = line.partition(b'", [')[0] if line.startswith(b'["') else None
                if own:
                    count += 1
                    if key is not None:
                        names.add(hash(key))
                elsewhere = wanted is not None and key is not None and key not in wanted
                if elsewhere and b"\0" not in line and b"\\" not in (key or b""):
                    continue
                settings, made = parse_line(line, settings)
                if made is not None and (wanted is None or key_of(made[0]) in wanted):
                    self.entries.setdefault(made[0], []).append(made[1])
        if own:
            self._lines, self._results = count, len(names)

    def forget(self) -> None:
        """Drop the entries that were loaded, which may be many."""
        self.entries = {}

    def entry_of(self, result: Path) -> JournalEntry | None:
        """The entry of a result as it is now; None if it is not there or not ours."""
        if self._name(result) not in self.entries:
            return None
        try:
            return self.entry_at(result, result.stat())
        except OSError:
            return None

    def entry_at(self, result: Path, there: os.stat_result) -> JournalEntry | None:
        """The entry of a file with this size and time; of several the nearest in time."""
        best, least = None, TIME_TOLERANCE
        for entry in self.entries.get(self._name(result), []):
            distance = abs(entry.mtime - there.st_mtime_ns)
            if entry.size == there.st_size and distance <= least:
                best, least = entry, distance
        return best

    def _name(self, result: Path) -> str:
        return result.relative_to(self.result_dir).as_posix()

    # Writing

    def gather(self) -> None:
        """Append the journals of workers to this one, which must not be open, and remove them.

        Journals of live workers are locked, and left for the next time. Where files cannot be
        locked, all are left. The caller holds the lock of the run. That of a run which is not
        split excludes shards, so the journals of their workers are gathered, too.

        Raises
        ------
        OSError
            If this journal cannot be written to.
        """
        whose = "*" if self.path.stem == WHOLE else self.path.stem
        for path in sorted(self.folder.glob(f"{whose}{WORKER}*{SUFFIX}")):
            with contextlib.ExitStack() as stack:
                try:
                    # Network file systems lock only what is open for writing.
                    theirs = stack.enter_context(open_regular(path, "r+b"))
                    if not (try_lock(theirs.fileno()) and is_at(theirs.fileno(), path)):
                        continue
                except OSError:  # gone meanwhile, somebody else's, or no locks here
                    continue
                if not self._append_journal(theirs):
                    continue
                if os.name != "nt":  # Windows does not remove open files
                    path.unlink(missing_ok=True)
                    continue
            path.unlink(missing_ok=True)

    def _append_journal(self, theirs: IO[bytes]) -> bool:
        """Append a journal to this one; False if it cannot be read."""
        with self.path.open("ab") as ours:
            before = ours.tell()
            try:
                # The line feed ends a line that a crash may have cut off; and entries that have
                # lost their header must not come under another one.
                ours.write(b"\n{}\n")
                while True:
                    try:
                        part = theirs.read(1 << 20)
                    except OSError:
                        ours.truncate(before)
                        return False
                    if not part:
                        break
                    ours.write(part)
                ours.flush()
                sync_file(ours.fileno())
            except OSError:  # nothing of what did not fit
                with contextlib.suppress(OSError):
                    os.truncate(self.path, before)
                raise
        return True

    def gather_shards(self) -> None:
        """Append the journals of shards to that of this run, if they are many.

        Only for a run that works in the folder alone. An interruption loses nothing: an entry
        that is in two journals counts once.
        """
        with contextlib.suppress(OSError):
            parts = [path for path in sorted(self.folder.glob(f"*{SUFFIX}")) if is_shard(path.stem)]
            if len(parts) <= SPARE_JOURNALS:
                return
            sweep([self.folder])
            for path in parts:
                with open_regular(path) as part:
                    gone = self._append_journal(part)
                if gone:
                    path.unlink()

    def compact(self) -> None:
        """Rewrite this journal if most of its lines were replaced, as :meth:`load` has counted.

        Only for a run that holds its lock. The old journal stays until the new one is whole. Of
        each result the last two entries are kept, since the last may not have become a file. They
        are copied as they stand, so only a few numbers of each result are held meanwhile.
        """
        if self._lines <= 2 * self._results + SPARE_LINES:
            return
        with contextlib.suppress(OSError), open_regular(self.path) as old:
            numbers: dict[str, int] = {}
            number, of_these = 0, None
            # Of each result time, size, header and offset of its entries; journals that were put
            # together are not in the order of time.
            latest: dict[int, list[tuple[int, int, int, int]]] = {}
            settings: Settings | None = None
            for offset, line in json_lines.lines(old):
                settings, made = parse_line(line, settings)
                if made is None or settings is None:
                    continue
                name, entry = made
                if settings is not of_these:
                    of_these = settings
                    header = header_line(settings)
                    number = numbers.setdefault(header, len(numbers))
                several = latest.setdefault(hash(name), [])
                # Of those that speak of one file the last counts, and no other is needed.
                facts = (entry.mtime, entry.size)
                several[:] = [other for other in several if other[:2] != facts]
                several.append((*facts, number, offset))
                several.sort()
                del several[:-2]
            sweep([self.folder])
            with atomic_file(self.path) as new:
                headers, last = list(numbers), None
                places = (place[2:] for several in latest.values() for place in several)
                for number, offset in sorted(places):
                    if number != last:
                        new.write(headers[number].encode("ascii") + b"\n")
                        last = number
                    new.write(_line_at(old, offset).rstrip(b"\n") + b"\n")
            sync_folder(self.folder)
            self._lines = 0

    def open(self, settings: Settings) -> None:
        """Begin to write, with the settings that this run uses in the end.

        Raises
        ------
        OSError
            If the folder cannot be written to.
        """
        self._header = header_line(settings)
        self._begin()

    def _begin(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        while True:
            with contextlib.suppress(FileNotFoundError):  # else a pipe would block for ever
                check_regular(self.path.stat().st_mode, self.path)
            self._descriptor = os.open(self.path, flags, 0o666)
            if WORKER not in self.path.name:
                break
            with contextlib.suppress(OSError):  # no locks here: see gather
                if not (try_lock(self._descriptor) and is_at(self._descriptor, self.path)):
                    # Whoever puts journals together was faster, and takes it away.
                    os.close(self._descriptor)
                    self.path = self.path.with_name(_worker_journal(self.path.name))
                    continue
            break
        self._size = os.fstat(self._descriptor).st_size
        # The line feed ends a line that a crash may have cut off.
        self._append(("\n" if self._size else "") + self._header)

    def add(self, item: Item, stamps: Iterable[Stamp], size: int, mtime: int) -> None:
        """Append the entry of a result that is about to be renamed.

        Raises
        ------
        OSError
            If the line cannot be written, of which nothing then stays, or the journal is closed.
        """
        paths = map(absolute_path, item.sources)
        sources = tuple(zip(paths, stamps, strict=True))
        line = entry_line(
            self._name(item.result), JournalEntry(size, mtime, sources, self.settings)
        )
        with self._lock:
            self._stay()
            self._append(line)
            self._touched.add(item.result.parent)
            if self._descriptor is not None and time.monotonic() - self._synced >= SYNC_EVERY:
                self._sync(self._descriptor)

    def close(self) -> None:
        """Flush the journal to the disk and close it.

        Raises
        ------
        OSError
            If it cannot be flushed.
        """
        with self._lock:
            if self._descriptor is not None:
                descriptor, self._descriptor = self._descriptor, None
                try:
                    self._sync(descriptor)
                finally:
                    os.close(descriptor)

    def _stay(self) -> None:
        """Begin the file again if it was removed or replaced, so that entries can be found.

        The folder is not made again, since all journals are gone with it.
        """
        old = self._descriptor
        if old is None or is_at(old, self.path):
            return
        try:
            self._begin()
        except BaseException:  # Ctrl-C as well: the old one is still to be closed
            if self._descriptor not in {old, None}:
                os.close(self._descriptor)
            self._descriptor = old
            raise
        os.close(old)

    def _append(self, line: str) -> None:
        if self._descriptor is None:  # whoever writes so late must undo what he has written
            raise OSError(errno.EBADF, "the record is closed")
        data = (line + "\n").encode("ascii")
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)

    def _sync(self, descriptor: int) -> None:
        self._synced = time.monotonic()
        for folder in self._touched:
            sync_folder(folder)
        self._touched.clear()
        sync_file(descriptor)


def known_origins(result_dir: Path, results: Iterable[Path]) -> dict[Path, str]:
    """Find the first input of each of these files that is a result as it was written."""
    results = list(results)
    journal = Journal(result_dir, Settings())
    journal.load(results)
    entries = {result: journal.entry_of(result) for result in results}
    return {result: entry.sources[0][0] for result, entry in entries.items() if entry is not None}


def _worker_journal(name: str) -> str:
    """A new file name for the journal of a worker, from the name of any journal of its run."""
    return f"{name.partition(WORKER)[0]}{WORKER}{uuid.uuid4().hex}{SUFFIX}"


def _line_at(journal: IO[bytes], offset: int) -> bytes:
    """Read a line of a journal, and return to the place before."""
    before = journal.tell()
    journal.seek(offset)
    line = journal.readline(json_lines.LONGEST_LINE)
    journal.seek(before)
    return line
