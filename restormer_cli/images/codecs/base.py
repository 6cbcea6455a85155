"""What every codec shares: its interface, what it gives, and how it speaks of damage."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from restormer_cli.errors import ImageError

# They tell of what is odd in a file, but not in which; without a handler, on stderr.
for library in ("imagecodecs", "tifffile"):
    logging.getLogger(library).addHandler(logging.NullHandler())

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

#: How libraries speak of files that are whole but too much for them.
UNSUPPORTED = re.compile(r"unsupported|unimplemented|not (yet )?(supported|implemented)", re.I)
#: Bytes that may be read to learn what a file is: directories of TIFF files can be long.
HEADER_BYTES = 1 << 28


@dataclass(frozen=True)
class Decoded:
    """What a codec gives, as it is stored: not yet turned upright."""

    pixels: Any
    """``(H, W, 3)`` RGB or ``(H, W, 1)`` gray, uint8 or uint16."""
    alpha: Any = None
    """``(H, W)``, of the same dtype."""
    orientation: int | None = None
    """1 to 8 where the codec knows better than EXIF."""
    notes: tuple[str, ...] = ()
    """What a person should know about how the file was read."""


@dataclass(frozen=True)
class Codec:
    """One format: how it is recognised, measured and decoded.

    ``measure`` and ``decode`` raise ImageError, with a sentence that does not name the file, if
    it is damaged or of a kind that cannot be read.
    """

    name: str
    matches: Callable[[bytes], bool]
    """True of the first few thousand bytes of a file of this format."""
    measure: Callable[[BinaryIO], tuple[int, int]]
    """Height and width, from the header alone."""
    decode: Callable[[bytes], Decoded]


class _HeaderReader(io.RawIOBase):
    """A file of which so much can be read and no more, whatever its header claims."""

    def __init__(self, file: BinaryIO, budget: int) -> None:
        self._file, self._left = file, budget
        place = file.tell()
        self._size = file.seek(0, io.SEEK_END)
        file.seek(place)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        there = max(0, self._size - self._file.tell())
        wanted = there if size is None or size < 0 else min(size, there)
        if wanted > self._left:
            raise ImageError("is damaged: its header claims to be larger than any is")
        self._left -= wanted
        return self._file.read(wanted)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def header_of(file: BinaryIO, budget: int = HEADER_BYTES) -> BinaryIO:
    """The same file, of which so many bytes can be read."""
    return cast(BinaryIO, _HeaderReader(file, budget))


@contextlib.contextmanager
def parsing(kind: str) -> Iterator[None]:
    """Around a call of a library: whatever its parser raises means that the file is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # parsers raise whatever a damaged file provokes
        reason = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, TypeError) and (
            isinstance(error, NotImplementedError) or UNSUPPORTED.search(reason)
        ):
            raise ImageError(
                f"is a {kind} file of a kind that cannot be read ({reason}); convert it to PNG"
            ) from error
        raise ImageError(f"is a {kind} file that is damaged or cut off ({reason})") from error


def scaled(samples: Any, bits: int) -> Pixels:
    """Whole numbers of so many bits to all of uint8, or of uint16 if there are more than 8."""
    dtype = np.uint8 if bits <= 8 else np.uint16
    if bits in (8, 16):
        return samples.astype(dtype, copy=False)  # type: ignore[no-any-return]  # numpy's
    largest = (1 << bits) - 1
    table = np.rint(np.arange(largest + 1) * (np.iinfo(dtype).max / largest)).astype(dtype)
    return table[np.minimum(samples, largest)]  # type: ignore[no-any-return]  # numpy's


def inverted(pixels: Any) -> Any:
    """Black for white; also ink for light."""
    return np.iinfo(pixels.dtype).max - pixels


def from_cmyk(inks: Any) -> Any:
    """``(H, W, 4)`` of which 0 is no ink to RGB, by arithmetic."""
    white = int(np.iinfo(inks.dtype).max)
    light = inverted(inks)
    rgb = np.empty((*inks.shape[:2], 3), inks.dtype)
    black = light[..., 3].astype(np.uint32)
    for channel in range(3):
        rgb[..., channel] = (light[..., channel] * black + white // 2) // white
    return rgb


CMYK_NOTE = "is CMYK; its result is RGB, by arithmetic and not by a colour profile"
