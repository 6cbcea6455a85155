"""JPEG, by Pillow. Colours have the full resolution (4:4:4), whatever the input's was."""

from __future__ import annotations

import struct

from restormer_cli.images.fitting import comment_of, iptc_of
from restormer_cli.images.formats import Encoding
from restormer_cli.images.formats.pillow import encode_by_pillow
from restormer_cli.images.picture import Picture

PHOTOSHOP = b"Photoshop 3.0\0"
#: Markers of segments.
APP13, COMMENT = 0xED, 0xFE
#: Of the segment of JFIF, which stands first: what the resolution counts in, 0 being nothing.
UNIT = 13


def encode(picture: Picture, encoding: Encoding) -> bytes:
    metadata = picture.metadata
    extra = b""
    if (block := iptc_of(metadata)) is not None:
        extra += _segment(APP13, PHOTOSHOP + block)
    # Before Pillow 13, its own argument for a comment fails beside other large segments.
    if (comment := comment_of(metadata)) is not None:
        extra += _segment(COMMENT, comment)
    density = metadata.density
    jpeg = encode_by_pillow(
        "JPEG",
        picture,
        quality=encoding.quality,
        subsampling="4:4:4",
        exif=b"" if metadata.exif is None else b"Exif\0\0" + metadata.exif,
        xmp=metadata.xmp,
        extra=extra,
        dpi=None if density is None else density.per_inch(),
    )
    if density is not None and not density.metric:
        return jpeg[:UNIT] + b"\0" + jpeg[UNIT + 1 :]
    return jpeg


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content
