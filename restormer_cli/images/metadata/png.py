"""PNG (third edition)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

from restormer_cli.images.metadata import icc
from restormer_cli.images.metadata.base import (
    COLOR_CHUNKS,
    CREDENTIALS,
    XMP_KEYWORD,
    Density,
    Found,
)
from restormer_cli.images.metadata.jpeg import XMP_SEGMENT

SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Of a text or of a chunk unknown to us; Pillow opens no PNG with larger ones.
MOST_TEXT = 1 << 20
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
#: How ImageMagick's texts are called that hold what other formats have a place for.
RAW_PROFILE = b"raw profile type "


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    """Name and content of the chunks of a PNG; no content if it is that of pixels or damaged."""
    place = len(SIGNATURE)
    while place + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        name, stop = data[place + 4 : place + 8], place + 8 + size
        if name in (b"IDAT", b"fdAT"):
            yield name, None
        else:
            body = data[place + 8 : stop]
            right = struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))
            yield name, body if data[stop : stop + 4] == right else None
        place = stop + 4


def read_png(found: Found, data: bytes) -> None:
    """The chunks of a PNG; damaged ones are told and left out."""
    header = palette = camera = b""
    pixels = False
    for name, body in _chunks(data):
        pixels = pixels or name == b"IDAT"
        early = not pixels  # where a chunk has to be that says how to show pixels
        if body is None:
            if name in COLOR_CHUNKS or name in (b"iCCP", b"eXIf", b"pHYs"):
                found.tell(f"its {name.decode()} chunk is damaged; it is left out")
        elif name == b"IHDR":
            header = header or body
        elif name == b"PLTE":
            palette = palette or body
        elif name in COLOR_CHUNKS:
            if early:
                found.add_color(name, body)
        elif name == b"iCCP":
            if early and found.icc is None:
                _read_profile(found, body)
        elif name == b"bKGD":
            if early and found.background is None:
                found.background = _background(body, header, palette)
        elif name == b"pHYs":
            if early and len(body) == 9 and body[8] <= 1 and found.density is None:
                x, y, unit = struct.unpack(">IIB", body)
                found.density = Density(x, y, metric=bool(unit)) if x and y else None
        elif name == b"caBX":
            found.tell(CREDENTIALS)
        elif name == b"eXIf":
            camera = camera or body
        elif name in TEXTS:
            try:
                _read_text(found, name, body)
            except ValueError as error:
                found.tell(f"a text in it {error}; it is left out")
        elif len(body) <= MOST_TEXT and _may_be_copied(name):
            found.others.append((name, body))
    found.exif = camera or found.exif  # the chunk before the text that was in its place once
    found.read_exif(resolution=False)


def _may_be_copied(name: bytes) -> bool:
    """Known ones that still hold; of others the fourth letter says it (5.4)."""
    if name in (b"sCAL", b"sTER"):
        return True
    return name.isalpha() and name[:1].islower() and name[3:].islower()


def _read_profile(found: Found, body: bytes) -> None:
    _, _, rest = body.partition(b"\0")
    try:
        found.icc = _inflated(rest[1:], icc.MOST_BYTES)
    except ValueError as error:
        found.tell(f"its colour profile {error}; it is left out")


def _inflated(data: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(data, most)
    except zlib.error as error:
        raise ValueError("is damaged") from error
    if inflater.unconsumed_tail:
        raise ValueError(f"is larger than {most / 1e6:.0f} MB")
    if not inflater.eof:
        raise ValueError("is cut off")
    return content


def _background(body: bytes, header: bytes, palette: bytes) -> tuple[int, int, int] | None:
    """The colour of a bKGD chunk, of 16 bits."""
    if len(header) != 13 or not 1 <= header[8] <= 16:
        return None
    depth, color_type = header[8:10]
    if color_type == 3:
        rgb = palette[3 * body[0] : 3 * body[0] + 3] if body else b""
        levels: Sequence[int] = tuple(257 * level for level in rgb)
    else:
        size = 6 if color_type in (2, 6) else 2
        scale = 65535 // ((1 << depth) - 1)
        stored = struct.unpack(f">{size // 2}H", body) if len(body) == size else ()
        levels = [scale * level for level in stored] * (6 // size)
    if len(levels) != 3 or max(levels) > 65535:
        return None
    return levels[0], levels[1], levels[2]


def text_of(name: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Keyword and content of a tEXt, zTXt or iTXt chunk.

    Raises
    ------
    ValueError
        If it is damaged or too large.
    """
    keyword, _, content = body.partition(b"\0")
    if name == b"zTXt":
        content = _inflated(content[1:], MOST_TEXT)
    elif name == b"iTXt":
        compressed, rest = content[:1] == b"\1", content[2:].split(b"\0", 2)
        content = _inflated(rest[-1], MOST_TEXT) if compressed else rest[-1]
    if len(content) > MOST_TEXT:
        raise ValueError(f"is larger than {MOST_TEXT / 1e6:.0f} MB")
    return keyword, content


def raw_profile(content: bytes) -> bytes:
    """What a text of ImageMagick's holds: a name, a length, digits.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    try:
        return bytes.fromhex("".join(content.decode("ascii").split("\n")[3:]))
    except ValueError:
        raise ValueError("is damaged") from None


def _read_text(found: Found, name: bytes, body: bytes) -> None:
    """Take over a text as it is; of EXIF and XMP, which say how to turn the picture, the content.

    Raises
    ------
    ValueError
        If it is damaged or too large.
    """
    keyword, content = text_of(name, body)
    kind = keyword.lower().removeprefix(RAW_PROFILE)
    if keyword == XMP_KEYWORD:
        found.xmp = found.xmp or content
    elif kind != keyword.lower() and kind in (b"exif", b"app1", b"xmp"):
        content = raw_profile(content)
        if kind == b"xmp" or content.startswith(XMP_SEGMENT):
            found.xmp = found.xmp or content.removeprefix(XMP_SEGMENT)
        else:
            found.exif = found.exif or content
    else:
        found.others.append((name, body))
