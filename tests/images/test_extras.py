"""Formats whose libraries are installed on request, where they are missing or broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import Ran, names, save, smooth_pixels, write, zero_network
from image_files import SAMPLES

ROOT = Path(__file__).resolve().parents[2]
#: Runs the command where nothing of these names can be imported.
WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
from restormer_cli.cli.__main__ import main
main()
"""
HEIC_REMEDY = "to read such files, `pip install 'restormer-cli[heif]'`"
RAW_REMEDY = "to read such files, `pip install 'restormer-cli[raw]'`"


def run(*words: object, modules: tuple[str, ...] = (), path: Path = ROOT) -> Ran:
    command = [sys.executable, "-c", WITHOUT.format(modules=modules), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(
        [str(path), str(ROOT)])}  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(zero_network(), tmp_path / "net.safetensors")
    write(tmp_path / "in" / "a.png", smooth_pixels(8, 8))
    (tmp_path / "in" / "b.heic").write_bytes(SAMPLES["HEIC"])
    (tmp_path / "in" / "c.DNG").write_bytes(SAMPLES["camera raw"])
    return tmp_path


def words(folder: Path, source: str = "in") -> tuple[object, ...]:
    return ("derain", "--weights", folder / "net.safetensors", "--input-dir", folder / source,
            "--result-dir", folder / "out")  # fmt: skip


def test_a_walk_passes_over_what_a_missing_library_would_read(folder: Path) -> None:
    ran = run(*words(folder), modules=("pillow_heif", "rawpy"))
    assert ran.status == 0, ran.err
    assert names(folder / "out") == ["a.png"]
    notices = [line for line in ran.err.splitlines() if "passed over" in line]
    assert sorted(notices) == [
        f"passed over: 1 .dng; {RAW_REMEDY}",
        f"passed over: 1 .heic; {HEIC_REMEDY}",
    ]


def test_one_library_may_be_missing(folder: Path) -> None:
    ran = run(*words(folder), modules=("pillow_heif",))
    assert ran.status == 0, ran.err
    assert names(folder / "out") == ["a.png", "c.png"]
    assert f"passed over: 1 .heic; {HEIC_REMEDY}" in ran.err.splitlines()


def test_files_that_are_named_get_the_remedy(folder: Path) -> None:
    sides = [folder / "in" / name for name in ("b.heic", "c.DNG")]
    ran = run(
        *words(folder, "in/b.heic"), "--input-dir", sides[1], modules=("pillow_heif", "rawpy")
    )
    assert ran.status == 1
    assert [line for line in ran.err.splitlines() if line.startswith("error: ")] == [
        f"error: {sides[0]}: is a HEIC photo (HEIF); {HEIC_REMEDY}",
        f"error: {sides[1]}: is a camera's raw file; {RAW_REMEDY}",
    ]
    assert "Traceback" not in ran.err


def test_nothing_else_in_a_folder_is_said_so(folder: Path) -> None:
    (folder / "in" / "a.png").unlink()
    ran = run(*words(folder), modules=("pillow_heif", "rawpy"))
    assert ran.status == 2
    assert "no images found" in ran.err
    assert RAW_REMEDY in ran.err
    assert HEIC_REMEDY in ran.err


def test_a_library_that_does_not_load_is_no_damaged_file(folder: Path) -> None:
    broken = folder / "broken"
    broken.mkdir()
    (broken / "pillow_heif.py").write_text("raise ImportError('libheif.so.1: no such file')")
    ran = run(*words(folder), path=broken)
    assert ran.status == 1
    assert names(folder / "out") == ["a.png", "c.png"]
    (line,) = [text for text in ran.err.splitlines() if "b.heic" in text]
    assert "pillow_heif, which reads such files, does not load (libheif.so.1: no such" in line
    assert "`pip install 'restormer-cli[heif]'` once more" in line
