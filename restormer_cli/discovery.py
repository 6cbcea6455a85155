"""Which files a run works on, and which of them belong together."""

from __future__ import annotations

import os
import stat
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO

from restormer_cli.errors import UsageError
from restormer_cli.files import file_mode, is_folder, kind, real_path
from restormer_cli.naming import name_results, without_results
from restormer_cli.shards import Shard
from restormer_cli.work import Found, Origins, Problems, Work, in_order

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
#: Photos of kinds that are not read. Whoever has them should know that they were passed over.
OTHER_PHOTOS = frozenset(
    {".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".psd"}
    | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"}
)
STANDARD_INPUT = "-"


def find_work(
    source: str,
    result_dir: Path,
    *,
    recursive: bool = False,
    sides: tuple[str, ...] = (),
    null: bool = False,
    shard: Shard | None = None,
    stdin: IO[bytes] | None = None,
    origins: Origins = lambda results: {},
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
    shard
        Give only the images and problems of this part. What results are called does not depend
        on it. It may have nothing to do.
    origins
        What is known of earlier results. They are no inputs, and keep their names when other
        images of their name come.

    Raises
    ------
    UsageError
        If ``source`` or a side does not exist, cannot be looked at or holds no image,
        ``result_dir`` is no folder, or ``null`` comes without a list.
    """
    if file_mode(result_dir) and not is_folder(result_dir):
        raise UsageError(f"{result_dir}: is a file; name a folder for --result-dir")
    problems: Problems = []
    passed_over: Counter[str] = Counter()
    root = Path(source)
    if null and source != STANDARD_INPUT:
        raise UsageError(f"--null: is for paths on standard input, --input-dir -, not {source}")
    if sides and source == STANDARD_INPUT:
        raise UsageError("-: pairs of views come from a folder, not from a list")
    if sides:
        found = _find_pairs(root, recursive, sides, problems, passed_over)
    elif source == STANDARD_INPUT:
        root = Path()
        found = list(_listed(stdin or sys.stdin.buffer, null, problems))
    elif is_folder(root):
        found = []
        for file, linked in _scan(root, recursive, result_dir, problems, passed_over):
            name = PurePath(file).relative_to(root).as_posix()
            found.append(Found((file,), name, name, linked))
    elif file_mode(root):
        found = [Found((source,), root.name, root.name, root.is_symlink())]
        root = root.parent
    else:
        raise UsageError(f"{root}: no such folder or file")
    inputs = without_results(found, result_dir, origins)
    notices = []
    if passed_over:
        notices.append(passed_over_notice(passed_over))
    if len(inputs) < len(found):
        count = len(found) - len(inputs)
        notices.append(f"{count} results of earlier runs are not taken for inputs")
        if not inputs and not problems and source != STANDARD_INPUT:
            raise UsageError(
                f"{source}: nothing but results of earlier runs; "
                "to restore these, name another --result-dir"
            )
        found = inputs
    # A list may be empty: nothing has arrived since the last night.
    if not found and not problems and source != STANDARD_INPUT:
        where = f" in {' and '.join(sides)}" if sides else ""
        raise UsageError("; ".join([f"{source}: no images found{where} ({_wanted()})", *notices]))
    if shard is not None:
        problems = [problem for problem in problems if shard.takes(_below(root, problem[0]))]
    work = name_results(found, result_dir, shard, origins, ordered=source == STANDARD_INPUT)
    return Work(work.items, problems + work.problems, notices + work.notices)


def passed_over_notice(passed_over: Counter[str]) -> str:
    """A sentence about photos of kinds that are not read, counted by suffix."""
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(passed_over.items()))
    return f"passed over, since they are not read: {kinds}; convert them to PNG or TIFF"


def _below(root: Path, path: Path) -> PurePath:
    return path.relative_to(root) if path.is_relative_to(root) else path


def find_images(
    folder: Path,
    recursive: bool,
    excluded: Path | None = None,
    problems: Problems | None = None,
    passed_over: Counter[str] | None = None,
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
    passed_over = Counter() if passed_over is None else passed_over
    found = _scan(folder, recursive, excluded, problems, passed_over)
    return sorted((Path(file) for file, _ in found), key=in_order)


@dataclass(frozen=True)
class Listing:
    """What lies in a folder of images; names are relative to it, with ``/``."""

    names: list[str]
    problems: dict[str, str]
    """What is called like an image and is none, or cannot be looked at, and a sentence each."""
    notices: list[str]


def list_images(folder: Path, recursive: bool) -> Listing:
    """What :func:`find_images` finds, and what a person should know of the rest.

    Raises
    ------
    UsageError
        If the folder cannot be read.
    """
    problems: Problems = []
    passed_over: Counter[str] = Counter()
    found = find_images(folder, recursive, problems=problems, passed_over=passed_over)
    return Listing(
        [path.relative_to(folder).as_posix() for path in found],
        {path.relative_to(folder).as_posix(): reason for path, reason in problems},
        [f"{folder}: {passed_over_notice(passed_over)}"] if passed_over else [],
    )


def _scan(
    folder: Path,
    recursive: bool,
    excluded: Path | None,
    problems: Problems,
    passed_over: Counter[str],
) -> Iterator[tuple[str, bool]]:
    """What :func:`find_images` finds, as it comes, and whether it is a link."""
    try:
        avoided = None if excluded is None else real_path(excluded)
        if avoided == real_path(folder):
            avoided = None
        yield from _walk(folder, recursive, avoided, problems, passed_over)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror or error})") from error


def _walk(
    folder: Path,
    recursive: bool,
    avoided: Path | None,
    problems: Problems,
    passed_over: Counter[str],
) -> Iterator[tuple[str, bool]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - ten times as fast
            # A folder says of what kind its entries are, so most cost no call of their own: on
            # a network each would be a question to the server.
            if entry.is_dir(follow_symlinks=False):
                path = Path(entry.path)
                if recursive and (avoided is None or real_path(path) != avoided):
                    try:
                        yield from _walk(path, recursive, avoided, problems, passed_over)
                    except OSError as error:
                        problems.append((path, f"cannot be read ({error.strerror or error})"))
            elif suffix in OTHER_PHOTOS:
                passed_over[suffix] += 1
            elif suffix in SUFFIXES:
                regular = entry.is_file(follow_symlinks=False)
                trouble = None if regular else _trouble(Path(entry.path))
                if trouble is None:
                    yield entry.path, entry.is_symlink()
                elif trouble:
                    problems.append((Path(entry.path), trouble))


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


def _listed(stream: IO[bytes], null: bool, problems: Problems) -> Iterator[Found]:
    seen: set[str] = set()
    for raw in stream.read().split(b"\0" if null else b"\n"):
        name = raw if null else raw.rstrip(b"\r")
        if not name:
            continue
        name, nul, _ = name.partition(b"\0")
        path = Path(os.fsdecode(name))
        if nul:
            problems.append((path, "is followed by NUL; for paths that end in it there is --null"))
            continue
        place = os.path.abspath(path)  # noqa: PTH100 - links stay
        if place in seen:
            continue
        seen.add(place)
        if not path.name:  # find prints "." first
            problems.append((path, "is a folder, not an image file"))
            continue
        linked = False
        try:
            linked = stat.S_ISLNK(path.lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            pass  # reading it will say so
        except OSError as error:  # too long, say, or in a folder that is closed
            problems.append((path, f"cannot be looked at ({error.strerror or error})"))
            continue
        yield Found((str(path),), path.name, path.as_posix(), linked)


def _wanted() -> str:
    return "looked for " + ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))


def _find_pairs(
    source: Path,
    recursive: bool,
    sides: tuple[str, ...],
    problems: Problems,
    passed_over: Counter[str],
) -> list[Found]:
    """Pair the images of all sides by relative name without suffix."""
    by_side: list[dict[PurePath, list[Path]]] = []
    for side in sides:
        folder = source / side
        if not is_folder(folder):
            raise UsageError(f"{folder}: no such folder; it should hold one view of each image")
        stems: dict[PurePath, list[Path]] = defaultdict(list)
        for path in find_images(folder, recursive, problems=problems, passed_over=passed_over):
            stems[path.relative_to(folder).with_suffix("")].append(path)
        by_side.append(stems)
    stems_in_order = sorted({s for stems in by_side for s in stems}, key=in_order)
    pairs = []
    for stem in stems_in_order:
        files = [stems.get(stem, []) for stems in by_side]
        if all(len(found) == 1 for found in files):
            sources = [found[0] for found in files]
            name = stem.with_name(sources[0].name).as_posix()
            linked = any(path.is_symlink() for path in sources)
            pairs.append(Found(tuple(map(str, sources)), name, name, linked))
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
    return pairs
