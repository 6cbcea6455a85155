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
    ValueError
        If it is none of them; and whatever Pillow's parsers raise for damaged ones.
    """
    PIL.Image.init()
    file.seek(0)
    head = file.read(16)
    for name in formats:
        factory, accepts = PIL.Image.OPEN[name]
        accepted = accepts is None or accepts(head)
        if accepted and not isinstance(accepted, str):  # which says why not
            file.seek(0)
            return factory(file, "")
    raise ValueError("none of these formats")
