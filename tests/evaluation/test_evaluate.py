"""Folders compared: pairs, problems, JSON and CSV, and the protocol that fits the results."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import random_pixels, restormer, write

from restormer_cli.cli.evaluate import as_csv, as_json_lines
from restormer_cli.errors import UsageError
from restormer_cli.evaluation.evaluate import evaluate_folder
from restormer_cli.evaluation.protocols import PROTOCOLS, choose_protocol
from restormer_cli.evaluation.run_log import RunLine, RunLog
from restormer_cli.tasks import VARIANTS, shipped_options

# --- folders ------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """``10`` differs, ``9`` is perfect, ``bad`` has another size, two stand alone."""
    results, targets = tmp_path / "ergebnis ü", tmp_path / "soll"
    for name, seed in (("10", 3), ("9", 1), ("bad", 2), ("alone", 4)):
        write(results / f"{name}.png", random_pixels(16, 16, seed=seed))
    write(targets / "9.png", random_pixels(16, 16, seed=1, bits=8).astype(np.uint16) * 257)
    write(targets / "10_gt.png", random_pixels(16, 16, seed=2))
    write(targets / "bad.png", random_pixels(16, 17, seed=2))
    write(targets / "lonely.png", random_pixels(16, 16))
    return results, targets


def test_a_folder_is_scored_in_natural_order_and_all_else_is_named(
    folders: tuple[Path, Path],
) -> None:
    seen: list[tuple[int, int]] = []
    found = evaluate_folder(*folders, progress=lambda *numbers: seen.append(numbers))
    assert [score.name for score in found.scores] == ["9.png", "10.png"]
    assert found.scores[0].psnr == math.inf
    assert found.scores[0].mae == 0
    assert found.errors == {
        "bad.png": "the result differs in size from its target (16×16 against 17×16)"
    }
    assert found.unmatched_results == ["alone.png"]
    assert found.unmatched_targets == ["lonely.png"]
    assert not found.complete
    assert found.mean is not None
    assert found.mean.ssim == pytest.approx((found.scores[0].ssim + found.scores[1].ssim) / 2)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_damaged_file_costs_only_its_own_score(folders: tuple[Path, Path]) -> None:
    (folders[0] / "9.png").write_bytes(b"no image")
    found = evaluate_folder(*folders)
    assert "9.png" in found.errors
    assert [score.name for score in found.scores] == ["10.png"]


def test_sub_folders_are_walked_if_asked_for(tmp_path: Path) -> None:
    for side in ("out", "gt"):
        write(tmp_path / side / "a.png", random_pixels(12, 12))
        write(tmp_path / side / "sub" / "a.png", random_pixels(12, 12))
    sides = (tmp_path / "out", tmp_path / "gt")
    assert len(evaluate_folder(*sides).scores) == 1
    found = evaluate_folder(*sides, recursive=True)
    assert [score.name for score in found.scores] == ["a.png", "sub/a.png"]
    assert found.complete


def test_wrong_usage_is_said_before_any_work(tmp_path: Path) -> None:
    write(tmp_path / "full" / "a.png", random_pixels(12, 12))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="missing: no such folder"):
        evaluate_folder(tmp_path / "full", tmp_path / "missing")
    with pytest.raises(UsageError, match="empty: no images found"):
        evaluate_folder(tmp_path / "empty", tmp_path / "full")
    with pytest.raises(UsageError, match="no protocol 'yuv'; there are rgb, y, gray"):
        evaluate_folder(tmp_path / "full", tmp_path / "full", "yuv")


# --- output -------------------------------------------------------------------------------------


def strict(line: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(line, parse_constant=refuse)


def test_json_lines_end_with_the_mean_and_hold_infinity_as_a_string(
    folders: tuple[Path, Path],
) -> None:
    found = evaluate_folder(*folders)
    lines = [strict(line) for line in as_json_lines(found)]
    assert [line["name"] for line in lines] == ["9.png", "10.png", "mean"]
    assert all(list(line) == ["name", "psnr", "ssim", "mae"] for line in lines)
    assert lines[0]["psnr"] == lines[2]["psnr"] == "inf"
    assert float(lines[0]["psnr"]) == math.inf
    assert lines[1]["psnr"] == found.scores[1].psnr


def test_csv_says_the_same(folders: tuple[Path, Path]) -> None:
    found = evaluate_folder(*folders)
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [row["name"] for row in rows] == ["9.png", "10.png", "mean"]
    assert [float(row["psnr"]) for row in rows] == [math.inf, found.scores[1].psnr, math.inf]
    assert float(rows[1]["mae"]) == found.scores[1].mae


def test_nothing_compared_is_a_mean_of_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a" / "a.png", random_pixels(12, 12))
    write(tmp_path / "b" / "b.png", random_pixels(12, 12))
    found = evaluate_folder(tmp_path / "a", tmp_path / "b")
    assert found.mean is None
    assert strict(as_json_lines(found)[-1]) == {
        "name": "mean",
        "psnr": None,
        "ssim": None,
        "mae": None,
    }
    assert as_csv(found).splitlines()[-1] == "mean,,,"


# --- the command --------------------------------------------------------------------------------


def line_of_a_run(result: Path, weights: str | None, status: str = "done") -> str:
    """The line of one image in ``restormer … --report``."""
    facts = {"seconds": 0.5, "width": 16, "height": 16, "device": "cpu", "precision": "float32"}
    return json.dumps(
        {"input": "in.png", "result": str(result), "status": status, "error": None}
        | {"weights": weights}
        | facts
    )


def test_every_task_names_a_protocol_and_its_weights_lead_to_it() -> None:
    chosen = {}
    for variant in VARIANTS:
        assert variant.protocol in PROTOCOLS
        label = f"official {shipped_options(variant.name).weights['file']}"
        entry = RunLine("in.png", "a.png", False, None, 1.0, {"weights": label})
        chosen[variant.label], reason = choose_protocol("auto", RunLog([entry]))
        assert variant.label in reason
        assert chosen[variant.label] == variant.protocol
    assert chosen["derain"] == "y"
    assert chosen["denoise --kind gray --sigma 25"] == "gray"
    assert chosen["denoise --kind color"] == "rgb"
    assert chosen["denoise --kind real"] == "sidd"
    assert chosen["deblur --kind motion"] == "gopro"
    assert chosen["dual-pixel"] == chosen["deblur --kind defocus"] == "dpdd"


def test_the_protocol_follows_from_the_record_of_the_results(tmp_path: Path) -> None:
    photo = write(tmp_path / "in" / "a.png", random_pixels(24, 32))
    out = tmp_path / "out"
    command = ("denoise", "--kind", "color", "--weights", "compact")
    assert restormer(*command, "--input-dir", photo, "--result-dir", out).status == 0
    ran = restormer("evaluate", "--result-dir", out, "--target-dir", photo.parent)
    assert "protocol: rgb, as the papers measure denoise --kind color" in ran.err
    # A result that somebody has replaced is not what the record speaks of.
    write(out / "a.png", random_pixels(24, 32, seed=1))
    ran = restormer("evaluate", "--result-dir", out, "--target-dir", photo.parent)
    assert "since it is not known" in ran.err


def test_the_protocol_follows_from_the_runs_lines(folders: tuple[Path, Path]) -> None:
    out, targets = folders
    command = ("evaluate", "--result-dir", out, "--target-dir", targets)
    ran = restormer(*command)
    assert "protocol: rgb, since it is not known" in ran.err
    lines = [
        line_of_a_run(out / "9.png", "official deraining.pth"),
        line_of_a_run(out / "10.png", None, "skipped"),
        '{"input": "cut o',
    ]
    (out / "run.jsonl").write_text("\n".join(lines), encoding="utf-8")
    ran = restormer(*command)
    assert "protocol: y, as the papers measure derain" in ran.err
    # Asked for: nothing is said; and a report that lies elsewhere is read.
    assert "protocol" not in restormer(*command, "--protocol", "gopro").err
    elsewhere = out.parent / "motion.txt"
    elsewhere.write_text(line_of_a_run(out / "9.png", "official motion_deblurring.pth"))
    assert "protocol: gopro" in restormer(*command, "--report", elsewhere).err
    lines.append(line_of_a_run(out / "10.png", "official motion_deblurring.pth"))
    (out / "run.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert "protocol: rgb, since several tasks" in restormer(*command).err


def test_the_command_prints_a_table_or_json_and_writes_csv(folders: tuple[Path, Path]) -> None:
    command = ("evaluate", "--result-dir", folders[0], "--target-dir", folders[1])
    table = restormer(*command)
    assert table.status == 1
    assert [line.split()[0] for line in table.lines] == ["name", "9.png", "10.png", "mean"]
    assert [line for line in table.err.splitlines() if line.startswith("error: ")] == [
        "error: bad.png: the result differs in size from its target (16×16 against 17×16)",
        "error: alone.png: has no target",
        "error: lonely.png: has no result",
    ]
    file = folders[0].parent / "figures.csv"
    ran = restormer(*command, "--json", "--csv", file)
    assert [json.loads(line)["name"] for line in ran.lines] == ["9.png", "10.png", "mean"]
    assert file.read_text(encoding="utf-8").splitlines()[0] == "name,psnr,ssim,mae"
    for name in ("alone.png", "bad.png"):
        (folders[0] / name).unlink()
        (folders[1] / name).unlink(missing_ok=True)
    (folders[1] / "lonely.png").unlink()
    assert restormer(*command).status == 0


def test_csv_replaces_no_other_file(folders: tuple[Path, Path]) -> None:
    command = ("evaluate", "--result-dir", folders[0], "--target-dir", folders[1])
    photo = folders[1] / "9.png"
    before = photo.read_bytes()
    ran = restormer(*command, "--csv", photo)
    assert (ran.status, photo.read_bytes()) == (2, before)
    assert ran.err == f"error: {photo}: exists and is no table of ours; name another for --csv\n"
    table = folders[0].parent / "figures.csv"
    for _ in range(2):  # our own is replaced
        assert restormer(*command, "--csv", table).status == 1
    assert len(table.read_text(encoding="utf-8").splitlines()) == 4


def test_csv_makes_its_folder_and_leaves_links_and_pipes_in_place(
    folders: tuple[Path, Path],
) -> None:
    command = ("evaluate", "--result-dir", folders[0], "--target-dir", folders[1])
    table = folders[0].parent / "new" / "table.csv"
    restormer(*command, "--csv", table)
    content = table.read_text(encoding="utf-8")
    assert content.startswith("name,psnr")
    table.write_text("", encoding="utf-8")
    link = folders[0].parent / "link.csv"
    link.symlink_to(table)
    restormer(*command, "--csv", link)
    assert link.is_symlink()
    assert table.read_text(encoding="utf-8") == content


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--protocol", "yuv"), "no protocol 'yuv'"),
        (("--csv", "soll/9.png/folder.csv"), "folder.csv: cannot be written"),
        (("--report", "missing.jsonl"), "missing.jsonl: cannot be read"),
        (("--report", "soll/9.png"), "9.png: holds no line"),
    ],
)
def test_wrong_options_are_one_line(
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, str],
    message: str,
) -> None:
    monkeypatch.chdir(folders[0].parent)
    ran = restormer("evaluate", "--result-dir", folders[0], "--target-dir", folders[1], *words)
    assert ran.status == 2
    assert message in ran.err.splitlines()[-1]


# --- what else may lie there --------------------------------------------------------------------


def clutter(folder: Path) -> None:
    """Files in folders that are neither images nor reports of ours."""
    (folder / "folder.jsonl").mkdir()
    (folder / "folder.png").mkdir()
    (folder / "empty.jsonl").touch()
    (folder / "binary.jsonl").write_bytes(bytes(range(256)) * 99)
    others = [{"text": "hi"}, [1], 3, "x", None, {"input": 1}]
    lines = [json.dumps(other) for other in others]
    (folder / "data.jsonl").write_text("\n".join([*lines, "[" * 99999, "9" * 9999]))
    with (folder / "huge.jsonl").open("wb") as file:
        file.truncate(1 << 36)
    if sys.platform != "win32":
        os.mkfifo(folder / "pipe.jsonl")
        os.mkfifo(folder / "pipe.png")
        (folder / "gone.jsonl").symlink_to("nowhere")
        (folder / "gone.png").symlink_to("nowhere")
        (folder / "circle.jsonl").symlink_to("circle.jsonl")
        (folder / "null.jsonl").symlink_to("/dev/null")


def test_nothing_that_lies_among_results_or_targets_stops_the_commands(
    folders: tuple[Path, Path],
) -> None:
    results, targets = folders
    shutil.copytree(targets, results.parent / "in")
    for folder in (results, targets, results.parent / "in"):
        clutter(folder)
    (results / "photo.psd").touch()
    ran = restormer("evaluate", "--result-dir", results, "--target-dir", targets)
    assert ran.status == 1
    assert [line.split()[0] for line in ran.lines] == ["name", "9.png", "10.png", "mean"]
    assert f"{results}: passed over, since they are not read: 1 .psd" in ran.err
    assert "huge.jsonl" not in ran.err
    if sys.platform != "win32":
        for line in (
            f"passed over: {results / 'pipe.jsonl'}: is a pipe, not a report",
            f"passed over: {results / 'null.jsonl'}: is a device, not a report",
            f"passed over: {results / 'gone.jsonl'}: is a link to a file that is not there",
            "error: pipe.png: is a pipe, not an image file",
            "error: gone.png: is a link to a file that is not there",
            "error: target pipe.png: is a pipe, not an image file",
        ):
            assert line in ran.err.splitlines()
    page = results.parent / "r.html"
    for words in ((), ("--target-dir", targets), ("--input-dir", results.parent / "in")):
        ran = restormer("report", results, *words, "--output", page, "--overwrite")
        assert ran.status == 0, ran.err
        assert ("passed over" in ran.err) == (sys.platform != "win32") or ".psd" in ran.err
    if sys.platform != "win32":
        assert "is a pipe, not an image file" in page.read_text(encoding="utf-8")


def test_what_is_named_is_an_error(folders: tuple[Path, Path]) -> None:
    clutter(folders[0])
    command = ("evaluate", "--result-dir", folders[0], "--target-dir", folders[1], "--report")
    wanted = {"folder": "cannot be read", "data": "holds no line", "empty": "holds no line"}
    if sys.platform != "win32":
        wanted |= {"pipe": "is a pipe", "circle": "cannot be", "gone": "cannot be read"}
    for name, reason in wanted.items():
        ran = restormer(*command, folders[0] / f"{name}.jsonl")
        assert ran.status == 2
        assert ran.err.startswith(f"error: {folders[0] / name}.jsonl: {reason}")
        assert len(ran.err.splitlines()) == 1


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="root and Windows read all files"
)
def test_unreadable_reports_are_passed_over(folders: tuple[Path, Path]) -> None:
    (folders[0] / "run.jsonl").touch(mode=0o000)
    ran = restormer("evaluate", "--result-dir", folders[0], "--target-dir", folders[1])
    assert "passed over" in ran.err
    assert len(ran.lines) == 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_reports_are_read_as_shells_write_them(folders: tuple[Path, Path], encoding: str) -> None:
    """PowerShell's ``>`` writes UTF-16, or UTF-8 with a byte-order mark."""
    text = line_of_a_run(folders[0] / "9.png", "official deraining.pth") + "\r\n"
    if encoding == "utf-16-be":
        text = "\ufeff" + text
    (folders[0] / "run.jsonl").write_bytes(text.encode(encoding))
    ran = restormer("evaluate", "--result-dir", folders[0], "--target-dir", folders[1])
    assert "protocol: y, as the papers measure derain" in ran.err


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be on Windows")
@pytest.mark.parametrize(
    "name",
    [
        "a\nmean  99.00  1.0  0.0",
        "c\rr",
        "l\u2028s\u2029",
        "n\x85\x0b\x0c",
        "e\x1b[2Jx",
        "x\u202egnp",
        'q",1',
        "=1+1",
        "\udcff",
    ],
)
def test_a_name_can_forge_no_line_of_the_output(tmp_path: Path, name: str) -> None:
    for side in ("out", "gt"):
        write(tmp_path / side / "a.png", random_pixels(12, 12)).rename(
            tmp_path / side / f"{name}.png"
        )
    (tmp_path / "out" / f"{name}.jpg.png").touch()  # an error about it
    table = tmp_path / "table.csv"
    command = ("evaluate", "--result-dir", tmp_path / "out", "--target-dir", tmp_path / "gt")
    for words in ((), ("--json",), ("--csv", table)):
        ran = restormer(*command, *words)
        assert ran.status == 1
        for text in (ran.out, ran.err):
            lines = text.splitlines()
            assert len(lines) == len(text.split("\n")) - 1
            assert "\x1b" not in text
            assert "\u202e" not in text
        if "--json" in words:
            assert [json.loads(line)["name"] for line in ran.lines] == [f"{name}.png", "mean"]
        else:
            assert len(ran.lines) == 3
        assert len(ran.err.splitlines()) == 2
    with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [f"{name}.png", "mean"]


def test_csv_onto_a_folder_or_a_full_disk_is_one_line(folders: tuple[Path, Path]) -> None:
    command = ("evaluate", "--result-dir", folders[0], "--target-dir", folders[1], "--csv")
    ran = restormer(*command, folders[1])
    assert (ran.status, ran.out) == (2, "")  # before any work
    assert ran.err == f"error: {folders[1]}: is a folder; name a file for --csv\n"
    if Path("/dev/full").exists():
        ran = restormer(*command, "/dev/full")
        assert ran.status == 2
        assert "/dev/full: cannot be written (No space left" in ran.err.splitlines()[-1]
        assert "error: alone.png: has no target" in ran.err
        assert len(ran.lines) == 4
