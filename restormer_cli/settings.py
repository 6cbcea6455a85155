"""Settings that decide a result, apart from the input: plain data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The settings that decide a result, apart from the input.

    Device, memory limit and compression are not among them: they change rounding or bytes, but
    nothing visible.
    """

    task: str | None = None
    weights: str | None = None
    """SHA-256 of the file."""
    label: str | None = dataclasses.field(default=None, compare=False)
    """Name of the weights for people."""
    options: str | None = None
    """SHA-256 of the file of ``--options``."""
    precision: str | None = None
    """None for the choice of the machine, which is not compared."""
    bit_depth: str = "auto"
    tile: str | None = None
    format: str = "png"
    quality: str | None = None
    """1 to 100; None if the format has none."""
    metadata: str | None = None
    """``stripped``, or None if it is kept."""

    def changes_from(self, other: Settings) -> list[str]:
        """Names of the settings that differ from others."""
        return [
            field.name.replace("_", " ")
            for field in dataclasses.fields(self)
            if field.compare
            and getattr(self, field.name) != getattr(other, field.name)
            and not (field.name == "precision" and self.precision is None)
        ]


def tiling(tile: int | None, overlap: int) -> str | None:
    """Make :attr:`Settings.tile` for a size of tiles in pixels; None without tiles."""
    return None if tile is None else f"{tile}, overlap {overlap}"
