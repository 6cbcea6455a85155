"""Lists of paths on standard input: one a line, or each ended by NUL.

A path is taken literally: blanks, quotation marks and ``~`` belong to it. A byte-order mark, line
ends of Windows and the UTF-16 of PowerShell are understood.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from restormer_cli.batch.items import Candidate, Problems
from restormer_cli.errors import UsageError
from restormer_cli.system.files import absolute_path

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)


def read_list(stream: IO[bytes], null: bool, problems: Problems) -> Iterator[Candidate]:
    """Read a list of files, each once, in its order.

    Paths that cannot be images are added to ``problems``.

    Parameters
    ----------
    null
        Paths end in NUL instead of a line feed.

    Raises
    ------
    UsageError
        If the stream cannot be read, or its UTF-16 or UTF-32 is damaged.
    """
    seen: set[str] = set()
    folders: dict[str, str] = {}
    for raw in _split(stream, null):
        name = raw if null else raw.rstrip(b"\r")
        if not name:
            continue
        name, nul, _ = name.partition(b"\0")
        typed = os.fsdecode(name)
        path = Path(typed)
        if nul:
            problems.append((path, "is followed by NUL; for paths that end in it there is --null"))
            continue
        place = place_of(path, folders)
        if place in seen:
            continue
        seen.add(place)
        if not path.name:  # find prints "." first
            problems.append((path, "is a folder, not an image file"))
            continue
        linked = False
        try:
            linked = stat.S_ISLNK(path.lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError) as error:
            if hint := _hint(typed):
                problems.append((path, f"cannot be read ({error.strerror}); {hint}"))
                continue
        except OSError as error:  # too long, say, or in a folder that is closed
            problems.append((path, f"cannot be looked at ({error.strerror or error})"))
            continue
        yield Candidate((str(path),), path.name, path.as_posix(), linked)


def place_of(path: Path, folders: dict[str, str]) -> str:
    """Resolve links to folders, but not a link to a file.

    ``folders`` keeps the results for folders.
    """
    head, tail = os.path.split(absolute_path(path))
    if head not in folders:
        folders[head] = os.path.realpath(head)
    return os.path.join(folders[head], tail)  # noqa: PTH118 - there may be millions


def _split(stream: IO[bytes], null: bool) -> list[bytes]:
    try:
        content = stream.read()
    except OSError as error:
        raise UsageError(f"-: standard input cannot be read ({error.strerror or error})") from error
    for marks, encoding in ((_UTF_32, "utf-32"), (_UTF_16, "utf-16")):
        if content.startswith(marks):
            try:
                content = os.fsencode(content.decode(encoding))
            except UnicodeError as error:
                raise UsageError(f"-: the list is no whole {encoding.upper()}") from error
            break
    names = content.split(b"\0" if null else b"\n")
    # A file may be called so, but hardly ever is.
    if names[0].startswith(codecs.BOM_UTF8) and not os.path.lexists(names[0].rstrip(b"\r")):
        names[0] = names[0].removeprefix(codecs.BOM_UTF8)
    return names


def _hint(typed: str) -> str:
    """Guess why a path names nothing, for people; "" without a guess."""
    bare = typed.strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
        return "paths in a list stand without quotation marks"
    if typed.lower().startswith("file://"):
        return "a list holds paths, not addresses"
    if typed.startswith("~"):
        return "in a list nothing is put in for ~"
    if typed != bare and os.path.lexists(bare):
        return "blanks at the ends of a line belong to the path"
    return ""
