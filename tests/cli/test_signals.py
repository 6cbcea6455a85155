"""A signal stops a run soon, cleanly, and with the exit status that shells expect."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import names, save, tiny_network

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_inside_a_large_image(tmp_path: Path, number: signal.Signals) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.full((16, 16, 3), 9, np.uint8))
    cv2.imwrite(str(folder / "b.png"), np.full((5000, 5000, 3), 9, np.uint8))
    weights = save(tiny_network(), tmp_path / "net.safetensors")
    command = [sys.executable, "-m", "restormer_cli.cli", "derain", "--weights", str(weights)]
    command += ["--input-dir", str(folder), "--result-dir", str(out)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    first = run.stdout.readline()  # the small image is done, so the large one is in hand
    time.sleep(1.0)
    run.send_signal(number)
    started = time.monotonic()
    _, errors = run.communicate(timeout=60)
    assert time.monotonic() - started < 5  # two seconds, and some for a loaded machine
    assert run.returncode == 128 + number
    assert first.strip() == str(out / "a.png")
    assert names(out) == ["a.png"]
    assert "Traceback" not in errors
    assert f"stopped by {number.name}" in errors


def test_a_later_signal_ends_what_the_first_did_not() -> None:
    code = """
import sys, time
from restormer_cli import stopping
from restormer_cli.errors import Stopped
with stopping.signals_stop():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except Stopped:
        print("stopping", flush=True)
        time.sleep(60)  # as if closing hung
"""
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    for said in ("ready", "stopping"):
        assert run.stdout.readline().strip() == said
        run.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):  # the second came too soon
        run.wait(timeout=2)
    run.send_signal(signal.SIGTERM)
    assert run.wait(timeout=10) == -signal.SIGTERM
    run.stdout.close()
