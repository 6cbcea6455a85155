"""What is in an image file: told by its content, decoded to the right values, or named."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import tifffile
from helpers import random_pixels, smooth_pixels
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import SAMPLES, heic, saved, tiff_by_library

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs import CODECS, find_codec
from restormer_cli.images.picture import Picture
from restormer_cli.images.reading import decode_image, image_size

HEIGHT, WIDTH = 20, 30
PIXELS = random_pixels(HEIGHT, WIDTH)


def decode(data: bytes, **settings: Any) -> Picture:
    return decode_image(data, **settings)


def same(data: bytes, pixels: Any, alpha: Any = None, note: str = "") -> None:
    picture = decode(data)
    np.testing.assert_array_equal(picture.pixels, pixels.reshape(*pixels.shape[:2], -1))
    assert picture.pixels.dtype == pixels.dtype
    if alpha is None:
        assert picture.alpha is None
    else:
        np.testing.assert_array_equal(picture.alpha, alpha)
    assert len(picture.notes) == bool(note)
    assert note in "".join(picture.notes)


def refused(data: bytes, *said: str, damaged: bool = False) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert ("damaged" in sentence or "cut off" in sentence) == damaged, sentence
    for words in said:
        assert words in sentence


# --- PNG, written by hand ----------------------------------------------------------------


def chunk(name: bytes, body: bytes = b"") -> bytes:
    crc = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + crc


def png(
    before: tuple[bytes, ...] = (),
    after: tuple[bytes, ...] = (),
    tail: bytes = b"",
    samples: Any = PIXELS,
) -> bytes:
    """8-bit RGB, with chunks before and after the pixels."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            *before,
            chunk(b"IDAT", zlib.compress(rows)),
            *after,
            chunk(b"IEND"),
            tail,
        ]
    )


def with_bad_checksum(chunk: bytes) -> bytes:
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


TWO_MB = zlib.compress(bytes(2 * 10**6))
HARMLESS: dict[str, dict[str, Any]] = {
    "2 MB of zTXt": {"before": (chunk(b"zTXt", b"prompt\0\0" + TWO_MB),)},
    "2 MB of iTXt": {"before": (chunk(b"iTXt", b"prompt\0\1\0\0\0" + TWO_MB),)},
    "2 MB of text behind the pixels": {"after": (chunk(b"zTXt", b"prompt\0\0" + TWO_MB),)},
    "72 MB of text in all": {"before": (chunk(b"tEXt", b"a\0" + bytes(9 * 10**5)),) * 80},
    "a text of 20 MB": {"before": (chunk(b"tEXt", b"a\0" + bytes(2 * 10**7)),)},
    "thousands of chunks": {"before": (chunk(b"tEXt", b"a\0b"),) * 20000},
    "a text that is damaged": {"before": (with_bad_checksum(chunk(b"tEXt", b"a\0b")),)},
    "a text that does not unpack": {"before": (chunk(b"zTXt", b"a\0\0nothing"),)},
    "a profile that is damaged": {"before": (with_bad_checksum(chunk(b"iCCP", b"a\0\0b")),)},
    "a profile that is a bomb": {
        "before": (chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2 * 10**8))),)
    },
    "EXIF that is damaged": {"before": (chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),)},
    "a resolution that is too short": {"before": (chunk(b"pHYs", b"abc"),)},
    "a gamma that is too short": {"before": (chunk(b"gAMA", b"a"),)},
    "chunks of others": {"before": (chunk(b"prVt", b"abc"), chunk(b"vpAg", bytes(9)))},
    "a chunk that claims 2 GB behind the pixels": {
        "after": (struct.pack(">I", 2**31 - 1) + b"tEXt" + bytes(30),)
    },
    "garbage at the end": {"tail": b"garbage" * 1000},
    "another PNG at the end": {"tail": png()},
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_is_not_kept_of_a_png_never_costs_the_image(kind: str) -> None:
    picture = decode(png(**HARMLESS[kind]))
    np.testing.assert_array_equal(picture.pixels, PIXELS)
    assert all(note.endswith("left out") for note in picture.notes)


def test_a_png_that_lacks_only_its_end_is_whole() -> None:
    whole = png()
    same(whole[:-12], PIXELS)
    same(whole[:-5], PIXELS)
    refused(whole[:-14], damaged=True)


def test_a_large_profile_of_a_png_is_kept() -> None:
    sound = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    rest = random_pixels(1000, 1000).tobytes()  # 3 MB, more than Pillow unpacks
    profile = struct.pack(">I", len(sound + rest)) + sound[4:] + rest
    picture = decode(png((chunk(b"iCCP", b"a\0\0" + zlib.compress(profile)),)))
    np.testing.assert_array_equal(picture.pixels, PIXELS)
    assert picture.metadata.icc == profile


def test_transparency_that_is_damaged_is_left_out_with_a_note() -> None:
    hidden = chunk(b"tRNS", struct.pack(">HHH", *map(int, PIXELS[0, 0])))
    same(png((with_bad_checksum(hidden),)), PIXELS, note="transparency is damaged")
    alpha = np.where((PIXELS[0, 0] == PIXELS).all(axis=2), 0, 255)
    same(png((hidden,)), PIXELS, alpha)


@pytest.mark.parametrize("palette", [b"", bytes(10), bytes(999)])
def test_a_palette_that_no_pixel_needs_never_costs_the_image(palette: bytes) -> None:
    same(png((chunk(b"PLTE", palette),)), PIXELS)
    damaged = chunk(b"PLTE", palette)[:-1] + b"?"
    same(png((damaged,)), PIXELS)


def test_a_png_without_pixels_is_damaged() -> None:
    data = png()
    start = data.index(b"IDAT") - 4
    refused(data[:start] + data[-12:], "it holds no picture", damaged=True)


def test_of_an_animated_png_the_still_image_is_read() -> None:
    other = zlib.compress(b"".join(b"\0" + bytes(3 * WIDTH) for _ in range(HEIGHT)))
    control = struct.pack(">IIIIIHHBB", 0, WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0)
    frames = (
        chunk(b"fcTL", control),
        chunk(b"fdAT", struct.pack(">I", 1) + other),
        chunk(b"fcTL", struct.pack(">I", 2) + control[4:]),
        chunk(b"fdAT", struct.pack(">I", 3) + other),
    )
    animated = chunk(b"acTL", struct.pack(">II", 2, 0))
    note = "only its still image is restored, not its animation of 2 frames"
    same(png((animated,), frames), PIXELS, note=note)
    note = "only the first of 2 frames is restored"
    same(png((animated, chunk(b"fcTL", control)), frames[2:]), PIXELS, note=note)
    same(png((), (animated,)), PIXELS)  # too late to count


def test_pngs_that_only_their_makers_understand_are_not_called_damaged() -> None:
    whole = png()
    refused(whole[:8] + chunk(b"CgBI", b"P\0 \2") + whole[8:], "Apple", "iPhone")
    refused(png((chunk(b"ABCD", b"abc"),)), "ABCD", "save it again")


# --- JPEG --------------------------------------------------------------------------------


SMOOTH = smooth_pixels(64, 96)
JPEGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "progressive": {"progressive": True},
    "with restarts": {"restart_marker_blocks": 3},
    "RGB": {"keep_rgb": True},
    "full resolution": {"subsampling": 0},
    "best": {"quality": 100},
}


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", JPEGS)
def test_jpegs_are_read_as_by_others_and_never_filled_up(kind: str, mode: str) -> None:
    data = saved(PIL.Image.fromarray(SMOOTH).convert(mode), "JPEG", **JPEGS[kind])
    with PIL.Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB" if mode == "CMYK" else mode)).astype(int)
    for whole in (data, data[:-2], data + b"the video of a phone", data + data):
        pixels = decode(whole).pixels
        assert np.abs(pixels - expected.reshape(pixels.shape)).max() <= (mode == "CMYK")
    start = data.index(b"\xff\xda") + 14
    for share in (0.0, 0.3, 0.6, 0.9):
        cut = data[: start + int(share * (len(data) - start))]
        refused(cut, damaged=True)
        refused(cut + b"\xff\xd9", "cut off", damaged=True)  # as repair programs leave it
        refused(cut + bytes(len(data) - len(cut)), damaged=True)  # as failed copies are


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_jpegs_without_loss_are_read_exactly(bits: int) -> None:
    samples = random_pixels(HEIGHT, WIDTH, bits=16) >> (16 - bits)
    samples = samples.astype(np.uint8 if bits == 8 else np.uint16)
    expected = np.rint(samples * ((255 if bits == 8 else 65535) / (2**bits - 1)))
    expected = expected.astype(samples.dtype)
    same(imagecodecs.jpeg8_encode(samples, lossless=True, bitspersample=bits), expected)
    if bits in (8, 16):  # of others, the encoder does not know
        same(imagecodecs.jpegls_encode(samples), expected)


def test_jpeg_of_12_bit_is_as_bright_as_it_should_be() -> None:
    samples = SMOOTH.astype(np.uint16) << 4
    picture = decode(imagecodecs.jpeg8_encode(samples, level=98, bitspersample=12))
    assert picture.bit_depth == 16
    assert np.abs(picture.pixels / 65535 - samples / 4095).max() < 0.03


def test_rare_jpegs_are_named() -> None:
    data = saved(SMOOTH, "JPEG")
    frame = data.index(b"\xff\xc0")
    refused(data[: frame + 1] + b"\xc5" + data[frame + 2 :], "hierarchical")
    refused(data[: frame + 5] + b"\0\0" + data[frame + 7 :], "tells its height only at its end")
    refused(data[: frame + 9] + b"\2" + data[frame + 10 :], "2 colour components")


@pytest.mark.parametrize("zeros", [0, 512])
def test_a_progressive_jpeg_cut_off_between_scans_is_not_whole(zeros: int) -> None:
    data = saved(SMOOTH, "JPEG", quality=90, progressive=True)
    tables = [found.end() for found in re.finditer(rb"\xff\xc4", data)]
    later = [place for place in tables if place > data.index(b"\xff\xda")]
    assert later
    for place in later:
        for stop in range(place, place + int.from_bytes(data[place : place + 2], "big") + 2):
            refused(data[:stop] + bytes(zeros), damaged=True)


def test_large_segments_of_a_jpeg_do_not_cost_it() -> None:
    data = saved(SMOOTH, "JPEG")
    segment = b"\xff\xe2" + struct.pack(">H", 65535) + bytes(65533)
    expected = decode(data).pixels
    np.testing.assert_array_equal(decode(data[:2] + 300 * segment + data[2:]).pixels, expected)
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data
    np.testing.assert_array_equal(decode(data[:2] + thumbnail + data[2:]).pixels, expected)


# --- TIFF, by tifffile or by hand --------------------------------------------------------


def tiff(strips: list[bytes], tags: dict[int, tuple[str, list[int]]], order: str = "<") -> bytes:
    """A TIFF of raw strips; types of tags are those of :mod:`struct`."""
    numbers = {"H": 3, "I": 4}
    start, data, offsets = 8, b"", []
    for strip in strips:
        offsets.append(start + len(data))
        data += strip + bytes(len(strip) % 2)
    tags = {273: ("I", offsets), 279: ("I", [len(strip) for strip in strips]), **tags}
    directory = start + len(data)
    more = directory + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        body = struct.pack(f"{order}{len(values)}{kind}", *values)
        place = body.ljust(4, b"\0")
        if len(body) > 4:
            place = struct.pack(f"{order}I", more + len(extra))
            extra += body
        entries += struct.pack(f"{order}HHI", tag, numbers[kind], len(values)) + place
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(f"{order}I", directory)
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + extra


def tags(
    samples: int, bits: int, photometric: int, extras: tuple[int, ...] = (), **more: list[int]
) -> dict[int, tuple[str, list[int]]]:
    facts = {
        256: ("I", [WIDTH]),
        257: ("I", [HEIGHT]),
        258: ("H", [bits] * samples),
        262: ("H", [photometric]),
        277: ("H", [samples]),
        278: ("I", [HEIGHT]),
    }
    if extras:
        facts[338] = ("H", list(extras))
    return facts | {int(tag.removeprefix("tag")): ("H", value) for tag, value in more.items()}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("apart", [False, True])
def test_bands_that_are_not_called_rgb_are_colour(bits: int, bands: int, apart: bool) -> None:
    samples = random_pixels(HEIGHT, WIDTH, bands, bits)
    facts = tags(bands, bits, 1, (0,) * (bands - 1), tag284=[2 if apart else 1])
    strips = [samples[..., i].tobytes() for i in range(bands)] if apart else [samples.tobytes()]
    note = "" if bands == 3 else "left out"
    same(tiff(strips, facts), samples[..., :3], note=note)
    facts[338] = ("H", [*[0] * (bands - 2), 2])  # the last one is alpha
    if bands == 4:
        same(tiff(strips, facts), samples[..., :3], samples[..., 3])


def test_more_bands_are_refused() -> None:
    samples = random_pixels(HEIGHT, WIDTH, 7)
    refused(tiff([samples.tobytes()], tags(7, 8, 1, (0,) * 6)), "7 bands")


@pytest.mark.parametrize(
    ("extras", "alpha"), [((2, 0), 3), ((0, 2), 4), ((0, 0), None), ((0,), None), ((), 3)]
)
@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_is_what_the_file_says(extras: tuple[int, ...], alpha: int | None, bits: int) -> None:
    samples = random_pixels(HEIGHT, WIDTH, 3 + (len(extras) or 1), bits)
    data = tiff([samples.tobytes()], tags(samples.shape[2], bits, 2, extras))
    left_out = "left out" if 0 in extras else ""
    same(data, samples[..., :3], None if alpha is None else samples[..., alpha], left_out)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
def test_cmyk_becomes_colour(bits: int, alpha: bool) -> None:
    white = 2**bits - 1
    samples = random_pixels(HEIGHT, WIDTH, 4 + alpha, bits)
    data = tiff([samples.tobytes()], tags(4 + alpha, bits, 5, (2,) * alpha))
    picture = decode(data)
    light = 1 - samples / white
    np.testing.assert_array_equal(
        picture.pixels, np.rint(light[..., :3] * light[..., 3:4] * white).astype(samples.dtype)
    )
    assert (picture.alpha is not None) == alpha
    assert not alpha or (picture.alpha == samples[..., 4]).all()
    assert "is CMYK" in picture.notes[0]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1, 2])
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8, 10, 12, 14, 16])
def test_samples_of_few_bits_are_spread_over_all(bits: int, photometric: int, order: str) -> None:
    channels = 3 if photometric == 2 else 1
    samples = random_pixels(HEIGHT, WIDTH, channels, bits=16) >> (16 - bits)
    rows = []
    for row in samples.reshape(HEIGHT, -1):
        if bits in (8, 16):  # in the order of the file
            rows.append(row.astype(f"{order}u{bits // 8}").tobytes())
        else:
            digits = "".join(f"{value:0{bits}b}" for value in row)
            digits += "0" * (-len(digits) % 8)
            rows.append(int(digits, 2).to_bytes(len(digits) // 8, "big"))
    strips = [b"".join(rows[i : i + 6]) for i in range(0, HEIGHT, 6)]  # the last one is shorter
    facts = tags(channels, bits, photometric) | {278: ("I", [6])}
    white = 255 if bits <= 8 else 65535
    expected = np.rint(samples * (white / (2**bits - 1)))
    expected = (white - expected if photometric == 0 else expected).astype(
        np.uint8 if bits <= 8 else np.uint16
    )
    same(tiff(strips, facts, order), expected)


@pytest.mark.parametrize("scale", [1, 256, 257])
@pytest.mark.parametrize("bits", [4, 8])
def test_palettes_of_every_scale_are_8_bit(scale: int, bits: int) -> None:
    palette = random_pixels(3, 2**bits, 1)[..., 0]
    index = random_pixels(HEIGHT, WIDTH, 1)[..., 0] >> (8 - bits)
    stored = index if bits == 8 else index[:, ::2] << 4 | index[:, 1::2]
    facts = tags(1, bits, 3, tag320=(palette.astype(int) * scale).ravel().tolist())
    same(tiff([stored.tobytes()], facts), palette[:, index].transpose(1, 2, 0))


def test_a_palette_of_16_bit_stays_exact() -> None:
    palette = random_pixels(3, 256, 1, bits=16)[..., 0]
    index = random_pixels(HEIGHT, WIDTH, 1)[..., 0]
    facts = tags(1, 8, 3, tag320=palette.astype(int).ravel().tolist())
    same(tiff([index.tobytes()], facts), palette[:, index].transpose(1, 2, 0))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize(
    "compression", ["lzw", "zlib", "packbits", "zstd", "lzma", "lerc", "jpeg2000", "jpegxl"]
)
def test_compression_is_undone(compression: str, predictor: bool, bits: int) -> None:
    pixels = random_pixels(HEIGHT, WIDTH, bits=bits)
    if predictor and compression not in ("lzw", "zlib", "zstd"):
        pytest.skip("has none")
    settings = {"compression": compression, "predictor": predictor}
    same(tiff_by_library(pixels, photometric="rgb", **settings), pixels)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    settings |= {"planarconfig": "separate", "tile": (16, 16), "bigtiff": True}
    same(tiff_by_library(planes, photometric="rgb", **settings), pixels)


@pytest.mark.parametrize("compression", [8, 32946])
@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("predictor", [1, 2])
def test_deflated_strips_may_be_longer_or_lack_their_checksum(
    compression: int, bits: int, order: str, predictor: int
) -> None:
    samples = random_pixels(HEIGHT, WIDTH, 3, max(bits, 8)) >> max(0, 8 - bits)
    stored = samples.copy()
    if predictor == 2 and bits > 4:
        stored[:, 1:] -= samples[:, :-1]
    rows = stored.astype(samples.dtype.newbyteorder(order)).tobytes()
    if bits == 4:  # two in a byte
        rows = (stored.reshape(-1, 2) @ [16, 1]).astype(np.uint8).tobytes()
    facts = tags(3, bits, 2, tag259=[compression], tag317=[predictor if bits > 4 else 1])
    size = len(rows) // HEIGHT * 8
    facts[278] = ("I", [8])
    padded = rows + bytes(3 * size - len(rows))
    strips = [zlib.compress(padded[start : start + size]) for start in range(0, len(rows), size)]
    expected = samples * 17 if bits == 4 else samples
    same(tiff(strips, facts, order), expected)
    same(tiff([strip[:-4] for strip in strips], facts, order), expected)
    wrong = [strip[:-1] + bytes([strip[-1] ^ 1]) for strip in strips]
    refused(tiff(wrong, facts, order), damaged=True)
    refused(tiff([strip[:-40] for strip in strips], facts, order), damaged=True)
    empty = [
        strip[:-count] + bytes(count) for strip, count in zip(strips, (9, 20, 40), strict=True)
    ]
    refused(tiff(empty, facts, order), damaged=True)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg"])
def test_luma_and_chroma_become_colour(compression: str) -> None:
    image = PIL.Image.fromarray(SMOOTH).convert("YCbCr")
    pixels = decode(saved(image, "TIFF", compression=compression)).pixels
    assert np.abs(pixels.astype(int) - SMOOTH).max() < 12


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("apart", [False, True])
def test_luma_and_chroma_without_compression_are_read_as_any_samples(
    order: str, apart: bool
) -> None:
    """With alpha, turned, in planes: older Pillows read none of these."""
    smooth = smooth_pixels(HEIGHT, WIDTH)
    alpha = random_pixels(HEIGHT, WIDTH, 1)
    luma = np.asarray(PIL.Image.fromarray(smooth).convert("YCbCr"))
    samples = np.dstack([luma, alpha])
    facts = tags(4, 8, 6, (2,), tag284=[2 if apart else 1], tag530=[1, 1], tag274=[3])
    strips = [samples[..., i].tobytes() for i in range(4)] if apart else [samples.tobytes()]
    picture = decode(tiff(strips, facts, order))
    assert np.abs(picture.pixels[::-1, ::-1].astype(int) - smooth).max() < 4
    np.testing.assert_array_equal(picture.alpha[::-1, ::-1], alpha[..., 0])
    assert picture.notes == ()
    deep = tags(3, 16, 6, tag530=[1, 1])
    refused(tiff([bytes(6 * HEIGHT * WIDTH)], deep, order), "luma and chroma of 16 bit")
    coarse = tags(3, 8, 6, tag530=[2, 2])
    refused(tiff([bytes(3 * HEIGHT * WIDTH)], coarse, order), "chroma of less resolution")


@pytest.mark.parametrize("mode", ["LA", "RGBA", "CMYK"])
def test_jpeg_in_a_tiff_may_have_any_number_of_components(mode: str) -> None:
    image = PIL.Image.fromarray(SMOOTH).convert(mode)
    data = saved(image, "TIFF", compression="jpeg", quality=100)
    with PIL.Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("RGB") if mode == "CMYK" else opened).astype(int)
    picture = decode(data)
    alpha = [] if picture.alpha is None else [picture.alpha]
    assert np.abs(np.dstack([picture.pixels, *alpha]) - expected).max() < 4


def test_bits_may_be_stored_in_reverse() -> None:
    mirrored = bytes(int(f"{byte:08b}"[::-1], 2) for byte in PIXELS.tobytes())
    same(tiff([mirrored], tags(3, 8, 2, tag266=[2])), PIXELS)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_fax_is_turned_upright(compression: str, orientation: int) -> None:
    pixels = np.where(SMOOTH[..., 0] > 99, 255, 0).astype(np.uint8)
    image = PIL.Image.fromarray(pixels).convert("1")
    exif = PIL.Image.Exif()
    exif[274] = orientation
    data = saved(image, "TIFF", compression=compression, exif=exif)
    same(data, np.rot90(pixels, {1: 0, 3: 2, 6: 3, 8: 1}[orientation]))


UNREADABLE_TIFFS: dict[str, tuple[bytes, str]] = {
    f"{name} samples": (tiff_by_library(PIXELS.astype(name), photometric="rgb"), name)
    for name in ("int8", "int16", "uint32", "complex64")
} | {
    "CIELAB": (tiff_by_library(PIXELS, photometric="cielab"), "CIELAB"),
    "a mask": (tiff([bytes(HEIGHT * 4)], tags(1, 1, 4)), "MASK"),
    "float24 samples": (
        tiff([bytes(HEIGHT * WIDTH * 9)], tags(3, 24, 2, tag339=[3] * 3)),
        "float24 samples",
    ),
    "floating-point luma and chroma": (
        tiff([bytes(HEIGHT * WIDTH * 12)], tags(3, 32, 6, tag339=[3] * 3, tag530=[1, 1])),
        "float32 samples of the kind YCBCR",
    ),
    "what a sensor measured, of no camera": (
        tiff([bytes(HEIGHT * WIDTH)], tags(1, 8, 32803)),
        "camera raw file of a kind that cannot be read",
    ),
    "light in logarithms": (tiff([PIXELS.tobytes()], tags(3, 8, 32845)), "LOGLUV"),
    "5, 6 and 5 bit": (
        tiff([bytes(HEIGHT * WIDTH * 2)], tags(3, 8, 2) | {258: ("H", [5, 6, 5])}),
        "different sizes",
    ),
    "other inks": (tiff([bytes(HEIGHT * WIDTH * 4)], tags(4, 8, 5, tag332=[2])), "inks"),
    "JBIG": (tiff([b"abc"], tags(1, 1, 0, tag259=[34661])), "compressed in a way"),
    "an unknown compression": (tiff([b"abc"], tags(1, 1, 0, tag259=[60000])), "60000"),
    "chroma at half the resolution": (
        tiff([bytes(HEIGHT * WIDTH * 3 // 2)], tags(3, 8, 6, tag530=[2, 2])),
        "chroma of less resolution",
    ),
}


@pytest.mark.parametrize("kind", UNREADABLE_TIFFS)
def test_tiffs_that_cannot_be_read_are_named_and_not_called_damaged(kind: str) -> None:
    data, words = UNREADABLE_TIFFS[kind]
    refused(data, words)


def test_tiffs_that_lack_pixels_are_damaged() -> None:
    facts = tags(3, 8, 2) | {278: ("I", [5])}
    rows = [PIXELS[i : i + 5].tobytes() for i in range(0, HEIGHT, 5)]
    same(tiff(rows, facts), PIXELS)
    refused(tiff(rows[:-1], facts), damaged=True)
    refused(tiff([*rows[:-1], b""], facts | {259: ("H", [32773])}), "not complete")
    refused(tiff(rows, facts)[: 8 + 3 * len(rows[0])], damaged=True)
    refused(tiff(rows, facts | {279: ("I", [len(rows[0])] * 3 + [10**6])}), damaged=True)


@pytest.mark.parametrize(("kind", "compression"), [("JPEG", 7), ("PNG", 34933), ("WEBP", 50001)])
def test_a_strip_that_is_a_large_image_is_refused_before_it_is_decoded(
    kind: str, compression: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = saved(np.zeros((2000, 2000, 3), np.uint8), kind)
    data = tiff([large], tags(3, 8, 2, tag259=[compression]))
    monkeypatch.setattr(tifffile.TiffPage, "asarray", None)
    refused(data, "a part of it claims to be larger", damaged=True)


@pytest.mark.parametrize("tag", [256, 257, 277, 273])
def test_numbers_of_a_tiff_that_are_text_are_damage_and_no_fault_of_ours(tag: int) -> None:
    data = tiff([PIXELS.tobytes()], tags(3, 8, 2))
    entry = struct.pack("<H", tag)
    place = data.index(entry, len(PIXELS.tobytes()))
    ascii_type = struct.pack("<HHI", tag, 2, 3) + b"ab\0\0"
    refused(data[:place] + ascii_type + data[place + 12 :], "damaged", damaged=True)


def test_thumbnails_and_smaller_copies_are_not_the_picture() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(PIXELS[::2, ::2], photometric="rgb", subfiletype=1)
        writer.write(PIXELS, photometric="rgb")
        writer.write(PIXELS[::4, ::4], photometric="rgb", subfiletype=1)
    same(file.getvalue(), PIXELS)


@pytest.mark.parametrize("flag", [1, 2])
def test_older_programs_flag_smaller_copies_in_a_tag_of_their_own(flag: int) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for pixels, value in ((PIXELS[::2, ::2], flag), (PIXELS, 1)):
            writer.write(pixels, photometric="rgb", extratags=[(255, 3, 1, value, True)])
    if flag == 2:
        same(file.getvalue(), PIXELS)
    else:
        same(file.getvalue(), PIXELS[::2, ::2], note="only the first of 2 pages")


def test_a_mask_that_is_a_page_is_told() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(PIXELS, photometric="rgb")
        writer.write(PIXELS[..., 0] > 9, photometric="mask", subfiletype=4)
    same(file.getvalue(), PIXELS, note="its mask")


@pytest.mark.parametrize("samples", [1, 3])
def test_a_tiff_that_does_not_name_its_colours_is_gray_or_rgb(samples: int) -> None:
    facts = tags(samples, 8, 2)
    del facts[262]
    same(tiff([PIXELS[..., :samples].tobytes()], facts), PIXELS[..., :samples])


@pytest.mark.parametrize("count", [None, 0, 7, 10**6])
def test_a_single_strip_needs_no_count_of_its_bytes(count: int | None) -> None:
    data = tiff([PIXELS.tobytes()], tags(3, 8, 2) | {279: ("I", [count or 0])})
    if count is None:
        data = data.replace(struct.pack("<HHI", 279, 4, 1), struct.pack("<HHI", 279, 2, 3))
    same(data, PIXELS)
    refused(data[:8] + data[-200:] + data[8:-200][:500], damaged=True)


def test_a_compressed_strip_of_which_nobody_counted_the_bytes_is_read() -> None:
    facts = tags(3, 8, 2, tag259=[5]) | {279: ("I", [0])}
    same(tiff([imagecodecs.lzw_encode(PIXELS.tobytes())], facts), PIXELS)


def test_samples_of_a_format_that_does_not_exist_are_named() -> None:
    refused(tiff([PIXELS.tobytes()], tags(3, 8, 2, tag339=[0])), "samples of an unknown kind")


@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.parametrize("tables", [False, True])
@pytest.mark.parametrize("zeros", [False, True])
def test_jpeg_in_a_tiff_is_never_filled_up(kept: float, tables: bool, zeros: bool) -> None:
    smooth = smooth_pixels(64, 96)
    if tables:
        data = saved(smooth, "TIFF", compression="jpeg", quality=95)
    else:
        whole = saved(smooth, "JPEG", quality=95, subsampling=0)
        facts = tags(3, 8, 6, tag259=[7], tag530=[1, 1])
        data = tiff([whole], facts | {256: ("I", [96]), 257: ("I", [64]), 278: ("I", [64])})
    with tifffile.TiffFile(io.BytesIO(data)) as parsed:
        page: Any = parsed.pages.first
        (start,), (size,) = page.dataoffsets, page.databytecounts
        counted = page.tags[279].valueoffset
        assert (page.jpegtables is not None) == tables
    assert np.abs(decode(data).pixels.astype(int) - smooth).max() < 20
    left = round(kept * size)
    if zeros:
        data = data[: start + left] + bytes(size - left) + data[start + size :]
    else:
        data = data[:counted] + struct.pack("<I", left) + data[counted + 4 :]
    refused(data, "cut off", damaged=True)


# --- BMP, WebP and others ----------------------------------------------------------------


def bmp(bits: int, compression: int, body: bytes, height: int, extra: bytes = b"") -> bytes:
    start = 54 + len(extra)
    head = struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start)
    facts = (40, WIDTH, height, 1, bits, compression, len(body), 0, 0, 0, 0)
    return head + struct.pack("<IiiHHIIiiII", *facts) + extra + body


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("green", [5, 6])
def test_bmp_of_16_bit_reaches_white(green: int, down: bool) -> None:
    red, blue = (random_pixels(HEIGHT, WIDTH, 1, seed=s)[..., 0] >> 3 for s in (1, 2))
    middle = random_pixels(HEIGHT, WIDTH, 1, seed=3)[..., 0] >> (8 - green)
    packed = (red.astype("<u2") << (5 + green) | middle.astype("<u2") << 5 | blue).astype("<u2")
    body = (packed if down else packed[::-1]).tobytes()
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    data = bmp(16, 3, body, -HEIGHT if down else HEIGHT, masks)
    if green == 5:
        data = bmp(16, 0, body, -HEIGHT if down else HEIGHT)
    pixels = decode(data).pixels
    expected = np.dstack([red / 31, middle / (2**green - 1), blue / 31]) * 255
    assert np.abs(pixels - expected).max() < 1


@pytest.mark.parametrize(("compression", "bits"), [(4, 0), (5, 0), (3, 16)])
def test_rare_bmps_are_not_called_damaged(compression: int, bits: int) -> None:
    masks = struct.pack("<III", 0xF00, 0xF0, 0xF) * (compression == 3)
    refused(bmp(bits, compression, bytes(2 * HEIGHT * WIDTH), HEIGHT, masks), "cannot be read")


@pytest.mark.parametrize("seen", [False, True])
def test_alpha_of_a_bmp_that_is_left_empty_is_none(seen: bool) -> None:
    alpha = random_pixels(HEIGHT, WIDTH, 1, seed=1) * np.uint8(seen)
    body = np.dstack([PIXELS[..., ::-1], alpha])[::-1].tobytes()
    facts = (124, WIDTH, HEIGHT, 1, 32, 3, len(body), 0, 0, 0, 0)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<2sIHHI", b"BM", 138 + len(body), 0, 0, 138)
    data = head + struct.pack("<IiiHHIIiiII", *facts) + masks + b"BGRs" + bytes(64) + body
    same(data, PIXELS, alpha[..., 0] if seen else None)


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("form", ["jp2", "j2k"])
def test_deep_jpeg_2000_keeps_its_depth(form: str, channels: int, bits: int) -> None:
    samples = random_pixels(HEIGHT, WIDTH, channels, 16) >> (16 - bits)
    data = imagecodecs.jpeg2k_encode(
        samples.squeeze(), codecformat=form, reversible=True, bitspersample=bits
    )
    expected = np.rint(samples * (65535 / (2**bits - 1))).astype(np.uint16)
    colours = 1 if channels < 3 else 3
    alpha = expected[..., -1] if channels in (2, 4) else None
    same(data, expected[..., :colours], alpha)


@pytest.mark.parametrize(
    ("number", "name"), [(12, "CMYK"), (14, "CIELAB"), (21, "ROMM RGB"), (77, "number 77")]
)
@pytest.mark.parametrize("bits", [8, 16])
def test_jpeg_2000_in_other_colours_is_not_taken_for_rgb(bits: int, number: int, name: str) -> None:
    samples = random_pixels(HEIGHT, WIDTH, 4 if number == 12 else 3, bits)
    data = imagecodecs.jpeg2k_encode(samples, codecformat="jp2", reversible=True)
    place = data.index(b"colr\1\0\0\0\0\0\x10") + 10
    with pytest.raises(ImageError, match=f"JPEG 2000 picture in colours .*{name}.*convert it"):
        decode_image(data[:place] + bytes([number]) + data[place + 1 :])


def test_jpeg_2000_with_a_profile_for_ink_is_not_taken_for_rgb() -> None:
    samples = random_pixels(HEIGHT, WIDTH, 4, 16)
    data = imagecodecs.jpeg2k_encode(samples, codecformat="jp2", reversible=True)
    profile = bytes(16) + b"CMYK" + bytes(108)
    old, header = data.index(b"colr") - 4, data.index(b"jp2h") - 4
    box = struct.pack(">I4sBBB", 11 + len(profile), b"colr", 3, 0, 0) + profile
    size = int.from_bytes(data[header : header + 4], "big") + len(box)
    data = data[:header] + struct.pack(">I", size) + data[header + 4 : old] + box + data[old:]
    with pytest.raises(ImageError, match=r"colours .*CMYK"):
        decode_image(data)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_deep_avif_may_be_gray_and_transparent(channels: int) -> None:
    samples = random_pixels(HEIGHT, WIDTH, channels, 16) >> 6
    picture = decode(imagecodecs.avif_encode(samples.squeeze(), level=100, bitspersample=10))
    assert picture.pixels.shape[2] == (3 if channels == 4 else 1)
    assert (picture.alpha is None) == (channels == 1)
    if picture.alpha is not None:
        np.testing.assert_allclose(picture.alpha / 65535, samples[..., -1] / 1023, atol=1e-4)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("brand", [b"avif", b"mif1"])
def test_deep_avif_keeps_its_depth(bits: int, brand: bytes) -> None:
    dtype = np.uint8 if bits == 8 else np.uint16
    samples = np.rint(SMOOTH * ((2**bits - 1) / 255)).astype(dtype)
    data = imagecodecs.avif_encode(samples, level=100, bitspersample=bits)
    pixels = decode(data[:8] + brand + data[12:]).pixels
    assert pixels.dtype == dtype
    assert np.abs(pixels / np.iinfo(dtype).max - SMOOTH / 255).max() < 0.02


def test_what_is_common_under_a_wrong_name_is_read() -> None:
    palette = PIL.Image.fromarray(SMOOTH).quantize(16)
    same(saved(palette, "GIF"), np.asarray(palette.convert("RGB")))
    same(saved(PIXELS, "JPEG2000"), PIXELS)
    assert np.abs(decode(saved(SMOOTH, "AVIF", quality=95)).pixels.astype(int) - SMOOTH).max() < 20


def test_the_first_frame_of_a_webp_is_shown_as_it_stands() -> None:
    frames = [PIL.Image.fromarray(random_pixels(HEIGHT, WIDTH, seed=seed)) for seed in range(3)]
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    same(data, np.asarray(frames[0]), note="only the first of 3 frames")


# --- no image ----------------------------------------------------------------------------

OTHERS = {
    b"8BPS\0\1": "Photoshop",
    b"%PDF-1.7": "PDF",
    b"\0\0\0\x18ftypisom": "video",
    b"\0\0\0\x14ftypqt  ": "video",
    b"PK\3\4\x14\0": "ZIP",
    b"<!DOCTYPE html><html><title>404</title>": "web page",
    b"\n <HTML>": "web page",
    b'<?xml version="1.0"?>\n<!-- a --><svg xmlns="x">': "SVG",
    b"\xef\xbb\xbf<svg/>": "SVG",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:ab": "Git LFS",
    b"hello, world\n": "text",
    b"BMW and BAFTA are names,\n": "text",
    b"P6\n30 20\n255\n": "Netpbm",
    b"v/1\1\2\0\0\0": "OpenEXR",
    b"\0\0\2" + bytes(9) + b"\x20\0\x10\0\x18\0": "Targa",
    b"\0\0\2\0\1\0\x20\x20": "cursor",
    b"\x0a\5\1\x08": "PCX",
    b"\1\0\0\0" + bytes(36) + b" EMF": "drawing (EMF)",
    b"\x89PNG\n\x1a\n\0\0\0\rIHDR": "PNG that was changed as if it were text",
    "hello, world\n".encode("utf-16"): "text",
    b"\0\0\0\1Bud1": ".DS_Store",
    b"L\0\0\0\1\x14\2\0": "shortcut",
    bytes(5000): "zero bytes",
}


@pytest.mark.parametrize("start", OTHERS)
def test_other_files_are_named_and_not_called_damaged(start: bytes) -> None:
    refused(start + b"\n" * (b"<" in start), OTHERS[start])
    refused(start + (b" more of it" * 900 if start.strip(b"\0") else b""), OTHERS[start])


def test_real_noise_is_damaged_or_no_image() -> None:
    refused(b"\x9d\x03\xee" + random_pixels(30, 30).tobytes(), "not an image", damaged=True)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("make", [
    lambda noise: heic(noise),
    lambda noise: heic(noise, tile_size=128),
    lambda noise: saved(noise, "AVIF", quality=95),
    lambda noise: saved(noise, "WEBP", quality=95),
    lambda noise: saved(noise, "WEBP", lossless=True),
    lambda noise: imagecodecs.jpeg2k_encode(257 * noise.astype(np.uint16), codecformat="jp2"),
    lambda noise: imagecodecs.jpeg2k_encode(257 * noise.astype(np.uint16), codecformat="j2k"),
    lambda noise: imagecodecs.jpeg2k_encode(noise, codecformat="jp2"),
    *(
        lambda noise, stored=stored: tiff_by_library(noise, photometric="rgb", **stored)
        for compression in ("zlib", "zstd", "lzw", "packbits", "jpeg2000", "jpegxr")
        for stored in ({"compression": compression},
                       {"compression": compression, "rowsperstrip": 16},
                       {"compression": compression, "tile": (128, 128)})
    ),
])  # fmt: skip
def test_copies_that_end_in_zeros_are_never_filled_up(make: Any, kept: float) -> None:
    data = make(random_pixels(256, 384))
    decode(data + bytes(9999))  # as tools that recover files leave them
    whole = round(kept * len(data))
    refused(data[:whole] + bytes(len(data) - whole), "its end is empty", damaged=True)


# --- any bytes ---------------------------------------------------------------------------

WHOLE = [
    *SAMPLES.values(),
    png(),
    saved(SMOOTH, "JPEG"),
    saved(SMOOTH, "JPEG", progressive=True),
    saved(SMOOTH, "WEBP"),
    saved(SMOOTH, "BMP"),
    saved(SMOOTH, "GIF"),
    saved(SMOOTH, "JPEG2000"),
    saved(SMOOTH, "TIFF", compression="tiff_lzw"),
    tiff_by_library(PIXELS, photometric="rgb", compression="zstd", predictor=True),
    imagecodecs.jpegls_encode(SMOOTH),
]


@settings(deadline=None)
@given(st.sampled_from(WHOLE), st.data())
def test_damage_is_never_taken_for_a_fault_of_ours(whole: bytes, data: Any) -> None:
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    stop = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    try:
        picture = decode(bytes(content[:stop]), max_pixels=10**6)
    except ImageError as error:
        if re.search(r"fault of restormer-cli|\ba [AEIO]", str(error)):
            raise
    else:
        assert picture.pixels.dtype in (np.uint8, np.uint16)
        assert picture.pixels.shape[2] in (1, 3)
        assert picture.alpha is None or picture.alpha.shape == picture.pixels.shape[:2]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_every_codec_measures_what_it_decodes(codec: Any, tmp_path: Path) -> None:
    data = SAMPLES[codec.name]
    assert codec.matches(data[:4096])
    assert find_codec(io.BytesIO(data)) is codec
    assert codec.measure(io.BytesIO(data)) == codec.decode(data).pixels.shape[:2] == (64, 77)
    (tmp_path / "a.png").write_bytes(data)
    assert image_size(tmp_path / "a.png") == (64, 77)


def test_the_size_of_what_cannot_be_looked_at_is_not_known(tmp_path: Path) -> None:
    """A run asks for sizes before it begins, and no file may end it."""
    assert image_size(tmp_path / "nothing.png") is None
    assert image_size(tmp_path / ("x" * 300)) is None  # a name that the system refuses
