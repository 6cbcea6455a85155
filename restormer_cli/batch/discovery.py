"""Finds the images of a run, and pairs the views of dual-pixel images."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO

from restormer_cli.batch.items import Candidate, Origins, Problems, Work, in_order
from restormer_cli.batch.naming import name_results, without_results
from restormer_cli.batch.path_lists import place_of, read_list
from restormer_cli.batch.shards import Shard
from restormer_cli.batch.walk import READABLE, PassedOver, find_images, walk
from restormer_cli.errors import UsageError
from restormer_cli.images.formats import PNG
from restormer_cli.system.files import absolute_path, file_mode, is_folder, is_link, real_path

STANDARD_INPUT = "-"


def find_work(
    sources: str | Sequence[str],
    result_dir: Path,
    *,
    recursive: bool = False,
    sides: tuple[str, ...] = (),
    null: bool = False,
    suffix: str = PNG.suffix,
    shard: Shard | None = None,
    stdin: IO[bytes] | None = None,
    origins: Origins = lambda folder, results: {},
    watched: bool = False,
) -> Work:
    """Find the images below folders, single images, or those named on standard input.

    Parameters
    ----------
    sources
        A folder, an image file or ``-``; or several folders and files, whose results are then
        mirrored below the folder that all of them have in common.
    recursive
        Walk sub-folders; they are mirrored below ``result_dir``.
    sides
        Sub-folders of each source whose images of the same name form one input, such as
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
    watched
        More may come: there may be nothing as yet, and what lacks its partner is ``unpaired``.

    Raises
    ------
    UsageError
        If no source exists, can be accessed and holds an image, ``result_dir`` is no folder, or
        ``null`` is set without a list.
    """
    if file_mode(result_dir) and not is_folder(result_dir):
        raise UsageError(f"{result_dir}: is a file; name a folder for --result-dir")
    named = [sources] if isinstance(sources, str) else list(sources)
    _check_sources(named, sides, null)
    listed = named == [STANDARD_INPUT]
    search = _Search(recursive, result_dir, sides)
    if listed:
        search.found = list(read_list(stdin or sys.stdin.buffer, null, search.problems))
    else:
        search.look_into(named)
    inputs = search.without_results(origins)
    earlier = len(search.found) - len(inputs)
    problems = search.problems if watched else search.problems + search.unpaired
    if watched:  # what is not finished will be
        search.passed_over.unfinished.clear()
    notices = list(search.passed_over.notices())
    # A list may be empty: nothing has arrived since the last night.
    if not (inputs or problems or listed or watched):
        raise UsageError(_why_nothing(_several(named), sides, earlier, notices))
    if earlier and not watched:
        notices.append(
            "1 result of an earlier run is not taken for an input"
            if earlier == 1
            else f"{earlier} results of earlier runs are not taken for inputs"
        )
    if not watched:
        notices += [f"{source}: no images found" for source in search.empty]
    if shard is not None:
        problems = [problem for problem in problems if shard.takes(search.key_of(problem[0]))]
    work = name_results(inputs, result_dir, suffix, shard, origins, ordered=listed)
    unpaired = search.unpaired if watched else []
    problems, notices = problems + work.problems, notices + work.notices
    return Work(work.items, problems, notices, unpaired, search.passed_over.walked)


def _check_sources(named: Sequence[str], sides: tuple[str, ...], null: bool) -> None:
    if not named or "" in named:
        raise UsageError("--input-dir is empty; name a folder, an image, or - for a list")
    if STANDARD_INPUT in named and len(named) > 1:
        raise UsageError("-: a list stands alone; write the other paths into it as well")
    if null and STANDARD_INPUT not in named:
        raise UsageError(f"--null: is for paths on standard input, --input-dir -, not {named[0]}")
    if sides and STANDARD_INPUT in named:
        raise UsageError("-: pairs of views come from a folder, not from a list")


class _Search:
    """What lies below the folders and files that were named."""

    def __init__(self, recursive: bool, result_dir: Path, sides: tuple[str, ...]) -> None:
        self.recursive, self.result_dir, self.sides = recursive, result_dir, sides
        self.found: list[Candidate] = []
        self.problems: Problems = []
        self.unpaired: Problems = []
        """Views without a partner."""
        self.passed_over = PassedOver()
        self.empty: list[str] = []
        """Sources without images."""
        self._base = Path()
        """Problems count for a shard by their path below it."""

    def look_into(self, named: list[str]) -> None:
        """Find all images, each once. Where one of several sources is wrong, that is a problem.

        Raises
        ------
        UsageError
            If all are wrong.
        """
        if len(named) == 1:
            self._find(named[0], PurePath())
            self._base = Path(named[0]) if is_folder(Path(named[0])) else Path(named[0]).parent
            return
        wrong: list[UsageError] = []
        folders = [_folder_of(source) for source in named]
        for source, place in zip(named, _places(folders), strict=True):
            before = len(self.found) + len(self.problems) + len(self.unpaired)
            try:
                self._find(source, place)
            except UsageError as error:
                wrong.append(error)
                self.problems.append((Path(source), str(error).removeprefix(f"{source}: ")))
            if before == len(self.found) + len(self.problems) + len(self.unpaired):
                self.empty.append(source)
        if len(wrong) == len(named):
            raise wrong[0]
        self._base = Path(os.path.commonpath(folders)) if _on_one_drive(folders) else Path()
        heads: dict[str, str] = {}
        once = {place_of(Path(image.files[0]), heads): image for image in reversed(self.found)}
        self.found = list(reversed(once.values()))
        self.problems = list(dict.fromkeys(self.problems))
        self.unpaired = list(dict.fromkeys(self.unpaired))

    def without_results(self, origins: Origins) -> list[Candidate]:
        """What was found but results of earlier runs, here and in folders of results below."""
        inputs = self.found
        for folder in (self.result_dir, *self.passed_over.result_folders):
            inputs = without_results(inputs, folder, origins)
        return inputs

    def key_of(self, path: Path) -> PurePath:
        """What decides on the shard of a problem."""
        if self._base.is_absolute() and not path.is_absolute():
            path = Path(absolute_path(path))
        return path.relative_to(self._base) if path.is_relative_to(self._base) else path

    def _find(self, source: str, place: PurePath) -> None:
        """Find the images of one source, whose results lie in ``place``."""
        root = Path(source)
        if self.sides:
            self._find_pairs(root, place)
        elif is_folder(root):
            below = f"{place.as_posix()}/" if place.parts else ""  # there may be millions
            found = walk(root, self.recursive, self.result_dir, self.problems, self.passed_over)
            for file, linked in found:
                name = f"{below}{PurePath(file).relative_to(root).as_posix()}"
                self.found.append(Candidate((file,), name, name, linked))
        elif file_mode(root):
            name = (place / root.name).as_posix()
            self.found.append(Candidate((source,), name, name, is_link(root)))
        else:
            raise UsageError(f"{source}: no such folder or file{_shell_hint(source)}")

    def _find_pairs(self, source: Path, place: PurePath) -> None:
        """Pair the images of all sides by relative name without suffix."""
        by_side: list[dict[PurePath, list[Path]]] = []
        for folder in folders_of_views(source, self.sides):
            stems: dict[PurePath, list[Path]] = defaultdict(list)
            for path in find_images(
                folder, self.recursive, self.result_dir, self.problems, self.passed_over
            ):
                # Of two systems one may compose letters that the other does not.
                bare = path.relative_to(folder).with_suffix("").as_posix()
                stems[PurePath(unicodedata.normalize("NFC", bare))].append(path)
            by_side.append(stems)
        stems_in_order = sorted({s for stems in by_side for s in stems}, key=in_order)
        for stem in stems_in_order:
            files = [stems.get(stem, []) for stems in by_side]
            if all(len(found) == 1 for found in files):
                views = [found[0] for found in files]
                name = (place / stem.with_name(views[0].name)).as_posix()
                linked = any(map(is_link, views))
                self.found.append(Candidate(tuple(map(str, views)), name, name, linked))
                continue
            missing = [s for s, found in zip(self.sides, files, strict=True) if not found]
            for side, found in zip(self.sides, files, strict=True):
                if missing:
                    reason = f"has no partner in {', '.join(missing)}"
                    self.unpaired += [(path, reason) for path in found]
                else:
                    reason = (
                        f"is ambiguous: more than one file of this name in {side} or its partner"
                    )
                    self.problems += [(path, reason) for path in found]


def folders_of_views(source: Path, sides: tuple[str, ...]) -> list[Path]:
    """The folders that hold the images of a source: itself, or those with its views.

    Raises
    ------
    UsageError
        If there are not as many folders as sides.
    """
    if not sides:
        return [source]
    folders = [source / side for side in sides]
    for side, folder in zip(sides, folders, strict=True):
        if not side:
            raise UsageError("the name of a sub-folder of views is empty")
        if not is_folder(folder):
            raise UsageError(f"{folder}: no such folder; it should hold one view of each image")
    if len({real_path(folder) for folder in folders}) < len(folders):
        raise UsageError(f"{' and '.join(sides)} are one folder; each view has its own")
    return folders


def _folder_of(source: str) -> str:
    """The folder of which a source is, or which it is; absolute, links stay."""
    path = absolute_path(source)
    return path if os.path.isdir(path) else os.path.dirname(path)  # noqa: PTH112, PTH120


def _on_one_drive(folders: Sequence[str]) -> bool:
    return len({os.path.splitdrive(folder)[0].casefold() for folder in folders}) == 1


def _places(folders: Sequence[str]) -> list[PurePath]:
    """Where in the result folder those of several folders go: as they lie below a common one."""
    if _on_one_drive(folders):
        common = os.path.commonpath(folders)
        return [PurePath(os.path.relpath(folder, common)) for folder in folders]
    places = []
    for folder in folders:  # of Windows: each drive is a folder
        drive, path = os.path.splitdrive(folder)
        name = drive.replace(":", "").replace("\\", "_").strip("_")
        places.append(PurePath(name, path.strip("\\/")))
    return places


def _several(named: Sequence[str], most: int = 3) -> str:
    """What was named, for a sentence."""
    more = f" and {len(named) - most} more" if len(named) > most else ""
    return ", ".join(named[:most]) + more


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


def _why_nothing(what: str, sides: tuple[str, ...], earlier: int, notices: list[str]) -> str:
    """The sentence for sources without an image to restore; ``earlier`` counts results."""
    if earlier:
        return (
            f"{what}: nothing but results of earlier runs; "
            "to restore these, give their folder and another --result-dir"
        )
    where = f" in {' and '.join(sides)}" if sides else ""
    return "; ".join([f"{what}: no images found{where} ({_wanted()})", *notices])


def _shell_hint(source: str) -> str:
    """What the shell would have replaced, for people; "" if nothing."""
    if source.startswith("~"):  # only at the beginning of a word: not in --input-dir=~/x
        return "; the shell did not replace the ~"
    if re.search(r"[*?]", source):
        return "; no file matches the pattern, or quotation marks kept it from the shell"
    return ""


def _wanted() -> str:
    return "looked for " + ", ".join(codec.name for codec in READABLE if codec.suffixes)
