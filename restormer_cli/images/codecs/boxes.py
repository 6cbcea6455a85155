"""Boxes, which AVIF, HEIF, JPEG XL and Canon's CR3 files consist of (ISO 14496-12, 4.2)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs.base import named
from restormer_cli.images.metadata.base import CREDENTIALS, GAIN_MAP, MOTION, Found

#: Boxes without which there is no picture. Behind them phones leave what they like.
NEEDED = frozenset({b"ftyp", b"meta", b"moov", b"mdat", b"jxlc", b"jxlp"})
#: Of a file; more of them are noise.
MOST_BOXES = 100_000
#: What tells of itself: the video of a motion photo, the gain map of JPEG XL, credentials there.
TELLING = {b"mpvd": MOTION, b"jhgm": GAIN_MAP, b"jumb": CREDENTIALS}
#: The number of the box of credentials elsewhere (C2PA 2.1, A.5).
CREDENTIALS_ID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
#: An entry of the table of contents that a picture is made with a gain map (ISO 21496-1, C).
TONE_MAPPED = re.compile(rb"infe(?:\x02.{7}|\x03.{9})tmap", re.DOTALL)


class Box(NamedTuple):
    """Its kind, and where its content is in the file."""

    kind: bytes
    start: int
    stop: int


def boxes(file: BinaryIO) -> Iterator[Box]:
    """The boxes of a file, one behind the other.

    The last one may reach beyond the end of a file that is cut off.
    """
    start, stop = 0, file.seek(0, io.SEEK_END)
    for _ in range(MOST_BOXES):
        if start + 8 > stop:
            return
        file.seek(start)
        head = file.read(16)
        length, kind, begin = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if length == 1:  # it does not fit into four bytes
            length, begin = int.from_bytes(head[8:16], "big"), start + 16
        end = start + length if length else stop
        if end < begin:
            return
        yield Box(kind, begin, end)
        start = end


def content(data: bytes, *kinds: bytes) -> bytes | None:
    """What the first box of a kind holds, of that in which it lies, and so on; None without it."""
    for kind in kinds:
        inner = next((b for b in boxes(io.BytesIO(data)) if b.kind == kind), None)
        if inner is None:
            return None
        data = data[inner.start : inner.stop]
    return data


def refuse_cut_off(file: BinaryIO, name: str) -> None:
    """Raise ImageError if a box is not all there; libraries may fill up with black what it held."""
    size = file.seek(0, io.SEEK_END)
    if any(box.kind in NEEDED and box.stop > size for box in boxes(file)):
        raise ImageError(f"is {named(name)} file that is cut off")


def tell_companions(found: Found, data: bytes) -> None:
    """Tell what a file holds beside its picture."""
    found.tell_motion()
    for kind, start, stop in boxes(io.BytesIO(data)):
        if kind == b"brob":  # JPEG XL compresses what it likes
            kind = data[start : start + 4]
        if kind in TELLING:
            found.tell(TELLING[kind])
        elif kind == b"uuid" and data[start : start + len(CREDENTIALS_ID)] == CREDENTIALS_ID:
            found.tell(CREDENTIALS)
        elif kind == b"meta" and TONE_MAPPED.search(data, start, stop):
            found.tell(GAIN_MAP)


def end_of_samples(file: BinaryIO) -> int:
    """Where the last box ends that holds compressed samples; 0 without one."""
    return max((box.stop for box in boxes(file) if box.kind == b"mdat"), default=0)


def brands(head: bytes) -> tuple[bytes, frozenset[bytes]]:
    """What a file calls itself, and which formats it says to keep to; empty if it has no boxes."""
    if head[4:8] != b"ftyp":
        return b"", frozenset()
    further = head[16 : int.from_bytes(head[:4], "big")]
    return head[8:12], frozenset(further[i : i + 4] for i in range(0, len(further), 4))
