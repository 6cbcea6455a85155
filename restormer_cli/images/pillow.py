"""Pillow without its limit of pixels, which is a setting of the host program and stays as it is."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, BinaryIO

import PIL.Image


def open_image(file: BinaryIO, formats: Collection[str]) -> Any:
    """Open an image as :func:`PIL.Image.open` does, however large it claims to be.

    Parameters
    ----------
    formats
        Pillow's names of those that it may be.

    Raises
    ------
    NotImplementedError
        If this Pillow was built without it.
    ValueError
        If it is none of them; and whatever Pillow's parsers raise for damaged ones.
    """
    PIL.Image.init()
    file.seek(0)
    head = file.read(16)
    for name in formats:
        if name not in PIL.Image.OPEN:
            raise NotImplementedError(f"this version of Pillow does not know {name}")
        factory, accepts = PIL.Image.OPEN[name]
        accepted = accepts is None or accepts(head)
        if isinstance(accepted, str):
            raise NotImplementedError(accepted)
        if accepted:
            file.seek(0)
            return factory(file, "")
    raise ValueError("none of these formats")
