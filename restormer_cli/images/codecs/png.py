"""PNG (Portable Network Graphics, third edition).

The decoder is given only the chunks that make the still image, so text of any size, animation
and damaged extras cost nothing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import imagecodecs

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs.base import Codec, Decoded, begins, parsing, split_alpha
from restormer_cli.images.metadata import Found
from restormer_cli.images.metadata.png import SIGNATURE, read_png

PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT"}
#: Where the header says how colours are stored, and that they are those of a palette.
COLOR_TYPE, PALETTE = 25, 3


def _measure(file: BinaryIO) -> tuple[int, int]:
    file.seek(len(SIGNATURE))
    start = file.read(8 + 13)
    if start[4:8] == b"CgBI":
        raise ImageError(
            "is a PNG in Apple's own form for iPhone apps (CgBI); make it a usual one, by "
            "`pngcrush -revert-iphone-optimizations` or by saving it from Preview"
        )
    if len(start) < 21 or start[4:8] != b"IHDR":
        raise ImageError("is a PNG file that is damaged or cut off (it does not begin with IHDR)")
    width, height = struct.unpack_from(">II", start, 8)
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31):
        raise ImageError(f"is a damaged PNG file (it claims {width}×{height} pixels)")
    return height, width


def _decode(data: bytes) -> Decoded:
    picture: list[Any] = [SIGNATURE]
    notes: list[str] = []
    seen = set[bytes]()
    frames, still_moves = 0, False
    # Elsewhere a palette is a suggestion.
    needed = PIXELS if data[COLOR_TYPE] == PALETTE else PIXELS - {b"PLTE"}
    for name, chunk in _chunks(data):
        again = name in seen and name != b"IDAT"
        seen.add(name)
        if name == b"acTL" and len(chunk) >= 16 and b"IDAT" not in seen:
            frames = int.from_bytes(chunk[8:12], "big")
        still_moves |= name == b"fcTL" and b"IDAT" not in seen
        if again or name not in needed:
            continue
        # If another one is damaged, the decoder says so.
        if name == b"tRNS" and not _is_whole(chunk):
            notes.append("its transparency is damaged and left out")
        else:
            picture.append(chunk)
    if b"IDAT" not in seen:
        raise ImageError("is a PNG file that is damaged or cut off (it holds no picture)")
    with parsing("PNG"):
        image = imagecodecs.png_decode(b"".join([*picture, _empty(b"IEND")]))
    if frames and not still_moves:
        notes.append(f"only its still image is restored, not its animation of {frames} frames")
    elif frames > 1:
        notes.append(f"only the first of {frames} frames is restored")
    return Decoded(*split_alpha(image), notes=tuple(notes))


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Names of the chunks, and all of each: length, name, body, checksum."""
    view = memoryview(data)
    place = len(SIGNATURE)
    while place + 12 <= len(data):
        name, stop = data[place + 4 : place + 8], place + 12 + _length(view[place:])
        critical = not name[0] & 0x20
        if name == b"IEND" or (stop > len(data) and not critical):
            return
        if stop > len(data):
            raise ImageError("is a PNG file that is cut off")
        if critical and name not in PIXELS:
            raise ImageError(
                "is a PNG with a part that only the program which wrote it understands "
                f"({name.decode('latin-1')!a}); save it again as a usual one"
            )
        yield name, view[place:stop]
        place = stop


def _length(chunk: memoryview) -> int:
    return int.from_bytes(chunk[:4], "big")


def _empty(name: bytes) -> bytes:
    return struct.pack(">I4sI", 0, name, zlib.crc32(name))


def _is_whole(chunk: memoryview) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _read_metadata(found: Found, data: bytes) -> None:
    read_png(found, data)
    end = len(SIGNATURE) + sum(len(chunk) for _, chunk in _chunks(data)) + len(_empty(b"IEND"))
    found.tell_rest(data[end:])


CODEC = Codec(
    name="PNG",
    matches=begins(SIGNATURE),
    measure=_measure,
    decode=_decode,
    read_metadata=_read_metadata,
    suffixes=".png .apng",
    reads="palettes, interlaced; of an animation the still image",
    bits=(1, 16),
    alpha=True,
    colours="ICC, gamma, primaries, cICP",
    metadata="EXIF, XMP, IPTC, texts",
    media_type="image/png",
)
