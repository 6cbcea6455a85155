"""Shards, the independent parts of a run: which images each takes, which may run together.

A shard takes the images whose path hashes to its number. So any number of machines can split a
folder without talking to each other, and the split never changes.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import PurePath

from restormer_cli.errors import UsageError

#: Name of the journal and the lock of a run that is not split.
WHOLE = "run"
_NAME = re.compile(r"shard-(\d+)-of-(\d+)")


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of a run; ``index`` counts from 0.

    Raises
    ------
    UsageError
        If there is no such part.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"--shard {self.index}/{self.count}: there is no such part; "
                "I/N counts from 0/N, so the last of three is 2/3"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``I/N``.

        Raises
        ------
        UsageError
            If the text has another form, or there is no such part.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if match is None:
            raise UsageError(f"--shard {text}: write I/N, such as 0/3 for the first of three")
        return cls(int(match[1]), int(match[2]))

    @property
    def name(self) -> str:
        """Name of its journal and its lock."""
        return f"shard-{self.index}-of-{self.count}"

    def takes(self, path: PurePath) -> bool:
        """True if an image is one of this shard.

        The bytes of the path, with ``/`` between its parts, are hashed with BLAKE2b to 64 bits,
        big-endian, modulo ``count``. This must never change: a folder that is half done would be
        split differently.
        """
        digest = hashlib.blake2b(os.fsencode(path.as_posix()), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index


def is_shard(name: str) -> bool:
    """True if a name is that of a shard."""
    return _NAME.fullmatch(name) is not None


def exclude_each_other(name: str, other: str) -> bool:
    """True if two runs, by the names of their locks, must not work in one folder at once.

    Shards of one split can run together. A run that is not split excludes all others, and so do
    shards of different splits: both would restore the same images.
    """
    one, two = _NAME.fullmatch(name), _NAME.fullmatch(other)
    if one is None or two is None:
        return name == other or (name == WHOLE and bool(two)) or (other == WHOLE and bool(one))
    return one[2] != two[2] or one[1] == two[1]
