"""What a person or a pipeline sees of a run: stdout is data, stderr is for people."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

from tqdm import tqdm

from restormer_cli.batch.outcomes import Outcome
from restormer_cli.errors import OutputError
from restormer_cli.system.line_file import LineFile
from restormer_cli.system.streams import encode_stdout
from restormer_cli.system.terminal import complain, harmless, harmless_json, shown_on
from restormer_cli.system.units import format_seconds

#: Without a terminal there is no bar, but a line this often, in seconds.
LINE_EVERY = 60.0


class Console:
    """Shows a run: implements :class:`restormer_cli.batch.outcomes.Observer`.

    Parameters
    ----------
    json_lines
        Print every outcome as a line of JSON instead of the paths of results.
    quiet
        Say nothing on stderr but errors.
    report
        An open file that gets every outcome as a line of JSON as well.
    """

    def __init__(
        self, *, json_lines: bool = False, quiet: bool = False, report: LineFile | None = None
    ) -> None:
        self.json_lines = json_lines
        self.quiet = quiet
        self.report = report
        self.incomplete = False
        """Whether the report lacks lines."""
        self.bar: tqdm | None = None
        self.images = self.finished = 0
        self.done = self.total = 0.0  # megapixels
        self.began = self.spoke = time.monotonic()
        encode_stdout(json=json_lines)

    def begin(self, images: int, megapixels: float) -> None:
        self.images, self.finished = images, 0
        self.total = megapixels
        self.began = self.spoke = time.monotonic()
        if not self.quiet and sys.stderr.isatty():
            self.bar = tqdm(
                total=megapixels,
                file=sys.stderr,
                dynamic_ncols=True,
                smoothing=0,  # by the mean of the whole run: images differ
                bar_format="{l_bar}{bar}| {n:.1f}/{total:.1f} MP [{elapsed}<{remaining}{postfix}]",
            )

    def expect(self, megapixels: float) -> None:
        self.total = megapixels
        if self.bar is not None:
            self.bar.total = max(megapixels, self.bar.n)

    def notice(self, text: str) -> None:
        if not self.quiet:
            self.say(text)

    def error(self, text: str) -> None:
        self.say(f"error: {text}")

    def start(self, name: str) -> None:
        if self.bar is not None:
            self.bar.set_description(harmless(name), refresh=False)

    def advance(self, megapixels: float) -> None:
        self._show(megapixels)

    def finish(self, outcome: Outcome) -> None:
        self.finished += outcome.status in {"done", "failed"}
        line = harmless_json(json.dumps(asdict(outcome), ensure_ascii=False))
        if self.json_lines:
            self._print(line)
        elif outcome.status == "done":
            self._print(outcome.result)
        elif outcome.status == "planned":
            self._print(f"{outcome.input} -> {outcome.result}")
        self._append(line)
        if outcome.error is not None:
            self.error(outcome.error)
        self._show(0.0)

    def close(self, summary: str, left: int = 0) -> None:
        """End the bar and print the last line; also if quiet, where images are left."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        if left or not self.quiet:
            self.say(summary)

    def _print(self, line: str) -> None:
        if self.bar is not None and sys.stdout.isatty():  # the same line of the same terminal
            self.bar.clear()
        try:
            print(shown_on(sys.stdout, line), flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(
                f"standard output cannot be written ({error.strerror or error})"
            ) from error

    def _append(self, line: str) -> None:
        """To the report; without one the images are restored nevertheless, and it is said."""
        if self.report is None:
            return
        try:
            self.report.append(line)
        except OSError as error:
            name, self.report = self.report.name, None
            self.incomplete = True
            self.error(f"{name}: cannot be written any more ({error.strerror or error})")

    def _show(self, megapixels: float) -> None:
        self.done += megapixels
        now = time.monotonic()
        seconds = max(now - self.began, 1e-9)
        rate = self.done / seconds
        if self.bar is not None:
            images = f"{self.finished}/{self.images} images, {rate:.3f} MP/s"
            self.bar.set_postfix_str(images, refresh=False)
            self.bar.update(megapixels)
        elif not self.quiet and now - self.spoke >= LINE_EVERY:
            self.spoke = now
            left = (self.total - self.done) / rate if rate > 0 else float("inf")
            self.say(
                f"{self.finished} of {self.images} images, "
                f"{self.done:.1f} of {self.total:.1f} megapixels, {rate:.3f} MP/s, "
                f"{format_seconds(left)} left"
            )

    def say(self, text: str) -> None:
        """Print a line for people, in any case."""
        if self.bar is not None:
            self.bar.clear()
        complain(text)
