"""What a file says beside its pixels: kept as it holds for the result, or told; never made up."""

from __future__ import annotations

import base64
import io
import itertools
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import pytest
import tifffile
from helpers import random_pixels, read, restormer, save, smooth_pixels, zero_network
from hypothesis import given
from hypothesis import strategies as st
from image_files import saved

from restormer_cli.images.metadata import Density, Found, Metadata
from restormer_cli.images.metadata.tiff import read_tiff
from restormer_cli.images.picture import Picture
from restormer_cli.images.reading import decode_image, read_image
from restormer_cli.images.writing import encode_image, write_image

SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    pixels: Any, *before: tuple[bytes, bytes], after: tuple[tuple[bytes, bytes], ...] = ()
) -> bytes:
    """A PNG of gray, gray with alpha, RGB or RGBA, 8 or 16 bit, with chunks around its pixels."""
    height, width, channels = pixels.shape
    depth, color_type = 8 * pixels.dtype.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = [(b"IHDR", header), *before, (b"IDAT", body), *after, (b"IEND", b"")]
    return SIGNATURE + b"".join(itertools.starmap(chunk, chunks))


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """Name and content of all chunks but those that make the pixels; checksums are checked."""
    assert data[:8] == SIGNATURE
    found, place = [], 8
    while place < len(data):
        (size,) = struct.unpack_from(">I", data, place)
        name, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        assert chunk(name, body) == data[place : place + 12 + size]
        found.append((name, body))
        place += 12 + size
    names = [name for name, _ in found]
    assert names[0] == b"IHDR"
    assert names[-1] == b"IEND"
    return [(name, body) for name, body in found if name not in (b"IHDR", b"IDAT", b"IEND")]


def restored(data: bytes) -> tuple[dict[bytes, bytes], tuple[str, ...]]:
    """Chunks of the result of a network that changes nothing, and what a person is told."""
    picture = decode_image(data)
    result = encode_image(picture)
    again = decode_image(result)
    # All of it is read back as it was written: nothing is done twice.
    np.testing.assert_array_equal(again.pixels, picture.pixels, strict=True)
    kind = picture.bit_depth, picture.pixels.shape[2] == 1
    assert again.metadata.as_png(*kind) == picture.metadata.as_png(*kind)
    assert again.notes == ()
    with PIL.Image.open(io.BytesIO(result)) as image:
        image.load()  # by a reader of its own
    found = chunks_of(result)
    assert len({name for name, _ in found}) == len(found)
    return dict(found), picture.notes


def profile_in(body: bytes) -> bytes:
    name, _, rest = body.partition(b"\0")
    assert 1 <= len(name) <= 79
    assert rest[:1] == b"\0"
    return zlib.decompress(rest[1:])


def resolution(data: bytes) -> tuple[int, ...] | None:
    """Pixels a unit, and the unit: 1 is a metre, 0 is none."""
    body = restored(data)[0].get(b"pHYs")
    return None if body is None else struct.unpack(">IIB", body)


# --- from the outside --------------------------------------------------------------------


def test_colours_mean_the_same_in_the_result_or_a_line_says_not(tmp_path: Path) -> None:
    pixels = random_pixels(9, 14)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "linear.png").write_bytes(png(pixels, (b"gAMA", struct.pack(">I", 100_000))))
    (folder / "wide.png").write_bytes(png(pixels, (b"pHYs", struct.pack(">IIB", 2, 1, 0))))
    (folder / "odd.jpg").write_bytes(saved(pixels, "JPEG", icc_profile=SRGB + bytes(4)))
    (folder / "cut.jpg").write_bytes(saved(pixels, "JPEG", icc_profile=SRGB[:300]))
    weights = save(zero_network("bias_free"), tmp_path / "zero.safetensors")
    ran = restormer(
        *("denoise", "--kind", "color", "--weights", weights),
        *("--input-dir", folder, "--result-dir", tmp_path / "out"),
    )
    assert ran.status == 0
    told = [line for line in ran.err.splitlines() if "profile" in line]
    assert len(told) == 1
    assert "cut.jpg: its colour profile is cut off; it is left out" in told[0]

    def found(name: str) -> dict[bytes, bytes]:
        return dict(chunks_of((tmp_path / "out" / name).read_bytes()))

    assert found("linear.png") == {b"gAMA": struct.pack(">I", 100_000)}
    assert found("wide.png") == {b"pHYs": struct.pack(">IIB", 2, 1, 0)}
    assert profile_in(found("odd.png")[b"iCCP"]) == SRGB
    assert found("cut.png") == {}
    np.testing.assert_array_equal(read(tmp_path / "out" / "linear.png"), pixels)


def test_metadata_stays_when_the_bit_depth_does_not(tmp_path: Path) -> None:
    pixels = random_pixels(9, 14, 4, bits=16)
    shown = (b"cICP", bytes([9, 16, 0, 1])), (b"bKGD", struct.pack(">3H", 0, 0x8080, 0xFFFF))
    (tmp_path / "a.png").write_bytes(png(pixels, *shown, (b"sBIT", bytes([10] * 4))))
    weights = save(zero_network("bias_free"), tmp_path / "zero.safetensors")
    ran = restormer(
        *("denoise", "--kind", "color", "--weights", weights, "--bit-depth", 8),
        *("--input-dir", tmp_path / "a.png", "--result-dir", tmp_path / "out"),
    )
    assert ran.status == 0
    found = dict(chunks_of((tmp_path / "out" / "a.png").read_bytes()))
    # The bits that were significant are not those of the result.
    assert found == {b"cICP": shown[0][1], b"bKGD": struct.pack(">3H", 0, 0x80, 0xFF)}


def test_of_dual_pixels_the_metadata_of_the_left_view_is_kept(tmp_path: Path) -> None:
    gamma = (b"gAMA", struct.pack(">I", 100_000))
    for side, chunks in (("inputL", [gamma]), ("inputR", [(b"tEXt", b"Author\0me")])):
        (tmp_path / "in" / side).mkdir(parents=True)
        data = png(random_pixels(16, 16, 3, bits=16), *chunks)
        (tmp_path / "in" / side / "a.png").write_bytes(data)
    weights = save(zero_network("dual_pixel"), tmp_path / "zero.safetensors")
    ran = restormer(
        *("dual-pixel", "--weights", weights),
        *("--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out"),
    )
    assert ran.status == 0, ran.err
    assert chunks_of((tmp_path / "out" / "a.png").read_bytes()) == [gamma]


# --- PNG ---------------------------------------------------------------------------------

CHROMATICITIES = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
#: What may be in a PNG of colour and holds for its result.
KEPT: dict[bytes, Any] = {
    b"gAMA": st.integers(1, 2**31 - 1).map(lambda gamma: struct.pack(">I", gamma)),
    b"cHRM": st.just(CHROMATICITIES),
    b"sRGB": st.integers(0, 3).map(lambda intent: bytes([intent])),
    b"cICP": st.tuples(st.integers(0, 255), st.integers(0, 255), st.booleans()).map(
        lambda code: bytes([code[0], code[1], 0, code[2]])
    ),
    b"mDCV": st.binary(min_size=24, max_size=24),
    b"cLLI": st.binary(min_size=8, max_size=8),
    b"iCCP": st.just(b"any name\0\0" + zlib.compress(SRGB)),
    b"pHYs": st.tuples(*2 * [st.integers(1, 2**31 - 1)], st.integers(0, 1)).map(
        lambda values: struct.pack(">IIB", *values)
    ),
    b"bKGD": st.just(struct.pack(">3H", 1, 2, 3)),
    b"sCAL": st.just(b"\1" + b"2.5\0" + b"1e-3"),
    b"oFFs": st.just(struct.pack(">iiB", 5, -5, 0)),
    b"tEXt": st.just(b"Author\0Jos\xe9"),
    b"zTXt": st.just(b"Description\0\0" + zlib.compress(b"A tree. " * 50)),
    b"prIv": st.just(b""),
    b"prIt": st.binary(max_size=30),
}
#: What holds for the file as it was alone.
DROPPED: dict[bytes, bytes] = {
    b"sBIT": bytes([5, 6, 5]),
    b"hIST": b"",
    b"tIME": struct.pack(">H5B", 2026, 5, 1, 12, 0, 0),
    b"sPLT": b"name\0\x08",
    b"prIV": b"unsafe to copy",
}


@given(
    st.fixed_dictionaries({}, optional=KEPT),
    st.sets(st.sampled_from(sorted(DROPPED))),
    st.sampled_from([8, 16]),
    st.randoms(use_true_random=False),
)
def test_any_chunks_that_hold_for_the_result_are_kept_and_no_others(
    kept: dict[bytes, bytes], dropped: set[bytes], bits: int, random: Any
) -> None:
    pixels = random_pixels(5, 4, 3, bits)
    before = [*kept.items(), *((name, DROPPED[name]) for name in sorted(dropped))]
    random.shuffle(before)
    data = png(pixels, *before)
    picture = decode_image(data)
    np.testing.assert_array_equal(picture.pixels, pixels, strict=True)
    found, notes = restored(data)
    assert notes == ()
    if b"iCCP" in kept:
        assert profile_in(found.pop(b"iCCP")) == SRGB
        del kept[b"iCCP"]
    assert found == kept


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_no_library_applies_gamma_or_colour_spaces(channels: int, bits: int) -> None:
    pixels = random_pixels(9, 14, channels, bits)
    shown = [
        (b"gAMA", struct.pack(">I", 100_000)),
        (b"cHRM", CHROMATICITIES),
        (b"cICP", bytes([9, 16, 0, 0])),
        (b"sBIT", bytes([3] * channels)),
    ]
    for kind in ((), *((one,) for one in shown), shown):
        picture = decode_image(png(pixels, *kind))
        assert picture.notes == ()
        colors = pixels[..., : 1 if channels < 3 else 3]
        np.testing.assert_array_equal(picture.pixels, colors, strict=True)
        if channels in (2, 4):
            np.testing.assert_array_equal(picture.alpha, pixels[..., -1], strict=True)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        (b"gAMA", bytes(4)),
        (b"gAMA", struct.pack(">I", 1 << 31)),
        (b"sRGB", b"\4"),
        (b"cHRM", bytes(33)),
        (b"cICP", bytes([9, 16, 9, 1])),  # not RGB
        (b"cICP", bytes([9, 16, 0, 2])),
        (b"mDCV", b""),
    ],
)
def test_chunk_that_no_reader_heeds_is_left_out_and_told(name: bytes, body: bytes) -> None:
    data = png(random_pixels(5, 4), (name, body), (b"tEXt", b"Author\0me"))
    found, notes = restored(data)
    assert found == {b"tEXt": b"Author\0me"}
    assert len(notes) == 1
    assert name.decode() in notes[0]


def test_colour_chunks_behind_the_pixels_count_for_nothing() -> None:
    late = (b"gAMA", struct.pack(">I", 1)), (b"pHYs", struct.pack(">IIB", 2, 1, 0))
    text = (b"tEXt", b"Author\0me")
    assert restored(png(random_pixels(5, 4), after=(*late, text))) == (dict([text]), ())


def test_the_first_of_equal_colour_chunks_counts() -> None:
    gammas = [(b"gAMA", struct.pack(">I", gamma)) for gamma in (45455, 100_000)]
    assert restored(png(random_pixels(5, 4), *gammas)) == (dict(gammas[:1]), ())


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [2, 4])
def test_background_of_transparent_images_is_kept(channels: int, bits: int) -> None:
    levels = (200, 100, 50) if channels == 4 else (200,)
    body = struct.pack(f">{len(levels)}H", *levels)
    assert restored(png(random_pixels(5, 4, channels, bits), (b"bKGD", body)))[0] == {b"bKGD": body}


def test_background_of_a_palette_becomes_its_colour() -> None:
    palette = bytes([1, 2, 3, 40, 50, 60])
    header = struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0)
    pixels = zlib.compress(b"\0\0\1")
    chunks = {b"IHDR": header, b"PLTE": palette, b"tRNS": b"\0", b"bKGD": b"\1", b"IDAT": pixels}
    data = SIGNATURE + b"".join(chunk(*one) for one in chunks.items()) + chunk(b"IEND", b"")
    assert restored(data)[0] == {b"bKGD": struct.pack(">3H", 40, 50, 60)}


def test_texts_of_odd_kinds_cost_at_most_themselves() -> None:
    author = (b"tEXt", b"Author\0me")
    for name, body, said in (
        (b"zTXt", b"Notes\0\0" + zlib.compress(bytes(1 << 21)), "larger than 1 MB"),
        (b"zTXt", b"Notes\0\0" + zlib.compress(b"much" * 99)[:-20], "cut off"),
        (b"iTXt", b"Notes\0\1\0\0\0no deflate", "damaged"),
        (b"tEXt", b"Raw profile type exif\0\nexif\n  3\nxyz", "damaged"),
    ):
        data = png(random_pixels(5, 4), author, after=((name, body),))
        try:
            decoded = decode_image(data)
        except Exception:  # whether it is opened is not for this test to say
            continue
        assert dict(decoded.metadata.others) == dict([author])
        assert len(decoded.notes) == 1
        assert said in decoded.notes[0]


# --- colour profiles ---------------------------------------------------------------------


def with_size(profile: bytes, size: int) -> bytes:
    return struct.pack(">I", size) + profile[4:]


@given(st.integers(-2, 64), st.integers(0, 300), st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]))
def test_profile_of_odd_size_is_kept(claimed_more: int, padding: int, kind: str) -> None:
    odd = with_size(SRGB, len(SRGB) + claimed_more) + bytes(padding)
    found, notes = restored(saved(smooth_pixels(9, 14), kind, icc_profile=odd))
    assert notes == ()
    kept = profile_in(found[b"iCCP"])
    assert struct.unpack(">I", kept[:4]) == (len(kept),)
    assert len(kept) % 4 == 0  # or libpng would not take it
    assert kept[4:84] == SRGB[4:84]
    assert kept[128:].startswith(SRGB[128:])
    same_colours(kept, "RGB", SRGB, "RGB")


@pytest.mark.parametrize("size", [0, 1, 100, 2**31, 2**32 - 1])
def test_senseless_size_field_of_a_profile_is_mended(size: int) -> None:
    data = saved(smooth_pixels(9, 14), "JPEG", icc_profile=with_size(SRGB, size))
    found, notes = restored(data)
    assert notes == ()
    assert profile_in(found[b"iCCP"]) == SRGB


def same_colours(one: bytes, mode: str, other: bytes, other_mode: str) -> None:
    """Every gray looks the same under both profiles, as LittleCMS has it."""
    shown = []
    for profile, of in ((one, mode), (other, other_mode)):
        opened = PIL.ImageCms.ImageCmsProfile(io.BytesIO(profile))
        to_srgb = PIL.ImageCms.createProfile("sRGB")
        transform = PIL.ImageCms.buildTransform(opened, to_srgb, of, "RGB")
        ramp = PIL.Image.fromarray(np.arange(256, dtype=np.uint8)[None]).convert(of)
        shown.append(np.asarray(PIL.ImageCms.applyTransform(ramp, transform)).astype(int))
    # Of the darkest it makes a table of few steps.
    assert np.abs(shown[0] - shown[1])[:, 8:].max() <= 1


def profile_of_gamma(gamma: float) -> bytes:
    """The sRGB profile with other curves."""
    (count,) = struct.unpack_from(">I", SRGB, 128)
    for place in range(132, 132 + 12 * count, 12):
        name, start, size = struct.unpack_from(">4sII", SRGB, place)
        if name == b"rTRC":  # and the other two, which share it
            curve = b"curv" + struct.pack(">IIH", 0, 1, round(256 * gamma))
            return SRGB[:start] + curve.ljust(size, b"\0") + SRGB[start + size :]
    raise AssertionError


@pytest.mark.parametrize("profile", [SRGB, profile_of_gamma(1.8)], ids=["sRGB", "1.8"])
@pytest.mark.parametrize("alpha", [False, True])
def test_gray_photo_with_a_colour_profile_looks_the_same(profile: bytes, alpha: bool) -> None:
    data = png(random_pixels(9, 14, 1 + alpha), (b"iCCP", b"colour\0\0" + zlib.compress(profile)))
    found, notes = restored(data)
    assert notes == ()
    kept = profile_in(found[b"iCCP"])
    assert kept[16:20] == b"GRAY"
    same_colours(kept, "L", profile, "RGB")


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_gray_profile_of_a_gray_photo_is_kept_as_it_is(mode: str) -> None:
    image = PIL.Image.fromarray(random_pixels(5, 4, 1)[..., 0]).convert(mode)
    profile = decode_image(saved(image, "PNG", icc_profile=SRGB)).metadata.icc
    assert profile is not None
    found, notes = restored(saved(image, "PNG", icc_profile=profile))
    assert notes == ()
    assert profile_in(found[b"iCCP"]) == profile


@pytest.mark.parametrize(
    ("channels", "profile", "said"),
    [
        (3, SRGB[:100], "cut off"),
        (3, SRGB[:-100], "cut off"),
        (3, b"no profile" * 30, "damaged"),
        (3, SRGB.replace(b"acsp", b"none"), "damaged"),
        (3, SRGB.replace(b"RGB XYZ", b"CMYKLab"), "CMYK"),
        (3, SRGB.replace(b"RGB XYZ", b"Lab XYZ"), "Lab"),
        (3, SRGB.replace(b"RGB XYZ", b"\n\0\x1b[XYZ"), "unknown"),
        (3, SRGB.replace(b"RGB XYZ", b"GRAYXYZ"), "for gray"),
        (3, SRGB.replace(b"mntrRGB", b"linkRGB"), "not one of a device"),
        (3, SRGB.replace(b"rTRC", b"none"), "damaged"),
        (1, SRGB.replace(b"RGB XYZ", b"CMYKLab"), "CMYK"),
    ],
    ids=[
        *("begins", "all but its end", "text", "no signature", "CMYK", "Lab", "unknown space"),
        *("gray", "link", "without a curve", "CMYK for gray"),  # the profile holds a time
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_profile_that_cannot_be_kept_is_told_and_does_not_cost_the_result(
    kind: str, channels: int, profile: bytes, said: str
) -> None:
    pixels = smooth_pixels(9, 14)
    image = PIL.Image.fromarray(pixels).convert("L" if channels == 1 and kind != "WEBP" else "RGB")
    found, notes = restored(saved(image, kind, icc_profile=profile))
    assert b"iCCP" not in found
    assert len(notes) == 1
    assert "colour profile" in notes[0]
    assert said in notes[0]
    assert notes[0].isprintable()


def test_profile_that_no_program_reads_for_its_size_is_told() -> None:
    body = b"large\0\0" + zlib.compress(with_size(SRGB, 1 << 23).ljust(1 << 23, b"\0"))
    data = png(random_pixels(5, 4), (b"iCCP", body))
    try:
        picture = decode_image(data)
    except Exception:  # whether it is opened is not for this test to say
        return
    assert picture.metadata.icc is None
    assert "8 MB" in picture.notes[0]


def jpeg_with(*segments: tuple[int, bytes], pixels: Any = None) -> bytes:
    """A JPEG without any APP segments but these, numbered from APP0; 14 more is a comment."""
    data = saved(smooth_pixels(16, 24) if pixels is None else pixels, "JPEG", quality=95)
    assert data[2:4] == b"\xff\xe0"
    rest = data[4 + int.from_bytes(data[4:6], "big") :]
    inserted = b"".join(
        bytes([0xFF, 0xE0 + number]) + struct.pack(">H", len(body) + 2) + body
        for number, body in segments
    )
    return data[:2] + inserted + rest


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_profile_in_several_parts_is_put_together(order: tuple[int, ...]) -> None:
    cuts = [SRGB[:100], SRGB[100:300], SRGB[300:]]
    parts = [(2, b"ICC_PROFILE\0" + bytes([n + 1, 3]) + cut) for n, cut in enumerate(cuts)]
    found, notes = restored(jpeg_with(*(parts[n] for n in order)))
    assert notes == ()
    assert profile_in(found[b"iCCP"]) == SRGB
    for lost in range(3):
        found, notes = restored(jpeg_with(*(parts[n] for n in order if n != lost)))
        assert b"iCCP" not in found
        assert notes == ("its colour profile lacks a part; it is left out",)


@pytest.mark.parametrize(
    "profile", [SRGB, SRGB.replace(b"RGB XYZ", b"CMYKLab")], ids=["RGB", "CMYK"]
)
def test_profile_of_cmyk_is_told_once(profile: bytes) -> None:
    image = PIL.Image.fromarray(smooth_pixels(32, 32)).convert("CMYK")
    for kind in ("JPEG", "TIFF"):
        found, notes = restored(saved(image, kind, icc_profile=profile))
        assert b"iCCP" not in found
        assert len(notes) == 1
        assert "CMYK" in notes[0]


# --- resolution --------------------------------------------------------------------------


def jfif(unit: int, x: int, y: int) -> tuple[int, bytes]:
    return 0, b"JFIF\0\1\2" + struct.pack(">BHHBB", unit, x, y, 0, 0)


def camera(tags: dict[int, Any], photo: dict[int, Any] | None = None, endian: str = "<") -> bytes:
    """EXIF, written by Pillow."""
    noted = PIL.Image.Exif()
    noted.endian = endian
    noted.update(tags)
    if photo:
        noted.get_ifd(0x8769).update(photo)
    return noted.tobytes()


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([], None),
        ([jfif(0, 1, 1)], None),
        ([jfif(0, 2, 1)], (2, 1, 0)),
        ([jfif(0, 0, 0)], None),
        ([jfif(1, 300, 150)], (11811, 5906, 1)),
        ([jfif(1, 0, 0)], None),
        ([jfif(2, 100, 50)], (10000, 5000, 1)),
        ([jfif(3, 100, 50)], None),
        # Pillow makes up 72 dpi where EXIF tells none.
        ([(1, camera({271: "Maker"}))], None),
        ([(1, camera({282: 300.0, 283: 150.0, 296: 2}))], (11811, 5906, 1)),
        ([(1, camera({282: 300.0, 283: 150.0}))], (11811, 5906, 1)),
        ([(1, camera({282: 100.0, 283: 50.0, 296: 3}))], (10000, 5000, 1)),
        ([(1, camera({282: 2.0, 283: 1.0, 296: 1}))], (2, 1, 0)),
        ([(1, camera({282: 1.5, 283: 1.0, 296: 1}))], (3, 2, 0)),
        ([(1, camera({282: 300.0, 296: 2}))], None),
        ([(1, camera({282: 0.0, 283: 0.0, 296: 2}))], None),
        ([jfif(0, 1, 1), (1, camera({282: 300.0, 283: 300.0, 296: 2}))], (11811, 11811, 1)),
        ([jfif(1, 96, 96), (1, camera({282: 300.0, 283: 300.0, 296: 2}))], (3780, 3780, 1)),
        (
            [
                (
                    13,
                    b"Photoshop 3.0\x008BIM\x03\xed\0\0"
                    + struct.pack(">IIHHIHH", 16, 300 << 16, 1, 1, 150 << 16, 1, 1),
                )
            ],
            (11811, 5906, 1),
        ),
    ],
)
def test_resolution_of_jpeg(segments: list[tuple[int, bytes]], expected: Any) -> None:
    assert resolution(jpeg_with(*segments)) == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, None),
        ({282: (300, 1), 283: (150, 1), 296: 2}, (11811, 5906, 1)),
        ({282: (300, 1), 283: (150, 1)}, (11811, 5906, 1)),  # inch is the default
        ({282: (100, 1), 283: (50, 1), 296: 3}, (10000, 5000, 1)),
        ({282: (3, 2), 283: (1, 1), 296: 1}, (3, 2, 0)),
        ({282: (1, 1), 283: (1, 1), 296: 1}, None),
        ({282: (300, 1), 296: 2}, None),
        ({282: (300, 0), 283: (300, 1), 296: 2}, None),
        ({282: (0, 1), 283: (0, 1), 296: 2}, None),
    ],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_resolution_of_tiff(bits: int, tags: dict[int, Any], expected: Any) -> None:
    assert resolution(tiff(random_pixels(5, 4, 3, bits), tags)) == expected


def tiff(pixels: Any, tags: dict[int, Any], endian: str = "<", big: bool = False) -> bytes:
    """A TIFF of RGB by hand, with these tags alone beside the necessary ones."""
    height, width, channels = pixels.shape
    bits = 8 * pixels.dtype.itemsize
    order = endian
    body = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    start = 16
    shorts = {256: width, 257: height, 259: 1, 262: 2, 277: channels, 278: height, 284: 1}
    entries: dict[int, tuple[int, int, bytes]] = {
        tag: (3, 1, struct.pack(f"{order}H", value)) for tag, value in shorts.items()
    }
    entries[258] = 3, channels, struct.pack(f"{order}{channels}H", *[bits] * channels)
    entries[273] = 4, 1, struct.pack(f"{order}I", start)
    entries[279] = 4, 1, struct.pack(f"{order}I", len(body))

    def entry(value: Any) -> tuple[int, int, bytes]:
        if isinstance(value, bytes):
            return 7, len(value), value
        if isinstance(value, str):
            return 2, len(value.encode()) + 1, value.encode() + b"\0"
        if isinstance(value, int):
            return 3, 1, struct.pack(f"{order}H", value)
        return 5, len(value) // 2, struct.pack(f"{order}{len(value)}I", *value)

    def directory(values: dict[int, Any], place: int, first: bool) -> bytes:
        known = dict(entries) if first else {}
        count, offset, room, head = ("Q", "Q", 8, 8) if big else ("H", "I", 4, 2)
        size = head + (4 + 2 * room) * (len(known) + len(values)) + room
        table, rest = struct.pack(order + count, len(known) + len(values)), b""
        for tag in sorted({*known, *values}):
            value = values.get(tag)
            if isinstance(value, dict):
                inner = directory(value, place + size + len(rest), False)
                kind, length = 4, 1
                content = struct.pack(f"{order}I", place + size + len(rest))
                rest += inner
            else:
                kind, length, content = known[tag] if tag in known else entry(value)
            if len(content) > room:
                content, kept = struct.pack(order + offset, place + size + len(rest)), content
                rest += kept + bytes(len(kept) % 2)
            table += struct.pack(f"{order}HH{offset}", tag, kind, length)
            table += content.ljust(room, b"\0")
        return table + bytes(room) + rest

    place = start + len(body) + len(body) % 2
    mark = b"II" if order == "<" else b"MM"
    head = (
        struct.pack(f"{order}HHHQ", 43, 8, 0, place)
        if big
        else struct.pack(f"{order}HIQ", 42, place, 0)
    )
    data = (mark + head).ljust(start, b"\0") + body + bytes(len(body) % 2)
    return data + directory(tags, place, True)


@pytest.mark.parametrize(("x", "y"), [(2835, 1417), (0, 0), (-1, 5)])
def test_resolution_of_bmp(x: int, y: int) -> None:
    data = bytearray(saved(random_pixels(5, 4), "BMP"))
    struct.pack_into("<ii", data, 38, x, y)
    assert resolution(bytes(data)) == ((x, y, 1) if x > 0 else None)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
def test_no_resolution_is_made_up(suffix: str) -> None:
    kind = PIL.Image.registered_extensions()[suffix]
    data = bytearray(saved(smooth_pixels(9, 14), kind))
    if kind == "BMP":
        struct.pack_into("<ii", data, 38, 0, 0)  # where Pillow writes 96 dpi
    assert resolution(bytes(data)) is None


@pytest.mark.parametrize("density", [(2**33, 2**33, 1), (0.001, 0.001, 1), (1e-9, 1, 0)])
def test_senseless_resolution_does_not_cost_the_result(
    tmp_path: Path, density: tuple[float, float, int]
) -> None:
    pixels = random_pixels(9, 14)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metadata = Metadata(density=Density(*density[:2], metric=bool(density[2])))
        write_image(tmp_path / "a.png", Picture(pixels, metadata=metadata))
    picture = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, pixels)
    assert picture.metadata.density is None


# --- orientation -------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "deep tiff"])
def test_resolution_and_shape_of_pixels_turn_with_the_picture(kind: str, orientation: int) -> None:
    tags = {274: orientation, 282: (300, 1), 283: (150, 1), 296: 2}
    if kind == "png":
        noted = camera({274: orientation})[6:]
        shape = struct.pack(">IIB", 11811, 5906, 1)
        data = png(random_pixels(5, 4), (b"pHYs", shape), (b"eXIf", noted))
    elif kind == "jpeg":
        data = jpeg_with(jfif(1, 300, 150), (1, camera({274: orientation})))
    else:
        data = tiff(random_pixels(5, 4, 3, 16 if kind == "deep tiff" else 8), tags)
    expected = (5906, 11811) if orientation >= 5 else (11811, 5906)
    assert resolution(data) == (*expected, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("endian", ["<", ">"])
def test_exif_holds_for_the_upright_picture(endian: str, orientation: int) -> None:
    tags = {256: 4000, 257: 3000, 274: orientation, 282: 300.0, 283: 150.0, 296: 2}
    photo = {0xA002: 4000, 0xA003: 3000, 0xA20E: 2.0, 0xA20F: 1.0, 0xA001: 65535}
    data = jpeg_with((1, camera(tags, photo, endian)))  # of a photo that was made smaller since
    result = encode_image(decode_image(data))
    with PIL.Image.open(io.BytesIO(result)) as image:
        image.load()
        width, height = image.size
        noted = image.getexif()
    turned = orientation >= 5
    assert (width, height) == ((16, 24) if turned else (24, 16))
    assert noted[274] == 1
    assert (noted[256], noted[257]) == (width, height)
    assert (noted[282], noted[283]) == ((150, 300) if turned else (300, 150))
    inner = noted.get_ifd(0x8769)
    assert (inner[0xA002], inner[0xA003]) == (width, height)
    assert (inner[0xA20E], inner[0xA20F]) == ((1, 2) if turned else (2, 1))
    assert inner[0xA001] == 65535


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_damage_elsewhere_in_exif_does_not_cost_the_orientation(
    endian: str, orientation: int
) -> None:
    pixels = smooth_pixels(16, 24)
    whole = camera({271: "A maker with a long name", 274: orientation}, endian=endian)
    with PIL.Image.open(io.BytesIO(saved(pixels, "WEBP", lossless=True, exif=whole))) as image:
        expected = np.asarray(PIL.ImageOps.exif_transpose(image))
    turned = saved(pixels, "WEBP", lossless=True, exif=whole[:-9])
    np.testing.assert_array_equal(decode_image(turned).pixels, expected)


@pytest.mark.parametrize("kind", [1, 3, 4, 6, 8, 9])
def test_orientation_counts_whatever_whole_number_it_is(kind: int) -> None:
    value = struct.pack("<" + {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}[kind], 6)
    entry = struct.pack("<HHI", 274, kind, 1) + value.ljust(4, b"\0")
    noted = b"II*\0\x08\0\0\0\1\0" + entry + bytes(4)
    pixels = random_pixels(6, 11)
    picture = decode_image(png(pixels, (b"eXIf", noted)))
    np.testing.assert_array_equal(picture.pixels, np.rot90(pixels, -1))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff"])
def test_orientation_that_does_not_exist_is_not_handed_on(kind: str, orientation: int) -> None:
    pixels = smooth_pixels(6, 11)
    if kind == "tiff":
        data = tiff(pixels, {274: orientation})
    else:
        data = saved(pixels, kind, exif=camera({274: orientation, 271: "Maker"}))
    result = encode_image(decode_image(data))
    with PIL.Image.open(io.BytesIO(result)) as image:
        assert image.size == (11, 6)
        image.load()
        assert image.getexif().get(274, 1) == 1


def raw_profile(name: str, content: bytes) -> tuple[bytes, bytes]:
    """As ImageMagick put EXIF and the like into PNG before there was a chunk for it."""
    digits = content.hex()
    lines = [digits[start : start + 72] for start in range(0, len(digits), 72)]
    text = "\n".join(["", name, f"{len(content):8}", *lines, ""])
    return b"zTXt", f"Raw profile type {name}\0\0".encode() + zlib.compress(text.encode())


def test_exif_of_imagemagick_turns_the_picture_once() -> None:
    pixels = random_pixels(6, 11)
    data = png(pixels, raw_profile("exif", camera({274: 6, 271: "Maker"})))
    found, notes = restored(data)
    assert notes == ()
    assert set(found) == {b"eXIf"}
    picture = decode_image(data)
    np.testing.assert_array_equal(picture.pixels, np.rot90(pixels, -1))


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5" tiff:Orientation="%d">'
    b"<tiff:ImageWidth>9999</tiff:ImageWidth></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def xmp_segment(xmp: bytes) -> tuple[int, bytes]:
    return 1, b"http://ns.adobe.com/xap/1.0/\0" + xmp


@pytest.mark.parametrize("noted", [None, 1, 6])
@pytest.mark.parametrize("kind", ["png", "compressed png", "imagemagick", "jpeg", "webp"])
def test_xmp_is_kept_and_turns_the_picture_only_where_exif_does_not_say(
    kind: str, noted: int | None
) -> None:
    xmp = XMP % 8
    exif = [] if noted is None else [(1, camera({274: noted}))]
    chunks = [(b"eXIf", body[6:]) for _, body in exif]
    pixels = random_pixels(16, 24)
    if kind == "png":
        data = png(pixels, (b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp), *chunks)
    elif kind == "compressed png":
        body = b"XML:com.adobe.xmp\0\1" + bytes(3) + zlib.compress(xmp)
        data = png(pixels, (b"iTXt", body), *chunks)
    elif kind == "imagemagick":
        data = png(pixels, raw_profile("xmp", xmp), *chunks)
    elif kind == "webp":
        settings = {"exif": exif[0][1]} if exif else {}
        data = saved(pixels, "WEBP", lossless=True, xmp=xmp, **settings)
    else:
        data = jpeg_with(xmp_segment(xmp), *exif)
    found, notes = restored(data)
    assert notes == ()
    turned = noted != 1
    text = found[b"iTXt"]
    assert text.startswith(b"XML:com.adobe.xmp\0")
    assert b'tiff:Orientation="1"' in text
    assert b'xmp:Rating="5"' in text
    assert f"<tiff:ImageWidth>{16 if turned else 24}<".encode() in text
    picture = decode_image(data)
    assert picture.pixels.shape[:2] == ((24, 16) if turned else (16, 24))
    if kind != "jpeg":
        turns = {None: 1, 1: 0, 6: -1}[noted]
        np.testing.assert_array_equal(picture.pixels, np.rot90(pixels, turns))


# --- what the camera and people noted ----------------------------------------------------

CAMERA = {271: "Maker", 272: "Model", 306: "2026:05:01 12:00:00", 33432: "(c) me"}
PHOTO = {33434: 0.01, 36867: "2026:05:01 12:00:00", 42036: "A lens", 37500: b"maker notes"}
SIZE = {40962: 14, 40963: 9}
PLACE = {1: "N", 2: (46.0, 5.0, 3.0)}


def with_thumbnail(exif: bytes, endian: str, picture: bytes) -> bytes:
    """Append a directory of a thumbnail, and link it to the first one."""
    tiff = bytearray(exif[6:])
    (first,) = struct.unpack_from(f"{endian}I", tiff, 4)
    (count,) = struct.unpack_from(f"{endian}H", tiff, first)
    struct.pack_into(f"{endian}I", tiff, first + 2 + 12 * count, len(tiff))
    place = len(tiff) + 2 + 2 * 12 + 4
    directory = struct.pack(f"{endian}HHHIIHHIII", 2, 513, 4, 1, place, 514, 4, 1, len(picture), 0)
    return exif[:6] + bytes(tiff) + directory + picture


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_what_the_camera_noted_is_kept(kind: str, endian: str) -> None:
    tags = PIL.Image.Exif()
    tags.endian = endian
    tags.update({**CAMERA, 0x0112: 6})
    tags.get_ifd(0x8769).update({**PHOTO, **SIZE})
    tags.get_ifd(0x8825).update(PLACE)
    # Pillow writes ASCII alone; cameras write UTF-8.
    noted = tags.tobytes().replace(b"(c) me", "© me".encode().ljust(6, b"\0"))
    noted = with_thumbnail(noted, endian, b"the photo as it was")
    result = encode_image(decode_image(saved(smooth_pixels(9, 14), kind, exif=noted)))
    with PIL.Image.open(io.BytesIO(result)) as image:
        assert image.size == (9, 14)  # upright
        image.load()
        kept = image.getexif()
    assert kept.pop(33432).encode("latin-1").startswith("© me".encode())
    expected = {**CAMERA, 0x0112: 1}
    del expected[33432]
    assert {t: v for t, v in kept.items() if t not in (0x8769, 0x8825)} == expected
    assert kept.get_ifd(0x8769) == {**PHOTO, 40962: 9, 40963: 14}
    assert kept.get_ifd(0x8825) == PLACE
    assert not kept.get_ifd(1)
    assert b"as it was" not in result


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_what_a_tiff_says_of_its_photo_is_kept(endian: str, big: bool, bits: int) -> None:
    rights = "© me"
    tags = {
        **{271: "Maker", 272: "Model", 33432: rights, 274: 6, 282: (300, 1), 283: (300, 1)},
        0x8769: {33434: (1, 100), 36867: "2026:05:01 12:00:00", 40962: 14, 37500: b"notes" * 9},
        0x8825: {1: "N", 2: (46, 1, 5, 1, 3, 1)},
    }
    result = encode_image(decode_image(tiff(random_pixels(9, 14, 3, bits), tags, endian, big)))
    with PIL.Image.open(io.BytesIO(result)) as image:
        assert image.size == (9, 14)
        image.load()
        kept = image.getexif()
    assert kept.pop(33432).encode("latin-1") == rights.encode()
    assert {t: v for t, v in kept.items() if t not in (0x8769, 0x8825)} == {
        271: "Maker",
        272: "Model",
    }
    photo = kept.get_ifd(0x8769)
    assert photo.pop(37500) == b"notes" * 9
    assert photo == {33434: 0.01, 36867: "2026:05:01 12:00:00", 40962: 9}
    assert kept.get_ifd(0x8825) == PLACE


def test_tiff_that_says_nothing_of_its_photo_gets_no_exif() -> None:
    assert restored(tiff(random_pixels(5, 4), {})) == ({}, ())


def test_xmp_and_iptc_of_tiff_are_kept(tmp_path: Path) -> None:
    journal = b"\x1c\x02\x78\0\7caption"
    extra = [(700, "B", len(XMP % 1), XMP % 1, True), (33723, "B", len(journal), journal, True)]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random_pixels(5, 4), photometric="rgb", extratags=extra, metadata=None)
    found, notes = restored(path.read_bytes())
    assert notes == ()
    assert b'xmp:Rating="5"' in found[b"iTXt"]
    assert iptc_in(found[b"zTXt"]) == journal


def iptc_in(body: bytes) -> bytes:
    """As ImageMagick, Exiv2 and ExifTool read it."""
    keyword, _, rest = body.partition(b"\0")
    assert keyword == b"Raw profile type iptc"
    lines = zlib.decompress(rest[1:]).decode().split("\n")
    assert lines[:2] == ["", "iptc"]
    content = bytes.fromhex("".join(lines[3:]))
    assert int(lines[2]) == len(content)
    assert content[:8] == b"8BIM\x04\x04\0\0"
    (size,) = struct.unpack(">I", content[8:12])
    return content[12 : 12 + size]


def test_iptc_and_comment_of_jpeg_are_kept() -> None:
    journal = b"\x1c\x02\x78\0\7caption"
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(journal)) + journal
    for comment, name in (("schön".encode(), b"iTXt"), ("schön".encode("latin-1"), b"tEXt")):
        segments = (13, b"Photoshop 3.0\0" + block), (30, comment)
        found, notes = restored(jpeg_with(*segments))
        assert notes == ()
        assert iptc_in(found[b"zTXt"]) == journal
        assert found[name].startswith(b"Comment\0")
        assert found[name].endswith(comment)


def test_damaged_exif_costs_itself_alone_and_is_told(tmp_path: Path) -> None:
    pixels = random_pixels(9, 14)
    for damaged in (b"x", b"MM\0*\xff\xff\xff\xff", bytes(60_000)):
        found, notes = restored(saved(pixels, "PNG", exif=damaged, icc_profile=SRGB))
        assert set(found) == {b"iCCP"}
        assert notes == ("its EXIF is damaged; it is left out",)


@given(st.binary(max_size=80), st.sampled_from([b"II*\0", b"MM\0*", b""]))
def test_damaged_exif_costs_at_most_itself(rest: bytes, start: bytes) -> None:
    data = saved(smooth_pixels(9, 14), "PNG", exif=b"Exif\0\0" + start + rest)
    picture = decode_image(data)
    assert (picture.metadata.exif is None) == bool(picture.notes or not start + rest)


@given(st.integers(0, 2**31), st.sampled_from(["<", ">"]), st.booleans())
def test_damaged_tags_cost_at_most_themselves(seed: int, endian: str, big: bool) -> None:
    tags = {271: "Maker", 0x8769: {33434: (1, 100)}, 282: (300, 1), 283: (300, 1), 700: XMP % 1}
    data = bytearray(tiff(random_pixels(2, 2), tags, endian, big))
    rng = np.random.default_rng(seed)
    damaged = int(rng.integers(16 + 12, len(data)))
    data[damaged] = int(rng.integers(256))
    found = Found()
    read_tiff(found, bytes(data))
    found.of_result(2, 2, gray=False)


@pytest.mark.parametrize("xmp", [b"\xff\xfeodd", b"\xfe\xff\xd8\0", b"not \xff text", b"a\0b"])
def test_damaged_xmp_is_told(xmp: bytes) -> None:
    _, notes = restored(jpeg_with(xmp_segment(xmp)))
    assert notes == ("its XMP is damaged; it is left out",)


def colours_in_exif(space: int, rules: bytes, endian: str = "<") -> bytes:
    """EXIF that tells colours as cameras do: a number, and the rules that the file keeps to."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[endian] + struct.pack(f"{endian}I", 8)
    first = struct.pack(f"{endian}HHHIII", 1, 0x8769, 4, 1, 26, 0)
    photo = struct.pack(f"{endian}H HHIHH HHII I", 2, 0xA001, 3, 1, space, 0, 0xA005, 4, 1, 56, 0)
    return head + first + photo + struct.pack(f"{endian}H HHI4s I", 1, 1, 2, 4, rules, 0)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize(("space", "rules"), [(65535, b"R03\0"), (2, b"R98\0"), (1, b"R03\0")])
@pytest.mark.parametrize("strip", [False, True])
def test_adobe_rgb_of_which_exif_alone_tells_stays_so(
    strip: bool, space: int, rules: bytes, endian: str, tmp_path: Path
) -> None:
    path = tmp_path / "in" / "a.jpg"
    path.parent.mkdir()
    path.write_bytes(jpeg_with((1, b"Exif\0\0" + colours_in_exif(space, rules, endian))))
    weights = save(zero_network("bias_free"), tmp_path / "zero.safetensors")
    for form in ("png", "jpeg"):
        ran = restormer(
            *("denoise", "--kind", "color", "--weights", weights, "--format", form),
            *("--input-dir", path, "--result-dir", tmp_path / "out", *["--strip"][: int(strip)]),
        )
        assert ran.status == 0, ran.err
    chunks = dict(chunks_of((tmp_path / "out" / "a.png").read_bytes()))
    assert (b"eXIf" in chunks) != strip
    assert struct.unpack(">I", chunks[b"gAMA"]) == (45471,)
    white_to_blue = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
    assert struct.unpack(">8I", chunks[b"cHRM"]) == white_to_blue
    with PIL.Image.open(tmp_path / "out" / "a.jpg") as image:
        profile = PIL.ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    green = profile.profile.green_primary[1]
    np.testing.assert_allclose(green[:2], (0.23, 0.70), atol=0.02)  # under D50


@pytest.mark.parametrize(("space", "rules"), [(1, b"R98\0"), (65535, b"R98\0"), (65535, b"THM\0")])
def test_other_colours_of_exif_are_left_as_they_are(space: int, rules: bytes) -> None:
    camera_says = (1, b"Exif\0\0" + colours_in_exif(space, rules))
    assert not {b"gAMA", b"cHRM"} & restored(jpeg_with(camera_says))[0].keys()


def test_adobe_rgb_stays_so_through_jpeg_xl() -> None:
    jpeg = jpeg_with((1, b"Exif\0\0" + colours_in_exif(65535, b"R03\0")))
    color = dict(decode_image(bytes(imagecodecs.jpegxl_encode_jpeg(jpeg))).metadata.color)
    assert color.keys() == {b"gAMA", b"cHRM"}


def test_a_profile_counts_before_what_exif_says_of_colours() -> None:
    camera_says = (1, b"Exif\0\0" + colours_in_exif(65535, b"R03\0"))
    profile = (2, b"ICC_PROFILE\0\1\1" + SRGB)
    found, notes = restored(jpeg_with(camera_says, profile))
    assert notes == ()
    assert found.keys() == {b"eXIf", b"iCCP"}


def test_gain_map_for_hdr_screens_is_told() -> None:
    gain = XMP % 1 + b'<rdf:Description hdrgm:Version="1.0"/>'
    _, notes = restored(jpeg_with(xmp_segment(gain)))
    assert len(notes) == 1
    assert "gain map" in notes[0]


def test_what_goes_with_a_photo_beside_it_is_told() -> None:
    motion = (XMP % 1).replace(b'xmp:Rating="5"', b'GCamera:MotionPhoto="1"')
    stereo = saved(smooth_pixels(16, 24), "MPO", save_all=True)
    for data, said in (
        (jpeg_with(xmp_segment(motion)), "motion photo"),
        (jpeg_with((2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4))), "gain map"),
        (jpeg_with((11, b"JP\0\1\0\0\0\1jumb....c2pa")), "C2PA"),
        (png(random_pixels(5, 4), (b"caBX", b"jumb....c2pa")), "C2PA"),
        (jpeg_with((1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(40))), "second part"),
    ):
        found, notes = restored(data)
        assert len(notes) == 1
        assert said in notes[0]
        assert not found.keys() - {b"iTXt"}
    assert restored(stereo)[1] == ()


@pytest.mark.parametrize("kind", [0x000000, 0x010001, 0x010002, 0x020002])
def test_further_pictures_of_a_file_are_told_but_thumbnails_are_not(kind: int) -> None:
    pixels = PIL.Image.fromarray(smooth_pixels(16, 24))
    data = saved(pixels, "MPO", save_all=True, append_images=[pixels.resize((12, 8))])
    first = data.rindex(struct.pack("<I", 0x030000), 0, data.index(b"\xff\xdb"))
    second = first + 16
    data = data[:second] + struct.pack("<I", kind) + data[second + 4 :]
    notes = restored(data)[1]
    expected = ("only the first of 2 frames is restored",)
    assert notes == (() if kind in (0x010001, 0x010002) else expected)


def test_tiff_with_a_thumbnail_in_front_has_its_own_profile_and_resolution(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    maker = [(271, "s", 0, "Maker", True)]
    profile = [(34675, "B", len(SRGB), SRGB, True)]
    with tifffile.TiffWriter(path) as file:
        small = {"subfiletype": 1, "resolution": (72, 72), "resolutionunit": 2}
        file.write(random_pixels(5, 4), photometric="rgb", extratags=maker, metadata=None, **small)
        large = {"resolution": (100, 50), "resolutionunit": 3}
        pixels = random_pixels(10, 8)
        file.write(pixels, photometric="rgb", extratags=profile, metadata=None, **large)
    np.testing.assert_array_equal(read_image(path).pixels, pixels)
    found, notes = restored(path.read_bytes())
    assert notes == ()
    assert profile_in(found[b"iCCP"]) == SRGB
    assert found[b"pHYs"] == struct.pack(">IIB", 10_000, 5_000, 1)
    assert b"Maker" in found[b"eXIf"]


@pytest.mark.parametrize("kind", ["lossless", "12 bit"])
def test_jpeg_of_rare_kinds_keeps_its_metadata(kind: str) -> None:
    pixels = random_pixels(16, 24, 3, 16) >> 4
    settings = {"lossless": True} if kind == "lossless" else {}
    data = imagecodecs.jpeg8_encode(pixels, bitspersample=12, **settings)
    insert = (1, camera({271: "Maker", 274: 6})), (2, b"ICC_PROFILE\0\1\1" + SRGB)
    start = 2 if data[2:4] != b"\xff\xe0" else 4 + int.from_bytes(data[4:6], "big")
    segments = jpeg_with(*insert)
    added = segments[2 : segments.index(b"\xff\xdb")]
    found, notes = restored(data[:start] + added + data[start:])
    assert notes == ()
    assert set(found) == {b"iCCP", b"eXIf"}


@pytest.mark.parametrize("kind", ["AVIF", "WEBP"])
def test_formats_that_pillow_reads_keep_what_it_tells(kind: str) -> None:
    settings = {"exif": camera({271: "Maker", 274: 6}), "xmp": XMP % 6, "icc_profile": SRGB}
    data = saved(smooth_pixels(16, 24), kind, **settings)
    found, notes = restored(data)
    assert notes == ()
    assert set(found) == {b"iCCP", b"eXIf", b"iTXt"}
    picture = decode_image(data)
    assert picture.pixels.shape == (24, 16, 3)


def test_hdr_colours_of_avif_are_kept() -> None:
    data = saved(smooth_pixels(16, 24), "AVIF")
    place = data.index(b"colrnclx") + 8
    assert restored(data) == ({}, ())
    rec2020, pq = 9, 16
    data = data[:place] + struct.pack(">HH", rec2020, pq) + data[place + 4 :]
    assert restored(data) == ({b"cICP": bytes([rec2020, pq, 0, 1])}, ())


# --- TIFF and BMP: colours ---------------------------------------------------------------


def test_primaries_of_tiff_are_kept() -> None:
    white = (31270, 100_000, 32900, 100_000)
    primaries = tuple(
        value for xy in (68000, 32000, 26500, 69000, 15000, 6000) for value in (xy, 100_000)
    )
    pixels = random_pixels(5, 4)
    found, notes = restored(tiff(pixels, {318: white, 319: primaries}))
    assert (found, notes) == ({b"cHRM": CHROMATICITIES}, ())
    assert restored(tiff(pixels, {319: primaries})) == ({}, ())  # they need the white
    senseless = (5, 0, *white[2:])
    assert restored(tiff(pixels, {318: senseless, 319: primaries})) == ({}, ())


def test_transfer_function_of_tiff_is_told() -> None:
    curve = np.arange(256, dtype="<u2").tobytes()
    pixels = random_pixels(5, 4)
    _, notes = restored(tiff(pixels, {301: curve}))
    assert len(notes) == 1
    assert "TransferFunction" in notes[0]
    assert restored(tiff(pixels, {301: curve, 34675: SRGB}))[1] == ()  # which counts


def bmp(
    kind: bytes, *, gammas: Any = (0, 0, 0), endpoints: Any = (0,) * 9, **v5: Any
) -> tuple[Any, bytes]:
    """A BMP of version 5 and its pixels."""
    pixels = random_pixels(5, 4)
    profile = v5.get("profile", b"")
    start = 14 + 124
    body = pixels[::-1, :, ::-1].tobytes()
    header = struct.pack("<IiiHHIIiiII", 124, 4, 5, 1, 24, 0, len(body), 0, 0, 0, 0) + bytes(16)
    header += kind[::-1] + struct.pack("<9i", *(round(v * 2**30) for v in endpoints))
    header += struct.pack("<3I", *(round(v * 2**16) for v in gammas))
    header += struct.pack("<IIII", v5.get("intent", 0), 124 + len(body), len(profile), 0)
    whole = start + len(body) + len(profile)
    return pixels, struct.pack("<2sIHHI", b"BM", whole, 0, 0, start) + header + body + profile


RGB_POINTS = (0.64, 0.33, 0.03, 0.3, 0.6, 0.1, 0.15, 0.06, 0.79)
#: X, Y and Z of the primaries of sRGB.
RGB_AMOUNTS = (0.4124, 0.2126, 0.0193, 0.3576, 0.7152, 0.1192, 0.1805, 0.0722, 0.9505)


@pytest.mark.parametrize(
    ("kind", "facts", "expected"),
    [
        (b"Win ", {}, {}),
        (bytes(4), {}, {}),  # calibrated, says who fills in nothing
        (b"sRGB", {"intent": 0}, {b"sRGB": b"\0"}),
        (b"sRGB", {"intent": 1}, {b"sRGB": b"\2"}),
        (b"sRGB", {"intent": 2}, {b"sRGB": b"\1"}),
        (b"sRGB", {"intent": 4}, {b"sRGB": b"\0"}),
        (b"sRGB", {"intent": 8}, {b"sRGB": b"\3"}),
        (bytes(4), {"gammas": (2.2,) * 3}, {b"gAMA": struct.pack(">I", 45455)}),
        (bytes(4), {"gammas": (0.45455,) * 3}, {b"gAMA": struct.pack(">I", 45455)}),
        (bytes(4), {"gammas": (1,) * 3}, {b"gAMA": struct.pack(">I", 100_000)}),
        (bytes(4), {"endpoints": RGB_POINTS}, {b"cHRM": None}),
        (bytes(4), {"endpoints": RGB_AMOUNTS}, {b"cHRM": None}),
        (b"MBED", {"profile": SRGB}, {b"iCCP": None}),
    ],
)
def test_colours_of_bmp_are_kept(
    kind: bytes, facts: dict[str, Any], expected: dict[bytes, Any]
) -> None:
    pixels, data = bmp(kind, **facts)
    np.testing.assert_array_equal(decode_image(data).pixels, pixels)
    found, notes = restored(data)
    assert notes == ()
    assert set(found) == set(expected)
    for name, body in found.items():
        if name == b"iCCP":
            assert profile_in(body) == SRGB
        elif name == b"cHRM":
            of_srgb = (0.3127, 0.3290, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
            stored = [value / 100_000 for value in struct.unpack(">8I", body)]
            assert stored == pytest.approx(of_srgb, abs=1e-3)
        else:
            assert (struct.unpack(">I", body)[0] if name == b"gAMA" else body) == pytest.approx(
                struct.unpack(">I", expected[name])[0] if name == b"gAMA" else expected[name],
                abs=2,
            )


@pytest.mark.parametrize(
    ("kind", "facts", "said"),
    [
        (b"LINK", {"profile": b"C:\\wide.icc\0"}, "another file"),
        (b"MBED", {"profile": SRGB[:200]}, "cut off"),
        (b"MBED", {}, "cut off"),
        (bytes(4), {"gammas": (2.2, 1.8, 2.2)}, "gammas"),
    ],
)
def test_colours_of_bmp_that_cannot_be_kept_are_told(
    kind: bytes, facts: dict[str, Any], said: str
) -> None:
    found, notes = restored(bmp(kind, **facts)[1])
    assert found == {}
    assert len(notes) == 1
    assert said in notes[0]


# --- reports -----------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 4])
def test_report_shows_a_tiff_like_its_result(tmp_path: Path, channels: int) -> None:
    pixels = random_pixels(5, 4, channels, bits=16)
    (tmp_path / "in").mkdir()
    alpha = {338: 2} if channels == 4 else {}
    (tmp_path / "in" / "a.tif").write_bytes(tiff(pixels, {34675: SRGB, **alpha}))
    write_image(tmp_path / "out" / "a.png", read_image(tmp_path / "in" / "a.tif"))
    ran = restormer("report", tmp_path / "out", "--input-dir", tmp_path / "in")
    assert ran.status == 0, ran.err
    page = (tmp_path / "out" / "report.html").read_text()
    found = re.findall(r"data:image/png;base64,([\w+/=]+)", page)
    assert len(found) == 2  # before and after
    for data in map(base64.b64decode, found):
        assert profile_in(dict(chunks_of(data))[b"iCCP"]) == SRGB
        with PIL.Image.open(io.BytesIO(data)) as image:
            assert len(image.getbands()) == channels


def test_place_on_the_map_is_told() -> None:
    scale = (33550, 12, 3, (1.0, 1.0, 0.0), True)
    file = io.BytesIO()
    tifffile.imwrite(file, random_pixels(5, 4), photometric="rgb", extratags=[scale])
    picture = decode_image(file.getvalue())
    assert picture.notes == ("its place on the map (GeoTIFF) is left out",)


def test_profile_stands_before_srgb_of_which_libpng_heeds_the_first() -> None:
    profile = (b"iCCP", b"x\0\0" + zlib.compress(SRGB))
    for before in ([profile, (b"sRGB", b"\0")], [(b"sRGB", b"\0"), profile]):
        names = list(restored(png(random_pixels(5, 4), *before))[0])
        assert names == [b"iCCP", b"sRGB"]


@pytest.mark.parametrize("way", [2, 3])
def test_profile_of_jpeg_2000_is_kept(way: int) -> None:
    data = saved(random_pixels(20, 30), "JPEG2000")
    box = struct.pack(">I4sBBB", 11 + len(SRGB), b"colr", way, 0, 0) + SRGB
    old, header = data.index(b"colr") - 4, data.index(b"jp2h") - 4
    old_size, size = (int.from_bytes(data[at : at + 4], "big") for at in (old, header))
    head = data[:header] + struct.pack(">I", size - old_size + len(box)) + data[header + 4 : old]
    found, _ = restored(head + box + data[old + old_size :])
    assert profile_in(found[b"iCCP"]) == SRGB


def test_what_the_camera_noted_in_jpeg_2000_is_kept() -> None:
    pixels = random_pixels(20, 30)
    data, exif, xmp = saved(pixels, "JPEG2000"), camera({271: "Maker", 274: 6}), XMP % 1
    for name, body in (
        (b"JpgTiffExif->JP2", exif),
        (bytes.fromhex("be7acfcb97a942e89c71999491e3afac"), xmp),
    ):
        data += struct.pack(">I4s", 24 + len(body), b"uuid") + name + body
    picture = decode_image(data)
    assert picture.notes == ()
    np.testing.assert_array_equal(picture.pixels, np.rot90(pixels, -1))
    assert b"Maker" in (picture.metadata.exif or b"")
    assert picture.metadata.xmp == xmp.replace(b"9999", b"20")


@pytest.mark.parametrize(("byte", "expected"), [(0, None), (49, None), (113, (1, 2, 0))])
def test_shape_of_pixels_of_gif_is_kept(byte: int, expected: tuple[int, ...] | None) -> None:
    data = bytearray(saved(PIL.Image.fromarray(smooth_pixels(9, 14)).quantize(8), "GIF"))
    data[12] = byte
    found = resolution(bytes(data))
    assert found is None or found[2] == 0
    assert (found and found[1] / found[0]) == (expected and expected[1] / expected[0])


def test_shape_of_pixels_of_avif_is_kept() -> None:
    data = saved(smooth_pixels(16, 24), "AVIF")
    # A box that readers pass over takes another's place; what it said was of no use.
    place = data.index(b"pixi") - 4
    size = int.from_bytes(data[place : place + 4], "big")
    shape = struct.pack(">I4sII", 16, b"pasp", 2, 1)
    assert size == len(shape)
    found = resolution(data[:place] + shape + data[place + size :])
    assert found is not None
    assert (found[0] * 2, found[2]) == (found[1], 0)
