"""Messages and memory of a run; images restored together equal those restored alone."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers import make_images, random_pixels, read, restormer, save, tiny_network, write

from restormer_cli.batch.threads import BackgroundWriter, Prefetcher
from restormer_cli.cli import progress
from restormer_cli.restorer import TOGETHER, Restorer
from restormer_cli.system.units import format_seconds


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_network(), tmp_path_factory.mktemp("weights") / "net.safetensors")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["with_bias", "gray", "dual_pixel"])
def test_small_images_are_restored_together_as_each_would_be_alone(kind: str, bits: int) -> None:
    network = tiny_network(kind)
    restorer = Restorer(network, views=2 if kind == "dual_pixel" else 1)
    channels = 1 if kind == "gray" else 3
    batch = [
        tuple(random_pixels(13, 21, channels, bits, seed=10 * n + v) for v in range(restorer.views))
        for n in range(TOGETHER)
    ]
    assert restorer.images_together(13, 21, channels) == TOGETHER
    alone = [restorer(*views) for views in batch]
    for first, last in ((0, 1), (0, 3), (0, TOGETHER), (2, 7)):
        together = restorer.restore_together(batch[first:last])
        for image, expected in zip(together, alone[first:last], strict=True):
            np.testing.assert_array_equal(image, expected, strict=True)


def test_large_images_are_restored_one_by_one() -> None:
    restorer = Restorer(tiny_network())
    size = 8
    while restorer.images_together(size, size, 3) > 1:
        size += 8
    assert size > 32
    assert restorer.images_together(4000, 4000, 3) == 1
    assert Restorer(tiny_network("gray")).images_together(8, 8, 3) == 1
    assert Restorer(tiny_network(), tile=32, tile_overlap=8).images_together(8, 8, 3) == 1


def test_summary_and_lines_without_a_terminal_count_megapixels(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    for index in range(3):
        write(tmp_path / "in" / f"{index}.png", random_pixels(200, 500, seed=index))
    words = ("derain", "--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out")
    ran = restormer(*words, "--weights", weights)
    pattern = r"(\d) of 3 images, (\d\.\d) of 0\.3 megapixels, \d+\.\d{3} MP/s, .* left"
    lines = [re.fullmatch(pattern, line) for line in ran.err.splitlines()[:-1]]
    assert len(lines) > 5, ran.err
    assert all(lines), ran.err
    done = [float(line[2]) for line in lines if line is not None]
    assert done == sorted(done)
    assert done[-1] == 0.3
    summary = r"3 restored, 0 skipped, 0 failed; 0\.30 megapixels in .* s \(.* MP/s\), "
    assert re.fullmatch(summary + r"peak memory \d.* [MG]B", ran.err.splitlines()[-1])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (-1e-9, "0 s"),
        (99, "99 s"),
        (100, "2 min"),
        (5999, "1 h 40 min"),
        (86400, "24 h 0 min"),
        (273_600, "3 days 4 h"),
        (float("inf"), "unknown time"),
    ],
)
def test_lengths_of_time_are_readable(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize("level", [0, 9])
def test_compression_can_be_chosen(tmp_path: Path, weights: Path, level: int) -> None:
    write(tmp_path / "in" / "a.png", np.full((200, 200, 3), 7, np.uint8))
    words = ("derain", "--input-dir", tmp_path / "in", "--weights", weights)
    sizes = []
    for name, option in (("chosen", ("--png-compression", level)), ("default", ())):
        ran = restormer(*words, "--result-dir", tmp_path / name, *option)
        assert ran.status == 0, ran.err
        sizes.append((tmp_path / name / "a.png").stat().st_size)
    np.testing.assert_array_equal(
        read(tmp_path / "chosen" / "a.png"), read(tmp_path / "default" / "a.png")
    )
    assert sizes[0] > sizes[1] if level == 0 else sizes[0] <= sizes[1]
    assert restormer(*words, "--result-dir", tmp_path / "x", "--png-compression", 10).status == 2


@pytest.mark.skipif(not hasattr(psutil.Process, "num_fds"), reason="Windows counts other handles")
def test_long_run_holds_no_more_at_its_end(tmp_path: Path, weights: Path) -> None:
    """A small version of ``scripts/soak.py``, which takes 20,000 images."""
    process = psutil.Process()
    held = []
    for part in range(3):
        for index in range(60):
            write(tmp_path / str(part) / f"{index}.png", random_pixels(9, 9, seed=index))
        words = ("derain", "--input-dir", tmp_path / str(part), "--result-dir", tmp_path / "out")
        ran = restormer(*words, "--weights", weights, "--overwrite")
        assert len(ran.lines) == 60, ran.err
        time.sleep(0.05)  # the reader and the writer are about to end
        held.append((process.num_fds(), threading.active_count()))
    assert held[1] == held[2]


# --- the threads beside the network ------------------------------------------------------


def test_reading_ahead_keeps_order_and_holds_no_more_than_its_budget_and_one() -> None:
    read_so_far: list[int] = []

    def load(number: int) -> int:
        read_so_far.append(number)
        return number

    reader = Prefetcher(range(20), load, lambda _: 10, budget=30)
    taken = []
    for number in reader:
        time.sleep(0.005)  # as the network takes its time
        taken.append(number)
        assert len(read_so_far) - len(taken) <= 30 // 10 + 2
    assert taken == list(range(20))


def test_error_of_the_reader_is_raised_where_its_values_are_taken() -> None:
    def load(number: int) -> int:
        if number == 2:
            raise KeyError("broken")
        return number

    reader = iter(Prefetcher(range(5), load, lambda _: 1, budget=10))
    assert [next(reader), next(reader)] == [0, 1]
    with pytest.raises(KeyError):
        next(reader)


def test_writing_behind_keeps_order_waits_when_full_and_gives_back_errors() -> None:
    gate = threading.Event()
    writer: BackgroundWriter[int] = BackgroundWriter(budget=20)
    error = OSError("full")

    def run_options(number: int) -> None:
        gate.wait()
        if number == 1:
            raise error

    full = threading.Thread(
        target=lambda: [writer.put(n, 10, lambda n=n: run_options(n)) for n in range(4)]  # type: ignore[misc]
    )
    full.start()
    full.join(0.05)
    assert full.is_alive()  # two fit, the third waits
    assert list(writer.drain(0.01)) == []
    gate.set()
    full.join()
    assert list(writer.drain()) == [(0, None), (1, error), (2, None), (3, None)]
    writer.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal that a program can hold")
def test_results_and_bar_do_not_share_a_line_of_a_terminal(tmp_path: Path, weights: Path) -> None:
    import fcntl
    import pty
    import termios

    make_images(tmp_path / "in", 3)
    words = ["derain", "--weights", str(weights), "--input-dir", "in", "--result-dir", "out"]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "restormer_cli.cli", *words],
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal ends with the process
        while part := os.read(ours, 1 << 16):
            shown += part
    os.close(ours)
    assert process.wait() == 0, shown
    assert b"MP/s]" in shown  # there was a bar
    # What stands on a line in the end is what came behind the last return.
    lines = [line.rstrip("\r").split("\r")[-1] for line in shown.decode().split("\n")]
    assert [line for line in lines if "out/" in line] == [f"out/{n}.png" for n in range(3)]
