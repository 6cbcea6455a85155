"""What a camera noted about a photo, as it holds for a result.

EXIF is a TIFF structure (TIFF 6.0, section 2; Exif 2.32, 4.6): directories of entries of twelve
bytes, each a tag, a type, a count, and a value or where it is.
"""

from __future__ import annotations

import struct

ORIENTATION, DIRECTORY = 0x0112, 0x8769
#: Values of the orientation that change width and height.
TRANSPOSED = frozenset({5, 6, 7, 8})
WIDTH, HEIGHT = 0xA002, 0xA003
THUMBNAIL_OFFSET, THUMBNAIL_LENGTH = 0x0201, 0x0202
SHORT = 3


def of_result(exif: bytes) -> bytes:
    """EXIF as it holds for the upright result: orientation 1, its size, no thumbnail.

    Changed in place, since the maker's notes hold only where they were.

    Raises
    ------
    KeyError, struct.error
        If it is damaged.
    """
    tiff = bytearray(exif.removeprefix(b"Exif\0\0"))
    order = {b"II*\0": "<", b"MM\0*": ">"}[bytes(tiff[:4])]

    def number(place: int, kind: str = "I") -> int:
        return int(struct.unpack_from(order + kind, tiff, place)[0])

    def entries(start: int) -> dict[int, int]:
        """Where the entries of a directory are, by tag."""
        places = range(start + 2, start + 2 + 12 * number(start, "H"), 12)
        return {number(place, "H"): place for place in places}

    first = number(4)
    tags = entries(first)
    if ORIENTATION in tags:
        place = tags[ORIENTATION]
        if number(place + 8, "H") in TRANSPOSED and DIRECTORY in tags:
            more = entries(number(tags[DIRECTORY] + 8))
            if WIDTH in more and HEIGHT in more:
                # All but the tags change places: type, count, value.
                width, height = (slice(more[tag] + 2, more[tag] + 12) for tag in (WIDTH, HEIGHT))
                tiff[width], tiff[height] = tiff[height], tiff[width]
        struct.pack_into(f"{order}HIHH", tiff, place + 2, SHORT, 1, 1, 0)
    link = first + 2 + 12 * number(first, "H")
    if len(tiff) >= link + 4 and number(link):
        thumbnail = entries(number(link))
        if THUMBNAIL_OFFSET in thumbnail and THUMBNAIL_LENGTH in thumbnail:
            start = number(thumbnail[THUMBNAIL_OFFSET] + 8)
            stop = min(len(tiff), start + number(thumbnail[THUMBNAIL_LENGTH] + 8))
            tiff[start:stop] = bytes(max(0, stop - start))
        struct.pack_into(f"{order}I", tiff, link, 0)
    return bytes(tiff)
