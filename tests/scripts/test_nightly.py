"""The scripts that start a run every night: cron's and systemd's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import names, random_pixels, save, tiny_network, write

from restormer_cli.batch.lock import folder_lock

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no cron")


@pytest.fixture
def nightly(tmp_path: Path) -> list[str]:
    """The script with all that a crontab line would give it; one image waits in ``in``."""
    write(tmp_path / "in" / "0.png", random_pixels(8, 8))
    weights = save(tiny_network(), tmp_path / "net.safetensors")
    words = [str(SCRIPTS / "nightly"), str(tmp_path / "logs"), "derain", "--weights", str(weights)]
    return [*words, "--input-dir", str(tmp_path / "in"), "--result-dir", str(tmp_path / "out")]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The bare environment of cron, whose PATH lacks the program."""
    program = tmp_path / "restormer"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m restormer_cli.cli "$@"\n')
    program.chmod(0o755)
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "RESTORMER": str(program),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }


def test_two_nights_that_overlap_do_the_work_once_and_print_nothing(
    tmp_path: Path, nightly: list[str], environment: dict[str, str]
) -> None:
    for index in range(40):
        write(tmp_path / "in" / f"{index}.png", random_pixels(60, 60, seed=index))
    runs = [
        subprocess.Popen(
            nightly,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        for _ in range(2)
    ]
    ended = [run.communicate(timeout=120)[0] for run in runs]
    assert ended == ["", ""]
    assert [run.returncode for run in runs] == [0, 0]
    assert names(tmp_path / "out") == sorted(f"{index}.png" for index in range(40))
    report = (tmp_path / "logs" / "report.jsonl").read_text(encoding="utf-8").splitlines()
    done = [line["input"] for line in map(json.loads, report) if line["status"] == "done"]
    assert len(done) == len(set(done)) == 40
    assert names(tmp_path / "logs") == ["log.txt", "report.jsonl"]


def test_night_whose_predecessor_is_at_work_leaves_it_alone(
    tmp_path: Path, nightly: list[str], environment: dict[str, str]
) -> None:
    folder = tmp_path / "out" / ".restormer"
    folder.mkdir(parents=True)
    with folder_lock(folder):
        ran = subprocess.run(nightly, env=environment, capture_output=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    log = (tmp_path / "logs" / "log.txt").read_text(encoding="utf-8")
    assert f"process {os.getpid()} on " in log
    assert "left alone: another run is at work" in log


def test_failures_are_printed_for_the_mail_and_logs_are_rotated(
    tmp_path: Path, nightly: list[str], environment: dict[str, str]
) -> None:
    (tmp_path / "in" / "bad.png").write_bytes(b"no image")
    environment |= {"ROTATE_BYTES": "1", "ROTATE_KEEP": "2"}
    for _ in range(3):
        ran = subprocess.run(
            nightly, env=environment, capture_output=True, encoding="utf-8", check=False
        )
        assert ran.returncode == 1
        assert "bad.png" in ran.stderr
    kept = ["log.txt", "log.txt.1", "log.txt.2", "report.jsonl.1", "report.jsonl.2"]
    assert names(tmp_path / "logs") == kept


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_signal_reaches_the_run(
    tmp_path: Path, nightly: list[str], environment: dict[str, str], send: Callable[..., None]
) -> None:
    write(tmp_path / "in" / "1.png", random_pixels(3000, 3000))
    run = subprocess.Popen(
        nightly,
        env=environment,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    while not (tmp_path / "out" / "0.png").exists():
        assert run.poll() is None
        time.sleep(0.05)
    send(run.pid, signal.SIGTERM)  # the group's children get it twice: from it, and handed on
    _, said = run.communicate(timeout=120)
    assert run.returncode == 143
    assert "stopped by SIGTERM: 1 restored" in said
    assert names(tmp_path / "out") == ["0.png"]


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("needs systemd-analyze")
    for path in (SCRIPTS / "systemd").iterdir():
        text = path.read_text(encoding="utf-8").replace("/opt/restormer-cli/scripts", str(SCRIPTS))
        text = text.replace("/opt/restormer-cli/.venv/bin/restormer", sys.executable)
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    ran = subprocess.run(
        [program, "verify", "--man=no", *map(str, tmp_path.iterdir())],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert not [line for line in ran.stderr.splitlines() if "restormer" in line], ran.stderr
