"""WebP and whatever else Pillow alone reads."""

from __future__ import annotations

import io
import re
import warnings

from restormer_cli.images.metadata.base import Found, density_of
from restormer_cli.images.metadata.jpeg import comment_chunk
from restormer_cli.images.pillow import open_image

#: Pillow's names of the formats of which it tells.
FORMATS = ("WEBP", "GIF", "AVIF", "JPEG2000")
#: Box of AVIF that says which colours it holds (ISO 23001-8), of which Pillow does not tell.
COLORS = re.compile(rb"colrnclx\0(.)\0(.)", re.DOTALL)
#: Box of AVIF with width and height of a pixel (ISO 14496-12, 12.1.4).
PIXEL_SHAPE = re.compile(rb"pasp(....)(....)", re.DOTALL)
#: Where GIF says the same, in 64ths and less 15; 0 where it does not.
GIF_PIXEL_SHAPE = 12
BOXES = 1 << 16


def read_by_pillow(found: Found, data: bytes) -> None:
    """What Pillow tells of a file; nothing of a damaged one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = open_image(io.BytesIO(data), FORMATS)
        except Exception:  # whatever damage provokes; the decoder speaks of it
            return
    info = image.info
    found.exif, found.xmp, found.icc = (info.get(key) for key in ("exif", "xmp", "icc_profile"))
    if image.format == "AVIF" and (colors := COLORS.search(data, 0, BOXES)):
        found.add_code_points(colors[1][0], colors[2][0])
    if image.format == "AVIF" and (shape := PIXEL_SHAPE.search(data, 0, BOXES)):
        width, height = (int.from_bytes(side, "big") for side in shape.groups())
        found.density = density_of(height, width, 1)
    if image.format == "GIF" and (shape_of_pixel := data[GIF_PIXEL_SHAPE]):
        found.density = density_of(64, shape_of_pixel + 15, 1)
    if "dpi" in info:
        x, y = info["dpi"]
        found.density = density_of(x, y, 2)
    found.read_exif()
    comment = info.get("comment")
    if isinstance(comment, bytes) and comment:
        found.others.append(comment_chunk(comment))
