"""WebP and whatever else Pillow alone reads."""

from __future__ import annotations

import io
import re
import warnings

import PIL.Image

from restormer_cli.images.metadata.base import Found, density_of
from restormer_cli.images.metadata.jpeg import comment_chunk

#: Box of AVIF that says which colours it holds (ISO 23001-8), of which Pillow does not tell.
COLORS = re.compile(rb"colrnclx\0(.)\0(.)", re.DOTALL)
BOXES = 1 << 16
#: Primaries and transfer of what nobody says, and of sRGB, as which anything is shown.
USUAL = ((2, 2), (1, 2), (2, 13), (1, 13), (1, 1))


def read_by_pillow(found: Found, data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = PIL.Image.open(io.BytesIO(data))
        except Exception:  # whatever damage provokes; the decoder speaks of it
            return
    info = image.info
    found.exif, found.xmp, found.icc = (info.get(key) for key in ("exif", "xmp", "icc_profile"))
    if image.format == "AVIF" and (colors := COLORS.search(data, 0, BOXES)):
        primaries, transfer = colors[1][0], colors[2][0]
        if (primaries, transfer) not in USUAL:  # of RGB with all values, as decoded
            found.add_color(b"cICP", bytes([primaries, transfer, 0, 1]))
    if "dpi" in info:
        x, y = info["dpi"]
        found.density = density_of(x, y, 2)
    found.read_exif()
    comment = info.get("comment")
    if isinstance(comment, bytes) and comment:
        found.others.append(comment_chunk(comment))
