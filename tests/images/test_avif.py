"""AVIF: orientation once, alpha, colours, bursts, damage; deep samples are in test_codecs.py."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
from helpers import random_pixels, smooth_pixels
from image_files import avif, saved

from restormer_cli.errors import ImageError
from restormer_cli.images import pillow
from restormer_cli.images.reading import decode_image, image_size, read_image
from restormer_cli.images.writing import encode_image

SMOOTH = smooth_pixels(64, 96)
SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()


def turned(pixels: Any, orientation: int) -> Any:
    return np.rot90(pixels, {1: 0, 3: 2, 6: 3, 8: 1}[orientation])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pictures_are_turned_once(orientation: int, tmp_path: Path) -> None:
    """The file's own rotation, which Pillow writes for that of EXIF, is the only one."""
    exif = PIL.Image.Exif()
    exif[274], exif[271] = orientation, "Maker"
    data = saved(SMOOTH, "AVIF", quality=98, subsampling="4:4:4", exif=exif)
    assert (b"irot" in data) == (orientation != 1)
    picture = decode_image(data)
    difference = picture.pixels.astype(int) - turned(SMOOTH, orientation)
    assert np.abs(difference).max() < 12
    with PIL.Image.open(io.BytesIO(encode_image(picture))) as image:
        assert image.getexif().get(274, 1) == 1
        assert image.getexif()[271] == "Maker"
    path = tmp_path / "a.avif"
    path.write_bytes(data)
    assert image_size(path) == (64, 96)  # as stored


def test_exif_alone_does_not_turn_a_picture() -> None:
    exif = PIL.Image.Exif()
    exif[274], exif[271] = 6, "Maker"
    plain = saved(SMOOTH, "AVIF", quality=98, exif=exif)
    flat = plain.replace(b"irot\x03", b"irot\x00")
    assert flat != plain
    assert decode_image(flat).pixels.shape == SMOOTH.shape


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_bits_come_through(bits: int, channels: int) -> None:
    stored = 8 if bits == 8 else 16
    samples = random_pixels(64, 96, channels, stored) >> (stored - bits)
    picture = decode_image(avif(samples, bits))
    expected = np.rint(samples * ((2**stored - 1) / (2**bits - 1))).astype(samples.dtype)
    assert (picture.alpha is not None) == (channels == 4)
    found = picture.samples().reshape(64, 96, -1)
    np.testing.assert_array_equal(found, expected, strict=True)


def test_profile_and_notes_are_kept() -> None:
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>me</x:xmpmeta>"
    picture = decode_image(saved(SMOOTH, "AVIF", icc_profile=SRGB, xmp=xmp))
    assert picture.metadata.icc == SRGB
    assert picture.metadata.xmp == xmp


def test_of_a_sequence_the_first_frame_is_read() -> None:
    frames = [PIL.Image.fromarray(np.roll(SMOOTH, 30 * number, axis=1)) for number in range(3)]
    data = saved(frames[0], "AVIF", save_all=True, append_images=frames[1:], quality=98)
    picture = decode_image(data)
    assert np.abs(picture.pixels.astype(int) - SMOOTH).max() < 20
    assert picture.notes == ("only the first of 3 frames is restored",)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_what_is_cut_off_is_never_filled_up(bits: int, kept: float, tmp_path: Path) -> None:
    samples = SMOOTH if bits == 8 else SMOOTH.astype(np.uint16) << 2
    data = avif(samples, bits)
    path = tmp_path / "a.avif"
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ImageError, match=r"a\.avif: is an AVIF file that is cut off"):
        read_image(path)


def test_what_phones_append_costs_nothing() -> None:
    data = avif(SMOOTH)
    expected = decode_image(data).pixels
    for tail in (b"abc", struct.pack(">I4s", 10**8, b"mpvd") + bytes(99)):
        np.testing.assert_array_equal(decode_image(data + tail).pixels, expected)


def test_a_pillow_without_avif_is_no_damaged_file(monkeypatch: pytest.MonkeyPatch) -> None:
    data = avif(SMOOTH)
    for instead in (lambda head: "AVIF support not installed", None):
        known = dict(PIL.Image.OPEN)
        factory, _ = known.pop("AVIF")
        if instead is not None:
            known["AVIF"] = factory, instead
        monkeypatch.setattr(pillow.PIL.Image, "OPEN", known)
        with pytest.raises(ImageError, match="of a kind that cannot be read"):
            decode_image(data)
        monkeypatch.undo()
