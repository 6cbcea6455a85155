"""Thumbnails and full-size pictures of a report, inside the HTML while it is small, else beside it.

A browser shows some formats as they are, as their codecs say. Others become PNG of 8 bit.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes

import cv2
import numpy as np

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs import find_codec
from restormer_cli.images.codecs.base import Pixels
from restormer_cli.images.picture import Picture
from restormer_cli.images.writing import encode_image

#: Most bytes of pictures in the HTML file; further ones go into a folder beside it.
LIMIT = 50_000_000
#: Longer side of a thumbnail in pixels: sharp at 2 device pixels each on a phone's half screen.
THUMBNAIL = 480
QUALITY = 80

#: Suffixes that browsers and servers know, but our own commands do not read as photos.
JPEG, PNG = (".jpe", "image/jpeg"), (".apng", "image/png")
_OURS = re.compile(r"[0-9a-f]{24}\.(jpe|apng)")


def type_in_browser(path: Path) -> str | None:
    """The media type of a file that browsers show, by its content; None for others."""
    with path.open("rb") as file, contextlib.suppress(ImageError):
        return find_codec(file).media_type
    return None


def thumbnail(pixels: Pixels) -> bytes:
    """Make a JPEG of at most :data:`THUMBNAIL` pixels a side from ``(H, W, C)``."""
    height, width = pixels.shape[:2]
    scale = min(1.0, THUMBNAIL / max(height, width))
    small: Any = pixels
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
    small = eight_bit(small.reshape(*small.shape[:2], -1))
    flipped = np.ascontiguousarray(small[..., ::-1])
    _, data = cv2.imencode(".jpg", flipped, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return bytes(data.tobytes())


def eight_bit(pixels: Pixels) -> Any:
    """Round uint16 to uint8, as screens do; leave uint8 as it is."""
    if pixels.dtype == np.uint8:
        return pixels
    shallow = np.empty(pixels.shape, np.uint8)
    for row, deep in zip(shallow, pixels, strict=True):  # row by row: it takes 32 bits meanwhile
        row[:] = (deep.astype(np.uint32) + 128) // 257
    return shallow


def as_png(picture: Picture) -> bytes:
    """Encode a picture for browsers: 8 bit, with alpha and colour description."""
    alpha = None if picture.alpha is None else eight_bit(picture.alpha)
    return encode_image(replace(picture, pixels=eight_bit(picture.pixels), alpha=alpha))


def url_of_file(path: Path, base: Path) -> str:
    """The URL of a file, relative to the folder ``base`` if possible, so that both can move."""
    absolute = path.parent.resolve() / path.name
    try:
        relative = os.path.relpath(absolute, base.resolve())
    except ValueError:  # another drive of Windows
        return absolute.as_uri()
    if os.sep == "/":
        # Names need not be UTF-8; "./" keeps "a:b.png" from being taken for a scheme.
        return "./" + quote_from_bytes(os.fsencode(relative))
    return "./" + quote(relative.replace(os.sep, "/"))


@dataclass
class Store:
    """Stores pictures of a report, in memory while they are few, else in a folder beside it.

    Parameters
    ----------
    folder
        The folder beside the report; made when it is needed.
    limit
        Most bytes in memory, and so in the HTML, in base64.
    """

    folder: Path
    limit: int
    size: int = 0
    """Bytes of all pictures in memory, in base64."""
    _held: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    _written: set[str] = field(default_factory=set)

    @property
    def beside(self) -> bool:
        """True if pictures lie in the folder."""
        return bool(self._written)

    def add(self, data: bytes, kind: tuple[str, str] = JPEG) -> str:
        """Keep a picture and return its name. Equal pictures are kept once."""
        suffix, media = kind
        name = hashlib.sha256(data).hexdigest()[:24] + suffix
        if self.beside:
            self._write(name, data)
            return name
        self._held[name] = data, media
        self.size += size_in_base64(len(data))  # of equal ones too: the HTML holds each
        if self.size > self.limit:
            self.move_out()
        return name

    def write_beside(self, data: bytes, kind: tuple[str, str]) -> str:
        """Write a picture into the folder in any case; return its URL."""
        name = hashlib.sha256(data).hexdigest()[:24] + kind[0]
        self._write(name, data)
        return f"./{quote(self.folder.name)}/{name}"

    def move_out(self) -> None:
        """Move all pictures into the folder, for later ones too."""
        for name, (data, _) in self._held.items():
            self._write(name, data)
        self._held.clear()
        self.size = 0

    def url(self, name: str) -> str:
        """The URL of a picture for an ``img`` element."""
        if name in self._held:
            return data_url(*self._held[name])
        return f"./{quote(self.folder.name)}/{name}"

    def read(self, name: str) -> bytes:
        """The bytes of a picture."""
        return self._held[name][0] if name in self._held else (self.folder / name).read_bytes()

    def sweep(self) -> None:
        """Remove pictures of earlier reports that this one does not use."""
        with contextlib.suppress(OSError):  # the report is whole all the same
            for path in _files(self.folder):
                if _OURS.fullmatch(path.name) and path.name not in self._written:
                    path.unlink()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _write(self, name: str, data: bytes) -> None:
        if name in self._written:
            return
        path = self.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        # Named after its content: one of the same name and size is the same.
        if not path.exists() or path.stat().st_size != len(data):
            path.write_bytes(data)
        self._written.add(name)


def _files(folder: Path) -> Iterable[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def size_in_base64(size: int) -> int:
    """Bytes of a picture of ``size`` bytes in base64."""
    return (size + 2) // 3 * 4


def data_url(data: bytes, media: str) -> str:
    """The URL that holds a picture itself."""
    return f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"
