"""A signal stops a run soon, cleanly, and with the exit status that shells expect."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import names, save, tiny_network

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")

#: The command, which tells when it is on its way through the large image.
COMMAND = """
import signal
if hasattr(signal, "SIGHUP"):  # ignored where these tests run under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
from restormer_cli.batch.progress import ProgressTracker
from restormer_cli.cli.__main__ import main
advance = ProgressTracker.advance
def advance_and_tell(self, megapixels):
    advance(self, megapixels)
    if megapixels > 0.001:
        print("inside", flush=True)
ProgressTracker.advance = advance_and_tell
main()
"""
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_stops_inside_a_large_image(tmp_path: Path, number: signal.Signals) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.full((16, 16, 3), 9, np.uint8))
    cv2.imwrite(str(folder / "b.png"), np.full((5000, 5000, 3), 9, np.uint8))
    weights = save(tiny_network(), tmp_path / "net.safetensors")
    command = [sys.executable, "-c", COMMAND, "derain", "--weights", str(weights)]
    command += ["--input-dir", str(folder), "--result-dir", str(out)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    said = [run.stdout.readline().strip() for _ in range(2)]
    run.send_signal(number)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 128 + number
    assert said == [str(out / "a.png"), "inside"]
    assert names(out) == ["a.png"]
    assert "Traceback" not in errors
    assert f"stopped by {number.name}" in errors


def test_a_later_signal_ends_what_the_first_did_not() -> None:
    code = """
import signal
from restormer_cli.errors import Stopped
from restormer_cli.system import stopping
stopping.SAME_STOP_SECONDS = 3600
with stopping.signals_stop():
    try:
        signal.raise_signal(signal.SIGTERM)
    except Stopped:
        signal.raise_signal(signal.SIGTERM)
        print("the second came too soon", flush=True)
        stopping.SAME_STOP_SECONDS = 0
        signal.raise_signal(signal.SIGTERM)
        print("as if closing hung", flush=True)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (-signal.SIGTERM, "")
    assert run.stdout == "the second came too soon\n"


def test_a_signal_that_is_ignored_as_nohup_asks_for_it_stays_so() -> None:
    code = """
import signal
from restormer_cli.system.stopping import signals_stop
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with signals_stop():
    signal.raise_signal(signal.SIGHUP)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ctrl_c_while_the_command_is_loaded_costs_no_traceback() -> None:
    code = """
import builtins, runpy, sys
load = builtins.__import__
def interrupt(name, *words, **named):
    if name == "typer":
        raise KeyboardInterrupt
    return load(name, *words, **named)
builtins.__import__ = interrupt
sys.argv = ["restormer", "--version"]
runpy.run_module("restormer_cli.cli", run_name="__main__")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (130, "")
