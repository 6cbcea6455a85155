"""Prints lines for people on stderr."""

from __future__ import annotations

import contextlib
import sys

from restormer_cli.system.terminal import harmless


def complain(text: str) -> None:
    """Print a line for people on stderr; if that fails, go on."""
    with contextlib.suppress(OSError):
        print(harmless(text), file=sys.stderr, flush=True)
