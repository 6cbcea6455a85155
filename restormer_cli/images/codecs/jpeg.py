"""JPEG (ITU-T T.81) of 8 to 16 bit, without loss too, and JPEG-LS (T.87)."""

from __future__ import annotations

import io
import re
from typing import Any, BinaryIO, NamedTuple

import imagecodecs
import numpy as np

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs.base import (
    CMYK_NOTE,
    Codec,
    Decoded,
    begins,
    from_cmyk,
    inverted,
    parsing,
    scaled,
)
from restormer_cli.images.metadata import Found
from restormer_cli.images.metadata.jpeg import read_jpeg

START, END, SCAN = 0xD8, 0xD9, 0xDA
#: Markers that stand alone.
BARE = {0x01, *range(0xD0, 0xD9)}
LOSSLESS, LS = 0xC3, 0xF7
HUFFMAN, ARITHMETIC = {0xC0, 0xC1, 0xC2, LOSSLESS}, {0xC9, 0xCA}
#: What begins a frame; C4, C8 and CC mean other things.
FRAMES = {*range(0xC0, 0xD0), LS} - {0xC4, 0xC8, 0xCC}
#: The next marker within compressed data, where FF 00 is a byte and FF D0 to D7 restart it.
NEXT_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
#: Compressed data of no meaning, with each of the markers that restart it.
NOISE = b"".join(
    noise.tobytes() + bytes([0xFF, 0xD0 + number % 8])
    for number, noise in enumerate(np.random.default_rng(1).integers(1, 255, (9, 512), np.uint8))
)
#: Not the one that makes a byte of FF.
ZEROS = re.compile(rb"(?<!\xff)\0{15,}\Z")
#: Bytes that may stand between two segments.
BETWEEN = 256
CUT_OFF = "is a JPEG file that is cut off: its lower part is missing"


class _Frame(NamedTuple):
    marker: int
    bits: int
    height: int
    width: int
    components: int


def _frame(file: BinaryIO) -> _Frame:
    file.seek(2)
    while True:
        # Some writers leave a few bytes between segments.
        between = file.read(BETWEEN)
        found = NEXT_MARKER.search(between)
        kind = END if found is None else found[1][0]
        if found is None or kind in (END, SCAN):
            raise ImageError("is a JPEG file that is damaged or cut off (it holds no picture)")
        file.seek(found.end() - len(between), 1)
        if kind in BARE:
            continue
        length = int.from_bytes(file.read(2), "big")
        if kind in FRAMES:
            body = file.read(6)
            if len(body) < 6:
                raise ImageError("is a JPEG file that is cut off")
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            return _Frame(kind, body[0], height, width, body[5])
        file.seek(max(0, length - 2), 1)


def _measure(file: BinaryIO) -> tuple[int, int]:
    frame = _frame(file)
    if frame.marker not in {*HUFFMAN, *ARITHMETIC, LS}:
        raise ImageError(
            "is a JPEG of a rare kind (hierarchical, or arithmetic without loss) that cannot be "
            "read; convert it to PNG with the program it comes from"
        )
    if not frame.height:
        raise ImageError(
            "is a JPEG that tells its height only at its end; save it again with another program"
        )
    return frame.height, frame.width


def _decode(data: bytes) -> Decoded:
    frame = _frame(io.BytesIO(data))
    if frame.components not in (1, 3, 4):
        raise ImageError(
            f"is a JPEG of {frame.components} colour components, which cannot be read; "
            "convert it to PNG"
        )
    if frame.marker == LS:
        with parsing("JPEG"):
            image = imagecodecs.jpegls_decode(data)
    else:
        image = decode_whole(data)
    image = image.reshape(*image.shape[:2], -1)
    pixels = scaled(image, frame.bits)
    notes = []
    if frame.components == 4:
        pixels = from_cmyk(inverted(pixels))  # programs write the light and not the ink
        notes.append(CMYK_NOTE)
    return Decoded(pixels, notes=tuple(notes), bits=frame.bits)


def decode_whole(data: bytes) -> Any:
    """Pixels, if they are all there; an ImageError if not.

    The decoder fills up with gray what is missing. Noise behind the compressed data changes
    nothing, unless the decoder still asks for more.
    """
    stop = _end(data)
    coded = data[:stop].rstrip(b"\xff")  # FF may fill up before a marker
    if stop == len(data):  # zeros, as a copy that failed ends with, are compressed data, too
        coded = ZEROS.sub(b"", coded)
    end = bytes([0xFF, END])
    arithmetic = _frame(io.BytesIO(data)).marker in ARITHMETIC
    with parsing("JPEG"):
        image = imagecodecs.jpeg8_decode(coded + end)
        # Arithmetic coding leaves out zeros at the end, so that noise would change a whole one.
        again = image if arithmetic else imagecodecs.jpeg8_decode(coded + NOISE + end)
    if not np.array_equal(image, again):
        raise ImageError(CUT_OFF)
    return image


def _end(data: bytes) -> int:
    """Where the compressed data of the first picture ends; what follows is not part of it."""
    place = 2
    scanned, kind = False, SCAN
    while (found := NEXT_MARKER.search(data, place)) is not None:
        kind, place = found[1][0], found.end()
        if kind == END:
            return found.start()
        if kind == START:  # the next picture, or a thumbnail's
            if scanned:
                return found.start()
            continue
        if kind in BARE:
            continue
        scanned |= kind == SCAN
        place += max(2, int.from_bytes(data[place : place + 2], "big"))
    if kind != SCAN:  # tables of a scan that is missing
        raise ImageError(CUT_OFF)
    return len(data)


def _read_metadata(found: Found, data: bytes) -> None:
    pictures_behind = read_jpeg(found, data)
    if _frame(io.BytesIO(data)).marker != LS:  # whose compressed data has other marks in it
        found.tell_rest(data[_end(data) + 2 :], known=pictures_behind)


CODEC = Codec(
    name="JPEG",
    matches=begins(b"\xff\xd8\xff"),
    measure=_measure,
    decode=_decode,
    read_metadata=_read_metadata,
    suffixes=".jpg .jpeg .jpe .jfif .jfi .jif .pjpeg .pjp",
    reads="progressive, arithmetic, lossless and JPEG-LS, too; gray, RGB, CMYK",
    bits=(8, 16),
    alpha=False,
    colours="ICC, Adobe RGB of EXIF",
    metadata="EXIF, XMP, IPTC, comment",
    media_type="image/jpeg",
)
