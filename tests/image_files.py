"""Image files made by the formats' own libraries, in memory, of pixels that a test knows."""

from __future__ import annotations

import io
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
import pillow_heif
import tifffile
from helpers import smooth_pixels

#: CIE XYZ under D65 to linear sRGB (IEC 61966-2-1): a camera of this matrix sees sRGB.
XYZ_TO_SRGB = (3.2404542, -1.5371385, -0.4985314, -0.9692660, 1.8760108, 0.0415560, 0.0556434,
               -0.2040259, 1.0572252)  # fmt: skip
D65_LIGHT, WHITE_LEVEL = 21, 4095
BAYER, LINEAR = 32803, 34892


def saved(image: Any, kind: str, **settings: Any) -> bytes:
    """By Pillow."""
    file = io.BytesIO()
    if not isinstance(image, PIL.Image.Image):
        image = PIL.Image.fromarray(np.ascontiguousarray(image))
    image.save(file, kind, **settings)
    return file.getvalue()


def tiff_by_library(samples: Any, **settings: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, samples, **settings)
    return file.getvalue()


def heic(samples: Any, bits: int = 8, mode: str | None = None, **settings: Any) -> bytes:
    """Without loss, ``(H, W, C)`` of 1, 3 or 4 channels, by pillow-heif."""
    height, width, channels = samples.shape
    mode = mode or {1: "L", 3: "RGB", 4: "RGBA"}[channels] + (f";{bits}" if bits > 8 else "")
    settings = {"quality": -1, "chroma": 444, "matrix_coefficients": 0} | settings
    file = io.BytesIO()
    picture = pillow_heif.from_bytes(mode, (width, height), samples.tobytes())
    picture.save(file, **settings)
    return file.getvalue()


def avif(samples: Any, bits: int = 8) -> bytes:
    return bytes(imagecodecs.avif_encode(samples.squeeze(), level=100, bitspersample=bits))


def jxl(samples: Any, bits: int | None = None, **settings: Any) -> bytes:
    """Without loss, by libjxl."""
    settings = {"lossless": True} | settings
    return bytes(imagecodecs.jpegxl_encode(samples.squeeze(), bitspersample=bits, **settings))


def dng(
    samples: Any,
    *,
    white: int = WHITE_LEVEL,
    neutral: tuple[float, float, float] = (1, 1, 1),
    orientation: int = 1,
    extratags: tuple[Any, ...] = (),
    **settings: Any,
) -> bytes:
    """A raw file of a camera that sees sRGB: ``(H, W)`` behind a Bayer filter, or ``(H, W, 3)``.

    ``neutral`` is what it measures of a white thing.
    """

    def fractions(*values: float) -> tuple[int, ...]:
        return tuple(part for value in values for part in (round(value * 10_000), 10_000))

    bayer = samples.ndim == 2
    tags = [
        (50706, 1, 4, (1, 4, 0, 0), True),
        (50707, 1, 4, (1, 1, 0, 0), True),
        (50708, 2, 0, "Maker Model", True),
        (271, 2, 0, "Maker", True),
        (272, 2, 0, "Model", True),
        (274, 3, 1, orientation, True),
        (50721, 10, 9, fractions(*XYZ_TO_SRGB), True),
        (50728, 5, 3, fractions(*neutral), True),
        (50778, 3, 1, D65_LIGHT, True),
        (50717, 4, 1, white, True),
        *extratags,
    ]
    if bayer:
        tags += [(33421, 3, 2, (2, 2), True), (33422, 1, 4, (0, 1, 1, 2), True)]
    settings = {"photometric": BAYER if bayer else LINEAR, "extratags": tags} | settings
    if not bayer:
        settings["planarconfig"] = "contig"
    return tiff_by_library(samples, metadata=None, software=False, **settings)


def srgb(light: Any) -> Any:
    """Linear light in [0, 1] as sRGB stores it (IEC 61966-2-1), in [0, 1]."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def bayer(height: int, width: int, rgb: tuple[int, int, int]) -> Any:
    """What a sensor measures of one colour, its first row being red and green; one patch white."""
    samples = np.empty((height, width), np.uint16)
    samples[0::2, 0::2] = rgb[0]
    samples[0::2, 1::2] = samples[1::2, 0::2] = rgb[1]
    samples[1::2, 1::2] = rgb[2]
    samples[:4] = WHITE_LEVEL
    return samples


SMOOTH = smooth_pixels(64, 77)
#: A file of each format that is read, by the name of its codec.
SAMPLES = {
    "PNG": saved(SMOOTH, "PNG"),
    "JPEG": saved(SMOOTH, "JPEG"),
    "camera raw": dng(bayer(64, 77, (1000, 2000, 500))),
    "TIFF": saved(SMOOTH, "TIFF"),
    "AVIF": saved(SMOOTH, "AVIF"),
    "HEIC": heic(SMOOTH),
    "JPEG XL": jxl(SMOOTH),
    "JPEG 2000": saved(SMOOTH, "JPEG2000"),
    "WebP": saved(SMOOTH, "WEBP"),
    "BMP": saved(SMOOTH, "BMP"),
    "GIF": saved(SMOOTH, "GIF"),
}
