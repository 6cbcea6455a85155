"""Entry point of ``restormer``, and of ``python -m restormer_cli.cli``."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Load and run the command line; Ctrl-C while loading causes no traceback either."""
    try:
        from restormer_cli.cli.main import main as command
    except KeyboardInterrupt:
        os._exit(128 + signal.SIGINT)
    command()


if __name__ == "__main__":
    main()
