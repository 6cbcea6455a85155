"""Processes without a home, memory, folders or ``/proc``."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import Ran, make_images, names, restormer, save, zero_network

from restormer_cli.system.limits import reason

if sys.platform == "win32":
    pytest.skip("needs a shell", allow_module_level=True)
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and namespaces of Linux")
NOBODY = 54321
"""A user who is in no list of users."""


def command(*words: object, before: str = "", **environment: str | None) -> Ran:
    """Run the command as a process of its own, after a line of shell."""
    merged: dict[str, str | None] = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    known = {name: value for name, value in merged.items() if value is not None}
    program = [sys.executable, "-m", "restormer_cli.cli", *map(str, words)]
    script = f'{before}\nexec "$@"'
    ran = subprocess.run(
        ["bash", "-c", script, "bash", *program], env=known, capture_output=True, text=True
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture
def folders(tmp_path: Path) -> list[object]:
    """Options of a run over one image."""
    save(zero_network(), tmp_path / "net.safetensors")
    make_images(tmp_path / "in", 1)
    out = tmp_path / "out"
    return ["--weights", tmp_path / "net.safetensors", "--input-dir", tmp_path / "in",
            "--result-dir", out]  # fmt: skip


def namespaces() -> bool:
    tool = shutil.which("unshare")
    return tool is not None and not subprocess.run([tool, "-rm", "true"]).returncode


in_a_namespace = pytest.mark.skipif(not namespaces(), reason="no namespaces for users here")


def one_line(ran: Ran, status: int, *said: str) -> None:
    assert ran.status == status, ran.err
    (line,) = ran.err.splitlines()
    assert line.startswith("error: ")
    for words in said:
        assert words in line


# --- homes -------------------------------------------------------------------------------


@in_a_namespace
def test_embedded_weights_need_no_home(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 1)
    lost = dict.fromkeys(("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "RESTORMER_HOME"))
    nobody = f'exec unshare -U --map-user={NOBODY} --map-group={NOBODY} "$@"'
    ran = command("derain", "--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out",
                  before=nobody, **lost)  # fmt: skip
    assert ran.status == 0, ran.err
    assert names(tmp_path / "out") == ["0.png"]
    listed = command("weights", "list", before=nobody, **lost)
    assert listed.status == 0, listed.err
    download = command("weights", "download", "deraining", before=nobody, **lost)
    assert download.status == 1
    assert "RESTORMER_HOME" in download.err
    assert "Traceback" not in download.err


def test_a_home_of_nobody_is_an_obstacle_only_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTORMER_HOME", "~nosuchuser/weights")
    make_images(tmp_path / "in", 1)
    words = ("--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out")
    assert restormer("derain", *words).status == 0
    one_line(restormer("weights", "list"), 2, "~nosuchuser/weights")


# --- memory and limits -------------------------------------------------------------------


@linux
@pytest.mark.parametrize("limit", [200_000, 400_000, 600_000, 900_000])  # kB; 0.4 GB crashed
def test_too_little_address_space_is_one_line(folders: list[object], limit: int) -> None:
    ran = command("denoise", "--kind", "color", *folders, before=f"ulimit -v {limit}")
    one_line(ran, 2, "not enough memory", "ulimit -v")


def test_a_working_folder_that_is_gone_is_one_line(folders: list[object], tmp_path: Path) -> None:
    gone = f"mkdir '{tmp_path}/gone' && cd '{tmp_path}/gone' && rmdir '{tmp_path}/gone'"
    source = Path(__file__).parents[2]
    for words in (("denoise", *folders), ("devices",), ("weights", "show", folders[1])):
        ran = command(*words, before=gone, PYTHONPATH=str(source))
        one_line(ran, 2, "the working folder is not there any more")
    assert command("--version", before=gone, PYTHONPATH=str(source)).status == 0


def test_libraries_that_cannot_be_loaded_are_one_line(
    folders: list[object], tmp_path: Path
) -> None:
    broken = tmp_path / "broken" / "cv2"
    broken.mkdir(parents=True)
    reasons = {
        "raise ImportError('libGL.so.1: cannot open shared object file')": "libGL.so.1",
        "raise OSError('libtorch_cpu.so: cannot enable executable stack')": "libtorch_cpu.so",
        "raise MemoryError": "not enough memory",
        "try:\n raise ImportError('libx.so: failed to map segment')\n"
        "except ImportError as e: raise ImportError('\\n\\nREAD THIS\\nplease') from e": "memory",
    }
    for code, words in reasons.items():
        (broken / "__init__.py").write_text(code, encoding="utf-8")
        ran = command(
            "denoise", *folders, PYTHONPATH=str(broken.parent), PYTHONDONTWRITEBYTECODE="1"
        )
        one_line(ran, 2, words)


@linux
@in_a_namespace
def test_a_process_without_proc_restores(folders: list[object], tmp_path: Path) -> None:
    before = 'exec unshare -rm bash -c \'mount -t tmpfs none /proc && exec "$@"\' bash "$@"'
    ran = command("denoise", "--kind", "color", *folders, before=before, OMP_NUM_THREADS=None)
    assert ran.status == 0, ran.err
    assert names(tmp_path / "out") == ["0.png"]


def test_no_folder_for_scratch_files_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from restormer_cli.network.memory_plan import MemoryBudgetError, scratch_folder

    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: [str(tmp_path / "missing")])
    with pytest.raises(MemoryBudgetError, match="TMPDIR"):
        scratch_folder()


# --- terminals ---------------------------------------------------------------------------


@pytest.mark.parametrize("columns", ["0", "-3", "wide"])
def test_help_is_there_whatever_the_width_is_said_to_be(columns: str) -> None:
    ran = command("derain", "--help", COLUMNS=columns, TERM="dumb")
    assert ran.status == 0
    assert "--input-dir" in ran.out


# --- limits and settings that nobody can mean -------------------------------------------


@linux
@pytest.mark.parametrize("files", [4, 5, 6])
def test_files_that_cannot_be_opened_cost_no_traceback(folders: list[object], files: int) -> None:
    python = f'ulimit -n {files}; exec "{sys.executable}" -c pass'
    if subprocess.run(["sh", "-c", python], capture_output=True, check=False).stderr:
        pytest.skip("Python itself does not begin")
    ran = command("derain", *folders, before=f"ulimit -n {files}")
    assert ran.status in {1, 2}
    assert "Traceback" not in ran.err


def test_more_threads_than_a_system_has_are_refused(folders: list[object]) -> None:
    assert command("derain", *folders, "--cpus-per-worker=100000").status == 2


@pytest.mark.parametrize("columns", ["0", "100000000000"])
def test_help_needs_no_sensible_width(columns: str) -> None:
    ran = command("derain", "--help", COLUMNS=columns)
    assert ran.status == 0
    assert "--result-dir" in ran.out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "a/b"), "a/b: No such file"),
        (OSError(errno.EMFILE, "Too many open files"), "(ulimit -n)"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    ],
)
def test_an_error_of_the_system_is_a_sentence(error: OSError, said: str) -> None:
    text = reason(error) or ""
    assert text.endswith(said)
    assert "[Errno" not in text


@pytest.mark.parametrize(("weights", "said"), [("", "is empty"), ("/dev/zero", "is a device")])
def test_weights_that_are_no_file_are_called_so(
    folders: list[object], weights: str, said: str
) -> None:
    one_line(restormer("derain", *folders[2:], "--weights", weights), 2, said)
