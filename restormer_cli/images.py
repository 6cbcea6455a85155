"""Image files: decode, encode, bit depth, alpha, orientation, colour profile, resolution, EXIF.

Pixels are RGB or gray ``(H, W, C)``, C being 3 or 1, in uint8 or uint16.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

# OpenCV reads its settings when it is imported, so this stands before.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from restormer_cli.codecs import Codec, Pixels, find_codec, header_of
from restormer_cli.codecs.base import CMYK_NOTE
from restormer_cli.errors import ImageError, fault
from restormer_cli.files import Stamp, read_file, write_file
from restormer_cli.metadata import NO_METADATA, Metadata, find_metadata, png_chunk
from restormer_cli.metadata.exif import TRANSPOSED
from restormer_cli.metadata.png import SIGNATURE
from restormer_cli.units import format_bytes

__all__ = [
    "Floats",
    "Picture",
    "Pixels",
    "decode_image",
    "encode_png",
    "image_size",
    "load_image",
    "normalise",
    "quantise",
    "read_image",
    "write_png",
]

Floats = NDArray[np.float32]
CheckSize = Callable[[int, int], None]
"""Told height and width in pixels; raises ImageError if they are too much."""


#: More than any camera takes; a file that claims more is taken for a decompression bomb.
MAX_PIXELS = 1 << 30
#: What libpng takes in width and in height.
LARGEST_SIDE = 1_000_000
#: A file of more bytes than these holds something else than one picture, and is not read.
EXTRA_BYTES, BYTES_PER_PIXEL = 1 << 28, 64
#: Bytes of a header that are read only to know how long a run will take.
QUICK_BYTES = 1 << 20
#: Signature and header chunk.
PNG_HEADER_END = len(SIGNATURE) + 25
PNG_GRAY_ALPHA, PNG_FILTER_UP = 4, 2
# Pillow's own limit would hide from us what the header says; ours is checked before decoding.
PIL.Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Picture:
    """A decoded image, upright."""

    pixels: Pixels
    """``(H, W, 3)`` RGB or ``(H, W, 1)`` gray."""
    alpha: Pixels | None = None
    """``(H, W)``, of the same dtype."""
    metadata: Metadata = NO_METADATA
    """What the file says beside its pixels, as it holds for the result."""
    notes: tuple[str, ...] = ()
    """What a person should know about how the file was read."""

    @property
    def bit_depth(self) -> int:
        return 8 * self.pixels.dtype.itemsize


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read an image file; see :func:`decode_image`.

    Raises
    ------
    ImageError
        If it cannot be read or decoded.
    """
    return load_image(path, max_pixels)[0]


def load_image(
    path: Path, max_pixels: int = MAX_PIXELS, check_size: CheckSize | None = None
) -> tuple[Picture, Stamp]:
    """Read an image file once its header has been judged, and stamp it.

    Parameters and exceptions are those of :func:`decode_image`.
    """

    def judge(file: BinaryIO, size: int) -> None:
        if not size:
            return
        with _blamed(path):
            height, width = _measured(header_of(file), max_pixels, check_size)[1]
            if size > EXTRA_BYTES + BYTES_PER_PIXEL * height * width:
                raise ImageError(
                    f"holds {format_bytes(size)}, far more than {width}×{height} pixels need; "
                    "save this picture alone, as PNG or TIFF"
                )

    data, stamp = read_file(path, judge)
    return decode_image(path, data, max_pixels, check_size), stamp


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height as the header of a file claims them; None if it cannot be told quickly."""
    if not path.is_file():
        return None
    with contextlib.suppress(ImageError, OSError), path.open("rb") as file:
        header = header_of(file, QUICK_BYTES)
        height, width = find_codec(header).measure(header)
        return width, height
    return None


def decode_image(
    path: Path, data: bytes, max_pixels: int = MAX_PIXELS, check_size: CheckSize | None = None
) -> Picture:
    """Decode an image file; its content decides the format, not its name.

    Of several pages or frames the first is read.

    Parameters
    ----------
    path
        For messages.
    check_size
        Told height and width before they cost memory; raises ImageError to refuse them.

    Raises
    ------
    ImageError
        If it is damaged or cut off, of a kind that cannot be read, or too large.
    """
    if not data:
        raise ImageError(f"{path}: is empty (0 bytes); copy it again from its source")
    with _blamed(path):
        codec, size = _measured(io.BytesIO(data), max_pixels, check_size)
        decoded = codec.decode(data)
        if math.prod(decoded.pixels.shape[:2]) != math.prod(size):
            raise ImageError(f"is a damaged {codec.name} file: it is of two sizes at once")
        found = find_metadata(data)
    pixels, alpha = decoded.pixels, decoded.alpha
    orientation = found.orientation if decoded.orientation is None else decoded.orientation
    if orientation != 1:
        pixels = _turn_upright(pixels, orientation)
        alpha = None if alpha is None else _turn_upright(alpha, orientation)
    if CMYK_NOTE in decoded.notes:
        found.icc = None  # for colours that the pixels have no more, as the note says
    height, width, channels = pixels.shape
    metadata, lost = found.of_result(width, height, gray=channels == 1)
    return Picture(
        np.ascontiguousarray(pixels),
        None if alpha is None else np.ascontiguousarray(alpha),
        metadata,
        decoded.notes + lost,
    )


@contextlib.contextmanager
def _blamed(path: Path) -> Iterator[None]:
    """Name the file in what is raised; a fault of our own is not the file's."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except (MemoryError, OSError):
        raise
    except Exception as error:  # nothing that a file holds should lead here
        raise ImageError(f"{path}: {fault(error)}") from error


def _measured(
    file: BinaryIO, max_pixels: int, check_size: CheckSize | None
) -> tuple[Codec, tuple[int, int]]:
    """The codec for a file, and its height and width if they are not too much."""
    codec = find_codec(file)
    height, width = codec.measure(file)
    if min(height, width) < 1:
        raise ImageError(f"is a damaged {codec.name} file: it claims {width}×{height} pixels")
    if width * height > max_pixels:
        raise ImageError(_too_large(width, height, max_pixels))
    if max(width, height) > LARGEST_SIDE:
        raise ImageError(
            f"is {width}×{height} pixels; its result would be a PNG, which takes no more than "
            f"{LARGEST_SIDE} a side, so cut it into parts"
        )
    if check_size is not None:
        check_size(height, width)
    return codec, (height, width)


def _too_large(width: int, height: int, max_pixels: int) -> str:
    limit = f"{max_pixels / 1e6:g} megapixels ({max_pixels} pixels)"
    return f"claims {width}×{height} pixels, more than the limit of {limit}; see --max-megapixels"


def _turn_upright(image: Any, orientation: int) -> Any:
    """Undo what EXIF orientation 2 to 8 says was done to the picture."""
    if orientation in TRANSPOSED:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


def normalise(pixels: Pixels) -> Floats:
    """uint8 or uint16 to float32 in [0, 1]."""
    largest = np.float32(np.iinfo(pixels.dtype).max)
    floats: Floats = np.divide(pixels, largest, dtype=np.float32)
    return floats


def quantise(image: Floats, bit_depth: int) -> Pixels:
    """Clamp to [0, 1] and round half to even, to uint8 or uint16.

    Raises
    ------
    ImageError
        If a value is not a number or infinite.
    """
    if not np.isfinite(image).all():
        raise ImageError("the network gave values that are no numbers; try --precision float32")
    dtype = np.uint8 if bit_depth == 8 else np.uint16
    scaled = np.clip(image, 0, 1) * np.float32(np.iinfo(dtype).max)
    return np.ascontiguousarray(np.rint(scaled, out=scaled).astype(dtype))


def encode_png(picture: Picture, compression: int | None = None) -> bytes:
    """Encode as PNG, 8 or 16 bit as the pixels are, with alpha and metadata.

    ``compression`` is zlib's level, 0 to 9; by default OpenCV's choice, which is quick.

    Raises
    ------
    ImageError
        If the encoder refuses.
    """
    gray = picture.pixels.shape[2] == 1
    if picture.alpha is None:
        image: Any = picture.pixels if gray else picture.pixels[..., ::-1]
    else:
        image = np.concatenate([picture.pixels[..., ::-1], picture.alpha[..., None]], axis=2)
    if gray and picture.alpha is not None:
        png = memoryview(_gray_with_alpha(image, compression))
    else:
        parameters = [] if compression is None else [cv2.IMWRITE_PNG_COMPRESSION, compression]
        try:
            done, data = cv2.imencode(".png", np.ascontiguousarray(image), parameters)
        except cv2.error:
            done = False
        if not done:
            raise ImageError("cannot be encoded as PNG")
        png = memoryview(data.data)
    chunks = picture.metadata.as_png(picture.bit_depth, gray)
    return b"".join([png[:PNG_HEADER_END], chunks, png[PNG_HEADER_END:]])


def _gray_with_alpha(image: Any, compression: int | None) -> bytes:
    """A PNG of ``(H, W, 2)``, which no library writes with 16 bit; each row less the one above."""
    height, width = image.shape[:2]
    rows = image.astype(image.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    filtered = np.full((height, 1 + rows.shape[1]), PNG_FILTER_UP, np.uint8)
    filtered[:, 1:] = rows
    filtered[1:, 1:] -= rows[:-1]
    depth = 8 * image.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, depth, PNG_GRAY_ALPHA, 0, 0, 0)
    pixels = zlib.compress(filtered.data, 1 if compression is None else compression)
    body = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(body)


def write_png(
    path: Path,
    picture: Picture,
    compression: int | None = None,
    before_rename: Callable[[os.stat_result], None] | None = None,
) -> None:
    """Write a PNG so that ``path`` holds all of it or what it held before.

    ``before_rename`` is told size and time of the file that is about to be there.

    Raises
    ------
    ImageError
        If it cannot be written.
    """
    try:
        data = encode_png(picture, compression)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    write_file(path, data, before_rename)
