"""TIFF, by tifffile, compressed without loss (Deflate).

EXIF stands where it stood, from the beginning of the file on, and what it says of the photo is put
into the directory of the picture: the maker's notes hold only where they were.
"""

from __future__ import annotations

import io
from typing import Any, Literal

import tifffile

from restormer_cli.images.fitting import comment_of, iptc_of
from restormer_cli.images.formats import CLASSIC_TIFF, Encoding
from restormer_cli.images.metadata import exif
from restormer_cli.images.metadata.jpeg import iptc_record
from restormer_cli.images.metadata.tiff import IPTC, XMP
from restormer_cli.images.picture import Picture

NO_UNIT, INCH = 1, 2
BYTES, UNDEFINED = 1, 7


def encode(picture: Picture, encoding: Encoding) -> bytes:
    metadata = picture.metadata
    camera = metadata.exif or b""
    samples = picture.samples()
    big = samples.nbytes > CLASSIC_TIFF
    file = io.BytesIO(camera)
    settings: dict[str, Any] = {}
    if metadata.density is not None:
        settings["resolution"] = metadata.density.per_inch()
        settings["resolutionunit"] = INCH if metadata.density.metric else NO_UNIT
    others: list[tuple[Any, ...]] = []
    if metadata.xmp is not None:
        others.append((XMP, BYTES, len(metadata.xmp), metadata.xmp, True))
    if (block := iptc_of(metadata)) is not None and (record := iptc_record(block)):
        others.append((IPTC, UNDEFINED, len(record), record, True))
    order: Literal[">", "<"] = ">" if camera.startswith(b"MM") else "<"
    with tifffile.TiffWriter(file, bigtiff=big, byteorder=order) as writer:
        file.seek(0, io.SEEK_END)  # behind EXIF, over whose header it has written its own
        writer.write(
            samples,
            photometric="minisblack" if picture.pixels.shape[2] == 1 else "rgb",
            planarconfig=None if picture.mode == "L" else "contig",
            extrasamples=None if picture.alpha is None else ("unassalpha",),
            compression="zlib",
            predictor=True,
            iccprofile=metadata.icc,
            description=comment_of(metadata),
            extratags=others,
            metadata=None,
            software=False,
            maxworkers=1,  # the others compute
            **settings,
        )
    return exif.of_file(camera, file.getvalue()) if camera else file.getvalue()
