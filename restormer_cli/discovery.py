"""Which files a run works on, which belong together, and what their results are called."""

from __future__ import annotations

import os
import stat
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import IO

from natsort import natsort_keygen, ns

from restormer_cli.errors import UsageError
from restormer_cli.files import kind

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
RESULT_SUFFIX = ".png"
STANDARD_INPUT = "-"

#: Sorts names as people do: numbers by value, folder by folder, case aside.
natural_key = natsort_keygen(alg=ns.IGNORECASE | ns.PATH)


@dataclass(frozen=True)
class Item:
    """One image to restore, from one file or a left and a right one."""

    sources: tuple[Path, ...]
    result: Path

    @property
    def source(self) -> Path:
        """The file that stands for the image in messages and reports."""
        return self.sources[0]


Problems = list[tuple[Path, str]]


@dataclass(frozen=True)
class Work:
    """All that a run found to do."""

    items: list[Item]
    problems: Problems = field(default_factory=list)
    """Files that cannot become results, each with one sentence that says why."""
    notices: list[str] = field(default_factory=list)


def find_work(
    source: str,
    result_dir: Path,
    *,
    recursive: bool = False,
    sides: tuple[str, ...] = (),
    null: bool = False,
    stdin: IO[bytes] | None = None,
) -> Work:
    """Find the images below a folder, one image, or those named on standard input.

    Parameters
    ----------
    source
        A folder, an image file or ``-``.
    recursive
        Walk sub-folders; they are mirrored below ``result_dir``.
    sides
        Sub-folders of ``source`` whose images of the same name form one input, such as
        ``("inputL", "inputR")``.
    null
        Names on standard input end in NUL instead of a line feed.

    Raises
    ------
    UsageError
        If ``source`` or a side does not exist or holds no image, or ``result_dir`` is no folder.
    """
    if result_dir.exists() and not result_dir.is_dir():
        raise UsageError(f"{result_dir}: is a file; name a folder for --result-dir")
    problems: Problems = []
    if sides:
        return _find_pairs(Path(source), result_dir, recursive, sides)
    if source == STANDARD_INPUT:
        files = list(_listed(stdin or sys.stdin.buffer, null))
        named = [(path, PurePath(path.name)) for path in files]
    else:
        path = Path(source)
        if path.is_dir():
            files = find_images(path, recursive, result_dir, problems)
            named = [(file, file.relative_to(path)) for file in files]
        elif path.exists():
            named = [(path, PurePath(path.name))]
        else:
            raise UsageError(f"{path}: no such folder or file")
    if not named and not problems:
        raise UsageError(f"{source}: no images found ({_wanted()})")
    work = _name_results([((path,), name) for path, name in named], result_dir)
    return Work(work.items, problems + work.problems, work.notices)


def find_images(
    folder: Path,
    recursive: bool,
    excluded: Path | None = None,
    problems: Problems | None = None,
) -> list[Path]:
    """Image files of a folder in natural order; hidden ones and ``excluded`` are passed over.

    Symbolic links to files are followed, those to folders are not, so there are no loops. What
    is called like an image and is no file (a pipe, a link to nothing), and sub-folders that
    cannot be read, are added to ``problems``.

    Raises
    ------
    UsageError
        If the folder cannot be read.
    """
    problems = [] if problems is None else problems
    try:
        avoided = None if excluded is None else excluded.resolve()
        if avoided == folder.resolve():
            avoided = None
        found = list(_walk(folder, recursive, avoided, problems))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror or error})") from error
    return sorted(found, key=lambda path: natural_key(path.as_posix()))


def _walk(
    folder: Path, recursive: bool, avoided: Path | None, problems: Problems
) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                if recursive and (avoided is None or path.resolve() != avoided):
                    try:
                        yield from _walk(path, recursive, avoided, problems)
                    except OSError as error:
                        problems.append((path, f"cannot be read ({error.strerror or error})"))
            elif path.suffix.lower() in SUFFIXES:
                trouble = _trouble(path)
                if trouble is None:
                    yield path
                elif trouble:
                    problems.append((path, trouble))


def _trouble(path: Path) -> str | None:
    """Why a name is that of no file; None if it is, "" if it is a link to a folder."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to a file that is not there"
    except OSError as error:  # a link to itself, say
        return f"cannot be read ({error.strerror or error})"
    if stat.S_ISDIR(mode):
        return ""
    return None if stat.S_ISREG(mode) else f"is {kind(mode)}, not an image file"


def _listed(stream: IO[bytes], null: bool) -> Iterator[Path]:
    for raw in stream.read().split(b"\0" if null else b"\n"):
        name = raw if null else raw.rstrip(b"\r")
        if name:
            yield Path(os.fsdecode(name))


def _wanted() -> str:
    return "looked for " + ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))


def _find_pairs(source: Path, result_dir: Path, recursive: bool, sides: tuple[str, ...]) -> Work:
    """Pair the images of all sides by relative name without suffix."""
    problems: Problems = []
    by_side: list[dict[PurePath, list[Path]]] = []
    for side in sides:
        folder = source / side
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; it should hold one view of each image")
        stems: dict[PurePath, list[Path]] = defaultdict(list)
        for path in find_images(folder, recursive, problems=problems):
            stems[path.relative_to(folder).with_suffix("")].append(path)
        by_side.append(stems)
    stems_in_order = sorted(
        {s for stems in by_side for s in stems}, key=lambda s: natural_key(s.as_posix())
    )
    if not stems_in_order and not problems:
        raise UsageError(f"{source}: no images found in {' and '.join(sides)} ({_wanted()})")
    pairs = []
    for stem in stems_in_order:
        files = [stems.get(stem, []) for stems in by_side]
        if all(len(found) == 1 for found in files):
            pairs.append((tuple(found[0] for found in files), stem.with_name(files[0][0].name)))
            continue
        for side, found in zip(sides, files, strict=True):
            for path in found:
                missing = [s for s, f in zip(sides, files, strict=True) if not f]
                reason = (
                    f"has no partner in {', '.join(missing)}"
                    if missing
                    else f"is ambiguous: more than one file of this name in {side} or its partner"
                )
                problems.append((path, reason))
    work = _name_results(pairs, result_dir)
    return Work(work.items, problems + work.problems, work.notices)


def _name_results(named: Iterable[tuple[tuple[Path, ...], PurePath]], result_dir: Path) -> Work:
    """Call each result ``NAME.png``, or ``NAME.jpg.png`` where two would share that.

    Names that differ in case or Unicode form alone are taken for equal, as some file systems do.
    """
    named = list(named)
    stems = [name.with_suffix("") for _, name in named]
    notices = []
    while True:
        groups: dict[str, list[int]] = defaultdict(list)
        for index, stem in enumerate(stems):
            groups[_folded(stem)].append(index)
        clashes = [group for group in groups.values() if len(group) > 1]
        fixable = [i for group in clashes for i in group if stems[i] != named[i][1]]
        if not fixable:
            break
        for index in fixable:
            stems[index] = named[index][1]
            notices.append(
                f"{named[index][1]}: its result is called {stems[index]}{RESULT_SUFFIX}, "
                "since another image would share the shorter name"
            )
    items, problems = [], []
    taken: set[str] = set()
    # Links are followed only up to the folder: a link is an input of its own.
    inputs = {
        _folded(path.parent.resolve() / path.name) for sources, _ in named for path in sources
    } | {_folded(path.resolve()) for sources, _ in named for path in sources}
    target = result_dir.resolve()
    for (sources, _), stem in zip(named, stems, strict=True):
        result = result_dir / stem.with_name(stem.name + RESULT_SUFFIX)
        clash = _folded(target / result.relative_to(result_dir)) in inputs
        if clash or _same_file(result, sources):
            problems.append((sources[0], f"its result would overwrite the input {result}"))
        elif _folded(stem) in taken:
            problems.append((sources[0], f"another image has the same result {result}"))
        else:
            taken.add(_folded(stem))
            items.append(Item(sources, result))
    return Work(items, problems, notices)


def _folded(path: PurePath) -> str:
    return unicodedata.normalize("NFC", path.as_posix()).casefold()


def _same_file(result: Path, sources: tuple[Path, ...]) -> bool:
    try:
        return any(result.samefile(source) for source in sources)
    except OSError:  # one of them does not exist
        return False
