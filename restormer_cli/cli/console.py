"""Shows a run: stdout is data, stderr is for people."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

from restormer_cli.batch.outcomes import Outcome
from restormer_cli.cli.progress import Progress
from restormer_cli.cli.stdout import print_line
from restormer_cli.errors import OutputError
from restormer_cli.system.line_file import LineFile
from restormer_cli.system.streams import encode_stdout
from restormer_cli.system.terminal import harmless, harmless_json
from restormer_cli.system.units import format_seconds


def as_json(outcome: Outcome) -> str:
    """Make a line of ``--json`` and ``--log-json``."""
    return harmless_json(json.dumps(asdict(outcome), ensure_ascii=False))


def as_text(outcome: Outcome) -> str | None:
    """Make a line for stdout without ``--json``: the path of a result that is done or planned."""
    if outcome.status == "planned":
        return f"{outcome.input} -> {outcome.result}"
    return outcome.result if outcome.status == "done" else None


class Console:
    """Shows a run: implements :class:`restormer_cli.batch.outcomes.Observer`.

    Parameters
    ----------
    json_lines
        Print every outcome as a line of JSON instead of the paths of results.
    quiet
        Print only errors on stderr.
    log
        An open file to append every outcome to, as a line of JSON.
    goes_on
        The run begins again whenever there is something to do; the bar is shown only meanwhile.
    """

    def __init__(
        self,
        *,
        json_lines: bool = False,
        quiet: bool = False,
        log: LineFile | None = None,
        goes_on: bool = False,
    ) -> None:
        self.form = as_json if json_lines else as_text
        self.quiet = quiet
        self.log = log
        self.goes_on = goes_on
        self.incomplete = False
        """True if the log lacks lines."""
        self.images = self.finished = 0
        self.done = self.total = 0.0  # megapixels
        self.began = time.monotonic()
        self.progress = Progress(
            self._line,
            quiet=quiet,
            smoothing=0,  # by the mean of the whole run: images differ
            bar_format="{l_bar}{bar}| {n:.1f}/{total:.1f} MP [{elapsed}<{remaining}{postfix}]",
            leave=not goes_on,
        )
        encode_stdout(json=json_lines)

    def begin(self, images: int, megapixels: float) -> None:
        self.images, self.finished = images, 0
        self.total, self.done = megapixels, 0.0
        self.began = time.monotonic()
        self.progress.begin(megapixels)

    def expect(self, megapixels: float) -> None:
        self.total = megapixels
        self.progress.expect(megapixels)

    def notice(self, text: str) -> None:
        if not self.quiet:
            self.progress.say(text)

    def error(self, text: str) -> None:
        self.progress.say(f"error: {text}")

    def start(self, name: str) -> None:
        self.progress.describe(harmless(name), self._figures())

    def advance(self, megapixels: float) -> None:
        self.done += megapixels
        self.progress.describe("", self._figures())
        self.progress.advance(megapixels)

    def finish(self, outcome: Outcome) -> None:
        self.finished += outcome.status in {"done", "failed"}
        if (line := self.form(outcome)) is not None:
            self._print(line)
        self._append(as_json(outcome))
        if outcome.error is not None:
            self.error(outcome.error)
        self.advance(0.0)
        if self.goes_on and self.finished >= self.images:
            self.progress.close()

    def close(self, summary: str, left: int = 0) -> None:
        """End the bar and print the last line, also if quiet when images are left."""
        self.progress.close()
        if left or not self.quiet:
            self.say(summary)

    def say(self, text: str) -> None:
        """Print a line for people, also if quiet."""
        self.progress.say(text)

    def _print(self, line: str) -> None:
        if sys.stdout.isatty():  # the same line of the same terminal
            self.progress.clear()
        try:
            print_line(line)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(
                f"standard output cannot be written ({error.strerror or error})"
            ) from error

    def _append(self, line: str) -> None:
        """Append a line to the log; if that fails, say so and go on without it."""
        if self.log is None:
            return
        try:
            self.log.append(line)
        except OSError as error:
            name, self.log = self.log.name, None
            self.incomplete = True
            self.error(f"{name}: cannot be written any more ({error.strerror or error})")

    def _rate(self) -> float:
        return self.done / max(time.monotonic() - self.began, 1e-9)

    def _figures(self) -> str:
        return f"{self.finished}/{self.images} images, {self._rate():.3f} MP/s"

    def _line(self) -> str:
        rate = self._rate()
        left = (self.total - self.done) / rate if rate > 0 else float("inf")
        return (
            f"{self.finished} of {self.images} images, "
            f"{self.done:.1f} of {self.total:.1f} megapixels, {rate:.3f} MP/s, "
            f"{format_seconds(left)} left"
        )
