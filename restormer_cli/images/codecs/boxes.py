"""Boxes, which AVIF, HEIF, JPEG XL and Canon's CR3 files consist of (ISO 14496-12, 4.2)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs.base import named

#: Boxes without which there is no picture. Behind them phones leave what they like.
NEEDED = frozenset({b"ftyp", b"meta", b"moov", b"mdat", b"jxlc", b"jxlp"})
#: Of a file; more of them are noise.
MOST_BOXES = 100_000


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


def end_of_samples(file: BinaryIO) -> int:
    """Where the last box ends that holds compressed samples; 0 without one."""
    return max((box.stop for box in boxes(file) if box.kind == b"mdat"), default=0)


def brands(head: bytes) -> tuple[bytes, frozenset[bytes]]:
    """What a file calls itself, and which formats it says to keep to; empty if it has no boxes."""
    if head[4:8] != b"ftyp":
        return b"", frozenset()
    further = head[16 : int.from_bytes(head[:4], "big")]
    return head[8:12], frozenset(further[i : i + 4] for i in range(0, len(further), 4))
