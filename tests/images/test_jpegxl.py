"""JPEG XL: samples of every depth, what its header says, and the boxes around it."""

from __future__ import annotations

import base64
import io
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
from helpers import random_pixels, smooth_pixels
from image_files import jxl, saved

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs.jpegxl_header import Header, read_header
from restormer_cli.images.picture import Picture
from restormer_cli.images.reading import decode_image, image_size
from restormer_cli.images.writing import encode_image

HEIGHT, WIDTH = 20, 30
SMOOTH = smooth_pixels(64, 96)
SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>me</x:xmpmeta>"
#: How files begin that consist of boxes.
SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n" + struct.pack(">I4s4sI4s", 20, b"ftyp", b"jxl ", 0, b"jxl ")


def all_of(picture: Picture) -> Any:
    alpha = [] if picture.alpha is None else [picture.alpha[..., None]]
    return np.concatenate([picture.pixels, *alpha], axis=2)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_samples_are_read_exactly_and_spread_over_all(bits: int, channels: int) -> None:
    samples = random_pixels(HEIGHT, WIDTH, channels, 8 if bits == 8 else 16)
    samples = samples if bits == 8 else samples >> (16 - bits)
    picture = decode_image(jxl(samples, bits))
    white = 255 if bits == 8 else 65535
    np.testing.assert_array_equal(all_of(picture), np.rint(samples * (white / (2**bits - 1))))
    assert picture.bit_depth == (8 if bits == 8 else 16)
    assert picture.notes == ()


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_floating_point_becomes_16_bit(kind: type, channels: int) -> None:
    samples = (random_pixels(HEIGHT, WIDTH, channels, 16) / 65535).astype(kind)
    samples[samples < 0.001] = 0  # libjxl itself is not exact for the least of half precision
    expected = np.rint(samples.astype(np.float32) * np.float32(65535))
    np.testing.assert_array_equal(all_of(decode_image(jxl(samples))), expected)


def test_floating_point_beyond_white_is_clipped_with_a_count() -> None:
    samples = np.full((HEIGHT, WIDTH, 3), 0.5, np.float32)
    samples[0, 0] = 1.5, -0.1, 1
    picture = decode_image(jxl(samples))
    assert picture.pixels[0, 0].tolist() == [65535, 0, 65535]
    assert picture.notes == (
        "has 2 of 1800 floating-point samples outside of 0 to 1; they are clipped",
    )


def test_with_loss_it_looks_as_it_did() -> None:
    pixels = decode_image(jxl(SMOOTH, lossless=False, level=95)).pixels
    assert np.abs(pixels.astype(int) - SMOOTH).max() < 20


def test_of_an_animation_the_first_frame_is_read() -> None:
    frames = np.stack([random_pixels(HEIGHT, WIDTH, seed=seed) for seed in range(3)])
    picture = decode_image(jxl(frames))
    np.testing.assert_array_equal(picture.pixels, frames[0])
    assert picture.notes == ("only the first of its frames is restored",)


# --- the header, written bit by bit --------------------------------------------------------


def bits(*fields: tuple[int, int]) -> bytes:
    """Numbers and how many bits each takes, the first in the lowest ones, behind FF 0A."""
    value = place = 0
    for number, count in fields:
        assert number < 1 << count
        value |= number << place
        place += count
    return b"\xff\x0a" + value.to_bytes(place // 8 + 1, "little")


FLAG, NO = (1, 1), (0, 1)
TEN_BY_TWENTY = ((0, 1), (0, 2), (9, 9), (7, 3))  # 10 rows, 2:1
RGB_D65 = (NO, NO, (0, 2), (1, 2))
USUAL_DEPTH = (NO, (0, 2), FLAG, (0, 2), FLAG)
ENUM_OF = {value: ((2, 2), (value - 2, 4)) for value in range(2, 18)} | {
    0: ((0, 2),), 1: ((1, 2),), 18: ((3, 2), (0, 6)),
}  # fmt: skip


def coordinate(value: float) -> tuple[tuple[int, int], ...]:
    packed = 2 * round(abs(value) * 1e6) - (value < 0)
    for way, (count, offset) in enumerate(((19, 0), (19, 1 << 19), (20, 1 << 20), (21, 1 << 21))):
        if packed - offset < 1 << count:
            return (way, 2), (packed - offset, count)
    raise AssertionError


@pytest.mark.parametrize("height", [1, 8, 256, 512, 8192, 300_000])
@pytest.mark.parametrize("width", [1, 40, 600, 9_000, 1_000_000])
def test_any_size_is_told_by_the_header(height: int, width: int) -> None:
    def side(value: int) -> tuple[tuple[int, int], ...]:
        way = next(i for i, count in enumerate((9, 13, 18, 30)) if value <= 1 << count)
        return (way, 2), (value - 1, (9, 13, 18, 30)[way])

    header = read_header(bits(NO, *side(height), (0, 3), *side(width), FLAG))
    assert (header.height, header.width) == header.upright == (height, width)


def test_small_sizes_and_ratios_are_told_by_the_header() -> None:
    ratios = [(1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1)]
    for number, (across, down) in enumerate(ratios, 1):
        header = read_header(bits(FLAG, (14, 5), (number, 3), FLAG))
        assert header.upright == (120, 120 * across // down)
    assert read_header(bits(FLAG, (14, 5), (0, 3), (2, 5), FLAG)).upright == (120, 24)


@pytest.mark.parametrize("preview", [True, False])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_that_stands_in_front_of_the_colours_is_passed(orientation: int, preview: bool) -> None:
    fields = [*TEN_BY_TWENTY, NO, FLAG, (orientation - 1, 3)]
    fields += [FLAG, FLAG, (3, 5), (1, 3)]  # meant to be shown at 32×32
    fields += [FLAG, FLAG, (2, 2), (7, 5), (1, 3)] if preview else [NO]
    fields += [FLAG, (0, 2), (1, 2), (3, 2), (9, 32), NO]  # 100 ticks in 1.001 s, 9 times
    fields += [NO, (3, 2), (13, 6), NO]  # 14 bit
    fields += [(2, 2), (1, 4)]  # three channels: alpha, darkened; depth with a name; a spot colour
    fields += [NO, (0, 2), NO, (0, 2), (0, 2), (0, 2), FLAG]
    fields += [NO, (1, 2), NO, (0, 2), (1, 2), (1, 2), (3, 4), *[(65, 8)] * 3]
    fields += [NO, (2, 2), (0, 4), NO, (0, 2), (0, 2), (0, 2), *[(1, 16)] * 4]
    fields += [NO, NO, NO, (0, 2), (1, 2), (2, 2), (9, 4), NO, (2, 2), (11, 4), (0, 2)]  # P3, sRGB
    header = read_header(bits(*fields))
    assert header.upright == ((20, 10) if orientation >= 5 else (10, 20))
    assert header == Header(
        10, 20, orientation, True, 14, (0, 1, 2), True, False, False, (12, 13), 0.45455,
        (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    )  # fmt: skip


def colours(*fields: tuple[int, int]) -> Header:
    return read_header(bits(*TEN_BY_TWENTY, NO, NO, *USUAL_DEPTH, *fields))


def test_the_header_names_colours() -> None:
    assert colours(FLAG).code_points == (1, 13)
    assert colours(NO, FLAG, (0, 2)).profile
    for primaries, number in ((1, 1), (9, 9), (11, 12)):
        for transfer in (1, 8, 13, 16, 17, 18):
            header = colours(*RGB_D65, *ENUM_OF[primaries], NO, *ENUM_OF[transfer])
            assert header.code_points == (number, transfer)
    gray = colours(NO, NO, (1, 2), (1, 2), FLAG, (4_545_450, 24))
    assert (gray.code_points, gray.gamma, gray.chromaticities) == (None, 0.454545, ())
    points = [0.3, 0.31, 0.7347, 0.2653, -0.01, 0.7, 1.2, 0.0001]
    own = [field for value in points[2:] for field in coordinate(value)]
    white = [field for value in points[:2] for field in coordinate(value)]
    custom = ((2, 2), (0, 4))
    header = colours(NO, NO, (0, 2), *custom, *white, *custom, *own, NO, *ENUM_OF[8])
    assert header.code_points is None
    assert header.chromaticities == pytest.approx(points)
    assert header.gamma == 1


def test_a_header_that_is_cut_off_is_no_fault_of_ours() -> None:
    whole = bits(*TEN_BY_TWENTY, NO, NO, *USUAL_DEPTH, *RGB_D65, *ENUM_OF[9], NO, *ENUM_OF[16])
    for stop in range(len(whole) - 1):
        with pytest.raises(ImageError, match="cut off"):
            read_header(whole[:stop])


# --- the boxes -----------------------------------------------------------------------------


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def in_boxes(codestream: bytes, *before: bytes, parts: int = 1) -> bytes:
    """A codestream in one box or in several, behind others."""
    if parts == 1:
        return b"".join([SIGNATURE, *before, box(b"jxlc", codestream)])
    size = -(-len(codestream) // parts)
    numbered = [
        box(b"jxlp", struct.pack(">I", number | (number + 1 == parts) << 31) + part)
        for number, part in enumerate(
            codestream[start : start + size] for start in range(0, len(codestream), size)
        )
    ]
    return b"".join([SIGNATURE, *before, *numbered])


def exif_of(orientation: int = 1) -> bytes:
    exif = PIL.Image.Exif()
    exif[274], exif[271], exif[0x8769] = orientation, "Maker", {33434: 0.01}
    return exif.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("parts", [1, 3])
def test_metadata_is_kept(parts: int, compressed: bool) -> None:
    exif, xmp = bytes(4) + exif_of(), XMP
    boxes = [box(b"Exif", exif), box(b"xml ", xmp)]
    if compressed:
        boxes = [
            box(b"brob", kind + imagecodecs.brotli_encode(body))
            for kind, body in ((b"Exif", exif), (b"xml ", xmp))
        ]
    data = in_boxes(jxl(SMOOTH), *boxes, parts=parts)
    picture = decode_image(data)
    np.testing.assert_array_equal(picture.pixels, SMOOTH)
    with PIL.Image.open(io.BytesIO(encode_image(picture))) as image:
        assert image.info["XML:com.adobe.xmp"] == XMP.decode()
        assert image.getexif()[271] == "Maker"
        assert image.getexif().get_ifd(0x8769)[33434] == 0.01


def test_metadata_that_is_damaged_costs_at_most_itself() -> None:
    for before in (box(b"brob", b"Exifnothing"), box(b"Exif", b"a"), box(b"Exif", bytes(99))):
        picture = decode_image(in_boxes(jxl(SMOOTH), before))
        np.testing.assert_array_equal(picture.pixels, SMOOTH)
        assert all("left out" in note for note in picture.notes)


def test_exif_does_not_turn_a_picture_once_more() -> None:
    data = in_boxes(jxl(SMOOTH), box(b"Exif", bytes(4) + exif_of(6)))
    picture = decode_image(data)
    np.testing.assert_array_equal(picture.pixels, SMOOTH)
    with PIL.Image.open(io.BytesIO(encode_image(picture))) as image:
        assert image.getexif()[274] == 1


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_what_was_a_jpeg_keeps_all_that_the_jpeg_said(orientation: int, tmp_path: Path) -> None:
    jpeg = saved(SMOOTH, "JPEG", quality=95, exif=exif_of(orientation), xmp=XMP, icc_profile=SRGB,
                 comment=b"a comment", dpi=(300, 300))  # fmt: skip
    data = bytes(imagecodecs.jpegxl_encode_jpeg(jpeg))
    picture, expected = decode_image(data), decode_image(jpeg)
    assert picture.pixels.shape == expected.pixels.shape
    assert np.abs(picture.pixels.astype(int) - expected.pixels).max() < 6
    assert picture.metadata == expected.metadata
    assert picture.notes == ()
    path = tmp_path / "a.jxl"
    path.write_bytes(data)
    assert image_size(path) == picture.pixels.shape[:2]


def test_credentials_are_told_of() -> None:
    (note,) = decode_image(in_boxes(jxl(SMOOTH), box(b"jumb", b"c2pa"))).notes
    assert "content credentials" in note


# --- damage --------------------------------------------------------------------------------


@pytest.mark.parametrize("in_a_box", [False, True])
@pytest.mark.parametrize("kept", [0.1, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("lossless", [False, True])
def test_what_is_cut_off_is_never_filled_up(kept: float, in_a_box: bool, lossless: bool) -> None:
    data = jxl(SMOOTH, lossless=lossless)
    data = in_boxes(data) if in_a_box else data
    cut = data[: int(kept * len(data))]
    for damaged in (cut, cut + bytes(len(data) - len(cut))):
        with pytest.raises(ImageError, match=r"damaged|cut off"):
            decode_image(damaged)


def test_what_stands_behind_the_picture_costs_nothing() -> None:
    for data in (jxl(SMOOTH), in_boxes(jxl(SMOOTH))):
        np.testing.assert_array_equal(decode_image(data + b"abc" * 9).pixels, SMOOTH)


def test_boxes_without_a_picture_are_damaged() -> None:
    with pytest.raises(ImageError, match="holds no picture"):
        decode_image(SIGNATURE + box(b"Exif", bytes(99)))


def test_a_size_that_is_too_much_is_refused_before_it_is_decoded() -> None:
    huge = bits(NO, (3, 2), (99_999, 30), (0, 3), (3, 2), (99_999, 30), FLAG)
    for data in (huge, in_boxes(huge)):
        with pytest.raises(ImageError, match="claims 100000×100000 pixels"):
            decode_image(data)


def test_inks_are_refused() -> None:
    black = (NO, *ENUM_OF[4], NO, (0, 2), (0, 2), (0, 2))
    data = bits(*TEN_BY_TWENTY, NO, NO, NO, (0, 2), FLAG, (1, 2), *black, NO, NO, FLAG, (0, 2))
    with pytest.raises(ImageError, match="CMYK"):
        decode_image(data + bytes(99))


#: Made by cjxl 0.7, without and with loss, of 16×16 pixels (15·x, 15·y, 99) under a profile whose
#: curve has no number; it is not on PyPI, and no library there writes profiles.
ODD_PROFILES = (
    "{|ZAu2yYDoQfMB4EFHOq$CyJp)nyCGXVT_J&9u=bw%QgO+++?p%8n<K4hn*laAm6-+m%gXwl+#;v)R%p2at8Nbw+"
    "@%ICjk$tL#iE1~B0N!qSSb8BBGZSY_E+$wQ$)(b`m2`ZiNte!K5489%BES=R9_aP$>6S2pz&l`bo=cD5|gRJOE~H"
    "HY4NWxQ2MZ(~dq;LvaW{K;>5q9=j)jpWatK2ZMr@jHUOU1;#J_H77?qr=_^l;nZ)7NEC;pqK@+Wq`%7?5}yUJE8M"
    "TaB2ou8ikpgqo}eiFFQb@tRUqMGBF`cH&CPbxX1wr0s#O-0ZS+~#y+fvR8UY*5{v+nLWMB~uc3kR;>CC|=0*S@fD"
    "k|cAn^)H9?XBv|NrcF|LXtW_5W>-+yk2<c%m7FrcwaJ6N#lVq5>Q@A$U+CWB~",
    "{|ZAu3U3VqQfMB4EFHOq$CyJp)nyCGXVT_J&9u=bw%QgO+++?p%8n<K4hn*laAm6-+m%gXwl+#;v)R%p2at8Nbw+"
    "@%ICjk$tL#iE1~B0N!qSSb8BBGZSY_E+$wQ$)(b`m2`ZiNte!K5489%BES=R9_aP$>6S2pz&l`bo=cD5|gRJOE~H"
    "HY4NWxQ2MZ(~dq;LvaW{K;>5q9=j)jpWatK2ZMr@jHUOU1;#J_H77?qr=_^l;nZ)7NEC;pqK@+Wq`%7?5}yUJE8M"
    "TaB2ou8ikpgqo}eiFFQb@tRUqMGBF`cH&CPbxX1wj5{Lo-kO5ug5&!@dDx-`WyqxR#@<WHkw2kWwZMAJ-NutO&Hc"
    "2ONND?c!T{8zTKR%dwR$erCs@orAd%;+RP5_l85)pQ=+wY@<lD=O2fA6zLueqD3NU8w=L;wIFmvgleGmv9;7Yq",
)


def test_a_profile_that_cannot_be_read_is_told_of() -> None:
    y, x = np.mgrid[:16, :16]
    picture = decode_image(base64.b85decode(ODD_PROFILES[0]))
    np.testing.assert_array_equal(picture.pixels, np.dstack([15 * x, 15 * y, 0 * x + 99]))
    assert picture.metadata.color == ()
    (note,) = picture.notes
    assert "its colour profile cannot be read" in note


def test_colours_that_only_an_unreadable_profile_tells_are_refused() -> None:
    """The decoder would give other ones than those of the profile."""
    with pytest.raises(ImageError, match="only its ICC profile tells; convert it"):
        decode_image(base64.b85decode(ODD_PROFILES[1]))
