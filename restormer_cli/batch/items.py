"""Images of a run: candidates as they are found, items to restore, the work of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from natsort import natsort_keygen, ns

#: Sorts names as people do: numbers by value, folder by folder, case aside.
natural_key = natsort_keygen(alg=ns.IGNORECASE | ns.PATH)


def in_order(path: PurePath) -> tuple[Any, str]:
    """Sort key for the natural order of paths; no two paths are equal."""
    text = path.as_posix()
    return natural_key(text), text  # the latter where names differ in case alone


class Candidate(NamedTuple):
    """The files of one image, as strings, since a shard holds those of all others too."""

    files: tuple[str, ...]
    name: str
    """Path that its result is named after, with ``/``."""
    key: str
    """Path that its shard is computed from, with ``/``."""
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
        """The file that names the image in messages and reports."""
        return self.sources[0]


Problems = list[tuple[Path, str]]
"""Files that cannot be restored, each with the reason as a sentence."""
Origins = Callable[[Path, Iterable[Path]], Mapping[Path, str]]
"""Takes a result folder and files in it; returns the input of each file that is a result."""


@dataclass(frozen=True)
class Work:
    """All images of a run, with problems and notices."""

    items: list[Item]
    problems: Problems = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    unpaired: Problems = field(default_factory=list)
    """Views whose partners may still come, where a folder is watched."""
    folders: list[Path] = field(default_factory=list)
    """That were looked into."""
