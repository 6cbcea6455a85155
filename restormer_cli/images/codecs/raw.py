"""Raw files of cameras, developed by LibRaw (rawpy) to sRGB of 16 bit.

White balance as the camera set it, colours by its matrix, demosaiced, upright. Exposure is that of
the file, so photos of a series stay as bright as they are to each other. Lenses are not corrected,
and nothing is sharpened or denoised.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs import tiff
from restormer_cli.images.codecs.base import Codec, Decoded, Extra, parsing
from restormer_cli.images.codecs.boxes import boxes, content, refuse_cut_off
from restormer_cli.images.metadata import exif
from restormer_cli.images.metadata.base import Found
from restormer_cli.images.metadata.jpeg import read_jpeg
from restormer_cli.images.metadata.tiff import XMP

NAME = "camera raw"
RAWPY = Extra("raw", "rawpy")
#: Where in the first bytes, and what, tells a raw file that does not begin as TIFF files do, or
#: does and says more.
FUJI, CANON_BOXES = b"FUJIFILMCCD-RAW", b"ftypcrx "
SIGNATURES = (
    (0, FUJI),
    (4, CANON_BOXES),
    (8, b"CR\2"),
    (8, b"IIII"),  # of Phase One
    (6, b"HEAPCCDR"),
    (0, b"IIRO"),
    (0, b"IIRS"),
    (0, b"MMOR"),
    (0, b"IIU\0"),
    (0, b"FOVb"),
    (0, b"\0MRM"),
)
#: Where a Fuji file says where its JPEG and its samples are, and how many bytes they take.
FUJI_PARTS = struct.Struct(">84xIIIIII")
#: The box of a Canon file that holds its metadata, and the boxes in it: about the picture, the
#: photo and the place.
CANON_METADATA = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
CANON_PARTS = (b"CMT1", b"CMT2", b"CMT4")
#: The curve of sRGB: the exponent's inverse, and the slope near black (IEC 61966-2-1).
SRGB_CURVE = (2.4, 12.92)
DEVELOPING = {
    "use_camera_wb": True,
    "output_bps": 16,
    "no_auto_bright": True,
    "gamma": SRGB_CURVE,
}
#: How LibRaw says that it turns a picture on its side.
ON_ITS_SIDE = 4
#: Notes in a form of the camera's maker, which hold only where they are in the raw file.
MAKERS_NOTES = 0x927C


def _signed(head: bytes) -> bool:
    return any(head[place : place + len(text)] == text for place, text in SIGNATURES)


def _matches(head: bytes) -> bool:
    return _signed(head) or head.startswith(tiff.STARTS)


def _confirms(file: BinaryIO) -> bool:
    """True if it is no usual TIFF."""
    head = file.read(16)
    file.seek(0)
    return _signed(head) or tiff.is_raw(file)


@contextlib.contextmanager
def _opened(file: BinaryIO) -> Iterator[Any]:
    """The file as LibRaw sees it, nothing of it decoded yet."""
    library = RAWPY.load("a camera's raw file")
    with parsing(NAME):
        try:
            with library.RawPy() as raw:
                file.seek(0)
                raw.open_buffer(file)
                yield raw
        except library.LibRawUnsufficientMemoryError as error:
            raise MemoryError from error
        except library.LibRawError as error:
            (reason,) = error.args or (b"",)
            raise ValueError(reason.decode() if isinstance(reason, bytes) else reason) from error


def _measure(file: BinaryIO) -> tuple[int, int]:
    _refuse_cut_off(file)
    with _opened(file) as raw:
        return _upright(raw.sizes)


def _upright(sizes: Any) -> tuple[int, int]:
    """Height and width when developed."""
    height, width, aspect = sizes.height, sizes.width, sizes.pixel_aspect
    if aspect < 1:
        height = int(height / aspect + 0.5)
    else:
        width = int(width * aspect + 0.5)
    return (width, height) if sizes.flip & ON_ITS_SIDE else (height, width)


def _refuse_cut_off(file: BinaryIO) -> None:
    """Raise ImageError where the file says that it is longer, which LibRaw would tell on stderr."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(FUJI_PARTS.size)
    if head[4:12] == CANON_BOXES:
        refuse_cut_off(file, NAME)
        return
    ends: list[int] = []
    if head.startswith(FUJI) and len(head) == FUJI_PARTS.size:
        parts = FUJI_PARTS.unpack(head)
        ends = [sum(part) for part in zip(parts[::2], parts[1::2], strict=True)]
    elif head.startswith(tiff.STARTS):
        ends = tiff.ends_of_parts(file)
    if max(ends, default=0) > size:
        raise ImageError(f"is a {NAME} file that is cut off")


def _decode(data: bytes) -> Decoded:
    with _opened(io.BytesIO(data)) as raw:
        size = _upright(raw.sizes)
        raw.unpack()
        pixels = raw.postprocess(**DEVELOPING)
    if pixels.shape[:2] != size:
        raise ImageError(
            f"is a {NAME} file of a sensor whose rows lie askew, which is not read; "
            "develop it to TIFF first"
        )
    return Decoded(pixels.reshape(*size, -1))


def _read_metadata(found: Found, data: bytes) -> None:
    found.add_color(b"sRGB", bytes(1))
    with contextlib.suppress(KeyError, struct.error):
        if data.startswith(FUJI):
            start, length, *_ = FUJI_PARTS.unpack_from(data)
            preview = Found()
            read_jpeg(preview, data[start : start + length])
            found.exif, found.xmp = preview.exif, preview.xmp
        elif data[4:12] == CANON_BOXES:
            found.exif = _canon_exif(data)
        elif data[:2] in (b"II", b"MM"):
            order, tags = exif.tiff_tags(data, exif.ABOUT_THE_PHOTO | {XMP})
            found.exif, found.xmp = _packed(order, tags), exif.content(tags.get(XMP))


def _canon_exif(data: bytes) -> bytes | None:
    """EXIF of the parts of which Canon's CR3 files keep each in a box of its own."""
    movie = content(data, b"moov") or b""
    for kind, start, stop in boxes(io.BytesIO(movie)):
        box = movie[start:stop]
        if kind == b"uuid" and box.startswith(CANON_METADATA):
            about, photo, place = (content(box[16:], part) for part in CANON_PARTS)
            order, tags = exif.tiff_tags(about or b"", exif.ABOUT_THE_PHOTO)
            for tag, part in ((exif.DIRECTORY, photo), (exif.PLACE, place)):
                if part and part[:2] == (about or b"")[:2]:
                    tags[tag] = exif.tiff_tags(part, exif.ALL)[1]
            return _packed(order, tags)
    return None


def _packed(order: str, tags: exif.Directory) -> bytes | None:
    photo = tags.get(exif.DIRECTORY)
    if isinstance(photo, dict):
        photo.pop(MAKERS_NOTES, None)
    return exif.of_tiff(order, tags)


CODEC = Codec(
    name=NAME,
    matches=_matches,
    confirms=_confirms,
    measure=_measure,
    decode=_decode,
    read_metadata=_read_metadata,
    suffixes=".dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .arq .orf .ori .raf .rw2 .rwl .pef "
    ".srw .x3f .3fr .fff .iiq .mef .mos .mrw .erf .kdc .dcr .k25 .gpr .bay",
    reads="what LibRaw reads; developed to sRGB",
    bits=(8, 16),
    alpha=False,
    colours="become sRGB",
    metadata="EXIF, XMP; no maker's notes",
    extra=RAWPY,
)
