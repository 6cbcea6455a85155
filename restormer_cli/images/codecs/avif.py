"""AVIF (AV1 in ISOBMFF): of 8 bit by Pillow, of more by libavif in imagecodecs."""

from __future__ import annotations

import io
import re
from typing import BinaryIO

import imagecodecs

from restormer_cli.images.codecs.base import (
    Codec,
    Decoded,
    parsing,
    refuse_empty_end,
    scaled,
    split_alpha,
)
from restormer_cli.images.codecs.boxes import (
    brands,
    end_of_samples,
    refuse_cut_off,
    tell_companions,
)
from restormer_cli.images.codecs.by_pillow import decode_by_pillow, frame_notes, measurer, opened
from restormer_cli.images.metadata import Found
from restormer_cli.images.metadata.by_pillow import read_by_pillow

NAME = "AVIF"
BRANDS = (b"avif", b"avis")
#: How it says which samples it holds (2.3).
AV1_HEADER = re.compile(rb"av1C\x81.(.)", re.DOTALL)


def _matches(head: bytes) -> bool:
    """By its own brand, or by that of HEIF in general if the further ones tell more."""
    brand, further = brands(head)
    return brand in BRANDS or (brand in (b"mif1", b"msf1") and not further.isdisjoint(BRANDS))


def _measure(file: BinaryIO) -> tuple[int, int]:
    refuse_cut_off(file, NAME)
    refuse_empty_end(file, NAME, end_of_samples(file))
    return measurer(NAME)(file)


def _bits(data: bytes) -> int:
    header = AV1_HEADER.search(data)
    return 8 if header is None else {0b10: 10, 0b11: 12}.get(header[1][0] >> 5 & 0b11, 8)


def _decode(data: bytes) -> Decoded:
    bits = _bits(data)
    if bits == 8:
        return decode_by_pillow(NAME, data)
    frames = opened(NAME, io.BytesIO(data)).n_frames
    with parsing(NAME):
        pixels, alpha = split_alpha(scaled(imagecodecs.avif_decode(data, index=0), bits))
    return Decoded(pixels, alpha, notes=frame_notes(frames), bits=bits)


def _read_metadata(found: Found, data: bytes) -> None:
    read_by_pillow(found, data)
    tell_companions(found, data)


CODEC = Codec(
    name=NAME,
    matches=_matches,
    measure=_measure,
    decode=_decode,
    read_metadata=_read_metadata,
    suffixes=".avif .avifs",
    reads="the first frame",
    bits=(8, 12),
    alpha=True,
    colours="ICC, cICP",
    metadata="EXIF, XMP",
)
