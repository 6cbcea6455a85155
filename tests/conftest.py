"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("restormer", deadline=None, max_examples=30)
hypothesis.settings.load_profile("restormer")


#: Files that take long. They come first, or one process would be alone with the last of them.
LONG = {
    "test_ray_cluster.py",
    "test_recipes.py",
    "test_training.py",
    "test_memory_plan.py",
    "test_gpus.py",
    "test_weights.py",
    "test_unattended.py",
    "test_pretended_devices.py",
    "test_report_browser.py",
    "test_device_memory.py",
    "test_contributing.py",
    "test_restorer.py",
    "test_native.py",
    "test_streaming.py",
    "test_bad_files.py",
    "test_watch_command.py",
    "test_nightly.py",
    "test_job_arrays.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny networks gain nothing from more, and beside other work they would lose much.

    Here and in every process that a test starts.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def empty_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, so that official weights of the user of this machine are not seen."""
    home = tmp_path_factory.getbasetemp() / "empty-home"
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("RESTORMER_HOME", str(home))
    return home
