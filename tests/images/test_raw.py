"""Raw files of cameras, developed: known light, orientation, EXIF, damage.

The cameras are of the tests' own making: DNG files whose sensor sees sRGB.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile
from helpers import random_pixels, smooth_pixels
from image_files import BAYER, WHITE_LEVEL, bayer, dng, saved, srgb

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs import find_codec, raw
from restormer_cli.images.metadata import Found
from restormer_cli.images.reading import decode_image, image_size, read_image
from restormer_cli.images.writing import encode_image

HEIGHT, WIDTH = 64, 96
COLOUR = (1000, 2000, 500)
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>me</x:xmpmeta>"


def developed(*light: float) -> Any:
    return 65535 * srgb(np.array(light))


def test_a_colour_is_that_of_the_light() -> None:
    picture = decode_image(dng(bayer(HEIGHT, WIDTH, COLOUR)))
    assert picture.pixels.shape == (HEIGHT, WIDTH, 3)
    assert picture.bit_depth == 16
    expected = developed(*np.array(COLOUR) / WHITE_LEVEL)
    assert np.abs(picture.pixels[10:-4, 4:-4] - expected).max() < 16  # of 65535
    assert picture.metadata.color == ((b"sRGB", b"\0"),)
    assert picture.notes == ()


def test_white_balance_is_the_cameras() -> None:
    """What it measured of something white becomes gray."""
    picture = decode_image(dng(bayer(HEIGHT, WIDTH, COLOUR), neutral=(0.5, 1, 0.25)))
    expected = developed(2000 / WHITE_LEVEL)
    assert np.abs(picture.pixels[10:-4, 4:-4] - expected).max() < 16


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_samples_of_any_depth_are_developed_pixel_by_pixel(bits: int) -> None:
    samples = random_pixels(HEIGHT, WIDTH, 3, 16) >> (16 - bits)
    samples[0, 0] = white = 2**bits - 1
    samples = samples.astype(np.uint8) if bits == 8 else samples
    picture = decode_image(dng(samples, white=white))
    error = np.abs(picture.pixels - developed(*samples.ravel() / white).reshape(samples.shape))
    assert error.max() < 100  # since LibRaw holds light in 16 bit, near black most


def test_photos_of_a_series_stay_as_bright_as_they_are_to_each_other() -> None:
    dark, light = (
        decode_image(dng(bayer(HEIGHT, WIDTH, (level,) * 3))).pixels[30, 40, 1]
        for level in (100, 1600)
    )
    assert np.abs([dark, light] - developed(100 / WHITE_LEVEL, 1600 / WHITE_LEVEL)).max() < 16


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pictures_are_turned_once(orientation: int, tmp_path: Path) -> None:
    samples = np.ascontiguousarray(smooth_pixels(HEIGHT, WIDTH).astype(np.uint16) << 4)
    upright = decode_image(dng(samples)).pixels
    path = tmp_path / "a.dng"
    path.write_bytes(dng(samples, orientation=orientation))
    picture = read_image(path)
    turns = {1: 0, 3: 2, 6: 3, 8: 1}[orientation]
    np.testing.assert_array_equal(picture.pixels, np.rot90(upright, turns))
    assert image_size(path) == picture.pixels.shape[:2]


def with_preview(**settings: Any) -> bytes:
    """As most cameras store it: a preview first, and what the sensor measured below its page."""
    file = io.BytesIO()
    whole = dng(bayer(HEIGHT, WIDTH, COLOUR), **settings)
    with tifffile.TiffFile(io.BytesIO(whole)) as parsed:
        tags = [
            (tag.code, tag.dtype, tag.count, tag.value, True)
            for tag in parsed.pages.first.tags  # type: ignore[union-attr]
            if tag.code in (271, 272, 274, 700, 50706, 50707, 50708, 50721, 50728, 50778)
        ]
    pattern = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, (0, 1, 1, 2), True)]
    pattern.append((50717, 4, 1, WHITE_LEVEL, True))
    with tifffile.TiffWriter(file) as writer:
        writer.write(smooth_pixels(16, 24), photometric="rgb", subfiletype=1, subifds=1,
                     extratags=tags, metadata=None, software=False)  # fmt: skip
        writer.write(bayer(HEIGHT, WIDTH, COLOUR), photometric=BAYER, subfiletype=0,
                     extratags=pattern, metadata=None)  # fmt: skip
    return file.getvalue()


def test_what_the_sensor_measured_is_developed_and_not_the_preview() -> None:
    picture = decode_image(with_preview(orientation=6))
    assert picture.pixels.shape == (WIDTH, HEIGHT, 3)
    expected = developed(*np.array(COLOUR) / WHITE_LEVEL)
    assert np.abs(picture.pixels[4:-4, 4:-10] - expected).max() < 16


def noted(data: bytes) -> Any:
    with PIL.Image.open(io.BytesIO(encode_image(decode_image(data)))) as image:
        return image.getexif(), image.info.get("XML:com.adobe.xmp")


@pytest.mark.parametrize("make", [dng, lambda _, **settings: with_preview(**settings)])
def test_what_the_camera_noted_is_kept(make: Any) -> None:
    data = make(bayer(HEIGHT, WIDTH, COLOUR), extratags=((700, 1, len(XMP), XMP, True),))
    exif, xmp = noted(data)
    assert (exif[271], exif[272]) == ("Maker", "Model")
    assert 274 not in exif
    assert xmp == XMP.decode()


# --- formats of which no library writes a file: only what is read by hand -----------------------


def exif_tiff(*entries: tuple[int, str]) -> bytes:
    """A TIFF structure of texts."""
    exif = PIL.Image.Exif()
    for tag, text in entries:
        exif[tag] = text
    return exif.tobytes().removeprefix(b"Exif\0\0")


def box(kind: bytes, *inner: bytes) -> bytes:
    body = b"".join(inner)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def exif_of(data: bytes) -> Any:
    found = Found()
    raw.CODEC.read_metadata(found, data)
    exif = PIL.Image.Exif()
    exif.load(found.exif or b"")
    return exif


def canon(*parts: bytes) -> bytes:
    identity = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
    others = box(b"uuid", bytes(16), b"something else")
    movie = box(b"moov", others, box(b"uuid", identity, *parts), box(b"mvhd", bytes(9)))
    return box(b"ftyp", b"crx \0\0\0\1crx isom") + movie + box(b"mdat", bytes(999))


def test_exif_of_canon_is_put_together() -> None:
    about, photo, place = (
        exif_tiff((271, "Canon"), (306, "2026:05:01 12:00:00")),
        exif_tiff((36867, "2026:05:01 12:00:00"), (37500, "notes of the maker")),
        exif_tiff((1, "N"), (29, "2026:05:01")),
    )
    parts = [box(b"CNCV", bytes(30)), box(b"CMT1", about), box(b"CMT2", photo)]
    exif = exif_of(canon(*parts, box(b"CMT3", bytes(50)), box(b"CMT4", place)))
    assert exif[271] == "Canon"
    assert exif.get_ifd(0x8769) == {36867: "2026:05:01 12:00:00"}
    assert exif.get_ifd(0x8825)[29] == "2026:05:01"
    exif = exif_of(canon(*parts[:2]))
    assert exif[271] == "Canon"
    assert 0x8769 not in exif
    for damaged in (b"", b"II*\0", box(b"CMT1", b"II"), box(b"CMT1", about[:20])):
        assert not exif_of(canon(damaged))


def fuji(preview: bytes, samples: int = 99) -> bytes:
    head = b"FUJIFILMCCD-RAW 0201FF389501".ljust(84, b"\0")
    parts = struct.pack(
        ">6I", 108, len(preview), 108 + len(preview), 0, 108 + len(preview), samples
    )
    return head + parts + preview + bytes(samples)


def test_exif_of_fuji_is_that_of_its_preview() -> None:
    exif = PIL.Image.Exif()
    exif[271], exif[274] = "FUJIFILM", 6
    exif[0x8769] = {33434: 0.01}
    preview = saved(smooth_pixels(8, 12), "JPEG", exif=exif, xmp=XMP)
    found = exif_of(fuji(preview))
    assert found[271] == "FUJIFILM"
    assert found.get_ifd(0x8769)[33434] == 0.01
    assert not exif_of(fuji(b"") + bytes(99))
    assert not exif_of(fuji(preview)[:50])


# --- damage, and what is no raw file ------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: dng(bayer(HEIGHT, WIDTH, COLOUR)), with_preview])
@pytest.mark.parametrize("kept", [0.5, 0.9, 0.99])
def test_what_is_cut_off_is_never_filled_up(make: Any, kept: float, tmp_path: Path) -> None:
    data = make()
    path = tmp_path / "a.nef"
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ImageError, match=r"a\.nef: is a camera raw file that is cut off"):
        read_image(path)


def test_cut_off_files_of_other_makers_are_called_so() -> None:
    for data in (canon(box(b"CMT1", bytes(9)))[:-9], fuji(bytes(300))[:-9]):
        with pytest.raises(ImageError, match="is a camera raw file that is cut off"):
            decode_image(data)


STARTS = [
    b"II*\0\x10\0\0\0CR\2\0",
    b"II*\0\x10\0\0\0IIII",
    b"\0\0\0\x18ftypcrx ",
    b"FUJIFILMCCD-RAW 0201",
    b"IIRO\x08\0\0\0",
    b"MMOR\0\0\0\x08",
    b"IIU\0\x18\0\0\0",
    b"FOVb",
    b"\0MRM",
    b"II\x1a\0\0\0HEAPCCDR",
]


@pytest.mark.parametrize("start", STARTS)
def test_what_only_begins_like_a_raw_file_costs_one_line(start: bytes) -> None:
    for data in (start, start + bytes(500), start + random_pixels(99, 99).tobytes()):
        assert find_codec(io.BytesIO(data)).name == "camera raw"
        with pytest.raises(ImageError, match=r"^is a camera raw file ") as caught:
            decode_image(data)
        assert "\n" not in str(caught.value)


def test_a_usual_tiff_is_none() -> None:
    for data in (saved(smooth_pixels(9, 9), "TIFF"), saved(smooth_pixels(9, 9)[..., 0], "TIFF")):
        assert find_codec(io.BytesIO(data)).name == "TIFF"


def test_a_size_that_is_too_much_is_refused_before_it_is_decoded() -> None:
    data = dng(bayer(HEIGHT, WIDTH, COLOUR))
    with pytest.raises(ImageError, match="claims 96×64 pixels"):
        decode_image(data, max_pixels=1000)

    def refuse(height: int, width: int) -> None:
        raise ImageError(f"no {width}×{height}")

    with pytest.raises(ImageError, match="no 96×64"):
        decode_image(data, check_size=refuse)
