"""BMP of Windows, versions 3 to 5."""

from __future__ import annotations

import contextlib
import struct

from restormer_cli.images.metadata.base import Density, Found

#: What white is where a file does not say it.
D65 = (0.3127, 0.3290)


def read_bmp(found: Found, data: bytes) -> None:
    """The headers of versions 3 to 5 (BITMAPV5HEADER of Windows, behind 14 bytes of the file's)."""
    with contextlib.suppress(struct.error):
        (size,) = struct.unpack_from("<I", data, 14)
        if size >= 40:
            x, y = struct.unpack_from("<ii", data, 38)
            found.density = Density(x, y) if x > 0 and y > 0 else None
        if size < 108:
            return
        kind = data[70:74][::-1]
        intent, place, length = struct.unpack_from("<III", data, 122) if size >= 124 else (0, 0, 0)
        if kind == b"sRGB":
            found.add_color(b"sRGB", bytes([{1: 2, 2: 1, 8: 3}.get(intent, 0)]))
        elif kind == b"MBED":
            found.icc = data[14 + place : 14 + place + length]
        elif kind == b"LINK":
            found.tell("its colour profile is another file; it is left out")
        elif kind == bytes(4):
            _read_calibration(found, data)


def _read_calibration(found: Found, data: bytes) -> None:
    endpoints = [value / (1 << 30) for value in struct.unpack_from("<9i", data, 74)]
    gammas = [value / (1 << 16) for value in struct.unpack_from("<3I", data, 110)]
    if min(gammas) > 0:
        if max(gammas) - min(gammas) > 0.01:
            found.tell("its three colours have gammas of their own; they are left out")
        else:
            # Of the screen or, as ImageMagick writes it, of the file.
            gamma = gammas[0] if gammas[0] < 1 else 1 / gammas[0]
            found.add_color(b"gAMA", struct.pack(">I", round(100_000 * gamma)))
    colors = [endpoints[start : start + 3] for start in (0, 3, 6)]
    if all(min(color) >= 0 and sum(color) > 0 for color in colors):
        white = [sum(values) for values in zip(*colors, strict=True)]
        # Most writers note how red, green and blue are, not how much of each makes white.
        unknown = all(abs(sum(color) - 1) < 0.01 for color in colors)
        points = [[*D65, 1 - sum(D65)] if unknown else white, *colors]
        found.add_chromaticities([v / sum(point) for point in points for v in point[:2]])
