"""What is shown to people: names and messages that cannot command a terminal or forge a line.

A file may be called anything. Control characters in its name would move the cursor or change
colours, a line feed would begin a line of its own, and marks of writing direction would show the
letters in another order than they stand in.
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
    """The text in one line, with everything escaped that is no visible character: ``\\x1b``."""
    return _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)


def harmless_json(line: str) -> str:
    """A line of JSON that means the same, with such characters escaped as JSON has it."""
    return _COMMANDS.sub(lambda found: _json_escape(found[0]), line)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def shown_on(stream: TextIO, text: str) -> str:
    """The text as it is for a program that reads the stream, harmless where a person does."""
    return harmless(text) if stream.isatty() else text


def short(path: Path) -> str:
    """A path for people, with ``~`` for their home."""
    try:
        home = Path.home()
        below = path.relative_to(home)
    except (RuntimeError, ValueError):  # there is no home, or the path is elsewhere
        return str(path)
    return str(path) if home == Path(home.anchor) else str("~" / below)
