"""Formats of 8 bit, which Pillow decodes as every viewer shows them: BMP, WebP, GIF."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs.base import (
    Codec,
    Decoded,
    begins,
    named,
    parsing,
    refuse_empty_end,
    split_alpha,
)
from restormer_cli.images.metadata.base import CREDENTIALS, Found
from restormer_cli.images.metadata.bmp import read_bmp
from restormer_cli.images.metadata.by_pillow import read_by_pillow
from restormer_cli.images.pillow import open_image

#: Pillow's modes, and which of ours hold all of them.
MODES = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "P": "RGB",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "RGBX": "RGB",
}
#: How a block of GIF begins that holds content credentials.
GIF_CREDENTIALS = b"\x21\xff\x0bC2PA_GIF"
#: Sizes of the header, which tell its version.
BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}


def opened(name: str, file: BinaryIO) -> Any:
    """The image of a format that Pillow calls as we do, but for capitals and blanks."""
    with parsing(name):
        return open_image(file, [name.upper().replace(" ", "")])


def measurer(name: str) -> Callable[[BinaryIO], tuple[int, int]]:
    def measure(file: BinaryIO) -> tuple[int, int]:
        with opened(name, file) as image:
            return image.height, image.width

    return measure


def frame_notes(frames: int) -> tuple[str, ...]:
    return (f"only the first of {frames} frames is restored",) if frames > 1 else ()


def decode_by_pillow(name: str, data: bytes) -> Decoded:
    """The first frame, in 8 bit."""
    image = opened(name, io.BytesIO(data))
    mode = MODES.get(image.mode)
    if mode is None:
        raise ImageError(unusual(name, image.mode))
    if "transparency" in image.info:
        mode = "LA" if mode == "L" else "RGBA"
    with parsing(name):
        frames = getattr(image, "n_frames", 1)
        pixels, alpha = split_alpha(np.asarray(image.convert(mode)))
    return Decoded(pixels, alpha, notes=frame_notes(frames))


def unusual(name: str, depth: object) -> str:
    return f"is {named(name)} file of an unusual depth ({depth}); convert it to 8 or 16 bit PNG"


def _decode_bmp(data: bytes) -> Decoded:
    decoded = decode_by_pillow("BMP", data)
    if decoded.alpha is not None and not decoded.alpha.any():
        return Decoded(decoded.pixels)  # programs set aside room for alpha and leave it empty
    return decoded


def _measure_webp(file: BinaryIO) -> tuple[int, int]:
    """From its first chunk, since Pillow reads all of the file."""
    file.seek(4)
    refuse_empty_end(file, "WebP", 8 + int.from_bytes(file.read(4), "little"))
    file.seek(12)
    head = file.read(18)
    kind, body = head[:4], head[8:]
    if len(head) == 18 and kind == b"VP8X":
        width, height = (1 + int.from_bytes(body[i : i + 3], "little") for i in (4, 7))
    elif len(head) == 18 and kind == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", body, 6))
    elif len(head) >= 13 and kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        raise ImageError("is a WebP file that is damaged or cut off (it holds no picture)")
    return height, width


def _read_webp(found: Found, data: bytes) -> None:
    read_by_pillow(found, data)
    place, stop = 12, 8 + int.from_bytes(data[4:8], "little")
    while place + 8 <= min(stop, len(data)):
        if data[place : place + 4] == b"C2PA":
            found.tell(CREDENTIALS)
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8 + size + size % 2
    found.tell_rest(data[stop + stop % 2 :])


def _read_gif(found: Found, data: bytes) -> None:
    read_by_pillow(found, data)
    if GIF_CREDENTIALS in data:
        found.tell(CREDENTIALS)


def _is_bmp(head: bytes) -> bool:
    """Two letters alone would be the beginning of many a text."""
    size = int.from_bytes(head[14:18], "little")
    return head.startswith(b"BM") and (len(head) < 18 or size in BMP_HEADERS)


BMP = Codec(
    name="BMP",
    matches=_is_bmp,
    measure=measurer("BMP"),
    decode=_decode_bmp,
    read_metadata=read_bmp,
    suffixes=".bmp .dib",
    reads="what Pillow reads",
    bits=(1, 8),
    alpha=True,
    colours="ICC, calibration",
    metadata="",
    media_type="image/bmp",
)
WEBP = Codec(
    name="WebP",
    matches=lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP",
    measure=_measure_webp,
    decode=lambda data: decode_by_pillow("WebP", data),
    read_metadata=_read_webp,
    suffixes=".webp",
    reads="with and without loss",
    bits=(8, 8),
    alpha=True,
    colours="ICC",
    metadata="EXIF, XMP",
    media_type="image/webp",
)
GIF = Codec(
    name="GIF",
    matches=begins(b"GIF87a", b"GIF89a"),
    measure=measurer("GIF"),
    decode=lambda data: decode_by_pillow("GIF", data),
    read_metadata=_read_gif,
    suffixes="",
    reads="the first frame",
    bits=(1, 8),
    alpha=True,
    colours="ICC",
    metadata="XMP, comment",
)
