"""JPEG: segments in front of the picture, of JFIF, Exif, Adobe and the ICC."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from restormer_cli.images.metadata import exif
from restormer_cli.images.metadata.base import (
    CREDENTIALS,
    GAIN_MAP,
    IPTC_RESOURCE,
    Chunk,
    Found,
    density_of,
)

END, SCAN = 0xD9, 0xDA
#: Markers without content, or none at all.
BARE = {0x00, 0x01, 0xFF, *range(0xD0, 0xD9)}
JFIF, EXIF, ICC, JUMBF, PHOTOSHOP, COMMENT = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xFE
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
#: Segments of programs and cameras; those with more bytes together hold more than settings: the
#: temperatures of a thermal camera, say.
APPLICATIONS = range(0xE0, 0xF0)
MOST_UNKNOWN = 1 << 16
THUMBNAIL_SEGMENTS = (b"JFXX\0", b"FPXR\0")
SECOND_XMP_SEGMENT = b"http://ns.adobe.com/xmp/extension/\0"
#: White, red, green and blue, x before y, and the exponent of light (Adobe RGB 1998, 4.3).
ADOBE_RGB = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
ADOBE_GAMMA = 2.19921875
RESOLUTION_RESOURCE = 0x03ED
#: Pictures behind the first one (CIPA DC-007): their entries, and the kinds that are thumbnails.
PICTURES, THUMBNAILS = 0xB002, {0x010001, 0x010002}


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


def read_jpeg(found: Found, data: bytes) -> bool:
    """The segments of a JPEG in front of the picture; true if they say that others are behind."""
    parts: dict[int, bytes] = {}
    resources = b""
    pictures, index = 1, False
    unknown = 0
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
        elif marker == ICC and body.startswith(b"urn:iso:std:iso:ts:21496:-1\0"):
            found.tell(GAIN_MAP)
        elif marker == ICC and body.startswith(b"MPF\0"):
            pictures, index = _count_pictures(body[4:]), True
        elif marker == JUMBF and b"c2pa" in body:
            found.tell(CREDENTIALS)
        elif marker == PHOTOSHOP and body.startswith(b"Photoshop 3.0\0"):
            resources += body.removeprefix(b"Photoshop 3.0\0")
        elif marker == COMMENT and (comment := body.rstrip(b"\0")):
            found.others.append(comment_chunk(comment))
        elif marker in APPLICATIONS and not body.startswith(THUMBNAIL_SEGMENTS):
            unknown += len(body)
    if unknown > MOST_UNKNOWN:
        found.tell(f"what else its camera noted ({unknown} bytes) is left out")
    if parts:
        _join_profile(found, parts)
    found.read_exif()
    if found.icc is None and exif.is_adobe_rgb(found.exif or b""):
        found.add_chromaticities(ADOBE_RGB)
        found.add_color(b"gAMA", struct.pack(">I", round(100_000 / ADOBE_GAMMA)))
    for code, content in _photoshop(resources):
        if code == IPTC_RESOURCE and content:
            found.add_iptc(content)
        elif code == RESOLUTION_RESOURCE and len(content) >= 12 and found.density is None:
            x, _, _, y = struct.unpack_from(">IHHI", content)
            found.density = density_of(x / 65536, y / 65536, 2)
    xmp = found.xmp or b""
    if re.search(rb"hdrgm:Version|HDRGainMap", xmp):
        found.tell(GAIN_MAP)
    found.tell_motion()
    if pictures > 1 and GAIN_MAP not in found.lost:
        found.tell(f"only the first of {pictures} frames is restored")
    return index or GAIN_MAP in found.lost


def _count_pictures(index: bytes) -> int:
    """How many pictures the file holds, thumbnails apart."""
    try:
        order, tags = exif.tiff_tags(index, frozenset({PICTURES}))
    except (KeyError, struct.error):
        return 1
    entries = exif.content(tags.get(PICTURES)) or b""
    whole = entries[: len(entries) // 16 * 16]
    kinds = [kind & 0xFFFFFF for (kind,) in struct.iter_unpack(f"{order}I12x", whole)]
    return sum(kind not in THUMBNAILS for kind in kinds)


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


def iptc_record(resources: bytes) -> bytes | None:
    """What press agencies note, among the resources of Photoshop."""
    found = (content for code, content in _photoshop(resources) if code == IPTC_RESOURCE)
    return next(found, None)


def comment_chunk(comment: bytes) -> Chunk:
    comment = comment.replace(b"\0", b" ")
    try:
        comment.decode()
    except ValueError:
        return b"tEXt", b"Comment\0" + comment
    return b"iTXt", b"Comment" + bytes(5) + comment
