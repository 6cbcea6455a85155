"""How far a command is: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from restormer_cli.cli.stderr import complain

if TYPE_CHECKING:
    from tqdm import tqdm

#: Without a terminal there is no bar, but a line this often, in seconds.
LINE_EVERY = 60.0


class Progress:
    """Shows how far a command is, on stderr.

    Parameters
    ----------
    line
        Gives what to print now and then where stderr is no terminal; by default nothing is.
    quiet
        Show nothing, but print what :meth:`say` is given.
    bar
        How :class:`tqdm.tqdm` is to look.
    """

    def __init__(
        self, line: Callable[[], str] | None = None, *, quiet: bool = False, **bar: Any
    ) -> None:
        self._line, self._quiet, self._options = line, quiet, bar
        self._bar: tqdm | None = None
        self._begun = False
        self._spoke = time.monotonic()

    def begin(self, total: float | None, *, done: float = 0, description: str = "") -> None:
        """Begin to count, or begin anew; ``done`` is what was there before and took no time."""
        self.close()
        self._begun = True
        self._spoke = time.monotonic()
        if not self._quiet and sys.stderr.isatty():
            from tqdm import tqdm

            options = {"leave": False, "file": sys.stderr, "dynamic_ncols": True, **self._options}
            self._bar = tqdm(total=total, initial=done, desc=description or None, **options)

    def show(self, done: float, total: float | None, description: str = "") -> None:
        """Show so much done of a total; begins to count where that has not begun."""
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
        """Say what is in hand, and further figures; shown with the next step."""
        if self._bar is not None:
            if description:
                self._bar.set_description(description, refresh=False)
            self._bar.set_postfix_str(postfix, refresh=False)

    def advance(self, amount: float) -> None:
        """Count a step; a negative one if something was lost."""
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
