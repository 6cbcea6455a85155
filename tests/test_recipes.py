"""The commands of docs/recipes.md, run as they stand there, where the tools around them are."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers import make_images, names, random_pixels, smooth_pixels, write
from image_files import bayer, dng

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="recipes are for POSIX shells")


def blocks(heading: str, language: str = "sh") -> list[str]:
    """The code of a recipe."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", TEXT, flags=re.M | re.S)
    found = re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.M | re.S)
    assert found
    return list(found)


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with the program on the PATH, and the folder that commands run in."""
    programs = tmp_path / "bin"
    programs.mkdir()
    put_program(programs / "restormer", f'exec "{sys.executable}" -m restormer_cli.cli "$@"')
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RESTORMER", str(programs / "restormer"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def shell(script: str) -> str:
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize("sound", [True, False])
def test_video(home: Path, sound: bool) -> None:
    need("ffmpeg", "ffprobe")
    source = "-f lavfi -i testsrc=size=64x48:rate=30000/1001:duration=0.2"
    tone = "-f lavfi -i sine=duration=0.2" if sound else ""
    shell(f"ffmpeg -nostdin -v error {source} {tone} rainy.mp4")
    (script,) = blocks("A video")
    shell(script)
    count = "-count_frames -show_entries stream=codec_type,width,height,r_frame_rate,nb_read_frames"
    told = [shell(f"ffprobe -v error {count} -of csv {name}.mp4") for name in ("rainy", "clean")]
    assert told[0] == told[1]
    assert len(names(home / "restored")) == len(list((home / "frames").iterdir()))


def put_raw_file(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(dng(bayer(48, 64, (800, 1000, 800))))


def test_raw_files(home: Path) -> None:
    put_raw_file(home / "raw" / "a.dng")
    script, _ = blocks("Raw files")
    shell(script)
    result = tifffile.imread(home / "clean" / "a.tif")
    assert (result.dtype, result.shape) == (np.uint16, (48, 64, 3))


def test_raw_files_with_darktable(home: Path) -> None:
    need("darktable-cli")
    put_raw_file(home / "raw" / "a.dng")
    _, script = blocks("Raw files")
    shell(script)
    assert names(home / "clean") == ["a.png"]
    assert tifffile.imread(home / "developed" / "a.tif").dtype == np.uint16


def test_some_files_of_many(home: Path) -> None:
    for name in ("new.jpg", "old.jpg", "2024/a b.jpg", "best/c.png"):
        write(home / "photos" / name, smooth_pixels(16, 16))
    os.utime(home / "photos" / "old.jpg", (1e9, 1e9))
    (script,) = blocks("Some files of many")
    shell(script)
    assert names(home / "today") == ["a b.png", "new.png"]
    found = {path.relative_to(home / "selected") for path in (home / "selected").rglob("*.png")}
    assert found == {Path("2024/a b.png"), Path("best/c.png")}


def test_several_runs_at_once(home: Path) -> None:
    need("parallel")
    for album in ("by the sea", "hills"):
        make_images(home / "albums" / album, 2)
    make_images(home / "photos", 8)
    albums, shards = blocks("Several runs at once")
    shell(albums)
    assert names(home / "restored") == ["by the sea", "hills"]
    assert names(home / "restored" / "by the sea") == ["0.png", "1.png"]
    shell(shards.replace("seq 0 3", "seq 0 1").replace("{}/4", "{}/2"))  # as much as four tell
    assert len(names(home / "out")) == 8


def make_sets(home: Path) -> None:
    for name in ("one", "two"):
        for kind in ("noisy", "clean"):
            make_images(home / "data" / name / kind, 2, size=16)


def test_data_sets_with_make(home: Path) -> None:
    need("make")
    make_sets(home)
    (script,) = blocks("Data sets with make", "make")
    (home / "Makefile").write_text(script, encoding="utf-8")
    shell("make")
    assert {"one.csv", "two.csv"} <= set(names(home / "results"))
    write(home / "data" / "one" / "noisy" / "new.png", random_pixels(16, 16))
    write(home / "data" / "one" / "clean" / "new.png", random_pixels(16, 16))
    shell("make results/one.csv")
    assert "new.png" in (home / "results" / "one.csv").read_text(encoding="utf-8")


def test_data_sets_with_snakemake(home: Path) -> None:
    need("snakemake")
    make_sets(home)
    (script,) = blocks("Data sets with Snakemake", "snakemake")
    (home / "Snakefile").write_text(script, encoding="utf-8")
    shell("env -u PYTHONPATH snakemake --cores 1 --quiet")
    assert {"one.csv", "two.csv"} <= set(names(home / "results"))
    assert names(home / "results" / "one") == ["0.png", "1.png"]


def test_phone_that_is_synced(home: Path) -> None:
    write(home / "Sync" / "Camera" / "0.jpg", smooth_pixels(16, 16))
    (script,) = blocks("A phone that is synced")
    run = subprocess.Popen(
        ["bash", "-c", f"exec {script}"], stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert run.stdout is not None
    assert run.stdout.readline().strip() == str(home / "Pictures" / "restored" / "0.png")
    # As Syncthing does: written under another name, with the time of the photo, and renamed.
    unfinished = home / "Sync" / "Camera" / "2024" / ".syncthing.1.jpg.tmp"
    unfinished.parent.mkdir()
    unfinished.write_bytes((home / "Sync" / "Camera" / "0.jpg").read_bytes())
    os.utime(unfinished, (1e9, 1e9))
    unfinished.replace(unfinished.with_name("1.jpg"))
    assert run.stdout.readline().strip() == str(home / "Pictures" / "restored" / "2024" / "1.png")
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=120) == 130
    run.stdout.close()


def test_every_night(home: Path) -> None:
    make_images(home / "photos", 1)
    (line,) = blocks("Every night, or as a service", "crontab")
    command = line.split(maxsplit=5)[5].replace("/opt/restormer-cli", str(ROOT))
    assert shell(command) == ""
    assert names(home / "restored") == ["0.png"]
    assert names(home / "restormer-log") == ["log.txt", "report.jsonl"]


def test_cluster_with_slurm(home: Path) -> None:
    """With a stand-in for ``sbatch`` that runs the tasks of an array one after the other."""
    make_images(home / "photos", 4)
    (home / "scripts").symlink_to(ROOT / "scripts", target_is_directory=True)
    put_program(
        home / "bin" / "sbatch",
        """while [ "${1#--}" != "$1" ]; do
    case $1 in --array=0-*) last=${1#--array=0-} ;; esac
    shift
done
last=1  # two tasks tell as much as sixteen
for task in $(seq 0 $last); do
    SLURM_ARRAY_JOB_ID=1 SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=$((last + 1)) \\
        SLURM_ARRAY_TASK_MAX=$last "$@"
done""",
    )
    (script,) = blocks("On a cluster with Slurm")
    shell(script)
    assert names(home / "restored") == [f"{number}.png" for number in range(4)]


def test_every_recipe_is_tried() -> None:
    """Each block is taken by a test, but for what needs to be root."""
    source = Path(__file__).read_text(encoding="utf-8")
    for heading in re.findall(r"^## (.*)$", TEXT, flags=re.M):
        assert f'"{heading}"' in source, heading
