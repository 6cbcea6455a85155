"""The command ``restormer``: all its commands; errors become exit statuses."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated, NoReturn

import typer

from restormer_cli.cli import restore, weights
from restormer_cli.cli.devices import devices
from restormer_cli.cli.evaluate import evaluate
from restormer_cli.cli.logs import log_to
from restormer_cli.cli.report import report
from restormer_cli.cli.reproduce import reproduce
from restormer_cli.cli.stderr import complain
from restormer_cli.errors import RestormerError, Stopped
from restormer_cli.system import limits
from restormer_cli.system.streams import (
    encode_stdout,
    forget_unusable_width,
    open_standard_streams,
    quiet_opencv,
)
from restormer_cli.version import __version__

#: Paragraphs, since the lines of one would be joined.
EXAMPLES = """Examples:

  restormer denoise --input-dir photos --result-dir clean

  restormer deblur --input-dir *.jpg --result-dir sharp --json

  restormer derain --input-dir phone --result-dir clean -r --watch
"""

app = typer.Typer(
    help="Restore folders of photos with Restormer: rain, noise, motion blur, defocus.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
restore.add_commands(app)
app.command()(devices)
app.command()(evaluate)
app.command()(reproduce)
app.command()(report)
app.add_typer(weights.app, name="weights")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"restormer-cli {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Say which version."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run a command; turn errors of ours into one line and an exit status."""
    try:
        open_standard_streams()
        forget_unusable_width()
        encode_stdout()
        quiet_opencv()
        with log_to(complain, 0):
            app()
    except RestormerError as error:
        _fail(error, error.exit_status)
    except Stopped as stop:
        _end_at_once(stop.exit_status)
    except BrokenPipeError:
        _flush_nowhere()
        sys.exit(1)
    except (ImportError, MemoryError, OSError, RuntimeError) as error:
        reason = limits.reason(error)
        if reason is None:  # an error of ours
            raise
        _fail(reason, 2 if limits.is_loading(error) else 1)


def _fail(reason: object, status: int) -> NoReturn:
    """End with one line, even if the reader of our output has gone, or the disk is full."""
    complain(f"error: {reason}")
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    _flush_nowhere()
    sys.exit(status)


def _end_at_once(status: int) -> NoReturn:
    """End the process at once: Python's end would abort a thread inside a decoder."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _flush_nowhere() -> None:
    """Discard further output, also when Python flushes, since its reader has gone."""
    with contextlib.suppress(OSError):  # no further file may be opened, say
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
