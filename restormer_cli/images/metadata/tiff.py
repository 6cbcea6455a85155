"""TIFF (revision 6.0) and BigTIFF: tags of the first directory."""

from __future__ import annotations

import struct

from restormer_cli.images.metadata import exif
from restormer_cli.images.metadata.base import Found, density_of, orientation_of

TRANSFER_FUNCTION, WHITE_POINT, PRIMARIES = 301, 318, 319
XMP, IPTC, PROFILE = 700, 33723, 34675
OF_COLOR = {TRANSFER_FUNCTION, WHITE_POINT, PRIMARIES, PROFILE}
OF_SHAPE = {exif.ORIENTATION, exif.X_RESOLUTION, exif.Y_RESOLUTION, exif.RESOLUTION_UNIT}
#: Scale, tie points, matrix and keys of GeoTIFF.
OF_THE_MAP = {33550, 33922, 34264, 34735}
WANTED = exif.ABOUT_THE_PHOTO | OF_COLOR | OF_SHAPE | OF_THE_MAP | {XMP, IPTC}


def read_tiff(found: Found, data: bytes) -> None:
    """The tags of a TIFF file's picture; where they are damaged, that is told."""
    try:
        order, tags = exif.tiff_tags(data, WANTED)
    except (KeyError, struct.error):
        found.tell("its metadata is damaged; it is left out")
        return

    def whole(tag: int, default: int) -> int:
        numbers = exif.numbers(order, tags.get(tag), exif.WHOLE)
        return int(numbers[0]) if numbers else default

    def fractions(*names: int) -> list[float]:
        entries = (exif.numbers(order, tags.get(tag), exif.FRACTIONS) for tag in names)
        return [number for numbers in entries for number in numbers]

    found.exif = exif.of_tiff(order, tags)
    found.xmp, found.icc, record = (exif.content(tags.get(tag)) for tag in (XMP, PROFILE, IPTC))
    found.read_exif(resolution=False)
    found.orientation = orientation_of(whole(exif.ORIENTATION, 1))  # whatever XMP says
    if record is not None:
        found.add_iptc(record)
    resolution = fractions(exif.X_RESOLUTION, exif.Y_RESOLUTION)
    if len(resolution) == 2:
        x, y = resolution
        found.density = density_of(x, y, whole(exif.RESOLUTION_UNIT, 2))
    xy = fractions(WHITE_POINT, PRIMARIES)
    if len(xy) == 8:
        found.add_chromaticities(xy)
    if OF_THE_MAP & tags.keys():
        found.tell("its place on the map (GeoTIFF) is left out")
    if found.icc is None and TRANSFER_FUNCTION in tags:
        found.tell("its TransferFunction, which few programs heed, is left out")
