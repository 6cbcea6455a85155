"""What a person or a pipeline sees of a run: stdout is data, stderr is for people."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import IO

from tqdm import tqdm

from restormer_cli.batch import Outcome
from restormer_cli.discovery import Item

#: Without a terminal there is no bar, but a line this often, in seconds.
LINE_EVERY = 60.0


class Console:
    """Shows a run: implements :class:`restormer_cli.batch.Observer`.

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
        self, *, json_lines: bool = False, quiet: bool = False, report: IO[str] | None = None
    ) -> None:
        self.json_lines = json_lines
        self.quiet = quiet
        self.report = report
        self.bar: tqdm | None = None
        self.images = 0
        self.finished = 0
        self.current, self.share = "", 0.0
        self.pixels = 0
        self.pixels_done = 0.0
        self.began = self.spoke = time.monotonic()

    def begin(self, images: int) -> None:
        self.images = images
        self.began = self.spoke = time.monotonic()
        if not self.quiet and sys.stderr.isatty():
            self.bar = tqdm(
                total=images,
                unit="image",
                file=sys.stderr,
                dynamic_ncols=True,
                bar_format="{l_bar}{bar}| {n:.2f}/{total} [{elapsed}<{remaining}{postfix}]",
            )

    def notice(self, text: str) -> None:
        if not self.quiet:
            self._say(text)

    def error(self, text: str) -> None:
        self._say(f"error: {text}")

    def start(self, item: Item, width: int, height: int) -> None:
        self.current, self.share = str(item.source), 0.0
        self.pixels = width * height
        if self.bar is not None:
            self.bar.set_description(item.source.name)

    def advance(self, share: float) -> None:
        step = max(0.0, share - self.share)
        self.share += step
        self.pixels_done += step * self.pixels
        self._show(step)

    def finish(self, outcome: Outcome) -> None:
        self.finished += 1
        line = json.dumps(asdict(outcome), ensure_ascii=False)
        if self.json_lines:
            print(line, flush=True)
        elif outcome.status == "done":
            print(outcome.result, flush=True)
        elif outcome.status == "planned":
            print(f"{outcome.input} -> {outcome.result}", flush=True)
        if self.report is not None:
            self.report.write(line + "\n")
            self.report.flush()
        if outcome.error is not None:
            self.error(outcome.error)
        if outcome.status == "done":  # its share has been counted to the end
            self._show(0.0)
        else:
            self._show(1.0 - (self.share if outcome.input == self.current else 0.0))

    def close(self, summary: str) -> None:
        """End the bar and print the last line."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        if not self.quiet:
            self._say(summary)

    def _show(self, step: float) -> None:
        now = time.monotonic()
        rate = self.pixels_done / 1e6 / max(now - self.began, 1e-9)
        if self.bar is not None:
            self.bar.set_postfix_str(f"{rate:.3f} MP/s", refresh=False)
            self.bar.update(step)
        elif not self.quiet and now - self.spoke >= LINE_EVERY:
            self.spoke = now
            self._say(f"{self.finished} of {self.images} images, {rate:.3f} MP/s")

    def _say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.clear()
        print(text, file=sys.stderr, flush=True)
