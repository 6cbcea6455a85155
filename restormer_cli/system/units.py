"""Numbers for people and for JSON: sizes of memory, lengths of time, infinity."""

from __future__ import annotations

import math

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {f"{name}i": 2 ** (10 * power) for power, name in enumerate("kmgt", 1)}


def format_bytes(count: float) -> str:
    """Format a size, as ``1.5 GB`` or ``12 MB``."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count, 0) / 1e6:.0f} MB"


def format_seconds(seconds: float) -> str:
    """Format a time, as ``45 s``, ``12 min``, ``3 h 20 min`` or ``5 days 3 h``."""
    if not seconds < math.inf:
        return "unknown time"
    seconds = max(seconds, 0.0)  # what is left may be a rounding error below
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 2 * 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(minutes / 60)
    return f"{hours // 24} days {hours % 24} h"


def parse_bytes(text: str) -> int:
    """Parse ``6GB``, ``512 MiB``, ``1.5g`` or a plain number of bytes.

    Raises
    ------
    ValueError
        If the text is no size.
    """
    stripped = text.strip().lower().removesuffix("b")
    number = stripped.rstrip("kmgti ")
    unit = stripped[len(number) :].strip()
    try:
        value = float(number) * _UNITS[unit]
    except (KeyError, ValueError):
        value = math.nan
    if not 1 <= value < math.inf:
        raise ValueError(f"{text!r} is not a size such as 6GB or 800MB")
    return int(value)


def json_number(value: float) -> float | str:
    """A number for JSON, where infinity is the string ``"inf"``."""
    return "inf" if math.isinf(value) else value
