"""PNG, by OpenCV, with the chunks of its metadata behind the header."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np

from restormer_cli.images.formats import Encoding
from restormer_cli.images.formats.opencv import encode_by_opencv
from restormer_cli.images.metadata import png_chunk
from restormer_cli.images.metadata.png import SIGNATURE
from restormer_cli.images.picture import Picture

#: Signature and header chunk.
HEADER_END = len(SIGNATURE) + 25
GRAY_ALPHA, FILTER_UP = 4, 2
#: Bytes of a chunk at most (PNG specification, third edition, 5.3).
LARGEST_CHUNK = (1 << 31) - 1


def encode(picture: Picture, encoding: Encoding) -> bytes:
    if picture.mode == "LA":
        png = memoryview(_gray_with_alpha(picture.samples(), encoding.compression))
    else:
        level = encoding.compression
        parameters = [] if level is None else [cv2.IMWRITE_PNG_COMPRESSION, level]
        png = encode_by_opencv(".png", picture, parameters)
    chunks = picture.metadata.as_png(picture.bit_depth, picture.pixels.shape[2] == 1)
    return b"".join([png[:HEADER_END], chunks, png[HEADER_END:]])


def _gray_with_alpha(image: Any, compression: int | None) -> bytes:
    """A PNG of ``(H, W, 2)``, which no library writes with 16 bit; each row less the one above."""
    height, width = image.shape[:2]
    rows = image.astype(image.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    filtered = np.full((height, 1 + rows.shape[1]), FILTER_UP, np.uint8)
    filtered[:, 1:] = rows
    filtered[1:, 1:] -= rows[:-1]
    depth = 8 * image.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, depth, GRAY_ALPHA, 0, 0, 0)
    pixels = zlib.compress(filtered.data, 1 if compression is None else compression)
    parts = range(0, len(pixels), LARGEST_CHUNK)
    body = [png_chunk(b"IDAT", pixels[start : start + LARGEST_CHUNK]) for start in parts]
    return SIGNATURE + b"".join([png_chunk(b"IHDR", header), *body, png_chunk(b"IEND", b"")])
