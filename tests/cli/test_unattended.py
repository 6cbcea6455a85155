"""Unattended runs: kills, full disks, other runs, pipes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import make_images, names, random_pixels, restormer, save, tiny_network, write

from restormer_cli.batch.lock import folder_lock
from restormer_cli.system.locks import try_lock

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such thing")
COMMAND = [sys.executable, "-m", "restormer_cli.cli"]
KILLS = 10


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_network(), tmp_path_factory.mktemp("weights") / "net.safetensors")


def command(*words: object, weights: Path, task: str = "derain") -> list[str]:
    return [*COMMAND, task, "--weights", str(weights), "--device", "cpu", *map(str, words)]


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(folder)}


# --- killed ------------------------------------------------------------------------------


@posix
def test_run_that_is_killed_again_and_again_ends_as_if_undisturbed(
    tmp_path: Path, weights: Path
) -> None:
    source, out, calm = tmp_path / "in", tmp_path / "out", tmp_path / "calm"
    moments = random.Random(0)
    for index in range(60):  # small ones, which go through the network together, and larger
        size = moments.choice([12, 60, 120, 160])
        write(source / f"{index}.png", random_pixels(size, size, seed=index))
    subprocess.run(
        command("--input-dir", source, "--result-dir", calm, weights=weights),
        check=True,
        capture_output=True,
    )
    words = command("--input-dir", source, "--result-dir", out, weights=weights)
    started = 0
    for number in range(KILLS):
        run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert run.stdout is not None
        if number % 5:  # most of them when work has begun, some at any time before
            started += bool(run.stdout.readline())
            time.sleep(moments.uniform(0, 0.1))
        else:
            time.sleep(moments.uniform(0, 2))
        run.kill()
        run.communicate()
    assert started >= KILLS / 3  # or nothing was tested
    last = subprocess.run(words, capture_output=True, encoding="utf-8", check=False)
    assert last.returncode == 0, last.stderr
    assert "not in the record" not in last.stderr  # every result is known
    assert contents(out) == contents(calm)
    assert os.listdir(out / ".restormer") == ["run.jsonl"]  # noqa: PTH208 - hidden ones as well


def test_leftovers_of_dead_runs_are_swept_and_those_of_live_ones_are_not(
    tmp_path: Path, weights: Path
) -> None:
    source, out = make_images(tmp_path / "in" / "sub", 1).parent, tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    dead, alive = (out / "sub" / f".{name}.restormer-part" for name in ("dead", "alive"))
    foreign = out / "sub" / ".somebody-elses"
    for path in (dead, alive, foreign):
        path.write_bytes(b"half an image")
    with alive.open("r+b") as file:
        assert try_lock(file.fileno())
        words = ("derain", "--input-dir", source, "--result-dir", out, "-r")
        ran = restormer(*words, "--weights", weights)
    assert ran.status == 0, ran.err
    assert not dead.exists()
    assert alive.exists()
    assert foreign.exists()


# --- two runs ----------------------------------------------------------------------------


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A result folder in which another run works."""
    folder = tmp_path / "out" / ".restormer"
    folder.mkdir(parents=True)
    with folder_lock(folder):
        yield tmp_path / "out"


def test_second_run_exits_75_and_says_who_is_there(
    tmp_path: Path, weights: Path, held: Path
) -> None:
    source = make_images(tmp_path / "in", 1)
    ran = restormer("derain", "--input-dir", source, "--result-dir", held, "--weights", weights)
    assert ran.status == 75
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    for words in (
        str(held),
        f"process {os.getpid()} on ",
        f"since {time.strftime('%Y')}",
        "--wait",
    ):
        assert words in ran.err
    assert names(held) == []
    dry = restormer(
        *("derain", "--input-dir", source, "--result-dir", held, "--weights", weights, "--dry-run")
    )
    assert dry.status == 0  # it writes nothing, so it is in nobody's way


@posix
def test_lock_of_a_killed_run_blocks_nobody(tmp_path: Path, weights: Path) -> None:
    source = write(tmp_path / "in" / "0.png", random_pixels(2000, 2000)).parent
    words = ("--input-dir", source, "--result-dir", tmp_path / "out")
    run = subprocess.Popen(command(*words, weights=weights), stderr=subprocess.DEVNULL)
    lock = tmp_path / "out" / ".restormer" / "run.lock"
    while not (lock.exists() and lock.read_text()):
        assert run.poll() is None
        time.sleep(0.02)
    busy = restormer("derain", *words, "--weights", weights)
    assert busy.status == 75
    assert f"process {run.pid} on " in busy.err
    run.kill()
    run.wait()
    assert lock.exists()
    write(source / "0.png", random_pixels(8, 8))
    assert restormer("derain", *words, "--weights", weights).status == 0


def test_runs_that_wait_share_the_work_without_doing_any_twice(
    tmp_path: Path, weights: Path
) -> None:
    source, out = make_images(tmp_path / "in", 20), tmp_path / "out"
    words = command("--input-dir", source, "--result-dir", out, "--wait", weights=weights)
    runs = [
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        for _ in range(2)
    ]
    ended = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], ended
    lines = [line for output, _ in ended for line in output.splitlines()]
    assert sorted(lines) == sorted(str(out / f"{index}.png") for index in range(20))


# --- the record --------------------------------------------------------------------------


SUBCOMMANDS = {
    "derain": "with_bias",
    "denoise": "bias_free",
    "deblur": "with_bias",
    "dual-pixel": "dual_pixel",
}


@pytest.mark.parametrize("task", SUBCOMMANDS)
def test_changed_settings_and_inputs_are_redone_and_it_is_said(tmp_path: Path, task: str) -> None:
    one, two = (
        save(tiny_network(SUBCOMMANDS[task], seed=seed), tmp_path / f"{seed}.pth")
        for seed in (1, 2)
    )
    source, out = tmp_path / "in", tmp_path / "out"
    sides = ("inputL", "inputR") if task == "dual-pixel" else (".",)
    for side in sides:
        make_images(source / side, 3)
    words = (task, "--input-dir", source, "--result-dir", out, "--precision", "float32")
    first = restormer(*words, "--weights", one)
    assert len(first.lines) == 3, first.err
    before = contents(out)

    again = restormer(*words, "--weights", one)
    assert (again.status, again.lines) == (0, [])
    assert "3 skipped" in again.err

    changed = restormer(*words, "--weights", two)
    assert len(changed.lines) == 3
    assert "weights changed: 3 results are to be made again" in changed.err
    assert all(before[name] != content for name, content in contents(out).items())

    deeper = restormer(*words, "--weights", two, "--bit-depth", "16")
    assert "bit depth changed: 3 results" in deeper.err
    assert len(deeper.lines) == 3
    words += ("--weights", two, "--bit-depth", "16")
    assert restormer(*words).lines == []

    write(source / sides[-1] / "1.png", random_pixels(12, 12, seed=99))
    new = restormer(*words)
    assert new.lines == [str(out / "1.png")]
    assert "input changed: 1 result is to be made again" in new.err
    assert restormer(*words).lines == []


@pytest.fixture
def restored(tmp_path: Path, weights: Path) -> tuple[Any, ...]:
    """The words of a run that has restored three images of ``in`` into ``out``."""
    words = ("derain", "--input-dir", make_images(tmp_path / "in", 3), "--weights", weights)
    words += ("--result-dir", tmp_path / "out")
    assert len(restormer(*words).lines) == 3
    return words


def test_results_that_are_not_ours_are_kept_whatever_changes(
    tmp_path: Path, restored: tuple[Any, ...]
) -> None:
    (tmp_path / "out" / "1.png").write_bytes(b"retouched by hand")
    ran = restormer(*restored, "--bit-depth", "16")
    assert ran.lines == [str(tmp_path / "out" / f"{index}.png") for index in (0, 2)]
    assert "not in the record of this folder: 1 result is kept; --overwrite" in ran.err
    assert (tmp_path / "out" / "1.png").read_bytes() == b"retouched by hand"
    assert len(restormer(*restored, "--overwrite").lines) == 3


def test_record_can_be_deleted_without_harm(tmp_path: Path, restored: tuple[Any, ...]) -> None:
    before = contents(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / ".restormer")
    (tmp_path / "out" / "2.png").unlink()
    ran = restormer(*restored)
    assert (ran.status, ran.lines) == (0, [str(tmp_path / "out" / "2.png")])
    assert "2 results are kept" in ran.err
    assert contents(tmp_path / "out") == before


def test_touched_inputs_are_known_by_content_if_asked(
    tmp_path: Path, restored: tuple[Any, ...]
) -> None:
    os.utime(tmp_path / "in" / "0.png", (1, 1))
    assert restormer(*restored, "--checksum").lines == []
    path = tmp_path / "in" / "1.png"
    facts = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"!")  # of the same size, in what none reads
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    dry = ("--dry-run", "--json")
    planned = [json.loads(line)["status"] for line in restormer(*restored, *dry).lines]
    assert planned == ["planned", "skipped", "skipped"]
    planned = [json.loads(s)["status"] for s in restormer(*restored, *dry, "--checksum").lines]
    assert planned == ["skipped", "planned", "skipped"]


def test_result_of_another_input_is_not_replaced_unasked(
    tmp_path: Path, restored: tuple[Any, ...], weights: Path
) -> None:
    before = contents(tmp_path / "out")
    write(tmp_path / "other" / "1.png", random_pixels(8, 8))
    words = ("derain", "--input-dir", tmp_path / "other", "--weights", weights)
    words += ("--result-dir", tmp_path / "out")
    ran = restormer(*words)
    assert ran.status == 1
    assert f"is the result of {tmp_path / 'in' / '1.png'}" in ran.err
    assert contents(tmp_path / "out") == before
    # The same photos moved elsewhere are the same photos.
    shutil.copytree(tmp_path / "in", tmp_path / "moved")
    moved = restormer(*words[:2], tmp_path / "moved", *words[3:])
    assert (moved.status, moved.lines) == (0, [])
    assert len(restormer(*words, "--overwrite").lines) == 1


def test_result_of_another_task_is_not_replaced_unasked(
    tmp_path: Path, restored: tuple[Any, ...]
) -> None:
    before = contents(tmp_path / "out")
    ran = restormer("deblur", *restored[1:])
    assert (ran.status, ran.lines) == (0, [])
    assert "made by derain: 3 results are kept" in ran.err
    assert contents(tmp_path / "out") == before


# --- disks and folders that refuse -------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if (
        not shutil.which("mount")
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("mounting a small file system needs Linux and root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_stops_the_run_with_its_cause_and_loses_nothing(
    tmp_path: Path, weights: Path, small_disk: Path
) -> None:
    source = make_images(tmp_path / "in", 12, size=128)  # noise: 48 kB each
    out, report = small_disk / "out", small_disk / "report.jsonl"
    words = ("derain", "--input-dir", source, "--result-dir", out, "--weights", weights)
    ran = restormer(*words, "--report", report)
    assert ran.status == 1
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert 2 <= len(errors) <= 5, ran.err
    assert all("No space left" in line for line in errors)
    assert "takes no more results; stopped" in ran.err
    assert "not begun" in ran.err.splitlines()[-1]
    assert sorted(map(str, out.glob("*.png"))) == sorted(ran.lines)
    assert names(out) == sorted(Path(line).name for line in ran.lines)
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    rest = restormer(*words)
    assert rest.status == 0, rest.err
    assert len(rest.lines) == 12 - len(ran.lines)
    assert "not in the record" not in rest.err


def test_disk_that_is_full_from_the_start_is_named_once(
    tmp_path: Path, weights: Path, small_disk: Path
) -> None:
    source, out = make_images(tmp_path / "in", 3), small_disk / "out"
    out.mkdir()
    with (small_disk / "full").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    ran = restormer("derain", "--input-dir", source, "--result-dir", out, "--weights", weights)
    assert ran.status == 2
    assert ran.err == f"error: {out}: cannot be written (No space left on device)\n"
    assert ran.out == ""


def test_read_only_result_folder_is_named_once_unless_all_is_done(
    tmp_path: Path, weights: Path, small_disk: Path
) -> None:
    source, out = make_images(tmp_path / "in", 2), small_disk / "out"
    words = ("derain", "--input-dir", source, "--result-dir", out, "--weights", weights)
    assert restormer(*words).status == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert restormer(*words).status == 0
    write(source / "new.png", random_pixels(8, 8))
    ran = restormer(*words)
    assert ran.status == 2
    assert [line for line in ran.err.splitlines() if "Read-only" in line] == [
        f"error: {out}: cannot be written (Read-only file system)"
    ]


def test_sub_folder_that_cannot_be_written_costs_only_its_own_images(
    tmp_path: Path, weights: Path
) -> None:
    source, out = make_images(tmp_path / "in", 2), tmp_path / "out"
    make_images(source / "sub", 2)
    out.mkdir()
    (out / "sub").write_text("a file where a folder should be")
    make_images(source / "loop", 1)
    (out / "loop").symlink_to("loop")
    ran = restormer(
        *("derain", "--input-dir", source, "--result-dir", out, "-r", "--weights", weights)
    )
    assert ran.status == 1
    assert len(ran.lines) == 2
    assert ran.err.count(f"({out / 'sub'} is a file)") == 2
    assert ran.err.count(f"({out / 'loop'} is a link to a folder that is not there)") == 1
    assert ran.err.count("error: ") == 3


@pytest.mark.parametrize("target", ["a disk that is away/1.png", "1.png"])
def test_a_link_that_leads_nowhere_is_not_replaced_unasked(
    target: str, tmp_path: Path, weights: Path
) -> None:
    source, out = make_images(tmp_path / "in", 2), tmp_path / "out"
    out.mkdir()
    link = out / "1.png"
    link.symlink_to(target)  # the latter leads to itself
    words = ("derain", "--input-dir", source, "--result-dir", out, "--weights", weights)
    ran = restormer(*words)
    assert (ran.status, ran.lines) == (1, [str(out / "0.png")])
    assert f"error: {source / '1.png'}: {link} " in ran.err
    assert "--overwrite replaces it" in ran.err
    assert link.is_symlink()
    assert restormer(*words, "--overwrite").status == 0
    assert not link.is_symlink()


def test_a_result_folder_that_cannot_be_made_is_told_why(tmp_path: Path, weights: Path) -> None:
    source, link, file = make_images(tmp_path / "in", 1), tmp_path / "link", tmp_path / "file"
    link.symlink_to(tmp_path / "a disk that is away")
    file.write_text("a file")
    for out, why in (
        (link, f"{link} is a link to a folder that is not there"),
        (link / "out", f"{link} is a link to a folder that is not there"),
        (file / "out", f"{file} is a file"),
    ):
        ran = restormer(
            *("derain", "--input-dir", source, "--result-dir", out, "--weights", weights)
        )
        assert (ran.status, ran.err) == (2, f"error: {out}: cannot be made, since {why}\n")


def test_input_that_vanishes_is_named_and_the_others_are_restored(
    tmp_path: Path, weights: Path
) -> None:
    source = make_images(tmp_path / "in", 3)
    listed = "\n".join(str(source / f"{index}.png") for index in range(3)).encode()
    (source / "1.png").unlink()
    words = ("derain", "--input-dir", "-", "--result-dir", tmp_path / "out", "--weights", weights)
    ran = restormer(*words, stdin=listed)
    assert ran.status == 1
    assert len(ran.lines) == 2
    assert f"error: {source / '1.png'}: cannot be read (No such file or directory)" in ran.err


# --- pipes -------------------------------------------------------------------------------


@posix
def test_pipe_that_is_closed_ends_the_run_with_one_line_on_what_is_left(
    tmp_path: Path, weights: Path
) -> None:
    source, out = make_images(tmp_path / "in", 40, size=60), tmp_path / "out"
    words = command("--input-dir", source, "--result-dir", out, weights=weights)
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stderr is not None
    assert run.stdout.readline().decode().strip() == str(out / "0.png")
    run.stdout.close()
    errors = run.stderr.read().decode()
    run.stderr.close()
    assert run.wait(timeout=120) == 1
    assert errors.count("\n") == 1
    said = "stopped since nobody reads standard output any more: "
    counts = re.match(rf"{said}(\d+) restored, 0 skipped, 0 failed, (\d+) not begun", errors)
    assert counts is not None, errors
    assert int(counts[1]) + int(counts[2]) == 40
    assert len(names(out)) == int(counts[1])
    assert not [name for name in names(out) if name.startswith(".")]
    assert (
        restormer(
            *("derain", "--input-dir", source, "--result-dir", out, "--weights", weights)
        ).status
        == 0
    )


@posix
def test_output_that_takes_no_more_is_named(tmp_path: Path, weights: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    source = make_images(tmp_path / "in", 2)
    words = command("--input-dir", source, "--result-dir", tmp_path / "out", weights=weights)
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            words, stdout=full, stderr=subprocess.PIPE, encoding="utf-8", check=False
        )
    assert ran.returncode == 1
    assert ran.stderr == "error: standard output cannot be written (No space left on device)\n"
    report = restormer(
        *("derain", "--input-dir", source, "--result-dir", tmp_path / "other"),
        *("--weights", weights, "--report", "/dev/full"),
    )
    assert report.status == 1
    assert len(report.lines) == 2
    assert report.err.count("error: /dev/full: cannot be written") == 1
    with Path("/dev/full").open("w") as full:
        listing = [*COMMAND, "weights", "list"]
        ran = subprocess.run(
            listing, stdout=full, stderr=subprocess.PIPE, encoding="utf-8", check=False
        )
    assert ran.returncode == 1
    assert ran.stderr == "error: No space left on device\n"


@posix
def test_run_without_standard_streams_works(tmp_path: Path, weights: Path) -> None:
    source, out = make_images(tmp_path / "in", 2), tmp_path / "out"
    words = command("--input-dir", source, "--result-dir", out, weights=weights)
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words]
    assert subprocess.run(shell, check=False).returncode == 0
    assert names(out) == ["0.png", "1.png"]


@posix
def test_a_list_on_standard_input_that_is_closed_is_no_empty_one(
    tmp_path: Path, weights: Path
) -> None:
    words = command("--input-dir", "-", "--result-dir", tmp_path / "out", weights=weights)
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *words]
    ran = subprocess.run(shell, check=False, capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr == "error: -: standard input cannot be read (Bad file descriptor)\n"


@posix
def test_messages_that_cannot_be_written_cost_no_result(tmp_path: Path, weights: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    source = make_images(tmp_path / "in", 2)
    (source / "bad.png").write_bytes(b"no image")
    words = command("--input-dir", source, "--result-dir", tmp_path / "out", weights=weights)
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=full, check=False)
    assert ran.returncode == 1
    assert names(tmp_path / "out") == ["0.png", "1.png"]


def test_report_is_appended_to_no_photo(tmp_path: Path, weights: Path) -> None:
    source = make_images(tmp_path / "in", 2)
    words = ("derain", "--input-dir", source, "--result-dir", tmp_path / "out")
    photo = source / "0.png"
    before = photo.read_bytes()
    ran = restormer(*words, "--weights", weights, "--report", photo)
    assert (ran.status, photo.read_bytes()) == (2, before)
    assert f"error: {photo}: exists and is no report" in ran.err
    for count in (2, 4):
        assert restormer(*words, "--weights", weights, "--report", tmp_path / "r.jsonl").status == 0
        assert len((tmp_path / "r.jsonl").read_text().splitlines()) == count


def test_a_list_without_names_is_no_failure(tmp_path: Path, weights: Path) -> None:
    words = ("derain", "--input-dir", "-", "--result-dir", tmp_path / "out")
    ran = restormer(*words, "--weights", weights, stdin=b"")
    assert ran.status == 0, ran.err
    assert "0 restored, 0 skipped, 0 failed" in ran.err


def test_another_file_of_the_same_name_size_and_time_is_not_taken_for_done(
    tmp_path: Path, weights: Path
) -> None:
    for folder, seed in (("x", 0), ("y", 1), ("moved", 0)):
        path = write(tmp_path / folder / "0001.bmp", random_pixels(16, 16, seed=seed))
        os.utime(path, (1_700_000_000, 1_700_000_000))

    def run(folder: str) -> Any:
        words = ("--input-dir", tmp_path / folder, "--result-dir", tmp_path / "out")
        return restormer("derain", *words, "--weights", weights)

    assert run("x").status == 0
    other = run("y")
    assert other.status == 1
    assert "is the result of " in other.err
    moved = run("moved")
    assert moved.status == 0
    assert "1 skipped" in moved.err


@posix
def test_a_run_that_waits_is_stopped_at_once(tmp_path: Path, weights: Path) -> None:
    source = write(tmp_path / "in" / "a.png", random_pixels(8, 8)).parent
    # A result folder on which another run works: the run waits.
    held = tmp_path / "out" / ".restormer"
    held.mkdir(parents=True)
    words = ("--input-dir", source, "--result-dir", held.parent, "--wait")
    with folder_lock(held):
        run = subprocess.Popen(
            command(*words, weights=weights), stderr=subprocess.PIPE, encoding="utf-8"
        )
        assert run.stderr is not None
        assert "waiting for another run" in run.stderr.readline()
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=120) == 143
        assert "stopped by SIGTERM: 0 restored" in run.stderr.read()
        run.stderr.close()
