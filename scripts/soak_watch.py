#!/usr/bin/env python3
"""A long run with --watch: what the process holds must not grow while files come and go.

Files are renamed into the folder, written slowly, replaced, damaged, put into new sub-folders and
deleted again, and so are results. Prints what the process holds every five minutes. Needs an
environment in which restormer-cli is installed::

    python scripts/soak_watch.py --minutes 60
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import psutil

SIZES = (16, 24, 32, 40)
#: Files that lie in the folder at a time, and what is written of one before a pause.
KEPT, PART = 200, 400
#: Seconds between two lines, and share of the run after which what is held counts as the base.
LINE_EVERY, WARM_UP = 300.0, 0.1
#: Growth of memory that is noise, in bytes.
SLACK = 32e6


def image(number: int) -> bytes:
    size = SIZES[number % len(SIZES)]
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1].data)


def put(folder: Path, number: int) -> Path:
    """Add or replace a file, in one of the ways in which that happens."""
    data, way = image(number), number % 10
    # Names come again, so some files are replaced.
    path = folder / f"album {number // KEPT % 5}" / f"{number % (3 * KEPT)}.png"
    path.parent.mkdir(exist_ok=True)
    if way == 0:
        path.write_bytes(data[: len(data) // 2])  # it stays so
    elif way == 1:
        with path.open("wb") as file:
            for at in range(0, len(data), PART):
                file.write(data[at : at + PART])
                file.flush()
                time.sleep(0.2)
    elif way < 5:
        path.write_bytes(data)
    else:
        unfinished = path.with_name(f".{path.name}.part")
        unfinished.write_bytes(data)
        unfinished.replace(path)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--weights", default="compact")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        source, results = Path(base, "in"), Path(base, "out")
        source.mkdir()
        command = [sys.executable, "-m", "restormer_cli.cli", "derain", "-r", "--watch", "--json"]
        command += ["--weights", arguments.weights, "--input-dir", str(source)]
        command += ["--result-dir", str(results)]
        run = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
        )
        counts = {"done": 0, "failed": 0, "skipped": 0}

        def count() -> None:
            assert run.stdout is not None
            for line in run.stdout:
                counts[json.loads(line)["status"]] += 1

        threading.Thread(target=count, daemon=True).start()
        process = psutil.Process(run.pid)
        began, spoke = time.monotonic(), 0.0
        samples: list[tuple[int, int, int]] = []
        there: list[Path] = []
        for number in itertools.count():
            now = time.monotonic() - began
            if now > 60 * arguments.minutes or run.poll() is not None:
                break
            there.append(put(source, number))
            if len(there) > KEPT:
                gone = there.pop(random.randrange(KEPT // 2))
                gone.unlink(missing_ok=True)
                if not any(gone.parent.iterdir()):
                    shutil.rmtree(gone.parent, ignore_errors=True)
                (results / gone.relative_to(source)).unlink(missing_ok=True)
            if counts["done"]:
                samples.append(
                    (process.memory_info().rss, process.num_fds(), process.num_threads())
                )
            if samples and (spoke == 0.0 or now - spoke >= LINE_EVERY):
                spoke = now
                memory, files, threads = samples[-1]
                print(
                    f"{now / 60:5.1f} min  {number + 1:6} files put  {counts}  "
                    f"{memory / 1e6:6.1f} MB  {files} open files  {threads} threads",
                    flush=True,
                )
            time.sleep(arguments.every)
        run.send_signal(signal.SIGTERM)
        status = run.wait(timeout=60)
    if status != 128 + signal.SIGTERM:
        print(f"ended with {status}")
        return 1
    base_at = samples[int(WARM_UP * len(samples))]
    most = [max(sample[what] for sample in samples[-100:]) for what in range(3)]
    grown = most[0] - base_at[0] > SLACK or most[1] > base_at[1] + 2 or most[2] > base_at[2] + 2
    print("grown" if grown else f"nothing has grown: {counts}")
    return int(grown)


if __name__ == "__main__":
    sys.exit(main())
