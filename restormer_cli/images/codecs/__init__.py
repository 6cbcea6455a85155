"""Formats of images: how each is recognised by its content, measured, and decoded.

A format is one :class:`~restormer_cli.images.codecs.base.Codec`: a row in :data:`CODECS`, and a
file. None of them knows of paths.
"""

from __future__ import annotations

from typing import BinaryIO

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs import by_pillow, jpeg, png, tiff
from restormer_cli.images.codecs.base import Codec, Pixels, header_of
from restormer_cli.images.codecs.unreadable import describe

__all__ = ["CODECS", "Codec", "Pixels", "find_codec", "header_of"]

#: Bytes from which a format is recognised.
HEAD_BYTES = 4096
CODECS: tuple[Codec, ...] = (png.CODEC, jpeg.CODEC, tiff.CODEC, *by_pillow.CODECS)


def find_codec(file: BinaryIO) -> Codec:
    """The codec for a file, by how it begins; the file is left at its beginning.

    Raises
    ------
    ImageError
        If there is none; it says what the file is instead.
    """
    head = file.read(HEAD_BYTES)
    file.seek(0)
    raw = head[8:11] == b"CR\x02"  # begins as a TIFF file does
    for codec in CODECS:
        if codec.matches(head) and not raw:
            return codec
    raise ImageError(describe(head))
