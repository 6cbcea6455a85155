#!/usr/bin/env python3
"""A long run in one process: memory, open files and threads must not grow.

Makes many small images of a few sizes, restores them with the embedded weights, and prints what
the process holds as it goes. Needs Linux or macOS and an environment in which restormer-cli is
installed::

    python scripts/soak.py --images 20000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import psutil

from restormer_cli import load_restorer
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Collector, Outcome, Provenance
from restormer_cli.batch.run import run
from restormer_cli.executors.in_process import InProcess

SIZES = (16, 24, 32, 40)
#: Share of the run that may pass before what is held counts as the base.
WARM_UP = 0.1
#: Growth of memory that is noise, in bytes.
SLACK = 32e6


class Watch(Collector):
    """Samples the process a hundred times over the run."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.every = max(1, images // 100)
        self.count = 0
        self.process = psutil.Process()
        self.samples: list[tuple[int, int, int]] = []
        self.began = time.monotonic()

    def finish(self, outcome: Outcome) -> None:
        if outcome.status != "done":
            raise SystemExit(f"{outcome.input}: {outcome.error or outcome.status}")
        self.count += 1
        if self.count % self.every == 0:
            sample = self.process.memory_info().rss, self.process.num_fds()
            self.samples.append((*sample, threading.active_count()))
            if len(self.samples) % 10 == 0:
                memory, files, threads = self.samples[-1]
                rate = self.count / (time.monotonic() - self.began)
                print(
                    f"{self.count:7} images  {memory / 1e6:6.1f} MB  {files} open files  "
                    f"{threads} threads  {rate:.0f} images/s",
                    flush=True,
                )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        source.mkdir()
        rng = np.random.default_rng(0)
        for index in range(arguments.images):
            size = SIZES[index // 50 % len(SIZES)]
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            cv2.imwrite(str(source / f"{index}.png"), pixels)
        restorer = load_restorer("denoise", kind="real")
        watch = Watch(arguments.images)
        options = RunOptions(str(source), Path(folder, "out"))
        run(options, options.find_work(), lambda: InProcess(restorer, Provenance()), watch)
    base = watch.samples[int(WARM_UP * len(watch.samples))]
    last = watch.samples[-1]
    grown = last[0] - base[0] > SLACK or last[1] > base[1] or last[2] > base[2]
    print("grown" if grown else f"nothing has grown in {watch.count} images")
    return int(grown)


if __name__ == "__main__":
    sys.exit(main())
