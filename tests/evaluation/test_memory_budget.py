"""The memory that images share while they are measured, and images that do not fit."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from helpers import random_pixels, restormer, smooth_pixels, write
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.errors import ImageError
from restormer_cli.evaluation.evaluate import evaluate_folder
from restormer_cli.evaluation.memory_budget import (
    Claim,
    MemoryBudget,
    comparison_bytes,
    map_in_order,
)
from restormer_cli.evaluation.protocols import PROTOCOLS
from restormer_cli.images.reading import read_image
from restormer_cli.report.build import write_report

RUN = """
import re, sys
from pathlib import Path
from restormer_cli.cli.main import main
status = 0
try:
    main()
except SystemExit as stop:
    status = stop.code or 0
# Not ru_maxrss, which a child has from the process that started it.
print(status, re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def budget_of(total: int) -> MemoryBudget:
    budget = MemoryBudget()
    budget.total = budget._left = total
    return budget


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("suffix", ["png", "tif", "avif", "jp2", "bmp", "webp"])
def test_a_header_claims_no_less_than_the_pixels(tmp_path: Path, suffix: str, bits: int) -> None:
    samples = np.arange(32 * 32 * 3).reshape(32, 32, 3) % (1 << bits)
    samples = samples.astype(np.uint8 if bits == 8 else np.uint16)
    path = tmp_path / f"a.{suffix}"
    if suffix == "avif" and bits < 16:
        path.write_bytes(imagecodecs.avif_encode(samples, bitspersample=bits))
    elif suffix == "jp2":
        path.write_bytes(imagecodecs.jpeg2k_encode(samples, bitspersample=bits))
    elif suffix in {"png", "tif"} or bits == 8:
        cv2.imwrite(str(path), samples)
    else:
        pytest.skip("the format has no such depth")
    assert Claim(path).held >= read_image(path).pixels.nbytes


@given(st.lists(st.integers(0, 10), max_size=30), st.integers(1, 5))
def test_threads_together_never_take_more_than_there_is(wishes: list[int], workers: int) -> None:
    budget, lock = budget_of(8), threading.Lock()
    taken = 0

    def work(wish: int) -> int | None:
        nonlocal taken
        try:
            with budget.take(wish):
                with lock:
                    taken += wish
                    assert taken <= 8
                with lock:
                    taken -= wish
        except ImageError:
            return None
        return wish

    done = list(map_in_order(work, wishes, workers))
    assert done == [wish if wish <= 8 else None for wish in wishes]
    assert budget._left == 8


def test_memory_that_runs_out_is_the_images_error_and_is_given_back() -> None:
    budget = budget_of(100)
    with pytest.raises(ImageError, match="memory ran out"), budget.take(60):
        raise MemoryError
    with pytest.raises(ImageError, match="memory ran out"), budget.take(60):
        raise _no_memory()
    with budget.take(100):
        pass


def _no_memory() -> cv2.error:
    error = cv2.error("Failed to allocate 1 bytes")
    error.code = -4
    return error


def test_what_is_given_up_is_cancelled() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise ValueError("stop")
        return number

    with pytest.raises(ValueError, match="stop"):
        list(map_in_order(work, range(1000), 2))
    assert len(begun) < 10


# --- what a file claims -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bits", "sample_bytes"),
    [("a.png", 8, 1), ("a.png", 16, 2), ("a.webp", 8, 1), ("a.bmp", 8, 1)],
)
def test_headers_tell_what_pixels_take(
    tmp_path: Path, name: str, bits: int, sample_bytes: int
) -> None:
    pixels = random_pixels(20, 30, bits=bits)
    claim = Claim(write(tmp_path / name, pixels))
    assert (claim.height, claim.width, claim.sample_bytes) == (20, 30, sample_bytes)
    assert claim.held == pixels.nbytes
    assert claim.decoding > claim.file_bytes == (tmp_path / name).stat().st_size


def test_tiff_that_pillow_does_not_know_is_told_as_well(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random_pixels(20, 30, bits=16), photometric="rgb")
    assert Claim(path).held == 20 * 30 * 3 * 2


def test_what_has_no_header_claims_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"no image")
    assert (Claim(path).held, Claim(path).file_bytes) == (0, 8)
    assert Claim(tmp_path / "missing.png").decoding == 0
    assert comparison_bytes([path, path], PROTOCOLS["rgb"].memory) == 8


def test_alignment_is_counted(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, smooth_pixels(200, 300)) for name in ("a.png", "b.png")]
    plain, aligned = (
        comparison_bytes(paths, PROTOCOLS[name].memory) for name in ("rgb", "realblur")
    )
    assert aligned > plain + 100 * 200 * 300


# --- the commands -------------------------------------------------------------------------------


def bomb(path: Path, width: int, height: int) -> Path:
    """A PNG of a few bytes whose header claims many."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    return path


def test_a_pair_that_cannot_fit_is_named_and_the_others_are_measured(tmp_path: Path) -> None:
    for side in ("out", "gt"):
        for name in ("a", "b"):
            write(tmp_path / side / f"{name}.png", smooth_pixels(30, 40))
        bomb(tmp_path / side / "bomb.png", 20_000, 20_000)
    command = ("--target-dir", tmp_path / "gt", "--max-memory", "4GB")
    ran = restormer("evaluate", "--result-dir", tmp_path / "out", *command)
    assert ran.status == 1
    assert [line.split()[0] for line in ran.lines] == ["name", "a.png", "b.png", "mean"]
    (error,) = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: bomb.png: needs about ")
    assert "more than --max-memory (4.0 GB)" in error
    page = tmp_path / "report.html"
    ran = restormer("report", tmp_path / "out", *command, "--output", page)
    assert ran.status == 0
    assert "needs about" in page.read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak as Linux tells it")
@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_the_peak_stays_under_the_limit(tmp_path: Path, command: str) -> None:
    """Whole-image copies in float64 of one pair alone took 700 MB."""
    noise = np.random.default_rng(0).integers(-3, 4, (1600, 2500, 3))
    target = smooth_pixels(1600, 2500)
    result = np.clip(target + noise, 0, 255).astype(np.uint8)
    for index in range(2):
        write(tmp_path / "gt" / f"{index}.png", target)
        write(tmp_path / "out" / f"{index}.png", result)
    folder = ("--result-dir", tmp_path / "out") if command == "evaluate" else (tmp_path / "out",)
    words = (*folder, "--target-dir", tmp_path / "gt", "--max-memory", "420MB")
    ran = subprocess.run(
        [sys.executable, "-c", RUN, command, *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "needs about" not in ran.stderr
    status, peak = map(int, ran.stdout.splitlines()[-1].split())
    assert status == 0
    assert peak * 1024 < 420e6


def test_figures_do_not_depend_on_memory_or_threads(tmp_path: Path) -> None:
    for index in range(6):
        pixels = random_pixels(20, 30, seed=index)
        write(tmp_path / "gt" / f"{index}.png", pixels)
        write(tmp_path / "out" / f"{index}.png", np.minimum(pixels, 250))
    usual = evaluate_folder(tmp_path / "out", tmp_path / "gt")
    scarce = evaluate_folder(tmp_path / "out", tmp_path / "gt", max_memory=8 << 30)
    assert usual == scarce
    assert [score.name for score in usual.scores] == [f"{index}.png" for index in range(6)]
    written = write_report(tmp_path / "out", target_dir=tmp_path / "gt", max_memory=8 << 30)
    text = written.html.read_text(encoding="utf-8")
    assert all(json.dumps(score.psnr) in text for score in usual.scores)
