"""An image file to a picture: size allowed, format recognised, decoded, turned upright.

Pixels are RGB or gray ``(H, W, C)``, C being 3 or 1, in uint8 or uint16.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from restormer_cli.errors import ImageError, fault
from restormer_cli.images.codecs import Codec, find_codec, header_of
from restormer_cli.images.codecs.base import CMYK_NOTE
from restormer_cli.images.metadata import Found
from restormer_cli.images.metadata.exif import TRANSPOSED
from restormer_cli.images.picture import Picture
from restormer_cli.system.files import Stamp, is_file, read_file
from restormer_cli.system.units import format_bytes

CheckSize = Callable[[int, int], None]
"""Called with height and width in pixels; raises ImageError if they are too much."""


#: More than any camera takes; a file that claims more is taken for a decompression bomb.
MAX_PIXELS = 1 << 30
#: A file of more bytes than these holds something else than one picture, and is not read.
EXTRA_BYTES, BYTES_PER_PIXEL = 1 << 28, 64
#: Bytes of a header that are read only to know how long a run will take.
QUICK_BYTES = 1 << 20


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

    Parameters and exceptions are those of :func:`decode_image`, but that the file is named.
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
    with _blamed(path):
        return decode_image(data, max_pixels, check_size), stamp


def image_size(path: Path) -> tuple[int, int] | None:
    """Height and width as the header of a file claims them; None if it cannot be told quickly."""
    if not is_file(path):
        return None
    # Whatever is wrong with it costs no other image anything: reading it will say so.
    with contextlib.suppress(Exception), path.open("rb") as file:
        header = header_of(file, QUICK_BYTES)
        return find_codec(header).measure(header)
    return None


def decode_image(
    data: bytes, max_pixels: int = MAX_PIXELS, check_size: CheckSize | None = None
) -> Picture:
    """Decode what an image file holds, of whatever format that is.

    Of several pages or frames the first is read.

    Parameters
    ----------
    check_size
        Called with height and width before they cost memory; raises ImageError to refuse them.

    Raises
    ------
    ImageError
        If it is damaged or cut off, of a kind that cannot be read, or too large; the sentence
        does not name the file.
    """
    if not data:
        raise ImageError("is empty (0 bytes); copy it again from its source")
    codec, size = _measured(io.BytesIO(data), max_pixels, check_size)
    decoded = codec.decode(data)
    if math.prod(decoded.pixels.shape[:2]) != math.prod(size):
        raise ImageError(f"is a damaged {codec.name} file: it is of two sizes at once")
    found = Found()
    codec.read_metadata(found, data)
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
        decoded.bits,
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
