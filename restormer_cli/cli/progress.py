"""Shows progress: a bar on a terminal, else a line a minute."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from restormer_cli.cli.stderr import complain

if TYPE_CHECKING:
    from tqdm import tqdm

#: Seconds between two lines without a terminal.
LINE_EVERY = 60.0


def _width() -> dict[str, Any]:
    """Options for the bar's width: that of the terminal, as it is now, if it has any.

    Some were never told how wide they are (``docker exec``, serial lines): no bar would fit there.
    """
    try:
        known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):  # something that takes the place of a terminal
        known = False
    return {"dynamic_ncols": True} if known else {"ncols": 80, "nrows": 24}


class Progress:
    """Shows the progress of a command on stderr.

    Parameters
    ----------
    line
        Returns the line to print each minute if stderr is no terminal; by default none is printed.
    quiet
        Show no progress; :meth:`say` still prints.
    bar
        Options of :class:`tqdm.tqdm`.
    """

    def __init__(
        self, line: Callable[[], str] | None = None, *, quiet: bool = False, **bar: Any
    ) -> None:
        self._line, self._quiet, self._options = line, quiet, bar
        self._bar: tqdm | None = None
        self._begun = False
        self._spoke = time.monotonic()

    def begin(self, total: float | None, *, done: float = 0, description: str = "") -> None:
        """Begin to count, or begin again; an amount done before does not count for speed."""
        self.close()
        self._begun = True
        self._spoke = time.monotonic()
        if not self._quiet and sys.stderr.isatty():
            from tqdm import tqdm

            options = {"leave": False, "file": sys.stderr, **_width(), **self._options}
            self._bar = tqdm(total=total, initial=done, desc=description or None, **options)

    def show(self, done: float, total: float | None, description: str = "") -> None:
        """Show an amount done of a total; begins to count at the first call."""
        if not self._begun:
            # What was there before counts as done, not as fast.
            self.begin(total, done=done, description=description)
        if total is not None:
            self.expect(total)
        self.describe(description)
        self.advance(done - (self._bar.n if self._bar is not None else 0))

    def expect(self, total: float) -> None:
        """Correct the total."""
        if self._bar is not None:
            self._bar.total = max(total, self._bar.n)

    def describe(self, description: str, postfix: str = "") -> None:
        """Set the description and further figures, which the next step shows."""
        if self._bar is not None:
            if description:
                self._bar.set_description(description, refresh=False)
            self._bar.set_postfix_str(postfix, refresh=False)

    def advance(self, amount: float) -> None:
        """Count a step; a negative one takes back."""
        if self._bar is not None:
            self._bar.update(amount)
        elif self._line is not None and not self._quiet:
            now = time.monotonic()
            if now - self._spoke >= LINE_EVERY:
                self._spoke = now
                self.say(self._line())

    def say(self, text: str) -> None:
        """Print a line for people on stderr."""
        self.clear()
        complain(text)

    def clear(self) -> None:
        """Make room for a line on the same terminal."""
        if self._bar is not None:
            self._bar.clear()

    def close(self) -> None:
        """End the bar."""
        self._begun = False
        if self._bar is not None:
            self._bar.close()
            self._bar = None
