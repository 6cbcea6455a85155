"""JPEG XL (ISO 18181), decoded by libjxl in imagecodecs.

That gives pixels in as many bits as the file has. What colours they are is in the file's header,
whose fields are read here; the Pillow plugin for JPEG XL knows no RGB of more than 8 bit, has to
decode a file to tell its size, and brings another licence.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

import imagecodecs

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs.base import (
    Codec,
    Decoded,
    begins,
    from_floats,
    parsing,
    scaled,
    split_alpha,
    unmultiplied,
)
from restormer_cli.images.codecs.boxes import boxes, refuse_cut_off, tell_companions
from restormer_cli.images.codecs.jpegxl_header import (
    ALPHA,
    BLACK,
    HEADER_BYTES,
    Header,
    read_header,
)
from restormer_cli.images.metadata.base import Found
from restormer_cli.images.metadata.jpeg import read_jpeg

NAME = "JPEG XL"
CODESTREAM, CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
#: Of EXIF, XMP and others that are compressed, what they may grow to.
MOST_BYTES = 1 << 26


def _header(file: BinaryIO) -> Header:
    """Of the codestream, wherever it is in the file."""
    file.seek(0)
    if file.read(len(CODESTREAM)) == CODESTREAM:
        file.seek(0)
        return read_header(file.read(HEADER_BYTES))
    for box in boxes(file):
        if box.kind in (b"jxlc", b"jxlp"):
            file.seek(box.start + (4 if box.kind == b"jxlp" else 0))  # a part has a number
            return read_header(file.read(min(HEADER_BYTES, box.stop - file.tell())))
    raise ImageError(f"is a {NAME} file that is damaged or cut off (it holds no picture)")


def _measure(file: BinaryIO) -> tuple[int, int]:
    refuse_cut_off(file, NAME)
    header = _header(file)
    if BLACK in header.extras:
        raise ImageError(f"is a {NAME} picture in CMYK, which is not read; convert it to RGB")
    if header.lossy and header.profile:
        raise ImageError(
            f"is a {NAME} picture whose colours only its ICC profile tells; "
            "convert it to PNG by `djxl`"
        )
    return header.upright


def _decode(data: bytes) -> Decoded:
    header = _header(io.BytesIO(data))
    with parsing(NAME):
        samples = imagecodecs.jpegxl_decode(data, index=0)
        if samples.dtype.kind not in "uf" or (samples.dtype.kind == "u" and header.bits > 16):
            raise NotImplementedError(f"{header.bits}-bit samples")
    notes: tuple[str, ...] = ()
    bits = None
    if samples.dtype.kind == "f":
        samples, notes = from_floats(samples)
    else:
        bits = header.bits
        samples = scaled(samples, bits)
    pixels, alpha = split_alpha(samples)
    if alpha is not None and header.multiplied:
        pixels = unmultiplied(pixels, alpha)
    if header.animated:
        notes += ("only the first of its frames is restored",)
    if others := sum(kind != ALPHA for kind in header.extras):
        what = "a channel that is" if others == 1 else f"{others} channels that are"
        notes += (f"has {what} neither colour nor transparency, left out of its result",)
    return Decoded(pixels, alpha, notes=notes, bits=bits)


def _read_metadata(found: Found, data: bytes) -> None:
    try:
        header = _header(io.BytesIO(data))
    except ImageError:  # the decoder speaks of it
        return
    jpeg = _read_boxes(found, data)
    if not data.startswith(CODESTREAM):
        tell_companions(found, data)
    found.read_exif()
    if jpeg:
        _read_original(found, data)
    found.orientation = 1  # that of the codestream, which the decoder has applied
    if header.profile:
        if found.icc is None:
            found.tell("its colour profile cannot be read (JPEG XL compresses it); it is left out")
    elif header.code_points is not None:
        found.add_code_points(*header.code_points)
    else:
        if header.gamma is not None:
            found.add_color(b"gAMA", struct.pack(">I", round(100_000 * header.gamma)))
        if header.chromaticities:
            found.add_chromaticities(header.chromaticities)


def _read_boxes(found: Found, data: bytes) -> bool:
    """Take EXIF and XMP; true if the file was made of a JPEG."""
    jpeg = False
    if data.startswith(CODESTREAM):
        return jpeg
    for kind, start, stop in boxes(io.BytesIO(data)):
        jpeg |= kind == b"jbrd"
        compressed = kind == b"brob"
        if compressed:
            kind, start = data[start : start + 4], start + 4
        if kind not in (b"Exif", b"xml "):
            continue
        body = data[start:stop]
        if compressed:
            try:
                body = bytes(imagecodecs.brotli_decode(body))
            except Exception:  # whatever damage provokes
                found.tell("its metadata is damaged; it is left out")
                continue
        if kind == b"Exif":
            found.exif = found.exif or body[4 + int.from_bytes(body[:4], "big") :]
        else:
            found.xmp = found.xmp or body
    return jpeg


def _read_original(found: Found, data: bytes) -> None:
    """Take what the JPEG said of which the file was made, its profile above all."""
    try:
        original = bytes(imagecodecs.jpegxl_decode_jpeg(data, numthreads=1))
    except Exception:  # the file has been changed since
        return
    said = Found()
    read_jpeg(said, original)
    found.exif, found.xmp = found.exif or said.exif, found.xmp or said.xmp
    found.icc, found.density = said.icc, found.density or said.density
    found.others += said.others
    for name, body in said.color.items():
        found.add_color(name, body)
    for sentence in said.lost:
        found.tell(sentence)


CODEC = Codec(
    name=NAME,
    matches=begins(CODESTREAM, CONTAINER),
    measure=_measure,
    decode=_decode,
    read_metadata=_read_metadata,
    suffixes=".jxl",
    reads="the first frame",
    bits=(1, 16),
    alpha=True,
    colours="cICP, gamma, primaries; ICC if it was a JPEG",
    metadata="EXIF, XMP",
)
