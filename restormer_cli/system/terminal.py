"""Makes names and messages harmless for a terminal.

A file may have any name. Control characters in it would move the cursor or change colours, a line
feed would begin a new line, and marks of writing direction would change the order of letters.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TextIO

_COMMANDS = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0 and C1 controls, line feed and tab included
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # writing direction
    "\u2028\u2029\ufeff\U000e0000-\U000e007f]"  # line ends and what nobody sees
)


def harmless(text: str) -> str:
    """Escape all characters that are not visible, as ``\\x1b``; the text is then one line."""
    return _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)


def harmless_json(line: str) -> str:
    """Escape the same characters in a line of JSON as JSON does, without changing its value."""
    return _COMMANDS.sub(lambda found: _json_escape(found[0]), line)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def shown_on(stream: TextIO, text: str) -> str:
    """Make a text harmless if the stream is a terminal; leave it as it is for a program."""
    return harmless(text) if stream.isatty() else text


def short(path: Path) -> str:
    """A path for people, with ``~`` for their home."""
    try:
        home = Path.home()
        below = path.relative_to(home)
    except (RuntimeError, ValueError):  # there is no home, or the path is elsewhere
        return str(path)
    return str(path) if home == Path(home.anchor) else str("~" / below)
