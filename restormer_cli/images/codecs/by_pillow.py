"""Formats that Pillow decodes as every viewer shows them, but for samples of more than 8 bit."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import imagecodecs
import numpy as np

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs.base import Codec, Decoded, Pixels, parsing, scaled
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
    "I;16": "L",
}
#: How AVIF says which samples it holds (AV1 in ISOBMFF, 2.3), and JPEG 2000 (ISO 15444-1, A.5.1).
AV1_HEADER = re.compile(rb"av1C\x81.(.)", re.DOTALL)
SIZES = re.compile(rb"\xff\x4f\xff\x51.{36}(..)", re.DOTALL)
MOST_BITS = 16


def _open(kind: str, file: BinaryIO) -> Any:
    with parsing(kind):
        return open_image(file, [PILLOW_NAMES[kind]])


def _measurer(kind: str) -> Callable[[BinaryIO], tuple[int, int]]:
    def measure(file: BinaryIO) -> tuple[int, int]:
        with _open(kind, file) as image:
            return image.height, image.width

    return measure


def _bits(kind: str, data: bytes) -> int:
    """Of a sample, as the header says."""
    if kind == "AVIF" and (header := AV1_HEADER.search(data)):
        return {0b00: 8, 0b10: 10, 0b11: 12}.get(header[1][0] >> 5 & 0b11, 8)
    if kind == "JPEG 2000" and (sizes := SIZES.search(data)):
        stop = sizes.end() + 3 * int.from_bytes(sizes[1], "big")
        return max((1 + (each & 0x7F) for each in data[sizes.end() : stop : 3]), default=8)
    return 8


def _deep(kind: str, data: bytes, bits: int) -> Pixels:
    """Samples of more bits than Pillow gives."""
    if kind == "AVIF":
        return scaled(imagecodecs.avif_decode(data, index=0), bits)
    image = imagecodecs.jpeg2k_decode(data)
    if image.dtype != np.uint16:
        raise NotImplementedError(f"{image.dtype} samples")
    return scaled(image, bits)


def _decoder(kind: str) -> Callable[[bytes], Decoded]:
    def decode(data: bytes) -> Decoded:
        image = _open(kind, io.BytesIO(data))
        mode = MODES.get(image.mode)
        bits = _bits(kind, data)
        if mode is None or bits > MOST_BITS:
            raise ImageError(
                f"is a {kind} file of an unusual depth ({image.mode}); "
                "convert it to 8 or 16 bit PNG"
            )
        if "transparency" in image.info:
            mode = "LA" if mode == "L" else "RGBA"
        with parsing(kind):
            frames = getattr(image, "n_frames", 1)
            deep = bits > 8
            pixels: Any = _deep(kind, data, bits) if deep else np.asarray(image.convert(mode))
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        colours = 1 if pixels.shape[2] < 3 else 3
        alpha = pixels[..., colours] if pixels.shape[2] > colours else None
        if kind == "BMP" and alpha is not None and not alpha.any():
            alpha = None  # so do programs that set aside room for alpha and leave it empty
        return Decoded(
            pixels[..., :colours],
            alpha,
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


def _is_avif(head: bytes) -> bool:
    """By its own brand, or by that of HEIF in general if the further ones tell more."""
    further = head[16 : int.from_bytes(head[:4], "big")]
    if head[4:8] != b"ftyp":
        return False
    return head[8:12] in AVIF_BRANDS or (head[8:12] in HEIF_BRANDS and b"avif" in further)


def _begins(*starts: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(starts)


PILLOW_NAMES = {"BMP": "BMP", "WebP": "WEBP", "GIF": "GIF", "AVIF": "AVIF", "JPEG 2000": "JPEG2000"}
#: Sizes of the header, which tell its version.
BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
AVIF_BRANDS, HEIF_BRANDS = (b"avif", b"avis"), (b"mif1", b"msf1")
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
    Codec("AVIF", _is_avif, _measurer("AVIF"), _decoder("AVIF")),
    Codec(
        "JPEG 2000",
        _begins(JP2, b"\xff\x4f\xff\x51"),
        _measurer("JPEG 2000"),
        _decoder("JPEG 2000"),
    ),
)
