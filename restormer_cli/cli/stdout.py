"""Prints lines of data on stdout."""

from __future__ import annotations

import sys

from restormer_cli.system.terminal import shown_on


def print_line(text: str) -> None:
    """Print a line at once: as it is for a program, harmless on a terminal.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    print(shown_on(sys.stdout, text), flush=True)
