"""The script for job arrays: tasks of Slurm and PBS find their shards, stop and come again."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import names, random_pixels, save, tiny_network, write

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "slurm_array.sh"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such shell")


@pytest.fixture
def array(tmp_path: Path) -> Any:
    """Begin a task of an array with these variables."""
    weights = save(tiny_network(), tmp_path / "net.safetensors")
    program = tmp_path / "restormer"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m restormer_cli.cli "$@"\n')
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >>"{tmp_path}/requeued"\n')
    for path in (program, scontrol):
        path.chmod(0o755)
    words = [str(SCRIPT), "derain", "--weights", str(weights), "--input-dir", str(tmp_path / "in")]
    words += ["--result-dir", str(tmp_path / "out"), "--report", str(tmp_path / "report.jsonl")]

    def start(**variables: object) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            **{name: str(value) for name, value in variables.items()},
        }
        return subprocess.Popen(
            words,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    return start


def slurm(task: int, tasks: range) -> dict[str, int]:
    """The environment of a task of a Slurm array."""
    return {
        "SLURM_ARRAY_JOB_ID": 77,
        "SLURM_ARRAY_TASK_ID": task,
        "SLURM_ARRAY_TASK_COUNT": len(tasks),
        "SLURM_ARRAY_TASK_MIN": tasks[0],
        "SLURM_ARRAY_TASK_MAX": tasks[-1],
        "SLURM_ARRAY_TASK_STEP": tasks.step,
        "SLURM_CPUS_PER_TASK": 1,
    }


def test_shellcheck_finds_nothing() -> None:
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("needs shellcheck")
    ran = subprocess.run([program, SCRIPT], capture_output=True, encoding="utf-8", check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_tasks_of_arrays_split_the_folder_without_a_rest(tmp_path: Path, array: Any) -> None:
    source = tmp_path / "in"
    for index in range(12):
        write(source / f"{index}.png", random_pixels(12, 12, seed=index))
    tasks = [array(**slurm(task, range(2))) for task in range(2)]
    said = [task.communicate(timeout=120) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert [index for index in range(2) if f"shard {index}/2 on " in said[index][1]] == [0, 1]
    assert names(tmp_path / "out") == sorted(f"{index}.png" for index in range(12))
    lines = (tmp_path / "report.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["input"] for line in lines) == sorted(map(str, source.iterdir()))
    # Some of them again, and PBS, which does not number its shards; all is done.
    for variables in (slurm(1, range(1, 2)), {"PBS_ARRAY_INDEX": 1}):
        again = array(**{**variables, "SHARDS": 2})
        _, errors = again.communicate(timeout=120)
        assert again.returncode == 0, errors
        assert "shard 1/2 on " in errors
        assert "0 restored" in errors


def test_task_that_cannot_know_its_shard_says_what_to_say(array: Any) -> None:
    some = {**slurm(3, range(3, 5)), "SLURM_ARRAY_TASK_MAX": 17}  # --array=3,17
    again, spaced = slurm(3, range(3, 4)), slurm(0, range(0, 6, 2))
    for variables in (some, again, spaced, {"PBS_ARRAY_INDEX": 2}, {}):
        task = array(**variables)
        _, errors = task.communicate(timeout=120)
        assert task.returncode == 2
        assert errors.count("\n") == 1
        assert "SHARDS=" in errors or "job array" in errors


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_task_whose_time_runs_out_is_requeued_and_one_that_is_cancelled_is_not(
    tmp_path: Path, array: Any, number: signal.Signals
) -> None:
    write(tmp_path / "in" / "0.png", random_pixels(12, 12))
    write(tmp_path / "in" / "1.png", random_pixels(3000, 3000))
    task = array(**slurm(0, range(1)))
    assert task.stdout is not None
    assert task.stdout.readline().strip() == str(tmp_path / "out" / "0.png")
    task.send_signal(number)
    _, errors = task.communicate(timeout=120)
    assert task.returncode == 143
    assert "stopped by SIGTERM: 1 restored" in errors
    requeued = tmp_path / "requeued"
    if number == signal.SIGUSR1:
        assert requeued.read_text() == "requeue 77_0\n"
    else:
        assert not requeued.exists()
