"""Formats of 8 bit that Pillow decodes as every viewer shows them."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import PIL.Image

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs.base import Codec, Decoded, parsing

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


def _open(kind: str, file: BinaryIO) -> Any:
    with parsing(kind):
        return PIL.Image.open(file, formats=[PILLOW_NAMES[kind]])


def _measurer(kind: str) -> Callable[[BinaryIO], tuple[int, int]]:
    def measure(file: BinaryIO) -> tuple[int, int]:
        with _open(kind, file) as image:
            return image.height, image.width

    return measure


def _decoder(kind: str) -> Callable[[bytes], Decoded]:
    def decode(data: bytes) -> Decoded:
        image = _open(kind, io.BytesIO(data))
        mode = MODES.get(image.mode)
        if mode is None:
            raise ImageError(
                f"is a {kind} file of an unusual depth ({image.mode}); "
                "convert it to 8 or 16 bit PNG"
            )
        if "transparency" in image.info:
            mode = "LA" if mode == "L" else "RGBA"
        with parsing(kind):
            frames = getattr(image, "n_frames", 1)
            pixels = np.asarray(image.convert(mode))
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        colours = 1 if mode.startswith("L") else 3
        return Decoded(
            pixels[..., :colours],
            pixels[..., colours] if pixels.shape[2] > colours else None,
            notes=(f"only the first of {frames} frames is restored",) if frames > 1 else (),
        )

    return decode


def _measure_webp(file: BinaryIO) -> tuple[int, int]:
    """From its first chunk, since Pillow reads all of the file."""
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


def _is_bmp(head: bytes) -> bool:
    """Two letters alone would be the beginning of many a text."""
    size = int.from_bytes(head[14:18], "little")
    return head.startswith(b"BM") and (len(head) < 18 or size in BMP_HEADERS)


def _box_brand(*brands: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[4:8] == b"ftyp" and head[8:12] in brands


def _begins(*starts: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(starts)


PILLOW_NAMES = {"BMP": "BMP", "WebP": "WEBP", "GIF": "GIF", "AVIF": "AVIF", "JPEG 2000": "JPEG2000"}
#: Sizes of the header, which tell its version.
BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"

CODECS = (
    Codec("BMP", _is_bmp, _measurer("BMP"), _decoder("BMP")),
    Codec(
        "WebP",
        lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP",
        _measure_webp,
        _decoder("WebP"),
    ),
    Codec("GIF", _begins(b"GIF87a", b"GIF89a"), _measurer("GIF"), _decoder("GIF")),
    Codec("AVIF", _box_brand(b"avif", b"avis"), _measurer("AVIF"), _decoder("AVIF")),
    Codec(
        "JPEG 2000",
        _begins(JP2, b"\xff\x4f\xff\x51"),
        _measurer("JPEG 2000"),
        _decoder("JPEG 2000"),
    ),
)
