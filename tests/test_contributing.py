"""CONTRIBUTING's recipes for a task, a metric and an output format, followed in a copy."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from helpers import names, random_pixels, read, save, write, zero_network

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of all that the command needs."""
    copy = tmp_path / "checkout"
    for folder in ("restormer_cli", "Options", "pretrained_models"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def add_row(checkout: Path, row: str) -> None:
    tasks = checkout / "restormer_cli" / "tasks.py"
    before, rows, after = tasks.read_text(encoding="utf-8").partition("VARIANTS = (\n")
    tasks.write_text(f"{before}{rows}    {row},\n{after}", encoding="utf-8")


def run(checkout: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The command of the copy; the folder that it runs in comes first in the path."""
    command = [sys.executable, "-m", "restormer_cli.cli", *map(str, words)]
    environment = {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    environment["PYTHONDONTWRITEBYTECODE"] = ""  # the copy is compiled once, not by each command
    return subprocess.run(
        command, capture_output=True, text=True, cwd=checkout, env=environment, check=False
    )


def test_yaml_and_row_make_a_command(checkout: Path, tmp_path: Path) -> None:
    shutil.copy(checkout / "Options" / "derain.yml", checkout / "Options" / "dehaze.yml")
    add_row(checkout, 'Variant("dehaze", "dehaze", help="Remove haze.")')
    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    write(tmp_path / "in" / "a.png", pixels)
    weights = save(zero_network(), tmp_path / "dehaze.safetensors")
    assert "Remove haze." in run(checkout, "--help").stdout
    words = ("--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out", "--weights", weights)
    ran = run(checkout, "dehaze", *words)
    assert (ran.returncode, ran.stdout.splitlines()) == (0, [str(tmp_path / "out" / "a.png")])
    assert (read(tmp_path / "out" / "a.png") == pixels).all()


def test_yaml_and_row_make_a_kind(checkout: Path, tmp_path: Path) -> None:
    shutil.copy(checkout / "Options" / "denoise_real.yml", checkout / "Options" / "film.yml")
    add_row(checkout, 'Variant("film", "denoise", kind="film", help="Noise.", kind_help="grain")')
    write(tmp_path / "in" / "a.png", np.zeros((16, 16, 3), np.uint8))
    weights = save(zero_network(), tmp_path / "film.safetensors")
    assert "film: grain" in " ".join(run(checkout, "denoise", "--help").stdout.split())
    words = ("--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out", "--weights", weights)
    assert run(checkout, "denoise", "--kind", "film", *words).returncode == 0
    assert (tmp_path / "out" / "a.png").exists()


def test_function_and_row_make_a_metric(checkout: Path, tmp_path: Path) -> None:
    module = checkout / "restormer_cli" / "evaluation" / "metrics.py"
    text = module.read_text(encoding="utf-8")
    function = """def _worst_row(strip: Strip) -> Total:
    rows = np.abs(strip.difference).max(axis=(1, 2))
    return float(rows.sum()), len(rows)


"""
    row = """    row_error: Annotated[
        float,
        Metric("ROWS", _worst_row, lambda mean: 255 * mean, decimals=1, higher_is_better=False),
    ]
"""
    before, table, after = text.partition("@dataclass(frozen=True)\nclass Metrics:\n")
    rows, end, rest = after.partition("\n\nMETRICS")
    module.write_text(f"{before}{function}{table}{rows.rstrip()}\n{row}\n{end}{rest}", "utf-8")

    target = np.zeros((16, 16, 3), np.uint8)
    result = target.copy()
    result[:8, 3] = 24  # of half of the rows one sample differs
    results, targets = tmp_path / "out", tmp_path / "truth"
    write(results / "a.png", result)
    write(targets / "a.png", target)
    sides = ("--result-dir", results, "--target-dir", targets)
    table_file = tmp_path / "figures.csv"
    ran = run(checkout, "evaluate", *sides, "--csv", table_file)
    assert ran.returncode == 0, ran.stderr
    heading, *lines = (line.split() for line in ran.stdout.splitlines())
    assert heading == ["name", "PSNR", "SSIM", "MAE", "ROWS"]
    assert [line[-1] for line in lines] == ["12.0", "12.0"]
    with table_file.open(encoding="utf-8", newline="") as file:
        assert [float(line["row_error"]) for line in csv.DictReader(file)] == pytest.approx(
            [12] * 2
        )
    ran = run(checkout, "evaluate", *sides, "--json")
    assert json.loads(ran.stdout.splitlines()[-1])["row_error"] == pytest.approx(12)

    assert run(checkout, "report", results, "--target-dir", targets).returncode == 0
    page = (results / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data = json.loads(found[1])
    assert data["mean"]["after"]["row_error"] == pytest.approx(12)
    shown = {"key": "row_error", "label": "ROWS", "unit": "", "decimals": 1, "better": "lower"}
    assert data["metrics"][-1] == shown

    papers = module.parent / "papers"
    (papers / "dehazing.yml").write_text(
        "title: Dehazing\ntable: 9\nsource: none\nprotocol: rgb\nlayout: pairs\n"
        "sets: [{name: Haze, network: derain, paper: {row_error: 7.0}}]\n",
        encoding="utf-8",
    )
    for name in ("input", "target"):
        write(tmp_path / "Haze" / name / "a.png", target)
    weights = save(zero_network(), tmp_path / "dehaze.safetensors")
    words = ("reproduce", "dehazing", "--data", tmp_path, "--weights", weights)
    heading, line = (line.split() for line in run(checkout, *words).stdout.splitlines()[1:])
    assert heading == ["data", "set", "images", "ROWS", "paper", "Δ"]
    assert line == ["Haze", "1", "0.0", "7.000", "-7.0"]
    ran = run(checkout, *words, "--json")
    assert json.loads(ran.stdout)["ours"]["row_error"] == 0


def test_row_and_file_make_an_output_format(checkout: Path, tmp_path: Path) -> None:
    recipe = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    recipe = recipe.partition("## Add an output format")[2].partition("\n## ")[0]
    row, encoder = re.findall(r"```python\n(.*?)```", recipe, re.DOTALL)
    formats = checkout / "restormer_cli" / "images" / "formats"
    table = (formats / "__init__.py").read_text(encoding="utf-8")
    before, rows, after = table.partition("FORMATS = (\n")
    row = textwrap.dedent(row).strip()
    (formats / "__init__.py").write_text(f"{before}{rows}    {row},\n{after}", encoding="utf-8")
    (formats / "jp2.py").write_text(textwrap.dedent(encoder), encoding="utf-8")

    source, out = tmp_path / "in", tmp_path / "out"
    for channels, bits in ((1, 8), (3, 8), (4, 8), (1, 16), (3, 16)):
        pixels = random_pixels(40, 40, channels, bits)
        write(source / f"{channels}-{bits}.png", pixels)
    weights = save(zero_network("bias_free"), tmp_path / "weights.safetensors")
    words = ("denoise", "--input-dir", source, "--result-dir", out, "--weights", weights)
    assert "jp2" in run(checkout, "denoise", "--help").stdout
    ran = run(checkout, *words, "--format", "j2k")
    assert ran.returncode == 0, ran.stderr
    assert names(out) == [f"{path.stem}.jp2" for path in sorted(source.iterdir())]
    assert "0 restored, 5 skipped" in run(checkout, *words, "--format", "jp2").stderr
    refused = run(checkout, *words, "--format", "jp2", "--quality", "90")
    assert (refused.returncode, "JPEG 2000 has none" in refused.stderr) == (2, True)
    measured = run(checkout, "evaluate", "--result-dir", out, "--target-dir", source, "--json")
    assert measured.stdout.count('"psnr": "inf"') == 6  # five and their mean
    page = tmp_path / "page.html"
    assert run(checkout, "report", out, "--input-dir", source, "--output", page).returncode == 0
    assert "3-16.jp2" in page.read_text(encoding="utf-8")
