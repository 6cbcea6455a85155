"""--window and --self-ensemble: what they do, what is said of them, what counts as done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tlc
import torch
from helpers import random_pixels, read, restormer, save, tiny_network, write

from restormer_cli import load_restorer
from restormer_cli.images.pixels import normalise, quantise
from restormer_cli.symmetries import SYMMETRIES
from restormer_cli.tasks import VARIANTS, shipped_options
from restormer_cli.weights import registry

NETWORK = tiny_network()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    save(NETWORK, tmp_path / "net.pth")
    write(tmp_path / "in" / "a.png", random_pixels(40, 56))
    return tmp_path


def run(work: Path, *words: object, task: str = "derain") -> tuple[Any, Any]:
    """The line of JSON of one image, and its result's pixels."""
    ran = restormer(
        *(task, "--input-dir", work / "in", "--result-dir", work / "out", "--json"),
        *("--weights", work / "net.pth", "--precision", "float32"),
        *words,
    )
    assert ran.status == 0, ran.err
    return json.loads(ran.lines[0]), read(work / "out" / "a.png")


def windowed(pixels: Any, window: int) -> Any:
    """What TLC makes of pixels, not rounded."""
    image = torch.from_numpy(normalise(pixels)).permute(2, 0, 1)[None]
    return tlc.forward(NETWORK, image, window)[0].permute(1, 2, 0).numpy()


def test_window_gives_what_tlc_gives(work: Path) -> None:
    line, result = run(work, "--window", 16)
    expected = quantise(windowed(read(work / "in" / "a.png"), 16), 8)
    assert np.abs(result.astype(int) - expected).max() <= 1
    assert (result != expected).mean() < 1e-3
    assert line["window"] == 16
    assert line["self_ensemble"] is None


@pytest.mark.parametrize("window", ["none", "auto", 56, 4096])
def test_whole_images_unless_asked(work: Path, window: object) -> None:
    """Unknown weights have no window, and one as large as the image changes no pixel."""
    before = run(work)
    line, result = run(work, "--window", window, "--overwrite")
    assert (result == before[1]).all()
    assert before[0]["window"] is None
    assert line["window"] == (window if isinstance(window, int) else None)


@pytest.mark.parametrize(("task", "passes"), [("derain", "mirror"), ("denoise", "all")])
def test_self_ensemble_averages_over_what_the_task_allows(
    work: Path, task: str, passes: str
) -> None:
    line, result = run(work, "--self-ensemble", task=task)
    assert line["self_ensemble"] == passes
    image = normalise(read(work / "in" / "a.png"))
    restorer = load_restorer(task, weights=str(work / "net.pth"), precision="float32")
    held = [
        symmetry.undo(restorer.unrounded(np.ascontiguousarray(symmetry.apply(image))))
        for symmetry in SYMMETRIES[passes]
    ]
    assert np.abs(result - quantise(np.mean(held, axis=0), 8).astype(int)).max() <= 1


def test_ensembles_of_windows(work: Path) -> None:
    line, result = run(work, "--window", 16, "--self-ensemble")
    assert (line["window"], line["self_ensemble"]) == (16, "mirror")
    pixels = read(work / "in" / "a.png")
    mean = (windowed(pixels, 16) + windowed(pixels[:, ::-1].copy(), 16)[:, ::-1]) / 2
    assert np.abs(result - quantise(mean, 8).astype(int)).max() <= 1


@pytest.mark.parametrize("words", [("--window", 16), ("--window", 24), ("--self-ensemble",)])
def test_results_of_others_are_made_again(work: Path, words: tuple[object, ...]) -> None:
    run(work)
    line, _ = run(work, *words)
    assert line["status"] == "done"
    line, _ = run(work, *words)
    assert line["status"] == "skipped"
    line, _ = run(work)
    assert line["status"] == "done"


def test_records_of_before_are_of_whole_images(work: Path) -> None:
    """A journal that knows neither windows nor ensembles still counts."""
    run(work)
    journal = work / "out" / ".restormer" / "run.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines() if line]
    for line in lines:
        if isinstance(line, dict):
            assert line["settings"].pop("window") is None
            assert line["settings"].pop("self_ensemble") is None
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(work)[0]["status"] == "skipped"
    assert run(work, "--window", "none")[0]["status"] == "skipped"
    assert run(work, "--window", 16)[0]["status"] == "done"


@pytest.mark.parametrize("word", ["12", "0", "-8", "8.0", "", "all", "NaN", "٨", "1" * 30])
def test_other_words_are_refused(work: Path, word: str) -> None:
    ran = restormer(
        "derain", "--input-dir", work / "in", "--result-dir", work / "out", "--window", word
    )
    assert ran.status == 2
    assert "--window" in ran.err
    assert not (work / "out").exists()


def test_verbose_says_what_attention_is_over(work: Path) -> None:
    command = ("derain", "--input-dir", work / "in", "--result-dir", work / "out", "-v")
    weights = ("--weights", work / "net.pth")
    assert "attention: over the image" in restormer(*command, *weights).err
    said = restormer(*command, *weights, "--window", 16, "--self-ensemble").err
    assert "attention: over windows of 16 pixels" in said
    assert "passes: 2" in said


@pytest.mark.parametrize("log", ["out/log.jsonl", "elsewhere.jsonl"])
def test_report_says_what_was_used(work: Path, log: str) -> None:
    """From the log among the results, or, without one there, from their record."""
    run(work, "--window", 16, "--self-ensemble", "--log-json", work / log)
    ran = restormer("report", work / "out", "--output", work / "page.html")
    assert ran.status == 0, ran.err
    page = (work / "page.html").read_text(encoding="utf-8")
    assert '"window":[["16",1]]' in page.replace(" ", "")
    assert '"self_ensemble":[["mirror",1]]' in page.replace(" ", "")


# --- what is known of weights -------------------------------------------------------------------


def test_shipped_windows_and_symmetries_are_sound() -> None:
    for name in {name for v in VARIANTS for name in (v.name, v.compact) if name}:
        options = shipped_options(name)
        assert options.weights["window"] == "none" or options.window
        assert options.window is None or options.window % 8 == 0
        assert options.symmetries in SYMMETRIES


def test_windows_of_the_official_networks_are_those_that_tlc_gains_with() -> None:
    windows = {variant.name: shipped_options(variant.name).window for variant in VARIANTS}
    gaining = {"deblur_motion", "deblur_defocus", "dual_pixel"}
    for name, window in windows.items():
        gains = name in gaining or name.startswith(("denoise_color", "denoise_gray"))
        assert window == (384 if gains else None)


def test_known_weights_bring_their_window_under_any_name(work: Path, monkeypatch: Any) -> None:
    """By content: a copy of official weights, called as a person likes."""
    known = registry.official_file(next(v for v in VARIANTS if v.name == "deblur_motion"))
    digest = registry.checksum.sha256(work / "net.pth")
    monkeypatch.setitem(known.options.weights, "sha256", digest)  # type: ignore[arg-type]
    monkeypatch.setattr(registry, "known_files", lambda: [known])
    assert registry.find_by_hash(digest) is known
    line, _ = run(work, task="deblur")
    assert line["window"] == 384
    line, _ = run(work, "--window", "none", task="deblur")
    assert (line["status"], line["window"]) == ("done", None)


def test_pinned_weights_are_known_by_their_pin(work: Path, monkeypatch: Any) -> None:
    """Official files of which no hash is published have what was pinned when they came."""
    home = work / "home"
    home.mkdir()
    monkeypatch.setenv("RESTORMER_HOME", str(home))
    known = registry.find_known("gaussian_color_denoising_sigma50")
    assert known is not None
    assert known.sha256 is None
    there = save(NETWORK, home / known.name)
    digest = registry.checksum.sha256(there)
    assert registry.find_by_hash(digest) is None
    registry.checksum.write_pin(there, digest)
    found = registry.find_by_hash(digest)
    assert found is not None
    assert found.name == known.name
