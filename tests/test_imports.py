"""Importing the package changes nothing in the host program, and does not load PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "restormer_cli"
LIGHT = ("batch", "cli", "system")


def run(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("package", LIGHT)
def test_module_does_not_import_torch(package: str) -> None:
    modules = [
        f"restormer_cli.{package}.{path.stem}"
        for path in sorted((PACKAGE / package).glob("*.py"))
        if not path.stem.startswith("__")
    ]
    assert modules
    program = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
    assert "torch" not in sys.modules, name
"""
    run(program)


def test_package_leaves_the_settings_of_libraries_as_they_were() -> None:
    program = """
import json, logging, os, warnings
import cv2, numpy, PIL.Image, torch
def settings():
    return {
        "bomb": PIL.Image.MAX_IMAGE_PIXELS,
        "chunks": __import__("PIL.PngImagePlugin").PngImagePlugin.MAX_TEXT_CHUNK,
        "truncated": __import__("PIL.ImageFile").ImageFile.LOAD_TRUNCATED_IMAGES,
        "opencv threads": cv2.getNumThreads(),
        "torch threads": torch.get_num_threads(),
        "tf32": [torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32],
        "gradients": torch.is_grad_enabled(),
        "numpy": numpy.geterr(),
        "filters": len(warnings.filters),
        "level": logging.getLogger().level,
        "handlers": len(logging.getLogger().handlers),
        "environment": dict(os.environ),
    }
before = settings()
import restormer_cli
from restormer_cli import Restorer, evaluate_folder, load_restorer, restore_folder
import restormer_cli.cli.run, restormer_cli.report.build
print(json.dumps([before, settings()]))
"""
    before, after = json.loads(run(program))
    assert after == before
