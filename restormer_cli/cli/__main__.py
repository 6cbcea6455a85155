"""The process ``restormer``, and ``python -m restormer_cli.cli`` where that is not on the path."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Load the command line and run it; Ctrl-C ends the loading, too, without a traceback."""
    try:
        from restormer_cli.cli.main import main as command
    except KeyboardInterrupt:
        os._exit(128 + signal.SIGINT)
    command()


if __name__ == "__main__":
    main()
