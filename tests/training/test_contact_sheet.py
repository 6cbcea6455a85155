"""The sheet of all degradations (scripts/training/contact_sheet.py)."""

from __future__ import annotations

import sys
from pathlib import Path

import contact_sheet
import cv2
import numpy as np
import pytest
from skimage import data


def test_the_sheet_has_a_row_for_each_degradation() -> None:
    crop = data.astronaut()[150:214, 170:234].astype(np.float32) / np.float32(255)
    sheet = contact_sheet.contact_sheet([crop, crop[::-1]], columns=2)
    assert sheet.shape == (64 * len(contact_sheet.SHEET_ROWS), 64 * 3, 3)
    assert sheet.dtype == np.uint8


def test_the_sheet_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "a.png"), data.astronaut()[:100, :120])
    target = tmp_path / "sheet.png"
    arguments = ["--photos", str(photos), "--sheet", str(target), "--size", "64", "--columns", "1"]
    monkeypatch.setattr(sys, "argv", ["contact_sheet.py", *arguments])
    contact_sheet.main()
    assert cv2.imread(str(target)).shape == (64 * len(contact_sheet.SHEET_ROWS), 128, 3)
