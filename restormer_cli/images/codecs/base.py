"""What every codec shares: its interface, what it gives, and how it speaks of damage."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
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
from restormer_cli.images.metadata import Found

# They tell of what is odd in a file, but not in which; without a handler, on stderr.
for library in ("imagecodecs", "tifffile"):
    logging.getLogger(library).addHandler(logging.NullHandler())

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

#: How libraries speak of files that are whole but too much for them.
UNSUPPORTED = re.compile(
    r"unsupported|unimplemented|not (yet )?(supported|implemented)|security limit", re.I
)
#: Bytes that may be read to learn what a file is: directories of TIFF files can be long.
HEADER_BYTES = 1 << 28
#: So many zeros are no compressed pixels; systems lose files by whole pages of memory.
EMPTY_END = bytes(4096)
#: Samples of floating point that are looked at together, so that copies take little memory.
FLOATS_TOGETHER = 1 << 20


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
    bits: int | None = None
    """Of a sample in the file; None if as many as ``pixels`` have."""


@dataclass(frozen=True)
class Extra:
    """A library that is installed only by those who need it, and the extra that brings it."""

    name: str
    """Of the extra: ``restormer-cli[name]``."""
    module: str

    def installed(self) -> bool:
        try:
            return importlib.util.find_spec(self.module) is not None
        except (ImportError, ValueError):  # whatever stands in its place
            return False

    @property
    def remedy(self) -> str:
        return f"`pip install 'restormer-cli[{self.name}]'`"

    def load(self, what: str) -> Any:
        """The library, to read ``what``.

        Raises
        ------
        ImageError
            If it is missing or does not work here.
        """
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            if not self.installed():
                raise ImageError(f"is {what}; to read such files, {self.remedy}") from error
            reason = " ".join(str(error).split())
            raise ImageError(
                f"is {what}, and {self.module}, which reads such files, does not load ({reason}); "
                f"{self.remedy} once more"
            ) from error


@dataclass(frozen=True)
class Codec:
    """One format: how it is recognised, measured and decoded, and what is said of it.

    ``measure`` and ``decode`` raise ImageError, with a sentence that does not name the file, if
    it is damaged or of a kind that cannot be read.
    """

    name: str
    matches: Callable[[bytes], bool]
    """True of the first few thousand bytes of a file of this format."""
    measure: Callable[[BinaryIO], tuple[int, int]]
    """Height and width of the upright picture or of the stored one, from the header alone."""
    decode: Callable[[bytes], Decoded]
    read_metadata: Callable[[Found, bytes], None]
    """Adds what the file says beside its pixels; raises nothing."""
    suffixes: str
    """Those that a walk takes, such as ``.tif .tiff``; empty if it takes none."""
    reads: str
    """What is read, in words."""
    bits: tuple[int, int]
    """Least and most of a sample."""
    alpha: bool
    colours: str
    """What is kept of the way in which it says what its colours are."""
    metadata: str
    """What is kept of what it says beside: ``EXIF, XMP``, say."""
    media_type: str | None = None
    """``image/png``, say, where browsers show the format; None where they do not."""
    extra: Extra | None = None
    """What the library that decodes it comes with; None if it is always there."""
    confirms: Callable[[BinaryIO], bool] = lambda file: True
    """A closer look at a file that matches, where other formats begin in the same way."""

    @property
    def deep(self) -> bool:
        """True if decoded samples may be of 16 bit."""
        return self.bits[1] > 8


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


def named(kind: str) -> str:
    """The name of a format behind its article: ``an AVIF``."""
    return f"{'an' if kind.startswith(tuple('AEIOU')) else 'a'} {kind}"


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
                f"is {named(kind)} file of a kind that cannot be read ({reason}); convert it to PNG"
            ) from error
        raise ImageError(f"is {named(kind)} file that is damaged or cut off ({reason})") from error


def refuse_empty_end(file: BinaryIO, kind: str, stop: int) -> None:
    """Raise ImageError where a copy has failed, of a kind whose decoder fills up what is missing.

    ``stop`` is where its compressed pixels end.
    """
    file.seek(max(0, stop - len(EMPTY_END)))
    if file.read(len(EMPTY_END)) == EMPTY_END:
        raise empty_end(kind)


def empty_end(kind: str) -> ImageError:
    """Make the error for a file that a failed copy has left without its end."""
    return ImageError(
        f"is {named(kind)} file that is damaged: its end is empty (zero bytes), as copies are "
        "that failed; copy it once more"
    )


def scaled(samples: Any, bits: int) -> Pixels:
    """Whole numbers of so many bits to all of uint8, or of uint16 if there are more than 8."""
    dtype = np.uint8 if bits <= 8 else np.uint16
    if bits in (8, 16):
        return samples.astype(dtype, copy=False)  # type: ignore[no-any-return]  # numpy's
    largest = (1 << bits) - 1
    table = np.rint(np.arange(largest + 1) * (np.iinfo(dtype).max / largest)).astype(dtype)
    return table[np.minimum(samples, largest)]  # type: ignore[no-any-return]  # numpy's


def from_floats(samples: Any) -> tuple[Any, tuple[str, ...]]:
    """Floating-point samples, of which 0 is black and 1 white, to uint16, and what to say of it.

    Raises
    ------
    ImageError
        If some are infinite or no numbers.
    """
    flat = np.ascontiguousarray(samples).reshape(-1)
    pixels = np.empty(samples.shape, np.uint16)
    rounded = pixels.reshape(-1)
    outside = unusable = 0
    for start in range(0, flat.size, FLOATS_TOGETHER):
        part = flat[start : start + FLOATS_TOGETHER]
        part = part.astype(np.result_type(part.dtype, np.float32))
        unusable += part.size - np.count_nonzero(np.isfinite(part))
        if unusable:
            continue
        outside += np.count_nonzero((part < 0) | (part > 1))
        np.clip(part, 0, 1, out=part)
        rounded[start : start + FLOATS_TOGETHER] = np.rint(part * part.dtype.type(65535))
    if unusable:
        raise ImageError(
            f"has {_of(unusable, flat.size)} that are infinite or not a number (NaN); "
            "mend them in the program that it comes from"
        )
    if not outside:
        return pixels, ()
    return pixels, (f"has {_of(outside, flat.size)} outside of 0 to 1; they are clipped",)


def _of(count: int, total: int) -> str:
    return f"{count} of {total} floating-point samples"


def unmultiplied(pixels: Any, alpha: Any) -> Any:
    """Colours as PNG has them, which alpha has not darkened."""
    white = np.iinfo(pixels.dtype).max
    share = np.maximum(alpha, 1).astype(np.float32)[..., None] / np.float32(white)
    return np.minimum(np.rint(pixels / share), white).astype(pixels.dtype)


def split_alpha(samples: Any) -> tuple[Any, Any]:
    """Gray or RGB ``(H, W, C)``, and alpha ``(H, W)`` or None, of gray, RGB or either with it."""
    samples = samples.reshape(*samples.shape[:2], -1)
    colours = 1 if samples.shape[2] < 3 else 3
    return samples[..., :colours], samples[..., colours] if samples.shape[2] > colours else None


def begins(*starts: bytes) -> Callable[[bytes], bool]:
    """Recognises files that begin so."""
    return lambda head: head.startswith(starts)


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
