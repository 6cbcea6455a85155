"""JPEG 2000 (ISO 15444-1): of 8 bit by Pillow, of more by OpenJPEG in imagecodecs."""

from __future__ import annotations

import re

import imagecodecs
import numpy as np

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs.base import Codec, Decoded, begins, parsing, scaled, split_alpha
from restormer_cli.images.codecs.by_pillow import decode_by_pillow, measurer, unusual
from restormer_cli.images.metadata.by_pillow import read_by_pillow

NAME = "JPEG 2000"
JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
#: How it says which samples it holds (A.5.1).
SIZES = re.compile(rb"\xff\x4f\xff\x51.{36}(..)", re.DOTALL)
MOST_BITS = 16


def _bits(data: bytes) -> int:
    if not (sizes := SIZES.search(data)):
        return 8
    stop = sizes.end() + 3 * int.from_bytes(sizes[1], "big")
    return max((1 + (each & 0x7F) for each in data[sizes.end() : stop : 3]), default=8)


def _decode(data: bytes) -> Decoded:
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


CODEC = Codec(
    name=NAME,
    matches=begins(JP2, b"\xff\x4f\xff\x51"),
    measure=measurer(NAME),
    decode=_decode,
    read_metadata=read_by_pillow,
    suffixes="",
    reads="JP2 and bare codestreams",
    bits=(1, MOST_BITS),
    alpha=True,
    colours="ICC",
    metadata="comment",
)
