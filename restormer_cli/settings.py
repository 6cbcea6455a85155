"""What decides the pixels of a result, apart from the input: plain data that is compared."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from restormer_cli.errors import UsageError

#: The network halves the resolution three times, and a window's pixels are whole at each level.
WINDOW_MULTIPLE = 8


@dataclass(frozen=True)
class Settings:
    """What decides the pixels of a result, apart from the input.

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
    window: str | None = None
    """Pixels of local windows of attention; None: the whole image, as in records of before."""
    self_ensemble: str | None = None
    """The symmetries that results are means over."""

    def with_bit_depth(self, bit_depth: int | None) -> Settings:
        """The same for results of so many bits; None: as many as the input has."""
        return dataclasses.replace(self, bit_depth=str(bit_depth or "auto"))

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


def read_window(text: str) -> int | str:
    """Read ``--window``: ``auto``, ``none`` or pixels.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    if text in ("auto", "none"):
        return text
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(f"--window takes auto, none, or pixels such as 384, not {text!r}")
    return check_window(int(text))


def check_window(window: int) -> int:
    """Return the pixels of a window.

    Raises
    ------
    UsageError
        If they are no multiple of 8.
    """
    if window < WINDOW_MULTIPLE or window % WINDOW_MULTIPLE:
        raise UsageError(f"--window must be a multiple of {WINDOW_MULTIPLE}, not {window}")
    return window


def windowing(window: int | None) -> str | None:
    """:attr:`Settings.window` for windows of so many pixels."""
    return None if window is None else str(window)
