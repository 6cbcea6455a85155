"""Settings that decide a result, apart from the input: plain data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from restormer_cli.errors import UsageError

#: The network halves the resolution three times, and a window's pixels are whole at each level.
WINDOW_MULTIPLE = 8


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
    window: str | None = None
    """Pixels of local windows of attention; None for the whole image, as in older records."""
    self_ensemble: str | None = None
    """Name of the symmetries that results are means over."""
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
