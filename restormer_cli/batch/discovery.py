"""Finds the images of a run, and pairs the views of dual-pixel images."""

from __future__ import annotations

import sys
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO

from restormer_cli.batch.items import Candidate, Origins, Problems, Work, in_order
from restormer_cli.batch.naming import name_results, without_results
from restormer_cli.batch.path_lists import read_list
from restormer_cli.batch.shards import Shard
from restormer_cli.batch.walk import SUFFIXES, PassedOver, find_images, walk
from restormer_cli.errors import UsageError
from restormer_cli.images.formats import PNG
from restormer_cli.system.files import file_mode, is_folder, real_path

STANDARD_INPUT = "-"


def find_work(
    source: str,
    result_dir: Path,
    *,
    recursive: bool = False,
    sides: tuple[str, ...] = (),
    null: bool = False,
    suffix: str = PNG.suffix,
    shard: Shard | None = None,
    stdin: IO[bytes] | None = None,
    origins: Origins = lambda folder, results: {},
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
    suffix
        Of results.
    shard
        Return only the images and problems of this part, which may be none. The names of results
        do not depend on it.
    origins
        Finds the results of earlier runs. They are no inputs, and keep their names when other
        images of the same name are added.

    Raises
    ------
    UsageError
        If ``source`` or a side does not exist, cannot be accessed or holds no image,
        ``result_dir`` is no folder, or ``null`` is set without a list.
    """
    if file_mode(result_dir) and not is_folder(result_dir):
        raise UsageError(f"{result_dir}: is a file; name a folder for --result-dir")
    if not source:
        raise UsageError("--input-dir is empty; name a folder, an image, or - for a list")
    problems: Problems = []
    passed_over = PassedOver()
    root = Path(source)
    if null and source != STANDARD_INPUT:
        raise UsageError(f"--null: is for paths on standard input, --input-dir -, not {source}")
    if sides and source == STANDARD_INPUT:
        raise UsageError("-: pairs of views come from a folder, not from a list")
    if sides:
        found = _find_pairs(root, recursive, result_dir, sides, problems, passed_over)
    elif source == STANDARD_INPUT:
        root = Path()
        found = list(read_list(stdin or sys.stdin.buffer, null, problems))
    elif is_folder(root):
        found = []
        for file, linked in walk(root, recursive, result_dir, problems, passed_over):
            name = PurePath(file).relative_to(root).as_posix()
            found.append(Candidate((file,), name, name, linked))
    elif file_mode(root):
        found = [Candidate((source,), root.name, root.name, root.is_symlink())]
        root = root.parent
    else:
        raise UsageError(f"{source}: no such folder or file{_shell_hint(source)}")
    inputs = without_results(found, result_dir, origins)
    for folder in passed_over.result_folders:
        inputs = without_results(inputs, folder, origins)
    notices = list(passed_over.notices())
    if len(inputs) < len(found):
        count = len(found) - len(inputs)
        notices.append(
            "1 result of an earlier run is not taken for an input"
            if count == 1
            else f"{count} results of earlier runs are not taken for inputs"
        )
        if not inputs and not problems and source != STANDARD_INPUT:
            raise UsageError(
                f"{source}: nothing but results of earlier runs; "
                "to restore these, give their folder and another --result-dir"
            )
        found = inputs
    # A list may be empty: nothing has arrived since the last night.
    if not found and not problems and source != STANDARD_INPUT:
        where = f" in {' and '.join(sides)}" if sides else ""
        raise UsageError("; ".join([f"{source}: no images found{where} ({_wanted()})", *notices]))
    if shard is not None:
        problems = [problem for problem in problems if shard.takes(_below(root, problem[0]))]
    work = name_results(found, result_dir, suffix, shard, origins, ordered=source == STANDARD_INPUT)
    return Work(work.items, problems + work.problems, notices + work.notices)


def _below(root: Path, path: Path) -> PurePath:
    return path.relative_to(root) if path.is_relative_to(root) else path


@dataclass(frozen=True)
class Listing:
    """The images of a folder. Names are relative to it, with ``/``."""

    names: list[str]
    problems: dict[str, str]
    """Files named like images that are none or cannot be accessed, with the reason."""
    notices: list[str]


def list_images(folder: Path, recursive: bool) -> Listing:
    """List the images of a folder, with problems and notices.

    Raises
    ------
    UsageError
        If the folder cannot be read.
    """
    problems: Problems = []
    passed_over = PassedOver()
    found = find_images(folder, recursive, problems=problems, passed_over=passed_over)
    return Listing(
        [path.relative_to(folder).as_posix() for path in found],
        {path.relative_to(folder).as_posix(): reason for path, reason in problems},
        [f"{folder}: {text}" for text in passed_over.notices()],
    )


def _shell_hint(source: str) -> str:
    """Shells expand ~ only at the beginning of a word, so not in ``--input-dir=~/x``."""
    return "; the shell did not replace the ~" if source.startswith("~") else ""


def _wanted() -> str:
    return "looked for " + ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))


def _find_pairs(
    source: Path,
    recursive: bool,
    result_dir: Path,
    sides: tuple[str, ...],
    problems: Problems,
    passed_over: PassedOver,
) -> list[Candidate]:
    """Pair the images of all sides by relative name without suffix."""
    by_side: list[dict[PurePath, list[Path]]] = []
    for side in sides:
        if not side:
            raise UsageError("the name of a sub-folder of views is empty")
        folder = source / side
        if not is_folder(folder):
            raise UsageError(f"{folder}: no such folder; it should hold one view of each image")
        stems: dict[PurePath, list[Path]] = defaultdict(list)
        for path in find_images(folder, recursive, result_dir, problems, passed_over):
            # Of two systems one may compose letters that the other does not.
            bare = path.relative_to(folder).with_suffix("").as_posix()
            stems[PurePath(unicodedata.normalize("NFC", bare))].append(path)
        by_side.append(stems)
    if len({real_path(source / side) for side in sides}) < len(sides):
        raise UsageError(f"{' and '.join(sides)} are one folder; each view has its own")
    stems_in_order = sorted({s for stems in by_side for s in stems}, key=in_order)
    pairs = []
    for stem in stems_in_order:
        files = [stems.get(stem, []) for stems in by_side]
        if all(len(found) == 1 for found in files):
            sources = [found[0] for found in files]
            name = stem.with_name(sources[0].name).as_posix()
            linked = any(path.is_symlink() for path in sources)
            pairs.append(Candidate(tuple(map(str, sources)), name, name, linked))
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
