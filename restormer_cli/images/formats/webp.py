"""WebP, by Pillow; of quality 100 without loss."""

from __future__ import annotations

from restormer_cli.images.formats import Encoding
from restormer_cli.images.formats.pillow import encode_by_pillow
from restormer_cli.images.picture import Picture

#: Of compression without loss: Pillow's usual one. It decides on time and size alone.
EFFORT = 80


def encode(picture: Picture, encoding: Encoding) -> bytes:
    lossless = encoding.quality == 100
    return encode_by_pillow(
        "WEBP",
        picture,
        lossless=lossless,
        quality=EFFORT if lossless else encoding.quality,
        exact=True,  # the colours of invisible pixels, too
        exif=picture.metadata.exif,
        xmp=picture.metadata.xmp,
    )
