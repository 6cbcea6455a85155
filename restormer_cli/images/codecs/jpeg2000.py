"""JPEG 2000 (ISO 15444-1): of 8 bit by Pillow, of more by OpenJPEG in imagecodecs.

Neither heeds colours other than gray, RGB and YCC, and would take CMYK for RGB with transparency.
"""

from __future__ import annotations

import io
import re
from typing import BinaryIO

import imagecodecs
import numpy as np

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs.base import (
    EMPTY_END,
    Codec,
    Decoded,
    begins,
    empty_end,
    parsing,
    scaled,
    split_alpha,
)
from restormer_cli.images.codecs.boxes import boxes
from restormer_cli.images.codecs.by_pillow import decode_by_pillow, measurer, unusual
from restormer_cli.images.metadata import Found, icc
from restormer_cli.images.metadata.by_pillow import read_by_pillow

NAME = "JPEG 2000"
JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
#: How it says which samples it holds (A.5.1).
SIZES = re.compile(rb"\xff\x4f\xff\x51.{36}(..)", re.DOTALL)
END = b"\xff\xd9"
MOST_BITS = 16
#: How a box says what the colours are: by a number or by a profile (I.5.3.3; 15444-2, M.11.7.3).
BY_NUMBER, BY_PROFILE = 1, (2, 3)
#: Numbers of black and white, sRGB, gray and sYCC, which are decoded, and names of others.
READ = {0, 15, 16, 17, 18}
OTHERS = {12: "CMYK", 13: "YCCK", 14: "CIELAB", 20: "e-sRGB", 21: "ROMM RGB", 24: "e-sYCC"}
#: Of boxes with what the camera and programs noted.
EXIF_ID, XMP_ID = b"JpgTiffExif->JP2", bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


def _colours(file: BinaryIO) -> bytes:
    """What the first box says of the colours: its way, two bytes, a number or a profile."""
    for header in boxes(file):
        if header.kind == b"jp2h":
            file.seek(header.start)
            inner = io.BytesIO(file.read(header.stop - header.start))
            for box in boxes(inner):
                if box.kind == b"colr":
                    inner.seek(box.start)
                    return inner.read(box.stop - box.start)
    return b""


def _measure(file: BinaryIO) -> tuple[int, int]:
    file.seek(0)
    if file.read(len(JP2)) == JP2:
        _refuse_other_colours(_colours(file))
    return measurer(NAME)(file)


def _refuse_other_colours(said: bytes) -> None:
    what = None
    if said[:1] == bytes([BY_NUMBER]) and len(said) >= 7:
        number = int.from_bytes(said[3:7], "big")
        if number not in READ:
            what = OTHERS.get(number, f"a colour space of number {number}")
    elif said[:1] and said[0] in BY_PROFILE:
        space = said[3:][icc.SPACE]
        if space not in (b"RGB ", b"GRAY", b""):
            what = space.decode("latin-1").strip()
    if what is not None:
        raise ImageError(
            f"is a {NAME} picture in colours that are not read ({what}); convert it to RGB"
        )


def _bits(data: bytes) -> int:
    if not (sizes := SIZES.search(data)):
        return 8
    stop = sizes.end() + 3 * int.from_bytes(sizes[1], "big")
    return max((1 + (each & 0x7F) for each in data[sizes.end() : stop : 3]), default=8)


def _refuse_empty_end(data: bytes) -> None:
    """Raise ImageError if zeros stand where the mark should that ends every codestream (A.4.4)."""
    stop = len(data)
    if data.startswith(JP2):
        stop = next((b.stop for b in boxes(io.BytesIO(data)) if b.kind == b"jp2c"), stop)
    filled = data[:stop].rstrip(b"\0")
    if len(data[:stop]) - len(filled) >= len(EMPTY_END) and not filled.endswith(END):
        raise empty_end(NAME)


def _decode(data: bytes) -> Decoded:
    _refuse_empty_end(data)
    bits = _bits(data)
    if bits <= 8:
        return decode_by_pillow(NAME, data)
    if bits > MOST_BITS:
        raise ImageError(unusual(NAME, f"{bits} bit"))
    with parsing(NAME):
        samples = imagecodecs.jpeg2k_decode(data)
        if samples.dtype != np.uint16:
            raise NotImplementedError(f"{samples.dtype} samples")
        return Decoded(*split_alpha(scaled(samples, bits)), bits=bits)


def _read_metadata(found: Found, data: bytes) -> None:
    read_by_pillow(found, data)
    if not data.startswith(JP2):
        return
    for kind, start, stop in boxes(io.BytesIO(data)):
        if kind == b"uuid" and data.startswith(EXIF_ID, start):
            found.exif = data[start + len(EXIF_ID) : stop]
        elif kind == b"uuid" and data.startswith(XMP_ID, start):
            found.xmp = data[start + len(XMP_ID) : stop]
    found.read_exif()
    said = _colours(io.BytesIO(data))
    if said[:1] and said[0] in BY_PROFILE:
        found.icc = said[3:]


CODEC = Codec(
    name=NAME,
    matches=begins(JP2, b"\xff\x4f\xff\x51"),
    measure=_measure,
    decode=_decode,
    read_metadata=_read_metadata,
    suffixes="",
    reads="JP2 and bare codestreams",
    bits=(1, MOST_BITS),
    alpha=True,
    colours="ICC",
    metadata="EXIF, XMP, comment",
)
