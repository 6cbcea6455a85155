"""Files and folders that are closed to the user cost no other its result."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers import Ran, make_images, names, random_pixels, save, write, zero_network

if sys.platform == "win32":
    pytest.skip("needs permissions of POSIX", allow_module_level=True)
#: For the administrator no folder is closed, unless he lets go of these capabilities.
AS_A_USER = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


@pytest.fixture(scope="module", autouse=True)
def user() -> list[str]:
    """Words in front of a command that is run by a user like others."""
    if os.geteuid():
        return []
    if shutil.which("setpriv") is None or subprocess.run([*AS_A_USER, "true"]).returncode:
        pytest.skip("cannot let go of the capabilities of the administrator")
    return AS_A_USER


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save(zero_network(), tmp_path / "zero.safetensors")


def run(user: list[str], source: Path, out: Path, weights: Path, *words: str) -> Ran:
    program = [*user, sys.executable, "-m", "restormer_cli.cli", *words]
    options = ["--input-dir", source, "--result-dir", out, "--weights", weights]
    ran = subprocess.run([*program, *options], capture_output=True, text=True)
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def errors(ran: Ran) -> list[str]:
    return sorted(line for line in ran.err.splitlines() if line.startswith("error: "))


def test_folders_that_can_be_listed_but_not_entered_cost_only_their_own(
    user: list[str], tmp_path: Path, weights: Path
) -> None:
    source, out = make_images(tmp_path / "in", 3), tmp_path / "out"
    make_images(source / "listed", 2)
    (source / "listed" / "link.png").symlink_to("../0.png")
    make_images(source / "listed" / "sub", 1)
    make_images(source / "shut", 1)
    (source / "listed").chmod(0o444)
    (source / "shut").chmod(0)
    (source / "1.png").chmod(0)
    try:
        ran = run(user, source, out, weights, "derain", "-r")
    finally:
        (source / "listed").chmod(0o755)
        (source / "shut").chmod(0o755)
    assert ran.status == 1
    assert names(out) == ["0.png", "2.png"]
    closed = ["1.png", "listed/0.png", "listed/1.png", "listed/link.png", "listed/sub", "shut"]
    reason = "cannot be read (Permission denied)"
    assert errors(ran) == [f"error: {source / name}: {reason}" for name in closed]


def test_views_in_such_folders_cost_only_their_own(
    user: list[str], tmp_path: Path, weights: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    weights = save(zero_network("dual_pixel"), tmp_path / "pairs.safetensors")
    for side in ("inputL", "inputR"):
        make_images(source / side, 1)
        make_images(source / side / "listed", 1)
    (source / "inputL" / "listed").chmod(0o444)
    try:
        ran = run(user, source, out, weights, "dual-pixel", "-r")
    finally:
        (source / "inputL" / "listed").chmod(0o755)
    assert ran.status == 1
    assert names(out) == ["0.png"]
    (line,) = errors(ran)
    assert line.startswith(f"error: {source / 'inputL' / 'listed' / '0.png'}: cannot be read")


def test_watching_such_folders_names_them(user: list[str], tmp_path: Path, weights: Path) -> None:
    source, out = make_images(tmp_path / "in", 1), tmp_path / "out"
    listed = make_images(source / "listed", 1)
    listed.chmod(0o444)
    program = [*user, sys.executable, "-m", "restormer_cli.cli", "derain", "--watch", "--json"]
    options = ["-r", "--input-dir", source, "--result-dir", out, "--weights", weights]
    try:
        with subprocess.Popen([*program, *options], stdout=subprocess.PIPE, text=True) as running:
            watchdog = threading.Timer(120, running.kill)
            watchdog.start()
            assert running.stdout is not None
            outcomes = {}
            for line in itertools.islice(running.stdout, 2):
                outcome = json.loads(line)
                outcomes[outcome["input"]] = outcome["error"]
            running.terminate()
            watchdog.cancel()
    finally:
        listed.chmod(0o755)
    closed = f"{listed / '0.png'}"
    assert outcomes == {
        f"{source / '0.png'}": None,
        closed: f"{closed}: cannot be read (Permission denied)",
    }


@pytest.mark.parametrize("mode", [0o555, 0o444, 0])
def test_result_folders_that_are_closed_cost_only_their_own(
    mode: int, user: list[str], tmp_path: Path, weights: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for size in range(8, 12):  # each goes through the network by itself
        write(source / "a" / f"{size}.png", random_pixels(size, size))
    make_images(source / "b", 2)
    (out / "a").mkdir(parents=True)
    (out / "a").chmod(mode)
    try:
        ran = run(user, source, out, weights, "derain", "-r")
    finally:
        (out / "a").chmod(0o755)
    assert ran.status == 1
    assert names(out / "a") == []
    assert names(out / "b") == ["0.png", "1.png"]
    assert len(errors(ran)) == 4
    assert all(f"{out / 'a'}" in line and "Permission denied" in line for line in errors(ran))


def test_a_record_that_is_closed_is_named(user: list[str], tmp_path: Path, weights: Path) -> None:
    source, out = make_images(tmp_path / "in", 2), tmp_path / "out"
    record = out / ".restormer" / "run.jsonl"
    record.parent.mkdir(parents=True)
    record.touch(mode=0o444)
    ran = run(user, source, out, weights, "derain")
    assert ran.status == 2
    assert errors(ran) == [f"error: {record}: cannot be written (Permission denied)"]
    out.chmod(0o555)
    try:
        ran = run(user, source, out, weights, "derain")
    finally:
        out.chmod(0o755)
    assert errors(ran) == [f"error: {out}: cannot be written (Permission denied)"]
