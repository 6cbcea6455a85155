"""What Pillow encodes: JPEG, WebP, AVIF of 8 bit."""

from __future__ import annotations

import io
from typing import Any

import PIL.Image

from restormer_cli.images.picture import Picture


def encode_by_pillow(kind: str, picture: Picture, **settings: Any) -> bytes:
    """Encode with the profile of the picture, and as ``settings`` of :meth:`PIL.Image.save` say.

    Settings that are None are left out.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    file = io.BytesIO()
    image = PIL.Image.fromarray(picture.samples())
    image.save(file, kind, icc_profile=picture.metadata.icc or b"", **given)
    return file.getvalue()
