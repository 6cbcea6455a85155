"""What a file holds beside its picture is never left out without a word."""

from __future__ import annotations

import io
import itertools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile
from helpers import random_pixels, restormer, save, smooth_pixels, zero_network
from image_files import avif, heic, jxl, saved

from restormer_cli.images.codecs.boxes import tell_companions
from restormer_cli.images.metadata import Found
from restormer_cli.images.reading import decode_image

PIXELS = smooth_pixels(64, 96)
CAMERA = "http://ns.google.com/photos/1.0/camera/"
ATTRIBUTE = f'<rdf:Description xmlns:GCamera="{CAMERA}" GCamera:MotionPhoto="1"/>'
ELEMENT = (
    f'<rdf:Description xmlns:GCamera="{CAMERA}"><GCamera:MotionPhoto>1</GCamera:MotionPhoto>'
    "</rdf:Description>"
)
CREDENTIALS_ID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
NOISE = random_pixels(100, 100).tobytes()


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


JUMBF = box(b"jumb", box(b"jumd", b"c2pa") + NOISE[:500])
VIDEO = box(b"ftyp", b"mp42\0\0\0\0mp42isom") + box(b"mdat", NOISE) + box(b"moov", bytes(99))


def picture(kind: str) -> bytes:
    """Of :data:`PIXELS`, in a file of this kind."""
    own = {"heic": heic, "avif": avif}
    if kind == "jxl":
        return jxl(PIXELS, usecontainer=True)
    return own[kind](PIXELS) if kind in own else saved(PIXELS, kind)


def riff_chunk(data: bytes, kind: bytes, content: bytes) -> bytes:
    data += kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def tiff(*tags: tuple[Any, ...], pixels: Any = PIXELS, **settings: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, extratags=tags, **{"photometric": "rgb", **settings})
    return file.getvalue()


def gif_with_credentials() -> bytes:
    data = saved(PIXELS, "GIF")
    block = b"\x21\xff\x0bC2PA_GIF\1\0\0" + bytes([9]) + NOISE[:9] + b"\0"
    return data[:-1] + block + data[-1:]


def segments(marker: int, content: bytes) -> bytes:
    """Segments of a JPEG with so much content."""
    parts = [content[start : start + 60_000] for start in range(0, len(content), 60_000)]
    return b"".join(struct.pack(">BBH", 0xFF, marker, 2 + len(part)) + part for part in parts)


def jpeg_with_segments(marker: int, content: bytes) -> bytes:
    data = saved(PIXELS, "JPEG")
    return data[:2] + segments(marker, content) + data[2:]


def stack(**settings: Any) -> bytes:
    """Five pictures behind one directory."""
    pixels = random_pixels(5, 16, 24)
    return tiff(pixels=pixels, photometric="minisblack", truncate=True, **settings)


def layers(name: bytes) -> tuple[Any, ...]:
    content = b"Adobe Photoshop Document Data Block\0" + name + bytes(99)
    return (37724, 7, len(content), content, True)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        *itertools.product(
            [
                *(saved(PIXELS, "JPEG", xmp=xmp.encode()) + VIDEO for xmp in (ATTRIBUTE, ELEMENT)),
                *(heic(PIXELS, xmp=xmp.encode()) for xmp in (ATTRIBUTE, ELEMENT)),
                *(saved(PIXELS, "AVIF", xmp=xmp.encode()) for xmp in (ATTRIBUTE, ELEMENT)),
                *(picture(kind) + box(b"mpvd", VIDEO) for kind in ("heic", "avif", "jxl")),
                picture("JPEG") + VIDEO,
                picture("JPEG") + b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data" + VIDEO,
            ],
            ["motion photo"],
        ),
        *itertools.product(
            [
                *(
                    picture(kind) + box(b"uuid", CREDENTIALS_ID + bytes(4) + b"manifest\0" + JUMBF)
                    for kind in ("heic", "avif")
                ),
                picture("jxl") + JUMBF,
                picture("jxl") + box(b"brob", b"jumb" + NOISE),
                riff_chunk(picture("WebP"), b"C2PA", JUMBF),
                riff_chunk(riff_chunk(picture("WebP"), b"odd ", b"123"), b"C2PA", JUMBF),
                tiff((52545, 7, len(JUMBF), JUMBF, True)),
                gif_with_credentials(),
            ],
            ["C2PA"],
        ),
        (picture("jxl") + box(b"jhgm", NOISE[:99]), "gain map"),
        *itertools.product(
            [
                tiff(layers(b"8BIMLayr")),
                tiff(layers(b"MIB8ryaL")),
                tiff(layers(b"8BIMLr16"), byteorder=">"),
            ],
            ["layers"],
        ),
        *itertools.product(
            [stack(), stack(byteorder=">"), stack(imagej=True)], ["only the first of 5 pages"]
        ),
        *itertools.product(
            [
                picture("JPEG") + NOISE,
                picture("JPEG") + bytes(512) + NOISE,
                picture("PNG") + NOISE,
                picture("WebP") + NOISE,
                *(
                    picture(one) + picture(two)
                    for one in ("JPEG", "PNG")
                    for two in ("JPEG", "PNG")
                ),
            ],
            ["behind its picture"],
        ),
        *itertools.product(
            [jpeg_with_segments(0xE1, b"FLIR\0" + 5 * NOISE), jpeg_with_segments(0xE3, 5 * NOISE)],
            ["what else its camera noted"],
        ),
    ],
)
def test_it_is_told_once(data: bytes, said: str) -> None:
    assert [said in note for note in decode_image(data).notes] == [True]


@pytest.mark.parametrize(
    "data",
    [
        *map(picture, ("JPEG", "PNG", "WebP", "GIF", "heic", "avif", "jxl")),
        # Zeros of a file system's blocks, and the few bytes that phones leave.
        *(picture(kind) + bytes(9999) for kind in ("JPEG", "PNG", "WebP")),
        *(picture(kind) + NOISE[:200] for kind in ("JPEG", "PNG", "WebP")),
        # A thumbnail in front, and one behind that the file's index tells of.
        saved(PIXELS, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + bytes(6) + saved(PIXELS, "JPEG")),
        tiff(layers(b"8BIMLMsk")),
        tiff(description="images=9"),
        jpeg_with_segments(0xEC, NOISE[:999]),
        saved(PIXELS, "JPEG", xmp=ATTRIBUTE.replace('"1"', '"0"').encode()),
    ],
)
def test_nothing_is_said_of_nothing(data: bytes) -> None:
    assert decode_image(data).notes == ()


def test_of_a_stack_that_is_cut_off_only_what_is_there_counts() -> None:
    assert decode_image(stack()[: -2 * 16 * 24]).notes == ("only the first of 3 pages is restored",)


@pytest.mark.parametrize("entry", [b"\2\0\0\0\0\3\0\0", b"\3\0\0\0\0\0\0\3\0\0"])
def test_a_picture_that_is_made_with_a_gain_map_is_told(entry: bytes) -> None:
    found = Found()
    table = box(b"iinf", bytes(6) + box(b"infe", entry + b"tmap\0"))
    tell_companions(found, box(b"ftyp", b"avif") + box(b"meta", bytes(4) + table))
    assert ["gain map" in sentence for sentence in found.lost] == [True]


def test_the_command_says_it_and_restores_the_picture(tmp_path: Path) -> None:
    weights = save(zero_network(), tmp_path / "zero.safetensors")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.heic").write_bytes(heic(PIXELS) + box(b"mpvd", VIDEO))
    words = ["--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out"]
    ran = restormer("deblur", "--weights", weights, *words)
    assert ran.status == 0
    assert f"{tmp_path / 'in' / 'a.heic'}: is a motion photo" in ran.err
    with PIL.Image.open(tmp_path / "out" / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), PIXELS)
