"""Image files in and out: formats, depth, alpha, orientation, damage; padding and rounding."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import tifffile
from helpers import random_pixels, smooth_pixels, write
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import img_as_ubyte

from restormer_cli.errors import ImageError
from restormer_cli.images.metadata import Density, Metadata
from restormer_cli.images.picture import Picture
from restormer_cli.images.pixels import normalise, quantise
from restormer_cli.images.reading import decode_image, read_image
from restormer_cli.images.writing import OutputOptions, encode_image, write_image
from restormer_cli.restorer import pad, tile_positions
from restormer_cli.system.atomic import atomic_file

SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()


def save(path: Path, image: Any, **settings: Any) -> Path:
    """Save with Pillow what OpenCV cannot write; the suffix says the format."""
    if not isinstance(image, PIL.Image.Image):
        image = PIL.Image.fromarray(np.ascontiguousarray(image))
    image.save(path, **settings)
    return path


def refused(path: Path, *said: str, **settings: Any) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(path, **settings)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    for words in said:
        assert words in sentence


def same(picture: Picture, pixels: Any, alpha: Any = None) -> None:
    np.testing.assert_array_equal(picture.pixels, pixels, strict=True)
    assert picture.pixels.flags.c_contiguous
    if alpha is None:
        assert picture.alpha is None
    else:
        np.testing.assert_array_equal(picture.alpha, alpha, strict=True)


# --- formats -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (17, 9)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".BMP", ".tif", ".TiFF"])
def test_lossless_formats_are_read_exactly(
    tmp_path: Path, suffix: str, channels: int, size: tuple[int, int]
) -> None:
    pixels = random_pixels(*size, channels)
    picture = read_image(write(tmp_path / f"a{suffix}", pixels))
    same(picture, pixels)
    assert picture.bit_depth == 8


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_read_exactly(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels = random_pixels(9, 14, channels, bits=16)
    picture = read_image(write(tmp_path / f"a{suffix}", pixels))
    same(picture, pixels)
    assert picture.bit_depth == 16


def test_webp_is_read_exactly(tmp_path: Path) -> None:
    pixels = random_pixels(9, 14)
    same(read_image(save(tmp_path / "a.WebP", pixels, lossless=True)), pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_is_read_nearly_exactly(tmp_path: Path, suffix: str, mode: str) -> None:
    image = PIL.Image.fromarray(smooth_pixels(40, 60)).convert(mode)
    picture = read_image(save(tmp_path / f"a{suffix}", image, quality=98))
    expected = np.asarray(image).reshape(40, 60, -1).astype(int)
    assert picture.pixels.shape == expected.shape
    assert np.abs(picture.pixels.astype(int) - expected).max() < 8


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_kept_apart_and_exact(tmp_path: Path, suffix: str, bits: int) -> None:
    pixels = random_pixels(9, 14, 4, bits)
    pixels[0, :, 3] = 0  # colour below full transparency is kept as well
    picture = read_image(write(tmp_path / f"a{suffix}", pixels))
    same(picture, pixels[..., :3], pixels[..., 3])


def test_alpha_of_webp_is_kept(tmp_path: Path) -> None:
    pixels = random_pixels(9, 14, 4)
    picture = read_image(save(tmp_path / "a.webp", pixels, lossless=True, exact=True))
    same(picture, pixels[..., :3], pixels[..., 3])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_gray_with_alpha_stays_gray(tmp_path: Path, suffix: str) -> None:
    pixels = random_pixels(9, 14, 2)
    picture = read_image(save(tmp_path / f"a{suffix}", pixels))
    same(picture, pixels[..., :1], pixels[..., 1])


def png_of(color_type: int, samples: Any) -> bytes:
    """A PNG written by hand, for kinds that no library here writes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + crc

    height, width = samples.shape[:2]
    depth = 8 * samples.dtype.itemsize
    rows = samples.astype(samples.dtype.newbyteorder(">")).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def test_16_bit_gray_with_alpha_stays_gray(tmp_path: Path) -> None:
    pixels = random_pixels(9, 14, 2, bits=16)
    (tmp_path / "a.png").write_bytes(png_of(4, pixels))
    same(read_image(tmp_path / "a.png"), pixels[..., :1], pixels[..., 1])


def test_palette_becomes_colour(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(smooth_pixels(20, 30)).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    same(read_image(save(tmp_path / "a.png", image)), expected)
    same(read_image(save(tmp_path / "a.tif", image)), expected)
    same(read_image(save(tmp_path / "a.bmp", image)), expected)


def test_transparency_of_a_palette_is_kept(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(smooth_pixels(20, 30)).quantize(4)
    path = save(tmp_path / "a.png", image, transparency=2)
    with PIL.Image.open(path) as stored:
        expected = np.asarray(stored.convert("RGBA"))
    assert set(np.unique(expected[..., 3])) == {0, 255}
    same(read_image(path), expected[..., :3], expected[..., 3])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_one_bit_becomes_black_and_white(tmp_path: Path, suffix: str) -> None:
    pixels = np.where(random_pixels(9, 14, 1) > 127, 255, 0).astype(np.uint8)
    image = PIL.Image.fromarray(pixels[..., 0]).convert("1", dither=PIL.Image.Dither.NONE)
    same(read_image(save(tmp_path / f"a{suffix}", image)), pixels)


def bmp_of_32_bits(pixels: Any) -> bytes:
    """With masks for red, green and blue, and none for alpha."""
    height, width = pixels.shape[:2]
    body = np.dstack([pixels[::-1, :, ::-1], np.zeros((height, width, 1), np.uint8)]).tobytes()
    start = 14 + 40 + 12
    header = struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start)
    header += struct.pack("<IiiHHIIiiII", 40, width, height, 1, 32, 3, len(body), 0, 0, 0, 0)
    return header + struct.pack("<III", 0xFF0000, 0xFF00, 0xFF) + body


def test_what_is_no_alpha_is_not_taken_for_one(tmp_path: Path) -> None:
    pixels = smooth_pixels(9, 14)
    (tmp_path / "a.bmp").write_bytes(bmp_of_32_bits(pixels))
    same(read_image(tmp_path / "a.bmp"), pixels)
    PIL.Image.fromarray(pixels).convert("CMYK").save(tmp_path / "a.tif")
    picture = read_image(tmp_path / "a.tif")
    assert picture.alpha is None
    assert "CMYK" in picture.notes[0]


def test_cmyk_jpeg_becomes_colour(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(smooth_pixels(32, 32)).convert("CMYK")
    picture = read_image(save(tmp_path / "a.jpg", image, quality=98))
    assert picture.pixels.shape == (32, 32, 3)
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(picture.pixels.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("compression", [1, 5, 8])
def test_compressed_tiff_is_read_exactly(tmp_path: Path, compression: int) -> None:
    pixels = random_pixels(70, 30, bits=16)
    path = write(tmp_path / "a.tif", pixels, (cv2.IMWRITE_TIFF_COMPRESSION, compression))
    same(read_image(path), pixels)


# What the TIFF specification allows and scanners, GIMP and Photoshop write.
TIFFS: dict[str, dict[str, Any]] = {
    "plain": {"photometric": "rgb"},
    "big-endian": {"photometric": "rgb", "byteorder": ">"},
    "BigTIFF": {"photometric": "rgb", "bigtiff": True},
    "tiled": {"photometric": "rgb", "tile": (16, 16)},
    "predictor": {"photometric": "rgb", "compression": "zlib", "predictor": True},
    "planes apart": {"photometric": "rgb", "planarconfig": "separate"},
    "transparent": {"photometric": "rgb", "extrasamples": ["unassalpha"]},
    "gray": {"photometric": "minisblack"},
    "gray tiled": {"photometric": "minisblack", "tile": (16, 16)},
    "gray transparent": {
        "photometric": "minisblack",
        "planarconfig": "contig",
        "extrasamples": ["unassalpha"],
    },
    "white is zero": {"photometric": "miniswhite"},
}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", TIFFS)
def test_tiff_of_every_kind_is_read_exactly_or_refused_but_never_wrong(
    tmp_path: Path, kind: str, bits: int
) -> None:
    settings = TIFFS[kind]
    channels = 3 if settings["photometric"] == "rgb" else 1
    stored = random_pixels(20, 30, channels + ("extrasamples" in settings), bits)
    pixels = stored[..., :channels]
    alpha = stored[..., channels] if "extrasamples" in settings else None
    if kind == "white is zero":
        stored = 2**bits - 1 - stored
    if kind == "planes apart":
        stored = np.ascontiguousarray(stored.transpose(2, 0, 1))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored[..., 0] if stored.shape[2] == 1 else stored, **settings)
    rare = kind in {"planes apart", "white is zero", "gray transparent"} and bits == 16
    try:
        picture = read_image(path)
    except ImageError:
        assert rare  # the common ones must work
    else:
        same(picture, pixels, alpha)


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_that_alpha_has_darkened_are_as_bright_as_before(tmp_path: Path, bits: int) -> None:
    white = 2**bits - 1
    pixels = random_pixels(20, 30, 3, bits)
    alpha = np.maximum(random_pixels(20, 30, 1, bits), white // 2)
    stored = np.rint(pixels * (alpha / white)).astype(pixels.dtype)
    path = tmp_path / "a.tif"
    settings = {"photometric": "rgb", "extrasamples": ["assocalpha"]}
    tifffile.imwrite(path, np.dstack([stored, alpha]), **settings)
    picture = read_image(path)
    np.testing.assert_array_equal(picture.alpha, alpha[..., 0])
    assert np.abs(picture.pixels.astype(int) - pixels).max() <= 2


@pytest.mark.parametrize("bits", [8, 16])
def test_cielab_is_refused(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random_pixels(20, 30, 3, bits), photometric="cielab")
    refused(path, "CIELAB", "convert it to 8 or 16 bit RGB")


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_a_gray_that_stands_for_nothing_becomes_alpha(tmp_path: Path, mode: str) -> None:
    dtype = np.uint8 if mode == "L" else np.uint16
    gray = (np.arange(600, dtype=dtype) // 3 * (1 if mode == "L" else 300)).reshape(20, 30)
    hidden = int(gray[7, 9])
    path = save(tmp_path / "a.png", gray, transparency=hidden)
    alpha = np.where(gray == hidden, 0, np.iinfo(dtype).max).astype(dtype)
    same(read_image(path), gray[..., None], alpha)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_gray_that_stands_for_nothing_may_have_few_bits(tmp_path: Path, bits: int) -> None:
    shades = 2**bits
    row = np.arange(8) % shades
    packed = bytes(
        sum(int(v) << (8 - bits * (i + 1)) for i, v in enumerate(row[j : j + 8 // bits]))
        for j in range(0, 8, 8 // bits)
    )

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(2 * (b"\0" + packed)))
    hidden = chunk(b"tRNS", struct.pack(">H", 1))
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + hidden + pixels + chunk(b"IEND", b""))
    picture = read_image(path)
    levels = np.tile(row * (255 // (shades - 1)), (2, 1)).astype(np.uint8)
    alpha = np.where(np.tile(row, (2, 1)) == 1, 0, 255).astype(np.uint8)
    same(picture, levels[..., None], alpha)


@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "no suffix", "ü ñ 写真 (1).png", "a'b;c&d.png"])
def test_content_decides_the_format_and_names_may_hold_anything(tmp_path: Path, name: str) -> None:
    pixels = random_pixels(9, 14)
    path = tmp_path / name
    path.write_bytes(write(tmp_path / "real.png", pixels).read_bytes())
    same(read_image(path), pixels)


def test_jpeg_called_png_is_read(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", smooth_pixels(20, 20))
    path = (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    assert read_image(path).pixels.shape == (20, 20, 3)


def test_only_the_first_of_several_pages_is_read_and_a_note_says_so(tmp_path: Path) -> None:
    pages = [random_pixels(9, 14, seed=seed) for seed in range(3)]
    images = [PIL.Image.fromarray(page) for page in pages]
    path = save(tmp_path / "a.tif", images[0], save_all=True, append_images=images[1:])
    picture = read_image(path)
    same(picture, pages[0])
    assert len(picture.notes) == 1
    assert "3 pages" in picture.notes[0]
    path = save(
        tmp_path / "a.webp", images[0], save_all=True, append_images=images[1:], lossless=True
    )
    assert "3 frames" in read_image(path).notes[0]
    assert read_image(save(tmp_path / "b.tif", images[0])).notes == ()


# --- orientation -------------------------------------------------------------------------


def stored(upright: Any, orientation: int) -> Any:
    """What a camera stores, from the definition: where row 0 and column 0 of the file are seen.

    1: top, left · 2: top, right · 3: bottom, right · 4: bottom, left · 5: left, top ·
    6: right, top · 7: right, bottom · 8: left, bottom.
    """
    height, width = upright.shape[:2]
    tall = orientation >= 5
    result = np.empty((width, height, *upright.shape[2:]) if tall else upright.shape, upright.dtype)
    for row in range(result.shape[0]):
        for column in range(result.shape[1]):
            y, x = {
                1: (row, column),
                2: (row, width - 1 - column),
                3: (height - 1 - row, width - 1 - column),
                4: (height - 1 - row, column),
                5: (column, row),
                6: (column, width - 1 - row),
                7: (height - 1 - column, width - 1 - row),
                8: (height - 1 - column, row),
            }[orientation]
            result[row, column] = upright[y, x]
    return result


def exif(orientation: int) -> PIL.Image.Exif:
    tags = PIL.Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = random_pixels(6, 11, 4)
    settings = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    path = save(
        tmp_path / f"a{suffix}", stored(upright, orientation), exif=exif(orientation), **settings
    )
    same(read_image(path), upright[..., :3], upright[..., 3])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_orientation_of_jpeg_is_applied(tmp_path: Path, mode: str, orientation: int) -> None:
    upright = np.asarray(PIL.Image.fromarray(smooth_pixels(24, 40)[:, :, [0, 0, 1]]).convert(mode))
    path = save(
        tmp_path / "a.jpg", stored(upright, orientation), exif=exif(orientation), quality=98
    )
    pixels = read_image(path).pixels
    assert pixels.shape == (24, 40, len(mode))
    assert np.abs(pixels.astype(int) - upright.reshape(pixels.shape)).max() < 12


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("channels", [1, 3])
def test_orientation_of_16_bit_tiff_is_applied(
    tmp_path: Path, channels: int, orientation: int
) -> None:
    upright = random_pixels(6, 11, channels, bits=16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored(upright, orientation)[..., 0] if channels == 1 else stored(upright, orientation),
        photometric="minisblack" if channels == 1 else "rgb",
        extratags=[(274, "H", 1, orientation, True)],
    )
    same(read_image(tmp_path / "a.tif"), upright)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_that_does_not_exist_is_ignored(tmp_path: Path, orientation: int) -> None:
    pixels = random_pixels(6, 11)
    same(read_image(save(tmp_path / "a.png", pixels, exif=exif(orientation))), pixels)


def test_damaged_exif_does_not_cost_the_image(tmp_path: Path) -> None:
    pixels = random_pixels(6, 11)
    path = save(tmp_path / "a.png", pixels, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    same(read_image(path), pixels)


# --- damage ------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_file_that_is_cut_off_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    content = write(tmp_path / f"whole{suffix}", random_pixels(64, 64)).read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content[: int(share * len(content))])
    refused(path)


def test_16_bit_colour_tiff_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.tif", random_pixels(64, 64, bits=16))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path)


@pytest.mark.parametrize(
    "content", [b"hello\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"<svg/>", bytes(1000)]
)
def test_file_that_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png")


def test_empty_and_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    refused(tmp_path / "a.png", "0 bytes")
    refused(tmp_path / "missing.png", "cannot be read")
    refused(tmp_path, "is a folder")


def test_images_of_more_pixels_than_the_limit_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", random_pixels(10, 11))
    refused(path, "11×10", "109", max_pixels=109)
    assert read_image(path, max_pixels=110).pixels.shape == (10, 11, 3)


def test_limit_holds_for_kinds_that_only_opencv_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", random_pixels(10, 11, bits=16))
    refused(path, max_pixels=109)


def test_decompression_bomb_is_refused_quickly(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(10**5))
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")):
        crc = struct.pack(">I", zlib.crc32(name + data))
        content += struct.pack(">I", len(data)) + name + data + crc
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png")


@given(st.integers(0, 2**31), st.sampled_from([".png", ".jpg", ".webp", ".tif", ".bmp"]))
def test_damaged_bytes_are_refused_or_read_but_never_crash(seed: int, suffix: str) -> None:
    done, data = cv2.imencode(suffix, random_pixels(16, 16))
    assert done
    rng = np.random.default_rng(seed)
    content = data.ravel().copy()
    for position in rng.integers(0, content.size, 3):
        content[position] = rng.integers(256)

    with contextlib.suppress(ImageError):
        decode_image(content.tobytes(), max_pixels=10**6)


def test_a_resolution_of_the_wrong_type_costs_only_itself(tmp_path: Path) -> None:
    pixels = random_pixels(9, 7)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.tif", dpi=(72, 72))
    content = (tmp_path / "a.tif").read_bytes()
    x_resolution, rational, byte = 282, 5, 1
    tag = struct.pack("<HH", x_resolution, rational)
    assert content.count(tag) == 1
    (tmp_path / "a.tif").write_bytes(content.replace(tag, struct.pack("<HH", x_resolution, byte)))
    picture = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.pixels, pixels)
    assert picture.metadata.density is None


def test_a_png_that_does_not_begin_with_its_header_is_refused(tmp_path: Path) -> None:
    gray = PIL.Image.fromarray(random_pixels(9, 9, 1)[..., 0])
    gray.save(tmp_path / "a.png", transparency=3)
    content = (tmp_path / "a.png").read_bytes()
    text = b"tEXt" + b"a\0" + bytes(20)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    (tmp_path / "a.png").write_bytes(content[:8] + chunk + content[8:])
    refused(tmp_path / "a.png")


# --- writing -----------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read_back_exactly(
    tmp_path: Path, channels: int, alpha: bool, bits: int
) -> None:
    pixels = random_pixels(9, 14, channels, bits)
    mask = random_pixels(9, 14, 1, bits, seed=1)[..., 0] if alpha else None
    path = tmp_path / "deep" / "ü b.png"
    metadata = Metadata(icc=SRGB if channels == 3 else None, density=Density(11811, 5906))
    write_image(path, Picture(pixels, mask, metadata))
    picture = read_image(path)
    np.testing.assert_array_equal(picture.alpha, mask)
    np.testing.assert_array_equal(picture.pixels, pixels, strict=True)
    assert picture.metadata == metadata
    with PIL.Image.open(path) as image:
        image.verify()  # every checksum


def test_compression_level_changes_the_size_alone() -> None:
    picture = Picture(smooth_pixels(200, 200))
    quick, small = (encode_image(picture, OutputOptions(compression=level)) for level in (0, 9))
    assert len(small) < len(quick)
    for data in (quick, small):
        with PIL.Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(np.asarray(image), picture.pixels)


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("existing", [None, b"before"])
def test_interrupted_write_leaves_what_was_there(tmp_path: Path, existing: bytes | None) -> None:
    path = tmp_path / "a.png"
    if existing is not None:
        path.write_bytes(existing)

    def interrupted() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise Stopped

    with pytest.raises(Stopped):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ([] if existing is None else ["a.png"])
    assert existing is None or path.read_bytes() == existing


def test_whole_write_replaces_what_was_there_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"before")
    with atomic_file(path) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]


def test_write_that_fails_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ImageError, match=r"a\.png: cannot be written"):
        write_image(tmp_path / "a.png", Picture(random_pixels(2, 2)))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="cannot be written"):
        write_image(tmp_path / "file" / "a.png", Picture(random_pixels(2, 2)))


def test_longest_name_that_the_file_system_takes_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".png")
    write_image(path, Picture(random_pixels(2, 2)))
    assert path.is_file()


# --- numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_value_survives_normalising_and_quantising(dtype: Any) -> None:
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(-1, 16, 1)
    floats = normalise(values)
    assert floats.dtype == np.float32
    assert (floats.min(), floats.max()) == (0, 1)
    back = quantise(floats, 8 * values.dtype.itemsize)
    np.testing.assert_array_equal(back, values, strict=True)


FLOATS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=12),
    elements=st.floats(0, 1, width=32),
)


@given(FLOATS)
def test_quantising_is_what_scikit_image_does(image: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = img_as_ubyte(image)
    np.testing.assert_array_equal(quantise(image, 8), expected, strict=True)


def test_ties_are_rounded_to_even() -> None:
    # 127.5 is the one tie that float32 / 255 can hold.
    assert quantise(np.full((1, 1, 1), 0.5, np.float32), 8).item() == 128
    assert quantise(np.full((1, 1, 1), 0.5, np.float32), 16).item() == 32768


@given(hnp.arrays(np.float32, (3, 4, 1), elements=st.floats(-9, 9, width=32)))
def test_quantising_clamps_and_leaves_its_input_alone(image: Any) -> None:
    before = image.copy()
    for bits in (8, 16):
        result = quantise(image, bits)
        assert (result[image <= 0] == 0).all()
        assert (result[image >= 1] == 2**bits - 1).all()
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_never_written(value: float) -> None:
    image = np.zeros((2, 2, 3), np.float32)
    image[1, 1, 2] = value
    with pytest.raises(ImageError, match="no numbers"):
        quantise(image, 8)


# --- padding and tiles -------------------------------------------------------------------


@given(st.integers(1, 41), st.integers(1, 41), st.sampled_from([1, 3, 6]))
def test_padding_reflects_to_multiples_of_eight_at_any_size(
    height: int, width: int, channels: int
) -> None:
    image = np.random.default_rng(0).random((height, width, channels), dtype=np.float32)
    padded = pad(image)
    assert padded.shape[0] % 8 == padded.shape[1] % 8 == 0
    assert 0 <= padded.shape[0] - height < 8
    assert 0 <= padded.shape[1] - width < 8
    np.testing.assert_array_equal(padded[:height, :width], image)

    def mirrored(position: int, size: int) -> int:
        period = max(1, 2 * (size - 1))
        position %= period
        return position if position < size else period - position

    rows = [mirrored(y, height) for y in range(padded.shape[0])]
    columns = [mirrored(x, width) for x in range(padded.shape[1])]
    np.testing.assert_array_equal(padded, image[rows][:, columns])


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 39))
def test_tiles_cover_everything_and_stay_inside(size: int, tile: int, overlap: int) -> None:
    tile = min(tile, size)
    overlap = min(overlap, tile - 1)
    positions = tile_positions(size, tile, overlap)
    assert positions[0] == 0
    assert positions[-1] == size - tile
    steps = np.diff(positions)
    assert (steps > 0).all()
    assert (steps <= tile - overlap).all()
