"""What a file says beside its pixels: colours, resolution, what the camera and people noted.

Whatever the format, it is kept in the terms of PNG (PNG specification, third edition, 11.3), as
it holds for the upright result. What a person would miss and cannot be kept is told; what changes
nothing is not: the bits that were significant before restoration (sBIT), the time of the last
change (tIME), histograms and palettes that nothing refers to.
"""

from __future__ import annotations

from restormer_cli.images.metadata.base import NO_METADATA, Density, Found, Metadata, png_chunk

__all__ = ["NO_METADATA", "Density", "Found", "Metadata", "png_chunk"]
