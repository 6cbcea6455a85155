"""Locks as Windows has them, tried elsewhere: they lie on a byte, and move the position."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from restormer_cli.system import locks


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Have locks go by ``msvcrt``; of these descriptors another process holds the lock."""
    held: set[int] = set()

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == locks._LOCKED_BYTE
        if descriptor in held and mode == windows.LK_NBLCK:
            raise OSError(errno.EACCES, "Permission denied")

    windows = SimpleNamespace(LK_NBLCK=2, LK_UNLCK=0, locking=locking)
    monkeypatch.setattr(locks, "msvcrt", windows, raising=False)
    monkeypatch.setattr(locks, "sys", SimpleNamespace(platform="win32"))
    return held


def test_what_a_locked_file_says_can_be_read(tmp_path: Path, taken: set[int]) -> None:
    """Whoever finds a lock taken reads from its file who holds it."""
    path = tmp_path / "run.lock"
    path.write_bytes(b"holder")
    with path.open("rb") as file:
        descriptor = file.fileno()
        assert locks.try_lock(descriptor)
        assert os.read(descriptor, 100) == b"holder"
        taken.add(descriptor)
        assert not locks.try_lock(descriptor)
        assert os.read(descriptor, 100) == b"holder"
        locks.unlock(descriptor)
        assert os.read(descriptor, 100) == b"holder"
