"""Metadata in every format of results, read by an independent reader (Exiv2), or told."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import tifffile
from helpers import random_pixels, smooth_pixels
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.images.formats import FORMATS, PNG, OutputFormat, find_format
from restormer_cli.images.metadata import Density, Metadata, exif
from restormer_cli.images.picture import Picture
from restormer_cli.images.reading import decode_image
from restormer_cli.images.writing import OutputOptions, encode_image

pyexiv2 = pytest.importorskip("pyexiv2")

JPEG, TIFF, WEBP, AVIF = (find_format(name) for name in ("jpeg", "tiff", "webp", "avif"))
OTHERS = [form for form in FORMATS if form is not PNG]
by_name = {"ids": lambda form: form.name}
XMP = (
    b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF "
    b"xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description rdf:about='' "
    b"xmlns:dc='http://purl.org/dc/elements/1.1/' dc:format='of-the-photo'/></rdf:RDF></x:xmpmeta>"
)
NOTES = b"notes of the maker, which hold where they are"
OF_PHOTO = {
    "Exif.Photo.DateTimeOriginal": "2024:05:06 07:08:09",
    "Exif.Photo.BodySerialNumber": "SN-4711",
    "Exif.Photo.CameraOwnerName": "A. Owner",
    "Exif.Photo.MakerNote": " ".join(map(str, NOTES)),
    "Exif.GPSInfo.GPSLatitudeRef": "N",
    "Exif.GPSInfo.GPSLatitude": "52/1 31/1 12/1",
}
SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()


@dataclass(frozen=True)
class Said:
    """What Exiv2 finds in a file."""

    exif: dict[str, str]
    iptc: dict[str, Any]
    xmp: dict[str, Any]
    comment: str

    @property
    def names(self) -> set[str]:
        return {name.split(".")[-1] for name in self.exif}


def said(data: bytes) -> Said:
    with pyexiv2.ImageData(data) as image:
        return Said(image.read_exif(), image.read_iptc(), image.read_xmp(), image.read_comment())


def photo(kind: str = "JPEG", endian: str = "<", orientation: int = 6, **more: Any) -> bytes:
    """A photo of 12×8 pixels as it is stored, with all that cameras and agencies note."""
    noted = PIL.Image.Exif()
    noted.endian = endian
    noted[0x010F], noted[0x0110] = "Acme", "One"
    noted[0x0112] = orientation
    noted[0x013B], noted[0x8298] = "A. Owner", "her rights"
    noted[0x011A], noted[0x011B], noted[0x0128] = 300.0, 300.0, 2
    of_photo = noted.get_ifd(0x8769)
    of_photo[0x9003], of_photo[0x829A] = "2024:05:06 07:08:09", 0.01
    of_photo[0x927C], of_photo[0xA431], of_photo[0xA430] = NOTES, "SN-4711", "A. Owner"
    place = noted.get_ifd(0x8825)
    place[1], place[2] = "N", (52.0, 31.0, 12.0)
    settings: dict[str, Any] = {"dpi": (300, 300)}
    settings |= {"comment": b"seen by me"} if kind == "JPEG" else {}
    settings |= {} if kind in ("PNG", "TIFF") else {"xmp": XMP}
    file = io.BytesIO()
    image = PIL.Image.fromarray(smooth_pixels(8, 12))
    image.save(file, kind, exif=noted, icc_profile=SRGB, **settings, **more)
    if kind in ("WEBP", "AVIF"):
        return file.getvalue()
    with pyexiv2.ImageData(file.getvalue()) as opened:
        opened.modify_iptc({"Iptc.Application2.Byline": ["P. Press"]})
        if kind in ("PNG", "TIFF"):
            opened.modify_xmp({"Xmp.dc.format": "of-the-photo"})
        if kind == "TIFF":  # of which Pillow writes the first directory alone
            opened.modify_exif(OF_PHOTO)
        return bytes(opened.get_bytes())


def result(data: bytes, output: OutputOptions) -> tuple[bytes, tuple[str, ...]]:
    """The file that a network which changes nothing makes of it, and what a person is told."""
    prepared = output.prepare(decode_image(data))
    return encode_image(prepared, output), prepared.notes


# --- what cameras and people note ----------------------------------------------------------------


@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("form", FORMATS, **by_name)
def test_exif_and_xmp_go_along_from_every_format_to_every_format(
    form: OutputFormat, kind: str, endian: str
) -> None:
    data, notes = result(photo(kind, endian), OutputOptions(form))
    found = said(data)
    of_image = {name: found.exif[f"Exif.Image.{name}"] for name in ("Make", "Model", "Artist")}
    assert of_image == {"Make": "Acme", "Model": "One", "Artist": "A. Owner"}
    assert found.exif["Exif.Photo.DateTimeOriginal"] == "2024:05:06 07:08:09"
    assert found.exif["Exif.Photo.BodySerialNumber"] == "SN-4711"
    assert found.exif["Exif.GPSInfo.GPSLatitude"] == "52/1 31/1 12/1"
    assert bytes(map(int, found.exif["Exif.Photo.MakerNote"].split())) == NOTES
    assert found.exif.get("Exif.Image.Orientation", "1") == "1"
    density = decode_image(data).metadata.density
    assert density is not None
    assert (round(density.x * 0.0254), round(density.y * 0.0254)) == (300, 300)
    assert found.xmp["Xmp.dc.format"] == "of-the-photo"
    with PIL.Image.open(io.BytesIO(data)) as image:
        assert image.size == (8, 12)  # upright
        assert image.info["icc_profile"] == SRGB
    iptc = kind in ("JPEG", "PNG", "TIFF")
    if form in (PNG, TIFF, JPEG):
        assert found.iptc == ({"Iptc.Application2.Byline": ["P. Press"]} if iptc else {})
        assert notes == ()
    else:
        lost = [note for note in notes if "IPTC" in note]
        assert lost == [f"its IPTC is left out, since {form.title} cannot hold it"] * iptc


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("form", FORMATS, **by_name)
def test_notes_of_the_maker_stay_where_they_were(
    form: OutputFormat, endian: str, orientation: int
) -> None:
    """They point into themselves by places in the structure around them."""
    source = photo("JPEG", endian, orientation)
    before = source[source.index(b"Exif\0\0") + 6 :].index(NOTES)
    data, _ = result(source, OutputOptions(form))
    start = 0 if form is TIFF else data.index(b"II*\0" if endian == "<" else b"MM\0*")
    assert data[start:].index(NOTES) == before


@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_exif_does_not_change_the_samples_of_a_tiff(endian: str, channels: int) -> None:
    """It decides on the order of their bytes."""
    camera = photo("JPEG", endian)
    metadata = decode_image(camera).metadata
    for bits in (8, 16):
        samples = random_pixels(9, 13, channels, bits)
        colours = 1 if channels < 3 else 3
        alpha = samples[..., -1] if channels in (2, 4) else None
        given = Picture(samples[..., :colours], alpha, metadata=replace(metadata, icc=None))
        data = encode_image(given, OutputOptions(TIFF))
        assert data[:2] == (b"II" if endian == "<" else b"MM")
        found = tifffile.imread(io.BytesIO(data)).reshape(9, 13, -1)
        np.testing.assert_array_equal(found, samples)
        assert said(data).exif["Exif.Photo.BodySerialNumber"] == "SN-4711"


@pytest.mark.parametrize("form", FORMATS, **by_name)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_strip_leaves_nothing_personal(form: OutputFormat, kind: str) -> None:
    data, notes = result(photo(kind), OutputOptions(form, strip=True))
    assert notes == ()
    found = said(data)
    assert found.names <= {
        *("XResolution", "YResolution", "ResolutionUnit"),
        *("ImageWidth", "ImageLength", "BitsPerSample", "Compression", "SamplesPerPixel"),
        *("PhotometricInterpretation", "StripOffsets", "RowsPerStrip", "StripByteCounts"),
        *("PlanarConfiguration", "Predictor", "InterColorProfile"),
    }
    assert (found.iptc, found.xmp, found.comment) == ({}, {}, "")
    for word in (b"SN-4711", b"Owner", b"Press", b"Acme", b"2024", b"seen by", NOTES, b"photo"):
        assert word not in data
    with PIL.Image.open(io.BytesIO(data)) as image:  # colour and orientation remain
        assert image.size == (8, 12)
        assert image.info["icc_profile"] == SRGB
    again = decode_image(data)
    original = decode_image(photo(kind))
    assert abs(again.pixels.astype(int) - original.pixels).max() <= 24
    assert again.metadata.density is not None
    assert round(again.metadata.density.x) == 11811


def test_strip_leaves_texts_and_unknown_chunks_of_png_out() -> None:
    metadata = Metadata(
        exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0",
        xmp=XMP,
        density=Density(1000, 1000),
        color=((b"gAMA", struct.pack(">I", 45455)),),
        background=(1, 2, 3),
        others=((b"tEXt", b"Author\0A. Owner"), (b"orNT", b"home")),
    )
    stripped = metadata.stripped()
    assert stripped == replace(metadata, exif=None, xmp=None, others=())
    output = OutputOptions(strip=True)
    data = encode_image(output.prepare(Picture(random_pixels(4, 5), metadata=metadata)), output)
    assert b"Owner" not in data
    assert b"home" not in data


def test_thumbnail_is_left_out_and_takes_no_room() -> None:
    thumbnail = b"\xff\xd8" + b"thumbnail of what was cut away" * 500 + b"\xff\xd9"
    before = photo()
    body = before[before.index(b"Exif\0\0") + 6 :]
    size = struct.unpack(">H", before[before.index(b"Exif\0\0") - 2 : before.index(b"Exif\0\0")])[0]
    tiff = bytearray(body[: size - 8])
    order = "<" if tiff.startswith(b"II") else ">"
    first = struct.unpack_from(f"{order}I", tiff, 4)[0]
    count = struct.unpack_from(f"{order}H", tiff, first)[0]
    struct.pack_into(f"{order}I", tiff, first + 2 + 12 * count, len(tiff))
    at = len(tiff) + 2 + 24 + 4
    tiff += struct.pack(f"{order}H", 2)
    tiff += struct.pack(f"{order}HHII", 0x0201, 4, 1, at)
    tiff += struct.pack(f"{order}HHII", 0x0202, 4, 1, len(thumbnail))
    tiff += bytes(4) + thumbnail
    kept = exif.of_result(bytes(tiff), 8, 12)
    assert b"thumbnail" not in kept
    assert len(kept) <= at
    for form in FORMATS:
        given = Picture(random_pixels(4, 5), metadata=Metadata(exif=kept))
        data = encode_image(given, OutputOptions(form))
        assert said(data).exif["Exif.Image.Make"] == "Acme"


@pytest.mark.parametrize("form", OTHERS, **by_name)
def test_what_is_too_large_for_a_format_is_told(form: OutputFormat) -> None:
    large = exif.EMPTY + bytes(70_000)
    text = (b"iTXt", b"Comment" + bytes(5) + b"x" * 70_000)
    metadata = Metadata(exif=large, xmp=XMP + b" " * 70_000, others=(text, text))
    output = OutputOptions(form)
    prepared = output.prepare(Picture(random_pixels(8, 8), metadata=metadata))
    encode_image(prepared, output)
    told = " ".join(prepared.notes)
    for word in ("EXIF", "XMP"):
        assert (f"its {word} is left out, since JPEG takes less" in told) == (form is JPEG)
    assert ("its comment is left out" in told) == (form is not TIFF)


@given(st.integers(0, 65_533), st.integers(0, 65_533), st.integers(0, 65_533))
def test_what_fits_into_segments_of_jpeg_is_written(first: int, second: int, third: int) -> None:
    texts = tuple(
        (b"iTXt", b"Comment" + bytes(5) + b"x" * size) for size in (first, second) if size
    )
    block = b"8BIM\4\4\0\0" + struct.pack(">I", third) + bytes(third + third % 2)
    raw = zlib.compress(b"\niptc\n%8d\n%s\n" % (len(block), block.hex().encode()))
    iptc = (b"zTXt", b"Raw profile type iptc\0\0" + raw)
    output = OutputOptions(JPEG)
    metadata = Metadata(exif=exif.EMPTY + bytes(third), xmp=bytes(second), others=(*texts, iptc))
    prepared = output.prepare(Picture(random_pixels(8, 8), metadata=metadata))
    with PIL.Image.open(io.BytesIO(encode_image(prepared, output))) as image:
        image.load()


# --- comments and texts ---------------------------------------------------------------------------


def with_texts(*texts: tuple[bytes, bytes]) -> Picture:
    return Picture(random_pixels(8, 8), metadata=Metadata(others=texts))


def test_comment_goes_where_a_format_has_a_place() -> None:
    given = with_texts((b"iTXt", b"Comment" + bytes(5) + "schön".encode()))
    for form in (JPEG, TIFF):
        data = encode_image(OutputOptions(form).prepare(given), OutputOptions(form))
        if form is JPEG:
            assert said(data).comment == "schön"
        else:
            with tifffile.TiffFile(io.BytesIO(data)) as file:
                assert file.pages.first.tags[270].value == "schön"
        assert b"sch\xc3\xb6n" in data


def test_comment_does_not_take_the_place_of_a_description() -> None:
    noted = PIL.Image.Exif()
    noted[0x010E] = "of the camera"
    camera = noted.tobytes()[6:]
    given = with_texts((b"tEXt", b"Comment\0of mine"))
    given = replace(given, metadata=replace(given.metadata, exif=camera))
    prepared = OutputOptions(TIFF).prepare(given)
    assert prepared.notes == ("its comment is left out, since its EXIF has a description",)
    data = encode_image(prepared, OutputOptions(TIFF))
    assert said(data).exif["Exif.Image.ImageDescription"] == "of the camera"


@pytest.mark.parametrize("form", OTHERS, **by_name)
def test_texts_without_a_place_are_told_by_name(form: OutputFormat) -> None:
    given = with_texts((b"tEXt", b"Author\0A"), (b"tEXt", b"Title\0B"), (b"sTER", b"\0"))
    notes = OutputOptions(form).prepare(given).notes
    assert notes == (
        f"what else it says (Author, Title, sTER) is left out, since {form.title} cannot hold it",
    )
    assert OutputOptions(form, strip=True).prepare(given).notes == ()


# --- resolution -----------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", [False, True])
@pytest.mark.parametrize("form", FORMATS, **by_name)
def test_resolution_is_that_of_the_input(form: OutputFormat, camera: bool) -> None:
    noted = PIL.Image.Exif()
    noted[0x0110] = "One"
    metadata = Metadata(density=Density(11811, 5906), exif=noted.tobytes()[6:] if camera else None)
    output = OutputOptions(form)
    prepared = output.prepare(Picture(random_pixels(8, 8), metadata=metadata))
    assert prepared.notes == ()
    data = encode_image(prepared, output)
    again = decode_image(data).metadata
    assert again.density is not None
    assert (round(again.density.x), round(again.density.y)) == (11811, 5906)
    assert (said(data).exif.get("Exif.Image.Model") == "One") == camera


@pytest.mark.parametrize("form", FORMATS, **by_name)
def test_shape_of_pixels_is_that_of_the_input(form: OutputFormat) -> None:
    metadata = Metadata(density=Density(2, 1, metric=False))
    output = OutputOptions(form)
    data = encode_image(output.prepare(Picture(random_pixels(8, 8), metadata=metadata)), output)
    density = decode_image(data).metadata.density
    assert density is not None
    assert not density.metric
    assert density.x == 2 * density.y


@pytest.mark.parametrize("form", FORMATS, **by_name)
@pytest.mark.parametrize("metric", [True, False])
@pytest.mark.parametrize("x", [1, 3, 1 << 20, (1 << 31) - 1])
def test_odd_resolutions_cost_at_most_themselves(form: OutputFormat, x: int, metric: bool) -> None:
    metadata = Metadata(density=Density(x, 7, metric))
    output = OutputOptions(form)
    given = output.prepare(Picture(random_pixels(8, 8), metadata=metadata))
    assert decode_image(encode_image(given, output)).pixels.shape == (8, 8, 3)


# --- colours --------------------------------------------------------------------------------------


def light(data: bytes) -> Any:
    """The pixels as a screen of sRGB shows them, by the file's own description."""
    with PIL.Image.open(io.BytesIO(data)) as image:
        profile = image.info.get("icc_profile")
        mode = "L" if image.mode in ("L", "LA") else "RGB"
        plain = image.convert(mode)
        if profile is None:
            return np.asarray(plain.convert("RGB")).astype(int)
        own = PIL.ImageCms.ImageCmsProfile(io.BytesIO(profile))
        shown = PIL.ImageCms.profileToProfile(
            plain, own, PIL.ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        return np.asarray(shown).astype(int)


def gamma(value: int) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", value)


def chromaticities(*values: float) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(100_000 * value) for value in values))


ADOBE = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", OTHERS, **by_name)
@pytest.mark.parametrize(
    ("color", "exponent"),
    [((gamma(100_000),), 1.0), ((gamma(45_455),), 2.2), ((gamma(55_556),), 1.8)],
)
def test_gamma_of_png_becomes_a_profile(
    form: OutputFormat, color: tuple[tuple[bytes, bytes], ...], exponent: float, channels: int
) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(channels, 2)
    output = OutputOptions(form, 100 if form.quality else None)
    prepared = output.prepare(Picture(levels, metadata=Metadata(color=color)))
    assert prepared.notes == ()
    shown = light(encode_image(prepared, output))[..., 1]
    linear = (levels[..., 0] / 255.0) ** exponent
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    # LittleCMS looks up linear gray in a coarse table.
    assert abs(shown - 255 * expected).max() <= (10 if exponent == 1 and channels == 1 else 4)


@pytest.mark.parametrize("form", OTHERS, **by_name)
def test_primaries_of_png_become_a_profile(form: OutputFormat) -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[...] = 100, 180, 100  # a green that is stronger than in sRGB
    output = OutputOptions(form, 100 if form.quality else None)
    color = (gamma(45_455), chromaticities(*ADOBE))
    data = encode_image(output.prepare(Picture(red, metadata=Metadata(color=color))), output)
    with PIL.Image.open(io.BytesIO(data)) as image:
        opened = PIL.ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    (_, (x, y, _)) = opened.profile.green_primary or (None, (0, 0, 0))
    assert light(data)[0, 0, 0] < 85
    assert (x, y) != (0, 0)


@pytest.mark.parametrize("form", OTHERS, **by_name)
def test_srgb_of_png_is_said(form: OutputFormat) -> None:
    output = OutputOptions(form)
    for pixels in (random_pixels(8, 8), random_pixels(8, 8, 1)):
        color = ((b"sRGB", b"\0"), gamma(45_455))
        prepared = output.prepare(Picture(pixels, metadata=Metadata(color=color)))
        assert prepared.notes == ()
        levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(pixels.shape[2], 2)
        exact = OutputOptions(form, 100 if form.quality else None)
        data = encode_image(replace(prepared, pixels=levels), exact)
        assert abs(light(data) - levels).max() <= 2
    bare = output.prepare(Picture(random_pixels(8, 8)))
    assert bare.metadata.icc is None  # nothing is made up


def cicp(primaries: int, transfer: int) -> tuple[bytes, bytes]:
    return b"cICP", bytes([primaries, transfer, 0, 1])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("quality", [None, 100])
def test_hdr_colours_stay_in_avif(bits: int, quality: int | None) -> None:
    metadata = Metadata(color=(cicp(9, 16),))
    output = OutputOptions(AVIF, quality)
    prepared = output.prepare(Picture(random_pixels(8, 8, bits=bits), metadata=metadata))
    again = decode_image(encode_image(prepared, output))
    assert again.metadata.color == (cicp(9, 16),)


@pytest.mark.parametrize("form", [TIFF, JPEG, WEBP], **by_name)
def test_hdr_colours_are_told_elsewhere_and_others_become_a_profile(form: OutputFormat) -> None:
    def prepared(*color: tuple[bytes, bytes], icc: bytes | None = None) -> Picture:
        metadata = Metadata(color=color, icc=icc)
        return OutputOptions(form).prepare(Picture(random_pixels(8, 8), metadata=metadata))

    hdr = prepared(cicp(9, 16))
    assert hdr.notes == (
        "its colours are such as no profile describes (cICP); what it says of them is left out",
    )
    assert prepared(cicp(9, 16), icc=SRGB).notes == (
        "its HDR colours (cICP) are left out; its profile stays",
    )
    display_p3 = prepared(cicp(12, 13))
    assert display_p3.notes == ()
    assert display_p3.metadata.icc is not None
    levels = (b"mDCV", bytes(24)), (b"cLLI", bytes(8))
    assert prepared(*levels).notes == ("what it says of HDR screens (mDCV, cLLI) is left out",)


@pytest.mark.parametrize("form", OTHERS, **by_name)
@given(st.lists(st.integers(0, 100_000), min_size=8, max_size=8), st.integers(1, (1 << 31) - 1))
def test_senseless_colours_cost_at_most_themselves(
    form: OutputFormat, xy: list[int], value: int
) -> None:
    color = ((b"cHRM", struct.pack(">8I", *xy)), gamma(value))
    output = OutputOptions(form)
    prepared = output.prepare(Picture(random_pixels(8, 8), metadata=Metadata(color=color)))
    assert (prepared.metadata.icc is None) == bool(prepared.notes)
    assert decode_image(encode_image(prepared, output)).pixels.shape == (8, 8, 3)


def gray_profile(exponent: float) -> bytes:
    """Of gray with a gamma, written by hand."""
    curve = b"curv" + bytes(4) + struct.pack(">IHH", 1, round(exponent * 256), 0)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"gray\0" + bytes(4 + 4 + 2 + 1 + 67)
    bodies = [(b"desc", name), (b"wtpt", white), (b"kTRC", curve)]
    place, table, rest = 128 + 4 + 36, struct.pack(">I", 3), b""
    for tag, body in bodies:
        table += tag + struct.pack(">II", place + len(rest), len(body))
        rest += body + bytes(-len(body) % 4)
    header = struct.pack(">I4sI4s4s4s", 0, bytes(4), 0x02200000, b"mntr", b"GRAY", b"XYZ ")
    header = header.ljust(36, b"\0") + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    profile = header.ljust(128, b"\0") + table + rest
    return struct.pack(">I", len(profile)) + profile[4:]


@pytest.mark.parametrize(("form", "alpha"), [(WEBP, False), (WEBP, True), (AVIF, True)])
def test_gray_that_is_written_as_colour_looks_as_before(form: OutputFormat, alpha: bool) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    given = Picture(
        levels, np.full((16, 16), 200, np.uint8) if alpha else None, Metadata(icc=gray_profile(1.4))
    )
    output = OutputOptions(form, 100)
    prepared = output.prepare(given)
    assert prepared.notes == ()
    before = light(encode_image(replace(given, alpha=None)))
    assert abs(light(encode_image(prepared, output)) - before).max() <= 2


def test_gray_profile_without_a_curve_is_told_where_gray_becomes_colour() -> None:
    odd = gray_profile(1.4).replace(b"kTRC", b"xTRC")
    given = Picture(random_pixels(8, 8, 1), metadata=Metadata(icc=odd))
    prepared = OutputOptions(WEBP).prepare(given)
    assert prepared.metadata.icc is None
    assert len(prepared.notes) == 1
    assert "its colour profile has no curve" in prepared.notes[0]
    assert OutputOptions(TIFF).prepare(given).metadata.icc == odd


@pytest.mark.parametrize("form", [TIFF, WEBP, AVIF], **by_name)
def test_background_that_a_format_cannot_hold_is_told(form: OutputFormat) -> None:
    given = Picture(random_pixels(4, 4), metadata=Metadata(background=(1, 2, 3)))
    notes = OutputOptions(form).prepare(given).notes
    assert notes == (f"its background colour is left out, since {form.title} cannot hold it",)


def test_exif_that_a_bigtiff_cannot_hold_is_told() -> None:
    small = replace(TIFF, largest_with_exif=100)
    metadata = Metadata(exif=exif.EMPTY)
    prepared = OutputOptions(small).prepare(Picture(random_pixels(8, 8), metadata=metadata))
    assert prepared.metadata.exif is None
    assert prepared.notes == ("its EXIF is left out, since TIFF cannot hold it",)


@pytest.mark.parametrize("form", FORMATS, **by_name)
@given(st.binary(max_size=80), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_odd_exif_costs_at_most_itself(form: OutputFormat, rest: bytes, head: bytes) -> None:
    chunk = b"eXIf" + head + rest
    body = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    plain = encode_image(Picture(random_pixels(8, 8)))
    data, _ = result(plain[:33] + body + plain[33:], OutputOptions(form))
    assert decode_image(data).pixels.size in (192, 64)
