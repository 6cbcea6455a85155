"""What a result folder knows of its results: which inputs, weights and settings they came from.

The record is a journal of JSON lines, ``.restormer/NAME.jsonl`` in the result folder, that is
only ever appended to. Why no database: SQLite's WAL mode shares memory between processes, which
network file systems do not offer, and its other modes rely on byte-range locks that many of them
get wrong. A journal needs neither. Its one writer holds the lock of the same name, so parts of a
run that share a folder have a journal each, and whoever reads takes all of them together. Workers
of one run have journals of their own, too, which are put into that of the run when it ends, or
when the next one begins. A line that a crash has cut off, anywhere, is no valid JSON and is passed
over. A hundred thousand lines are read in under a second, and lines that later ones replace are
dropped now and then.

A line is either a header, the settings of all that follows, or an entry::

    {"settings": {"task": "derain", "weights": "225e…", …}, "version": "0.1.0"}
    ["a.png", [size, mtime], [["/photos/a.jpg", size, mtime, digest]]]

An entry is written before its result gets its name, and holds size and time of the file that is
about to be there. So every result is known, and an entry counts only for the very file that it
speaks of: a result that a person has changed, or put there, is not ours and is never replaced
unasked. The record can be deleted at any time: then all results count as put there by a person.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

from restormer_cli.batch.items import Item
from restormer_cli.batch.shards import WHOLE, is_shard
from restormer_cli.settings import Settings
from restormer_cli.system import json_lines
from restormer_cli.system.atomic import atomic_file, sweep, sync_file, sync_folder
from restormer_cli.system.files import Stamp, check_regular, open_regular
from restormer_cli.system.locks import is_at, try_lock
from restormer_cli.version import __version__

#: Folder inside the result folder; hidden, so that no run takes it for input.
FOLDER = ".restormer"
#: Between the name of a run's journal and what tells its workers apart.
WORKER = "-worker-"
#: File systems round times, to two seconds at the coarsest (FAT).
TIME_TOLERANCE = 2 * 10**9
#: Seconds between two flushes to the disk.
SYNC_EVERY = 5.0
SUFFIX = ".jsonl"
#: So many journals of shards are left as they are.
SPARE_JOURNALS = 16
#: So many lines that count for nothing are kept before the journal is written anew.
SPARE_LINES = 1000


_SETTINGS = frozenset(field.name for field in dataclasses.fields(Settings))


class JournalEntry(NamedTuple):
    """One result as it was written."""

    size: int
    mtime: int
    sources: tuple[tuple[str, Stamp], ...]
    settings: Settings


class Journal:
    """The record of a result folder: what is in it, and what this run adds.

    Parameters
    ----------
    settings
        Of this run.
    name
        Of this run's journal.
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
        """The record as a worker of the run ``name`` writes it, in a journal of its own."""
        return cls(result_dir, settings, _worker_journal(name).removesuffix(SUFFIX))

    # Reading

    def load(self, results: Iterable[Path] | None = None) -> None:
        """Read all journals of the folder; what is not there or not readable is not known.

        Parameters
        ----------
        results
            Keep only what is said of these, so that one of many shards need not hold what the
            others have done.
        """
        wanted = None if results is None else {_key(self._name(path)) for path in results}
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
                settings, made = _understand(line, settings)
                if made is not None and (wanted is None or _key(made[0]) in wanted):
                    self.entries.setdefault(made[0], []).append(made[1])
        if own:
            self._lines, self._results = count, len(names)

    def forget(self) -> None:
        """Let go of what was loaded, which may be much, when all has been judged."""
        self.entries = {}

    def entry_of(self, result: Path) -> JournalEntry | None:
        """The entry that speaks of a result as it is now, if it is there and ours."""
        if self._name(result) not in self.entries:
            return None
        try:
            return self.entry_at(result, result.stat())
        except OSError:
            return None

    def entry_at(self, result: Path, there: os.stat_result) -> JournalEntry | None:
        """The entry that speaks of the file that is there; of several the nearest in time."""
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
        """Put what workers have noted into this journal, which must not be open, and end theirs.

        Those of workers that live are locked, and left for the next time; so are all where files
        cannot be locked, since any may be alive. Whoever calls this holds the lock of the run;
        that of a run which is not split excludes shards, so their workers are looked for, too.

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
        """Put all of a journal behind this one; False if it cannot be read."""
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
        """Put the journals of shards into that of this run, if there are many of them.

        Only for a run that works in the folder alone. Cut off at any moment, it loses nothing:
        what is in two journals counts once.
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
        """Write this journal anew if most of its lines count for nothing; :meth:`load` told.

        Only for a run that holds its lock. The old journal is there until the new one is whole.
        Of each result the last two entries stay: the last may not have become a file. They are
        copied as they stand, so what is held meanwhile is a few numbers of each result.
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
                settings, made = _understand(line, settings)
                if made is None or settings is None:
                    continue
                name, entry = made
                if settings is not of_these:
                    of_these = settings
                    header = _header(settings)
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
        """Begin to write; ``settings`` are those of this run with nothing left open.

        Raises
        ------
        OSError
            If the folder cannot be written to.
        """
        self._header = _header(settings)
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
        """Note a result that is about to be there.

        Raises
        ------
        OSError
            If the line cannot be written, then none of it is; or if the record is closed.
        """
        paths = [os.path.abspath(path) for path in item.sources]  # noqa: PTH100 - links stay
        sources = tuple(zip(paths, stamps, strict=True))
        line = _line(self._name(item.result), JournalEntry(size, mtime, sources, self.settings))
        with self._lock:
            self._stay()
            self._append(line)
            self._touched.add(item.result.parent)
            if self._descriptor is not None and time.monotonic() - self._synced >= SYNC_EVERY:
                self._sync(self._descriptor)

    def close(self) -> None:
        """Flush what was written to the disk; nothing can be noted any more.

        Raises
        ------
        OSError
            If the disk does not take it.
        """
        with self._lock:
            if self._descriptor is not None:
                descriptor, self._descriptor = self._descriptor, None
                try:
                    self._sync(descriptor)
                finally:
                    os.close(descriptor)

    def _stay(self) -> None:
        """See that what is written can be found: the file may have been removed or replaced.

        It is begun again then; not its folder, which takes the whole record with it.
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
    """Which of these files are results as they were written, and of which (first) input each."""
    results = list(results)
    journal = Journal(result_dir, Settings())
    journal.load(results)
    entries = {result: journal.entry_of(result) for result in results}
    return {result: entry.sources[0][0] for result, entry in entries.items() if entry is not None}


def _worker_journal(name: str) -> str:
    """The file name of a new journal of a worker, from the name of the run or of another one."""
    return f"{name.partition(WORKER)[0]}{WORKER}{uuid.uuid4().hex}{SUFFIX}"


def _understand(
    line: bytes, settings: Settings | None
) -> tuple[Settings | None, tuple[str, JournalEntry] | None]:
    """What a line says under the header before it: the header from now on, and an entry if any.

    Nothing that is not sound in every part is believed. If it may have been a header, what
    follows is not known either.
    """
    doubtful = line.startswith(b"{") or b"\0" in line
    try:
        parsed = json_lines.parse(line)
    except ValueError:
        return None if doubtful else settings, None
    if isinstance(parsed, dict):
        return _settings_of(parsed.get("settings")), None
    made = None if settings is None else _entry_of_line(parsed, settings)
    return None if doubtful else settings, made


def _settings_of(values: object) -> Settings | None:
    if not isinstance(values, dict) or not values.keys() <= _SETTINGS:
        return None
    if not all(isinstance(value, str) or value is None for value in values.values()):
        return None
    return Settings(**values)


def _entry_of_line(parsed: Any, settings: Settings) -> tuple[str, JournalEntry] | None:
    try:
        name, (size, mtime), parts = parsed
        sources = tuple((path, Stamp(*stamp)) for path, *stamp in parts)
    except (TypeError, ValueError):
        return None
    sound = json_lines.is_name_inside(name) and json_lines.is_whole(size)
    if not (sound and json_lines.is_whole(mtime) and sources):
        return None
    for path, stamp in sources:
        sound = json_lines.is_path(path) and isinstance(stamp.digest, str)
        if not (sound and json_lines.is_whole(stamp.size) and json_lines.is_whole(stamp.mtime)):
            return None
    return name, JournalEntry(size, mtime, sources, settings)


def _line_at(journal: IO[bytes], offset: int) -> bytes:
    """A line of a journal, which is then read on where it was."""
    before = journal.tell()
    journal.seek(offset)
    line = journal.readline(json_lines.LONGEST_LINE)
    journal.seek(before)
    return line


def _key(name: str) -> bytes:
    """How the line of a result begins, up to the end of its name."""
    return b"[" + json.dumps(name)[:-1].encode("ascii")


def _header(settings: Settings) -> str:
    return json.dumps({"settings": dataclasses.asdict(settings), "version": __version__})


def _line(name: str, entry: JournalEntry) -> str:
    """An entry as it stands in a journal; its settings are those of the header above it."""
    sources = [[path, *dataclasses.astuple(stamp)] for path, stamp in entry.sources]
    return json.dumps([name, [entry.size, entry.mtime], sources])
