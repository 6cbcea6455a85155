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

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.mark.parametrize("number", STOPS)
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
from restormer_cli.system.stopping import signals_stop
from restormer_cli.errors import Stopped
with signals_stop():
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
