"""What a run has to do: the images that were found, and what becomes of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from natsort import natsort_keygen, ns

#: Sorts names as people do: numbers by value, folder by folder, case aside.
natural_key = natsort_keygen(alg=ns.IGNORECASE | ns.PATH)


def in_order(path: PurePath) -> tuple[Any, str]:
    """Key that sorts paths in natural order, the same way whatever order they came in."""
    text = path.as_posix()
    return natural_key(text), text  # the latter where names differ in case alone


class Candidate(NamedTuple):
    """The files of one image. All that a shard leaves to others is held as well: mere strings."""

    files: tuple[str, ...]
    name: str
    """What its result is named after, with ``/``."""
    key: str
    """What decides on its shard, with ``/``."""
    linked: bool
    """True if one of the files is a symbolic link."""

    @property
    def stem(self) -> PurePath:
        """The name without its suffix."""
        return PurePath(self.name).with_suffix("")


@dataclass(frozen=True, slots=True)  # a run may hold millions
class Item:
    """One image to restore, from one file or a left and a right one."""

    sources: tuple[Path, ...]
    result: Path

    @property
    def source(self) -> Path:
        """The file that stands for the image in messages and reports."""
        return self.sources[0]


Problems = list[tuple[Path, str]]
"""Files that cannot become results, each with one sentence that says why."""
Origins = Callable[[Path, Iterable[Path]], Mapping[Path, str]]
"""Which of these files in a result folder, named first, are results, and of which input each."""


@dataclass(frozen=True)
class Work:
    """All that a run found to do."""

    items: list[Item]
    problems: Problems = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    unpaired: Problems = field(default_factory=list)
    """Views whose partners may still come, where a folder is watched."""
    folders: list[Path] = field(default_factory=list)
    """That were looked into."""
