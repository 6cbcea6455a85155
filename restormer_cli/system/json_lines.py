"""Reads JSON lines from outside: a journal, a log of a run, a note of another process.

Their writer may have been killed, and disks, editors and people change files. So a line counts only
if all of it is sound, and others are passed over.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterator
from pathlib import PurePath
from typing import IO, Any, NoReturn, TypeGuard

#: Most bytes of a line. Lines of ours are far shorter, and a file may have no line feed.
LONGEST_LINE = 1 << 20


def lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines of a file with their offsets, without those that are too long."""
    offset, cut = 0, False
    while line := file.readline(LONGEST_LINE):
        ends = line.endswith(b"\n")
        if not cut and (ends or len(line) < LONGEST_LINE):
            yield offset, line
        cut = not ends
        offset += len(line)


def parse(line: bytes | str) -> Any:
    """Parse a line.

    Raises
    ------
    ValueError
        If it is no JSON in UTF-8, has a key twice or NaN or an infinity, or is nested too deeply.
    """
    try:
        text = line if isinstance(line, str) else line.removeprefix(codecs.BOM_UTF8).decode()
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def is_path(value: object) -> TypeGuard[str]:
    """True if a value can be a path of this system."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    if value.isascii():
        return True
    try:
        os.fsencode(value)
    except UnicodeEncodeError:  # half of a character
        return False
    return True


def is_name_inside(value: object) -> TypeGuard[str]:
    """True if a value can be the relative path of a file inside a folder."""
    if not is_path(value) or value.startswith("/"):
        return False
    if ".." not in value and "\\" not in value and ":" not in value:
        return True  # there may be millions: a path of parts takes ten times as long
    path = PurePath(value)
    return not path.anchor and ".." not in path.parts


def is_whole(value: object) -> TypeGuard[int]:
    """True if a value is an integer of 64 bits, as file systems use."""
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key is there twice")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)
