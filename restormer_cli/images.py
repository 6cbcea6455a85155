"""Image files: decode, encode, bit depth, alpha, orientation, colour profile, resolution, EXIF.

Pixels are RGB or gray ``(H, W, C)``, C being 3 or 1, in uint8 or uint16.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# OpenCV reads its settings when it is imported, so this stands before.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np
import PIL.Image
import tifffile
from numpy.typing import NDArray

from restormer_cli import exif
from restormer_cli.errors import ImageError
from restormer_cli.files import read_file, write_file
from restormer_cli.metadata import (
    NO_METADATA,
    PNG_SIGNATURE,
    Found,
    Metadata,
    find_metadata,
    png_chunk,
)

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Floats = NDArray[np.float32]
CheckSize = Callable[[int, int], None]
"""Told height and width in pixels; raises ImageError if they are too much."""


#: More than any camera takes; a file that claims more is taken for a decompression bomb.
MAX_PIXELS = 1 << 30
TIFF_BITS_PER_SAMPLE = 258
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
    data, _ = read_file(path)
    return decode_image(path, data, max_pixels)


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height as the header of a file claims them; None if it cannot be told quickly."""
    if not path.is_file():
        return None
    with contextlib.suppress(Exception), warnings.catch_warnings():  # as in _read_header
        warnings.simplefilter("ignore")
        with PIL.Image.open(path) as image:
            width, height = image.size
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
        If it is damaged or cut off, has floating-point samples or more than ``max_pixels``
        pixels.
    """
    if not data:
        raise ImageError(f"{path}: is empty (0 bytes); copy it again from its source")
    try:
        return _decoded(path, data, max_pixels, check_size)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # the libraries' parsers raise whatever a damaged file provokes
        raise ImageError(f"{path}: is damaged ({error})") from error


def _decoded(path: Path, data: bytes, max_pixels: int, check_size: CheckSize | None) -> Picture:
    def check(height: int, width: int) -> None:
        if width * height > max_pixels:
            raise ImageError(f"{path}: {_too_large(width, height, max_pixels)}")
        try:
            if check_size is not None:
                check_size(height, width)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error

    header = _read_header(path, data, check)
    image = header.image if header.image is not None else _decode(path, data)
    check(*image.shape[:2])  # of a kind that Pillow does not know
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path}: has {image.dtype} samples; convert it to 8 or 16 bit")
    pixels, alpha = _split(image.reshape(*image.shape[:2], -1), header.gray, header.alpha)
    if alpha is None and header.transparent is not None:
        alpha = np.where(pixels[..., 0] == header.transparent, 0, _white(pixels)).astype(
            pixels.dtype
        )
    if alpha is not None and header.premultiplied:
        pixels = _unmultiplied(pixels, alpha)
    if not header.upright:
        pixels = _turn_upright(pixels, header.found.orientation)
        alpha = None if alpha is None else _turn_upright(alpha, header.found.orientation)
    height, width, channels = pixels.shape
    metadata, lost = header.found.of_result(width, height, gray=channels == 1)
    return Picture(
        np.ascontiguousarray(pixels),
        None if alpha is None else np.ascontiguousarray(alpha),
        metadata,
        header.notes + lost,
    )


def _decode(path: Path, data: bytes) -> Any:
    """Pixels as OpenCV orders them."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageError(f"{path}: cannot be decoded; the file is damaged") from error
    if image is None:
        raise ImageError(f"{path}: is damaged or not an image; convert it to PNG, JPEG or TIFF")
    return image


@dataclass(frozen=True)
class _Header:
    """What Pillow says of a file."""

    image: Any = None
    """Pixels in OpenCV's order, where OpenCV would not decode them right."""
    gray: bool = False
    alpha: bool = True
    """Whether a fourth channel, if OpenCV gives one, is alpha."""
    upright: bool = True
    found: Found = field(default_factory=Found)
    notes: tuple[str, ...] = ()
    premultiplied: bool = False
    """Whether colours are multiplied by alpha."""
    transparent: int | None = None
    """The gray that stands for nothing."""


def _read_header(path: Path, data: bytes, check: CheckSize) -> _Header:
    """Check a file with Pillow, which notices cut-off files where OpenCV fills in gray.

    Pillow does not know every kind that OpenCV reads (16-bit colour TIFF, for one); of those
    nothing is said, and OpenCV has the last word.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image: Any = PIL.Image.open(io.BytesIO(data))
        except PIL.UnidentifiedImageError:
            return _Header(premultiplied=_check_tiff(path, data), found=find_metadata(data))
        except Exception as error:  # Pillow's parsers raise whatever a damaged file provokes
            raise ImageError(f"{path}: is damaged ({error})") from error
        check(image.height, image.width)
        try:
            pages = getattr(image, "n_frames", 1)
            image.load()
        except Exception as error:  # as above
            raise ImageError(f"{path}: is damaged or cut off ({error})") from error
        found = find_metadata(data, image)
    tiff = image.format == "TIFF"
    bits = image.tag_v2.get(TIFF_BITS_PER_SAMPLE, (8,)) if tiff else (8,)
    # Pillow would reduce deeper ones to 8 bit.
    by_pillow = tiff and max(bits) <= 8 and image.mode in _PILLOW_MODES
    premultiplied = tiff and not by_pillow and _check_tiff(path, data)
    deep_gray_alpha = image.format == "PNG" and data[PNG_COLOR_TYPE] == PNG_GRAY_ALPHA
    transparent = image.info.get("transparency")
    seen_through = image.format == "PNG" and image.mode in _GRAY_MODES
    if not (seen_through and isinstance(transparent, int)):
        transparent = None
    elif image.mode == "L":  # told as the file has it, which may be in 2 or 4 bits
        transparent = transparent * 255 // ((1 << min(data[PNG_BIT_DEPTH], 8)) - 1)
    kind = "pages" if tiff else "frames"
    notes = [f"only the first of {pages} {kind} is restored"] if pages > 1 else []
    if image.mode == "CMYK":
        notes.append("is CMYK; its result is RGB, by arithmetic and not by a colour profile")
    return _Header(
        image=_as_opencv(image) if by_pillow else None,
        gray=deep_gray_alpha or image.mode in _GRAY_MODES,
        alpha=image.mode in _ALPHA_MODES or "transparency" in image.info,
        # Both libraries turn TIFF files themselves, whatever they were asked for.
        upright=found.orientation == 1 or tiff,
        found=found,
        notes=tuple(notes),
        premultiplied=premultiplied,
        transparent=transparent,
    )


def _too_large(width: int, height: int, max_pixels: int) -> str:
    limit = f"{max_pixels / 1e6:g} megapixels ({max_pixels} pixels)"
    return f"claims {width}×{height} pixels, more than the limit of {limit}; see --max-megapixels"


#: 8-bit TIFF of these modes is decoded by Pillow: OpenCV multiplies colours by alpha, drops
#: the alpha of gray images and refuses tiled files.
_PILLOW_MODES = {"1": "L", "L": "L", "LA": "LA", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA"}
_GRAY_MODES = {"1", "L", "LA", "I;16", "I"}
_ALPHA_MODES = {"LA", "La", "PA", "RGBA", "RGBa", "RGBX"}
PNG_BIT_DEPTH, PNG_COLOR_TYPE, PNG_GRAY_ALPHA = 24, 25, 4
PNG_FILTER_UP = 2


def _as_opencv(image: PIL.Image.Image) -> Any:
    array = np.asarray(image.convert(_PILLOW_MODES[image.mode]))
    if array.ndim == 2:
        return array
    order = {2: [0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[2]]
    return array[..., order]


#: Gray that is inverted, and CIELAB.
_UNUSUAL = {
    tifffile.PHOTOMETRIC.MINISWHITE,
    tifffile.PHOTOMETRIC.CIELAB,
    tifffile.PHOTOMETRIC.ICCLAB,
    tifffile.PHOTOMETRIC.ITULAB,
}


def _check_tiff(path: Path, data: bytes) -> bool:
    """Refuse the kinds of TIFF that OpenCV decodes to wrong values without a word.

    Tells whether colours are multiplied by alpha.
    """
    if data[:2] not in (b"II", b"MM"):
        return False
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            planar = page.samplesperpixel > 1 and page.planarconfig != 1
            unusual = planar or page.samplesperpixel == 2 or page.photometric in _UNUSUAL
            premultiplied = tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples
    except Exception as error:  # tifffile's parser raises whatever a damaged file provokes
        raise ImageError(f"{path}: is a damaged TIFF, or none ({error})") from error
    if unusual:
        raise ImageError(f"{path}: is a TIFF of an unusual layout; convert it to PNG")
    return premultiplied


def _split(image: Any, gray: bool, has_alpha: bool) -> tuple[Any, Any]:
    """OpenCV's ``(H, W, 1|2|3|4)`` to RGB or gray, and alpha."""
    channels = image.shape[2]
    if channels == 2:
        return image[..., :1], image[..., 1]
    # Of CMYK, and of 32-bit BMP without a mask for it, OpenCV makes up an alpha.
    alpha = image[..., 3] if channels == 4 and has_alpha else None
    if channels == 1:
        return image, None
    pixels = image[..., :1] if gray else image[..., 2::-1]
    return pixels, alpha


def _white(pixels: Pixels) -> int:
    return int(np.iinfo(pixels.dtype).max)


def _unmultiplied(pixels: Any, alpha: Any) -> Any:
    """Colours as PNG has them, which alpha has not darkened."""
    white = _white(pixels)
    share = np.maximum(alpha, 1).astype(np.float32)[..., None] / np.float32(white)
    return np.minimum(np.rint(pixels / share), white).astype(pixels.dtype)


def _turn_upright(image: Any, orientation: int) -> Any:
    """Undo what EXIF orientation 2 to 8 says was done to the picture."""
    if orientation in exif.TRANSPOSED:
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


#: Signature and header chunk.
PNG_HEADER_END = len(PNG_SIGNATURE) + 25


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
    return PNG_SIGNATURE + b"".join(body)


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
