"""JPEG: segments in front of the picture, of JFIF, Exif, Adobe and the ICC."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from restormer_cli.metadata.base import IPTC_RESOURCE, Chunk, Found, density_of

END, SCAN = 0xD9, 0xDA
#: Markers without content, or none at all.
BARE = {0x00, 0x01, 0xFF, *range(0xD0, 0xD9)}
JFIF, EXIF, ICC, PHOTOSHOP, COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xFE
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
SECOND_XMP_SEGMENT = b"http://ns.adobe.com/xmp/extension/\0"
RESOLUTION_RESOURCE = 0x03ED


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of the segments in front of the picture."""
    place = 2
    while 0 <= (place := data.find(b"\xff", place)) <= len(data) - 4:
        marker, size = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in (SCAN, END):
            return
        if marker in BARE:
            place += 1
        else:
            yield marker, data[place + 4 : place + 2 + size]
            place += 2 + size


def read_jpeg(found: Found, data: bytes) -> None:
    parts: dict[int, bytes] = {}
    resources = b""
    for marker, body in _segments(data):
        if marker == JFIF and body.startswith(b"JFIF\0") and len(body) >= 12:
            unit, x, y = struct.unpack_from(">BHH", body, 7)
            # It counts its units from 0 where TIFF does from 1.
            found.density = found.density or density_of(x, y, unit + 1)
        elif marker == EXIF and body.startswith(b"Exif\0\0"):
            # More than a segment holds goes on in the next one.
            found.exif = body if found.exif is None else found.exif + body[6:]
        elif marker == EXIF and body.startswith(XMP_SEGMENT):
            found.xmp = found.xmp or body.removeprefix(XMP_SEGMENT)
        elif marker == EXIF and body.startswith(SECOND_XMP_SEGMENT):
            found.tell("the second part of its XMP is left out")
        elif marker == ICC and body.startswith(b"ICC_PROFILE\0") and len(body) >= 14:
            parts.setdefault(body[12], body[13:])
        elif marker == PHOTOSHOP and body.startswith(b"Photoshop 3.0\0"):
            resources += body.removeprefix(b"Photoshop 3.0\0")
        elif marker == COMMENT and (comment := body.rstrip(b"\0")):
            found.others.append(comment_chunk(comment))
    if parts:
        _join_profile(found, parts)
    found.read_exif()
    for code, content in _photoshop(resources):
        if code == IPTC_RESOURCE and content:
            found.add_iptc(content)
        elif code == RESOLUTION_RESOURCE and len(content) >= 12 and found.density is None:
            x, _, _, y = struct.unpack_from(">IHHI", content)
            found.density = density_of(x / 65536, y / 65536, 2)
    if found.xmp is not None and re.search(rb"hdrgm:Version|HDRGainMap", found.xmp):
        found.tell("has a gain map for HDR screens; the result is what other screens show")


def _join_profile(found: Found, parts: dict[int, bytes]) -> None:
    """Of parts in any order, each of which says how many there are."""
    if len(parts) == next(iter(parts.values()))[0]:
        found.icc = b"".join(parts[number][1:] for number in sorted(parts))
    else:
        found.tell("its colour profile lacks a part; it is left out")


def _photoshop(resources: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of the resources of Photoshop."""
    place = 0
    while resources[place : place + 4] == b"8BIM" and place + 12 <= len(resources):
        code, name = struct.unpack_from(">HB", resources, place + 4)
        place += 6 + (1 + name) + (1 + name) % 2
        size = int.from_bytes(resources[place : place + 4], "big")
        yield code, resources[place + 4 : place + 4 + size]
        place += 4 + size + size % 2


def comment_chunk(comment: bytes) -> Chunk:
    comment = comment.replace(b"\0", b" ")
    try:
        comment.decode()
    except ValueError:
        return b"tEXt", b"Comment\0" + comment
    return b"iTXt", b"Comment" + bytes(5) + comment
