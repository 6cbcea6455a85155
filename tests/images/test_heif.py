"""HEIC, as phones and cameras write it: pixels, orientation, alpha, metadata, damage."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms
import pillow_heif
import pytest
from helpers import random_pixels, smooth_pixels
from image_files import heic

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs import find_codec
from restormer_cli.images.picture import Picture
from restormer_cli.images.reading import decode_image, image_size, read_image
from restormer_cli.images.writing import encode_image

HEIGHT, WIDTH = 64, 96
SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()


def samples_of(bits: int, channels: int) -> Any:
    samples = random_pixels(HEIGHT, WIDTH, channels, 8 if bits == 8 else 16)
    return samples if bits == 8 else samples >> (16 - bits)


def all_of(picture: Picture) -> Any:
    alpha = [] if picture.alpha is None else [picture.alpha[..., None]]
    return np.concatenate([picture.pixels, *alpha], axis=2)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_samples_are_read_exactly_and_spread_over_all(bits: int, channels: int) -> None:
    samples = samples_of(bits, channels)
    picture = decode_image(heic(samples, bits))
    white = 255 if bits == 8 else 65535
    expected = np.rint(samples * (white / (2**bits - 1)))
    np.testing.assert_array_equal(all_of(picture), expected)
    assert picture.bit_depth == (8 if bits == 8 else 16)
    assert (picture.alpha is not None) == (channels == 4)
    assert picture.notes == ()


@pytest.mark.parametrize("tile", [0, 128])
def test_what_phones_store_in_tiles_is_one_picture(tile: int) -> None:
    pixels = smooth_pixels(256, 384)
    np.testing.assert_array_equal(decode_image(heic(pixels, tile_size=tile)).pixels, pixels)


def test_chroma_of_less_resolution_is_read_as_by_others() -> None:
    pixels = smooth_pixels(HEIGHT, WIDTH)
    data = heic(pixels, quality=90, chroma=420, matrix_coefficients=6)
    assert np.abs(decode_image(data).pixels.astype(int) - pixels).max() < 20


TURNS = {1: 0, 3: 2, 6: 3, 8: 1}


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("in_xmp", [False, True])
def test_pictures_are_turned_once(orientation: int, in_xmp: bool, tmp_path: Path) -> None:
    """Phones say it twice: in the file's own terms, which count, and in EXIF's."""
    pixels = smooth_pixels(HEIGHT, WIDTH)
    exif = PIL.Image.Exif()
    exif[274], exif[271] = orientation, "Maker"
    more = {"xmp": b"<x tiff:Orientation='%d'/>" % orientation} if in_xmp else {}
    data = heic(pixels, exif=exif.tobytes(), **more)
    picture = decode_image(data)
    np.testing.assert_array_equal(picture.pixels, np.rot90(pixels, TURNS[orientation]))
    with PIL.Image.open(io.BytesIO(encode_image(picture))) as image:
        assert image.getexif()[274] == 1
        assert image.getexif()[271] == "Maker"
        assert not in_xmp or "tiff:Orientation='1'" in image.info["XML:com.adobe.xmp"]
    path = tmp_path / "a.heic"
    path.write_bytes(data)
    assert image_size(path) == picture.pixels.shape[:2]


def test_exif_alone_does_not_turn_a_picture() -> None:
    """Readers of HEIF heed the file's own rotation; one that EXIF alone names is none."""
    pixels = smooth_pixels(HEIGHT, WIDTH)
    exif = PIL.Image.Exif()
    exif[274] = 6
    data = heic(pixels, exif=exif.tobytes())
    upright = data.replace(b"irot\x03", b"irot\x00")
    assert upright != data
    np.testing.assert_array_equal(decode_image(upright).pixels, pixels)


def test_colours_that_alpha_has_darkened_are_light_again() -> None:
    pixels, alpha = smooth_pixels(HEIGHT, WIDTH), samples_of(8, 1)
    darkened = np.rint(pixels * (alpha / 255)).astype(np.uint8)
    picture = decode_image(heic(np.concatenate([darkened, alpha], axis=2), mode="RGBa"))
    np.testing.assert_array_equal(picture.alpha, alpha[..., 0])
    seen = alpha[..., 0] > 127
    assert np.abs(picture.pixels.astype(int) - pixels)[seen].max() <= 1


def test_profile_and_notes_are_kept() -> None:
    exif = PIL.Image.Exif()
    exif[271], exif[0x8769] = "Maker", {33434: 0.01}
    exif[0x8825] = {1: "N", 2: (46.0, 1.0, 5.0)}
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>me</x:xmpmeta>"
    data = heic(smooth_pixels(8, 8), exif=exif.tobytes(), xmp=xmp, icc_profile=SRGB,
                icc_profile_type="prof")  # fmt: skip
    with PIL.Image.open(io.BytesIO(encode_image(decode_image(data)))) as image:
        assert image.info["icc_profile"] == SRGB
        assert image.info["XML:com.adobe.xmp"] == xmp.decode()
        assert image.getexif()[271] == "Maker"
        assert image.getexif().get_ifd(0x8769)[33434] == 0.01
        assert image.getexif().get_ifd(0x8825)[2] == (46.0, 1.0, 5.0)


@pytest.mark.parametrize(
    ("primaries", "transfer", "kept"),
    [(1, 13, None), (12, 13, b"\x0c\x0d\0\1"), (9, 16, b"\x09\x10\0\1"), (9, 18, b"\x09\x12\0\1")],
)
def test_colours_without_a_profile_are_kept(primaries: int, transfer: int, kept: Any) -> None:
    data = heic(samples_of(10, 3), 10, color_primaries=primaries, transfer_characteristics=transfer)
    assert dict(decode_image(data).metadata.color) == ({b"cICP": kept} if kept else {})


@pytest.mark.parametrize("main", [0, 1, 2])
def test_of_a_burst_the_main_picture_is_read(main: int) -> None:
    burst = [samples_of(8, 3) ^ number for number in (0, 1, 2)]
    pictures = pillow_heif.from_bytes("RGB", (WIDTH, HEIGHT), burst[0].tobytes())
    for samples in burst[1:]:
        pictures.add_frombytes("RGB", (WIDTH, HEIGHT), samples.tobytes())
    file = io.BytesIO()
    pictures.save(
        file, quality=-1, chroma=444, matrix_coefficients=0, primary_index=main, save_all=True
    )
    picture = decode_image(file.getvalue())
    np.testing.assert_array_equal(picture.pixels, burst[main])
    assert picture.notes == ("only the main one of its 3 pictures is restored",)


@pytest.mark.parametrize("tile", [0, 128])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
def test_what_is_cut_off_is_never_filled_up(kept: float, tile: int, tmp_path: Path) -> None:
    data = heic(smooth_pixels(256, 384), tile_size=tile)
    path = tmp_path / "a.heic"
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ImageError, match=r"a\.heic: is a HEIC file that is cut off"):
        read_image(path)


def test_what_phones_append_costs_nothing() -> None:
    pixels = smooth_pixels(HEIGHT, WIDTH)
    data = heic(pixels)
    for tail in (b"abc", struct.pack(">I4s", 10**8, b"sefd") + bytes(99), bytes(99)):
        np.testing.assert_array_equal(decode_image(data + tail).pixels, pixels)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_a_file_is_recognised_by_any_of_its_brands(brand: bytes) -> None:
    data = heic(smooth_pixels(HEIGHT, WIDTH))
    assert find_codec(io.BytesIO(data[:8] + brand + data[12:])).name == "HEIC"


@pytest.mark.parametrize("brand", [b"isom", b"qt  ", b"mp42"])
def test_videos_are_none(brand: bytes) -> None:
    with pytest.raises(ImageError, match="video"):
        decode_image(struct.pack(">I4s4sI4s", 20, b"ftyp", brand, 0, b"isom") + bytes(99))


def test_a_size_that_is_too_much_is_refused_before_it_is_decoded() -> None:
    data = heic(smooth_pixels(HEIGHT, WIDTH))
    size = struct.pack(">II", WIDTH, HEIGHT)
    assert size in data
    with pytest.raises(ImageError, match=r"claims 20000×20000 pixels"):
        decode_image(data.replace(size, struct.pack(">II", 20_000, 20_000)), max_pixels=10**6)

    def refuse(height: int, width: int) -> None:
        raise ImageError(f"no {width}×{height}")

    with pytest.raises(ImageError, match="no 96×64"):
        decode_image(data, check_size=refuse)
