"""What a file says beside its pixels: colours, resolution, what the camera and people noted.

Whatever the format, it is kept in the terms of PNG (PNG specification, third edition, 11.3), as
it holds for the upright result. What a person would miss and cannot be kept is told; what changes
nothing is not: the bits that were significant before restoration (sBIT), the time of the last
change (tIME), histograms and palettes that nothing refers to.
"""

from __future__ import annotations

from restormer_cli.images.metadata.base import NO_METADATA, Density, Found, Metadata, png_chunk
from restormer_cli.images.metadata.bmp import read_bmp
from restormer_cli.images.metadata.by_pillow import read_by_pillow
from restormer_cli.images.metadata.jpeg import read_jpeg
from restormer_cli.images.metadata.png import SIGNATURE, read_png
from restormer_cli.images.metadata.tiff import read_tiff

__all__ = ["NO_METADATA", "Density", "Found", "Metadata", "find_metadata", "png_chunk"]

READERS = (
    (SIGNATURE, read_png),
    (b"\xff\xd8\xff", read_jpeg),
    (b"II", read_tiff),
    (b"MM", read_tiff),
    (b"BM", read_bmp),
    (b"", read_by_pillow),
)


def find_metadata(data: bytes) -> Found:
    """Find what a file says beside its pixels."""
    found = Found()
    next(read for start, read in READERS if data.startswith(start))(found, data)
    return found
