"""WebP and whatever else Pillow alone reads."""

from __future__ import annotations

import io
import warnings

import PIL.Image

from restormer_cli.metadata.base import Found, density_of
from restormer_cli.metadata.jpeg import comment_chunk


def read_by_pillow(found: Found, data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = PIL.Image.open(io.BytesIO(data))
        except Exception:  # whatever damage provokes; the decoder speaks of it
            return
    info = image.info
    found.exif, found.xmp, found.icc = (info.get(key) for key in ("exif", "xmp", "icc_profile"))
    if "dpi" in info:
        x, y = info["dpi"]
        found.density = density_of(x, y, 2)
    found.read_exif()
    comment = info.get("comment")
    if isinstance(comment, bytes) and comment:
        found.others.append(comment_chunk(comment))
