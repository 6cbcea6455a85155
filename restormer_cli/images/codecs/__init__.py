"""Formats of images: how each is recognised by its content, measured, and decoded.

A format is one :class:`~restormer_cli.images.codecs.base.Codec`: a row in :data:`CODECS`, and a
file. None of them knows of paths.
"""

from __future__ import annotations

from typing import BinaryIO

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs import (
    avif,
    by_pillow,
    heif,
    jpeg,
    jpeg2000,
    jpegxl,
    png,
    raw,
    tiff,
)
from restormer_cli.images.codecs.base import Codec, header_of
from restormer_cli.images.codecs.unreadable import describe

__all__ = ["CODECS", "Codec", "find_codec", "header_of", "is_image"]

#: Bytes from which a format is recognised.
HEAD_BYTES = 4096
#: The first that takes a file decodes it: raw files look like TIFF files at first.
CODECS: tuple[Codec, ...] = (
    png.CODEC,
    jpeg.CODEC,
    raw.CODEC,
    tiff.CODEC,
    avif.CODEC,
    heif.CODEC,
    jpegxl.CODEC,
    jpeg2000.CODEC,
    by_pillow.WEBP,
    by_pillow.BMP,
    by_pillow.GIF,
)


def find_codec(file: BinaryIO) -> Codec:
    """The codec for a file, by how it begins; the file is left at its beginning.

    Raises
    ------
    ImageError
        If there is none; it says what the file is instead.
    """
    head = file.read(HEAD_BYTES)
    file.seek(0)
    for codec in CODECS:
        if codec.matches(head):
            confirmed = codec.confirms(file)
            file.seek(0)
            if confirmed:
                return codec
    raise ImageError(describe(head))


def is_image(head: bytes) -> bool:
    """True if the first :data:`HEAD_BYTES` of a file look like those of an image that is read."""
    return any(codec.matches(head) for codec in CODECS)
