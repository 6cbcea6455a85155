"""Names results so that none overwrites another, or an input."""

from __future__ import annotations

import hashlib
import os
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

from restormer_cli.batch.items import Candidate, Item, Origins, Work, in_order
from restormer_cli.batch.shards import Shard
from restormer_cli.images.formats import result_suffixes
from restormer_cli.system.files import absolute_path, real_path

#: Length of a name in the units of the system: bytes, or UTF-16 code units.
LONGEST_NAME = 255


def without_results(found: list[Candidate], result_dir: Path, origins: Origins) -> list[Candidate]:
    """Leave out results of earlier runs, if inputs and results share a folder."""
    base = real_path(result_dir)
    suffixes = result_suffixes()
    within: dict[str, Path | None] = {}
    """Folders of inputs, and where in the result folder they lie."""
    places: dict[int, Path] = {}
    for index, image in enumerate(found):
        head, tail = os.path.split(image.files[0])
        if head not in within:
            folder = real_path(Path(head))
            inside = folder.is_relative_to(base)
            within[head] = result_dir / folder.relative_to(base) if inside else None
        place = within[head]
        if place is not None and tail.endswith(suffixes):
            places[index] = place / tail
    results = origins(result_dir, places.values()) if places else {}
    return [image for index, image in enumerate(found) if places.get(index) not in results]


def name_results(
    found: list[Candidate],
    result_dir: Path,
    suffix: str,
    shard: Shard | None,
    origins: Origins,
    *,
    ordered: bool,
) -> Work:
    """Name each result ``NAME.png``, or ``NAME.jpg.png`` if two would be equal.

    A result that has the shorter name from an earlier run keeps it, and so does the first of
    those whose longer name would be too long. A name that is still too long is cut, and a hash of
    the whole name is appended. Names that differ only in case or Unicode form count as equal, as
    on some file systems.

    All images decide on the names, whatever the shard. Only those of the shard are looked up on
    the disk.

    Parameters
    ----------
    suffix
        Of results, such as ``.png``.
    ordered
        Keep the order of the images; by default they are sorted by name.

    Returns
    -------
    Work
        The images of the shard, without those that would overwrite an input or each other.
    """

    def rank(index: int) -> Any:
        return index if ordered else in_order(PurePath(found[index].files[0]))

    longer, superfluous = _settle_clashes(found, result_dir, suffix, origins, rank)
    inputs = _inputs_below(real_path(result_dir), found)

    chosen = [
        index
        for index, image in enumerate(found)
        if shard is None or shard.takes(PurePath(image.key))
    ]
    work = Work([])
    for index in sorted(chosen, key=rank):
        sources = tuple(map(Path, found[index].files))
        name = found[index].name
        place = _with_suffix(PurePath(name) if index in longer else found[index].stem, suffix)
        result = result_dir / place
        if index in longer:
            work.notices.append(
                f"{name}: its result is called {place}, "
                "since another image would share the shorter name"
            )
        elif _is_long(found[index].stem, suffix):
            work.notices.append(
                f"{name}: its result is called {place}, since names may not be "
                f"longer than {LONGEST_NAME}"
            )
        if (inputs and _folded(place) in inputs) or _same_file(result, sources):
            reason = f"its result would overwrite the input {result}; name another --result-dir"
            work.problems.append((sources[0], reason))
        elif index in superfluous:
            remedy = "give their common folder and --recursive" if ordered else "rename it"
            reason = f"another image has the same result {result}; {remedy}"
            work.problems.append((sources[0], reason))
        else:
            work.items.append(Item(sources, result))
    return work


def _settle_clashes(
    found: list[Candidate],
    result_dir: Path,
    suffix: str,
    origins: Origins,
    rank: Callable[[int], Any],
) -> tuple[set[int], set[int]]:
    """Decide about results of equal names.

    Returns
    -------
    set of int
        The images, by their places in the list, that get the longer name.
    set of int
        Those whose name is that of another one all the same.
    """
    folded = [_folded(_with_suffix(image.stem, suffix)) for image in found]
    clashes = _clashes(folded)
    settled = _with_short_names(found, clashes, result_dir, suffix, origins, rank)
    longer: set[int] = set()
    # A longer name may be the short one of another image, which then gets the longer one as well.
    while fixable := [
        index
        for clash in clashes
        for index in clash
        if index not in settled and found[index].stem != PurePath(found[index].name)
    ]:
        for index in fixable:
            folded[index] = _folded(_with_suffix(PurePath(found[index].name), suffix))
        longer.update(fixable)
        settled.update(fixable)
        clashes = _clashes(folded)
    firsts = {min(clash, key=rank) for clash in clashes}
    return longer, {index for clash in clashes for index in clash} - firsts


def _with_short_names(
    found: list[Candidate],
    clashes: list[list[int]],
    result_dir: Path,
    suffix: str,
    origins: Origins,
    rank: Callable[[int], Any],
) -> set[int]:
    """Of images with equal names, those that keep the short one; see :func:`name_results`."""
    shared = {
        index: result_dir / _with_suffix(found[index].stem, suffix)
        for clash in clashes
        for index in clash
    }
    owners = origins(result_dir, shared.values()) if shared else {}
    kept = {
        index
        for index, result in shared.items()
        if owners.get(result) == absolute_path(found[index].files[0])
    }
    for clash in clashes:
        too_long = [index for index in clash if _is_long(PurePath(found[index].name), suffix)]
        if too_long and kept.isdisjoint(clash):
            kept.add(min(too_long, key=rank))
    return kept


def _with_suffix(stem: PurePath, suffix: str) -> PurePath:
    """Append the suffix of results; cut a name that is too long for a file."""
    name = stem.name
    if _is_long(stem, suffix):
        mark = "~" + hashlib.sha256(os.fsencode(name)).hexdigest()[:10]
        while _length(name) + len(mark) + len(suffix) > LONGEST_NAME:
            name = name[:-1]
        name += mark
    return stem.with_name(name + suffix)


def _is_long(stem: PurePath, suffix: str) -> bool:
    return _length(stem.name) + len(suffix) > LONGEST_NAME


def _length(name: str) -> int:
    if sys.platform in {"win32", "darwin"}:
        return len(name.encode("utf-16-le", "surrogatepass")) // 2
    return len(os.fsencode(name))


def _clashes(names: list[str]) -> list[list[int]]:
    """Groups of equal names, by their places in the list."""
    first: dict[str, int] = {}
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        there = first.setdefault(name, index)
        if there != index:
            groups.setdefault(name, [there]).append(index)
    return list(groups.values())


def _inputs_below(target: Path, found: list[Candidate]) -> set[str]:
    """Inputs that lie in the result folder or link into it: relative to it, folded."""
    base = PurePath(_folded(target))
    folders: dict[str, PurePath] = {}
    inputs: set[str] = set()
    for image in found:
        for file in image.files:
            # Links are followed only up to the folder: a link is an input of its own.
            head, tail = os.path.split(file)
            folder = folders.get(head)
            if folder is None:
                folder = folders[head] = PurePath(_folded(real_path(Path(head))))
            places = []
            if folder.is_relative_to(base):
                places.append(folder / _folded(PurePath(tail)))
            if image.linked:
                places.append(PurePath(_folded(real_path(Path(file)))))
            inputs.update(p.relative_to(base).as_posix() for p in places if p.is_relative_to(base))
    return inputs


def _folded(path: PurePath) -> str:
    return unicodedata.normalize("NFC", path.as_posix()).casefold()


def _same_file(result: Path, sources: tuple[Path, ...]) -> bool:
    try:
        return any(result.samefile(source) for source in sources)
    except OSError:  # one of them does not exist
        return False
