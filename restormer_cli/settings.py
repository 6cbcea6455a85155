"""What decides a result, apart from the input: plain data that is compared."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What decides a result, apart from the input.

    The device, the memory allowed and the compression are no part of it: they change rounding
    or bytes, not what a person sees.
    """

    task: str | None = None
    weights: str | None = None
    """SHA-256 of the file."""
    label: str | None = dataclasses.field(default=None, compare=False)
    """What people call these weights."""
    options: str | None = None
    """SHA-256 of the file of ``--options``."""
    precision: str | None = None
    """None: whatever suits the machine, so nothing to compare."""
    bit_depth: str = "auto"
    tile: str | None = None
    format: str = "png"
    quality: str | None = None
    """1 to 100; None if the format has none."""
    metadata: str | None = None
    """``stripped``, or None if it is kept."""

    def changes_from(self, other: Settings) -> list[str]:
        """Names of the settings that differ."""
        return [
            field.name.replace("_", " ")
            for field in dataclasses.fields(self)
            if field.compare
            and getattr(self, field.name) != getattr(other, field.name)
            and not (field.name == "precision" and self.precision is None)
        ]


def tiling(tile: int | None, overlap: int) -> str | None:
    """:attr:`Settings.tile` for squares of so many pixels."""
    return None if tile is None else f"{tile}, overlap {overlap}"
