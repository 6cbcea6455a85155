"""HEIC and its kin (HEIF, ISO 23008-12), as phones and cameras write them, by pillow-heif."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import numpy as np

from restormer_cli.images.codecs import avif
from restormer_cli.images.codecs.base import (
    Codec,
    Decoded,
    Extra,
    parsing,
    refuse_empty_end,
    scaled,
    split_alpha,
    unmultiplied,
)
from restormer_cli.images.codecs.boxes import (
    brands,
    end_of_samples,
    refuse_cut_off,
    tell_companions,
)
from restormer_cli.images.metadata.base import GAIN_MAP, Found, density_of

NAME = "HEIC"
PILLOW_HEIF = Extra("heif", "pillow_heif")
#: HEVC and others, of single pictures and of sequences, and HEIF in general.
BRANDS = frozenset(
    {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"avci", b"avcs"}
    | {b"jpeg", b"jpgs", b"vvic", b"mif1", b"mif2", b"msf1"}
)
#: How Apple and ISO 21496-1 name gain maps.
GAIN_MAPS = ("hdrgainmap", "tag:iso.org,2020:std:iso:ts:21496")


def _matches(head: bytes) -> bool:
    brand, further = brands(head)
    return not avif.CODEC.matches(head) and (brand in BRANDS or b"mif1" in further)


def _opened(file: BinaryIO) -> Any:
    """All pictures of a file, none of them decoded yet, in the bits that they have."""
    library = PILLOW_HEIF.load("a HEIC photo (HEIF)")
    with parsing(NAME):
        pictures = library.open_heif(file, convert_hdr_to_8bit=False, hdr_to_16bit=False)
        if not len(pictures):
            raise NotImplementedError("it holds a video and no picture")
    return pictures


def _measure(file: BinaryIO) -> tuple[int, int]:
    refuse_cut_off(file, NAME)
    refuse_empty_end(file, NAME, end_of_samples(file))
    width, height = _opened(file).size
    return height, width


def _decode(data: bytes) -> Decoded:
    pictures = _opened(io.BytesIO(data))
    picture = pictures[pictures.primary_index]
    with parsing(NAME):
        bits = picture.info["bit_depth"]
        pixels, alpha = split_alpha(scaled(np.asarray(picture), bits))
    if alpha is not None and picture.premultiplied_alpha:
        pixels = unmultiplied(pixels, alpha)
    count = len(pictures)
    notes = (f"only the main one of its {count} pictures is restored",) if count > 1 else ()
    return Decoded(pixels, alpha, notes=notes, bits=bits)


def _read_metadata(found: Found, data: bytes) -> None:
    try:
        pictures = _opened(io.BytesIO(data))
        info = pictures[pictures.primary_index].info
    except Exception:  # the decoder speaks of it
        return
    found.exif, found.xmp, found.icc = (info.get(key) for key in ("exif", "xmp", "icc_profile"))
    found.read_exif()
    found.orientation = 1  # the file's own one, which the library has applied
    if profile := info.get("nclx_profile"):
        found.add_code_points(profile["color_primaries"], profile["transfer_characteristics"])
    if found.density is None and (shape := info.get("pixel_aspect_ratio")):
        horizontal, vertical = shape
        found.density = density_of(vertical, horizontal, 1)
    tell_companions(found, data)
    if any(name in kind for kind in info.get("aux", ()) for name in GAIN_MAPS):
        found.tell(GAIN_MAP)
    if info.get("depth_images"):
        found.tell("its depth map is left out")


CODEC = Codec(
    name=NAME,
    matches=_matches,
    measure=_measure,
    decode=_decode,
    read_metadata=_read_metadata,
    suffixes=".heic .heics .heif .heifs .hif .avci .avcs",
    reads="HEVC; of a burst the main picture",
    bits=(8, 12),
    alpha=True,
    colours="ICC, cICP",
    metadata="EXIF, XMP",
    extra=PILLOW_HEIF,
)
