"""SHA-256 of weights: known from the registry, or pinned when a file was first downloaded.

A pin is a file beside the weights, ``NAME.pth.sha256``, as ``sha256sum`` writes and checks it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from restormer_cli.errors import WeightsError
from restormer_cli.system.atomic import atomic_file

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Hash:
    """The hash of a file, and the expected one."""

    found: str
    """64 hexadecimal digits, as all hashes here."""
    expected: str | None
    """None if it is not known."""
    source: Literal["known", "pinned", "unknown"]

    @property
    def matches(self) -> bool:
        """True also if no hash is expected."""
        return self.expected is None or self.found == self.expected


def sha256(path: Path) -> str:
    """Hash the content of a file.

    Raises
    ------
    WeightsError
        If it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()


def check(path: Path, known: str | None) -> Hash:
    """Hash a file and compare it with the known hash, else with its pin.

    Raises
    ------
    WeightsError
        If the file or its pin cannot be read.
    """
    expected, source = expect(path, known)
    return Hash(sha256(path), expected, source)


def expect(
    path: Path, known: str | None
) -> tuple[str | None, Literal["known", "pinned", "unknown"]]:
    """The expected hash of a file, and its source."""
    if known is not None:
        return known, "known"
    pinned = read_pin(path)
    return (None, "unknown") if pinned is None else (pinned, "pinned")


def pin_of(path: Path) -> Path:
    """The file that holds the pin of another."""
    return path.with_name(f"{path.name}.sha256")


def read_pin(path: Path) -> str | None:
    """The pinned hash of a file; None if it has no pin.

    Raises
    ------
    WeightsError
        If the pin cannot be read or is damaged, so that the weights cannot be checked.
    """
    pin = pin_of(path)
    try:
        text = pin.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{pin}: cannot be read ({error})") from error
    if not (digest := re.match(r"[0-9a-f]{64}\b", text)):
        raise WeightsError(f"{pin}: holds no SHA-256; remove it to pin {path.name} anew")
    return digest[0]


def write_pin(path: Path, digest: str) -> None:
    """Pin a file.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """
    # Renamed into place, so that a link of that name is replaced and not followed.
    with atomic_file(pin_of(path)) as file:
        file.write(f"{digest}  {path.name}\n".encode())
