"""Results in each format, read back by another library; and what a format cannot hold."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
import PIL.JpegImagePlugin
import pytest
import tifffile
from helpers import random_pixels, smooth_pixels
from hypothesis import given
from hypothesis import strategies as st
from image_files import avif, heic, jxl, tiff_by_library

from restormer_cli.errors import ImageError, UsageError
from restormer_cli.images.codecs.base import Pixels
from restormer_cli.images.formats import FORMATS, PNG, OutputFormat, find_format, result_suffixes
from restormer_cli.images.metadata import Density, Metadata
from restormer_cli.images.picture import Picture
from restormer_cli.images.reading import decode_image
from restormer_cli.images.writing import OutputOptions, encode_image

JPEG, TIFF, WEBP, AVIF = (find_format(name) for name in ("jpeg", "tiff", "webp", "avif"))
#: With --quality, each way to write without loss.
LOSSLESS = [(PNG, None), (TIFF, None), (WEBP, 100), (AVIF, 100)]


def picture(channels: int, bits: int = 8, height: int = 23, width: int = 31) -> Picture:
    """Noise in gray, gray with alpha, colour, or colour with alpha."""
    samples = random_pixels(height, width, channels, bits)
    if channels in (2, 4):
        return Picture(samples[..., :-1], samples[..., -1])
    return Picture(samples)


def samples_of(data: bytes, form: OutputFormat) -> Any:
    """``(H, W, C)`` as another library reads it than the one that wrote it."""
    # tifffile, OpenCV and Pillow wrote them.
    decode = {
        PNG: imagecodecs.png_decode,
        TIFF: imagecodecs.tiff_decode,
        JPEG: imagecodecs.jpeg8_decode,
        WEBP: imagecodecs.webp_decode,
        AVIF: imagecodecs.avif_decode,
    }[form]
    found = decode(data)
    return found.reshape(*found.shape[:2], -1)


def as_held(given: Picture, form: OutputFormat) -> Any:
    """``(H, W, C)`` of a picture, gray as colour where the format has no gray."""
    pixels = given.pixels
    if given.mode not in form.modes:
        pixels = np.repeat(pixels, 3, axis=2)
    return pixels if given.alpha is None else np.dstack([pixels, given.alpha])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("form", "quality"), LOSSLESS, ids=lambda it: getattr(it, "name", it))
def test_formats_without_loss_keep_every_bit(
    form: OutputFormat, quality: int | None, channels: int
) -> None:
    for bits in form.bits:
        if bits in (10, 12):
            continue
        given = picture(channels, bits)
        data = encode_image(given, OutputOptions(form, quality))
        np.testing.assert_array_equal(samples_of(data, form), as_held(given, form), strict=True)
        again = decode_image(data)
        np.testing.assert_array_equal(again.pixels[..., 0], given.pixels[..., 0], strict=True)
        assert (again.alpha is None) == (given.alpha is None)


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_deep_avif_without_loss_keeps_all_that_its_bits_hold(channels: int, bits: int) -> None:
    given = picture(channels, 16)
    data = encode_image(given, OutputOptions(AVIF, 100, bits))
    largest = (1 << bits) - 1
    expected = np.rint(as_held(given, AVIF) * (largest / 65535)).astype(np.uint16)
    np.testing.assert_array_equal(samples_of(data, AVIF), expected, strict=True)
    again = decode_image(data)
    assert again.bit_depth == 16
    assert abs(again.pixels[..., 0].astype(int) - given.pixels[..., 0]).max() <= 65535 / largest


@given(st.sampled_from(LOSSLESS), st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
def test_any_size_can_be_written(
    how: tuple[OutputFormat, int | None], height: int, width: int, channels: int
) -> None:
    given = picture(channels, 8, height, width)
    data = encode_image(given, OutputOptions(*how))
    np.testing.assert_array_equal(samples_of(data, how[0]), as_held(given, how[0]), strict=True)


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("form", [JPEG, WEBP, AVIF], ids=lambda form: form.name)
def test_usual_quality_looks_like_the_picture_and_less_is_smaller(
    form: OutputFormat, gray: bool
) -> None:
    pixels: Pixels = smooth_pixels(120, 160)[..., : 1 if gray else 3]
    usual = encode_image(Picture(pixels), OutputOptions(form))
    difference = samples_of(usual, form).astype(int) - pixels
    assert abs(difference).max() <= 8
    assert abs(difference).mean() < 1
    worse = encode_image(Picture(random_pixels(64, 64)), OutputOptions(form, 20))
    better = encode_image(Picture(random_pixels(64, 64)), OutputOptions(form, 90))
    assert len(worse) < len(better)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("form", [WEBP, AVIF], ids=lambda form: form.name)
def test_alpha_is_exact_in_webp_and_nearly_so_in_avif(
    form: OutputFormat, channels: int, bits: int
) -> None:
    given = picture(channels, bits)
    data = encode_image(given, OutputOptions(form))
    found = samples_of(data, form)[..., -1]
    held = min(bits, form.bits[-1])
    expected = np.rint(np.float64(given.alpha) * (((1 << held) - 1) / ((1 << bits) - 1)))
    assert abs(found - expected).max() <= (0 if form is WEBP else 0.02 * (1 << held))


@pytest.mark.parametrize("quality", [None, 30, 100])
def test_jpeg_has_colours_of_full_resolution(quality: int | None) -> None:
    data = encode_image(picture(3), OutputOptions(JPEG, quality))
    with PIL.Image.open(io.BytesIO(data)) as image:
        assert PIL.JpegImagePlugin.get_sampling(image) == 0  # 4:4:4


def test_avif_of_8_bit_has_colours_of_full_resolution() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, ::2, 0] = 255  # stripes one pixel wide
    found = samples_of(encode_image(Picture(pixels), OutputOptions(AVIF, 95)), AVIF)
    assert abs(found.astype(int) - pixels).max() < 40


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_is_compressed_without_loss(bits: int) -> None:
    pixels = smooth_pixels(100, 120)
    if bits == 16:
        pixels = pixels.astype(np.uint16) * 257
    data = encode_image(Picture(pixels), OutputOptions(TIFF))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.predictor == tifffile.PREDICTOR.HORIZONTAL
        np.testing.assert_array_equal(page.asarray(), pixels, strict=True)
    assert len(data) < pixels.nbytes / 2


@pytest.mark.parametrize(("channels", "kind"), [(2, "minisblack"), (4, "rgb")])
def test_alpha_of_tiff_is_said_not_to_darken_colours(channels: int, kind: str) -> None:
    data = encode_image(picture(channels, 16), OutputOptions(TIFF))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        assert page.photometric == tifffile.PHOTOMETRIC[kind.upper()]
        assert page.extrasamples == (tifffile.EXTRASAMPLE.UNASSALPHA,)


def test_tiff_of_more_than_four_gigabytes_would_be_a_bigtiff(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("restormer_cli.images.formats.tiff.CLASSIC_TIFF", 1000)
    given = picture(4, 16)
    data = encode_image(given, OutputOptions(TIFF))
    assert data[:4] in (b"II+\0", b"MM\0+")
    np.testing.assert_array_equal(decode_image(data).pixels, given.pixels)


def test_png_of_more_than_a_chunk_holds_has_several(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Picture(random_pixels(16, 24)[..., :1], random_pixels(16, 24)[..., 1])
    usual = encode_image(picture)
    assert usual.count(b"IDAT") == 1
    monkeypatch.setattr("restormer_cli.images.formats.png.LARGEST_CHUNK", 100)
    data = encode_image(picture)
    assert data.count(b"IDAT") > 3
    for pixels in (imagecodecs.png_decode(data), imagecodecs.png_decode(usual)):
        np.testing.assert_array_equal(pixels, picture.samples())


def test_transparent_parts_of_a_jpeg_show_white_or_the_background() -> None:
    pixels = np.full((16, 16, 3), 40, np.uint8)
    alpha = np.repeat(np.uint8([0, 0, 255, 255])[None].repeat(16, 0), 4, axis=1)
    for background, ground in ((None, 255), ((0x8080,) * 3, 128)):
        given = Picture(pixels, alpha, Metadata(background=background))
        output = OutputOptions(JPEG, 100)
        prepared = output.prepare(given)
        assert len(prepared.notes) == 1
        assert "JPEG has no transparency" in prepared.notes[0]
        found = samples_of(encode_image(prepared, output), JPEG).astype(int)
        assert abs(found[:, :8] - ground).max() <= 2
        assert abs(found[:, 8:] - 40).max() <= 2


@given(st.integers(0, 255), st.integers(0, 255), st.sampled_from([1, 3]))
def test_half_transparent_pixels_are_mixed(level: int, alpha: int, channels: int) -> None:
    given = Picture(np.full((8, 8, channels), level, np.uint8), np.full((8, 8), alpha, np.uint8))
    found = samples_of(encode_image(given, OutputOptions(JPEG, 100)), JPEG)
    expected = level * alpha / 255 + 255 - alpha
    assert abs(found.astype(float) - expected).max() <= 2


def test_alpha_that_hides_nothing_is_no_loss() -> None:
    given = replace(picture(3), alpha=np.full((23, 31), 255, np.uint8))
    assert OutputOptions(JPEG).prepare(given).notes == ()
    assert OutputOptions(JPEG).prepare(given).alpha is None
    assert OutputOptions(WEBP).prepare(given).alpha is not None


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_bits_that_a_format_has_not_are_told(form: OutputFormat) -> None:
    notes = OutputOptions(form).prepare(picture(3, 16)).notes
    most = form.bits[-1]
    expected = () if most == 16 else (f"becomes {most} bit, since {form.title} has no more",)
    assert notes == expected
    assert OutputOptions(form).prepare(picture(3, 8)).notes == ()
    assert OutputOptions(form, bit_depth=8).prepare(picture(3, 16)).notes == ()


def files_of(bits: int) -> dict[str, bytes]:
    """Files whose samples have so many bits, by format."""
    colour, gray = (random_pixels(16, 16, count, 16) >> (16 - bits) for count in (3, 1))
    found = {
        "JPEG XL": jxl(colour, bits),
        "JPEG 2000": imagecodecs.jpeg2k_encode(colour, bitspersample=bits),
        "TIFF": tiff_by_library(colour, photometric="rgb", bitspersample=bits),
    }
    if bits <= 12:
        found |= {"AVIF": avif(gray, bits), "HEIC": heic(colour, bits)}
    if bits == 12:
        found["JPEG"] = imagecodecs.jpeg8_encode(colour, bitspersample=bits)
    return found


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_bits_that_a_file_has_not_are_not_told(bits: int) -> None:
    for name, data in files_of(bits).items():
        given = decode_image(data)
        assert given.pixels.dtype == np.uint16, name
        for form in (PNG, AVIF, JPEG):
            told = [note for note in OutputOptions(form).prepare(given).notes if "bit" in note]
            most = form.bits[-1]
            lost = [f"becomes {most} bit, since {form.title} has no more"] if most < bits else []
            assert told == lost, name


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quality": 90}, "--quality: PNG has none"),
        ({"format": TIFF, "quality": 90}, "--quality: TIFF has none"),
        ({"format": JPEG, "quality": 0}, "from 1 to 100"),
        ({"format": JPEG, "quality": 101}, "from 1 to 100"),
        ({"format": JPEG, "bit_depth": 16}, "--bit-depth 16: JPEG has 8 bit"),
        ({"format": AVIF, "bit_depth": 16}, "AVIF has 8 or 10 or 12 bit"),
        ({"bit_depth": 10}, "PNG has 8 or 16 bit"),
        ({"format": WEBP, "compression": 3}, "--png-compression: is for PNG"),
    ],
)
def test_what_a_format_cannot_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        OutputOptions(**settings)


@pytest.mark.parametrize("form", [JPEG, WEBP, AVIF], ids=lambda form: form.name)
def test_the_largest_side_is_the_encoders_own(form: OutputFormat) -> None:
    side = form.largest_side
    form.check_size(1, side)
    pixels = np.zeros((1, side, 3), np.uint8)
    data = encode_image(Picture(pixels), OutputOptions(form, 50))
    assert decode_image(data).pixels.shape[1] == side
    for size in ((1, side + 1), (side + 1, 1)):
        with pytest.raises(ImageError, match=rf"{form.title} takes no more than {side} a side"):
            form.check_size(*size)


def test_too_large_a_picture_gets_told_which_formats_take_it() -> None:
    with pytest.raises(ImageError, match="choose --format png or tiff or jpeg or avif"):
        WEBP.check_size(16_384, 10)
    with pytest.raises(ImageError, match="268 megapixels; choose --format png or tiff or jpeg"):
        AVIF.check_size(20_000, 20_000)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_names_and_suffixes_of_a_format_find_it(form: OutputFormat) -> None:
    for name in (form.name, form.name.upper(), form.suffix, *form.suffixes, form.suffix[1:]):
        assert find_format(name) is form
    assert len(form.describe()) == len(PNG.describe())
    assert form.suffix in result_suffixes()


def test_format_without_a_place_for_anything_tells_all_of_it() -> None:
    bare = OutputFormat("bare", "BARE", (".bare",), (8,), frozenset({"RGB"}), 100)
    metadata = Metadata(b"profile", b"II*\0\x08\0\0\0\0\0\0\0\0\0", b"<x/>", Density(1, 1))
    prepared = OutputOptions(bare).prepare(Picture(random_pixels(4, 4), metadata=metadata))
    assert prepared.metadata == Metadata()
    parts = ("EXIF", "resolution", "colour profile", "XMP")
    assert prepared.notes == tuple(
        f"its {part} is left out, since BARE cannot hold it" for part in parts
    )
    assert "nothing" in bare.describe()


def test_help_waits_for_no_library() -> None:
    words = "import sys, restormer_cli.cli.options; "
    words += "print({'numpy', 'cv2', 'PIL', 'tifffile', 'imagecodecs'} & sys.modules.keys())"
    ran = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match="no format 'gif'; choose png, tiff, jpeg, webp, avif"):
        find_format("gif")


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_result_is_the_same_tomorrow(form: OutputFormat) -> None:
    """No time, version or chance gets into a file."""
    output = OutputOptions(form)
    metadata = Metadata(color=((b"sRGB", b"\0"), (b"gAMA", (45455).to_bytes(4, "big"))))
    given = output.prepare(replace(picture(3), metadata=metadata))
    assert encode_image(given, output) == encode_image(given, output)
    assert b"tifffile" not in encode_image(given, output)
