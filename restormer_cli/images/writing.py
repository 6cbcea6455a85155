"""A picture to a PNG file: 8 or 16 bit, with alpha and metadata."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from restormer_cli.errors import ImageError
from restormer_cli.images.metadata import png_chunk
from restormer_cli.images.metadata.png import SIGNATURE
from restormer_cli.images.picture import Picture
from restormer_cli.system.atomic import write_file

#: Signature and header chunk.
PNG_HEADER_END = len(SIGNATURE) + 25
PNG_GRAY_ALPHA, PNG_FILTER_UP = 4, 2


def encode_png(picture: Picture, compression: int | None = None) -> bytes:
    """Encode as PNG, 8 or 16 bit as the pixels are, with alpha and metadata.

    ``compression`` is zlib's level, 0 to 9; by default OpenCV's choice, which is quick.

    Raises
    ------
    ImageError
        If the encoder refuses.
    """
    gray = picture.pixels.shape[2] == 1
    if picture.alpha is None:
        image: Any = picture.pixels if gray else picture.pixels[..., ::-1]
    else:
        image = np.concatenate([picture.pixels[..., ::-1], picture.alpha[..., None]], axis=2)
    if gray and picture.alpha is not None:
        png = memoryview(_gray_with_alpha(image, compression))
    else:
        parameters = [] if compression is None else [cv2.IMWRITE_PNG_COMPRESSION, compression]
        try:
            done, data = cv2.imencode(".png", np.ascontiguousarray(image), parameters)
        except cv2.error:
            done = False
        if not done:
            raise ImageError("cannot be encoded as PNG")
        png = memoryview(data.data)
    chunks = picture.metadata.as_png(picture.bit_depth, gray)
    return b"".join([png[:PNG_HEADER_END], chunks, png[PNG_HEADER_END:]])


def _gray_with_alpha(image: Any, compression: int | None) -> bytes:
    """A PNG of ``(H, W, 2)``, which no library writes with 16 bit; each row less the one above."""
    height, width = image.shape[:2]
    rows = image.astype(image.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    filtered = np.full((height, 1 + rows.shape[1]), PNG_FILTER_UP, np.uint8)
    filtered[:, 1:] = rows
    filtered[1:, 1:] -= rows[:-1]
    depth = 8 * image.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, depth, PNG_GRAY_ALPHA, 0, 0, 0)
    pixels = zlib.compress(filtered.data, 1 if compression is None else compression)
    body = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(body)


def write_png(
    path: Path,
    picture: Picture,
    compression: int | None = None,
    before_rename: Callable[[os.stat_result], None] | None = None,
) -> None:
    """Write a PNG so that ``path`` holds all of it or what it held before.

    ``before_rename`` is called with size and time of the file that is about to be there.

    Raises
    ------
    ImageError
        If it cannot be written.
    """
    try:
        data = encode_png(picture, compression)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    write_file(path, data, before_rename)
