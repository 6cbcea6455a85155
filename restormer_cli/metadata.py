"""What a file says beside its pixels: colours, resolution, what the camera and people noted.

Whatever the format, it is kept in the terms of PNG (PNG specification, third edition, 11.3), as
it holds for the upright result. What a person would miss and cannot be kept is told; what changes
nothing is not: the bits that were significant before restoration (sBIT), the time of the last
change (tIME), histograms and palettes that nothing refers to.
"""

from __future__ import annotations

import contextlib
import math
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import PIL.Image

from restormer_cli import exif, icc

Chunk = tuple[bytes, bytes]
"""Name and content of a chunk of a PNG."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Colour descriptions, the first that a reader knows being the one that counts, and their sizes.
COLOR_CHUNKS = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32, b"mDCV": 24, b"cLLI": 8}
#: Of a text or of a chunk unknown to us; Pillow opens no PNG with larger ones.
MOST_TEXT = 1 << 20
METRES_PER_INCH, METRES_PER_CENTIMETRE = 0.0254, 0.01
XMP_KEYWORD = b"XML:com.adobe.xmp"
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
IPTC_RESOURCE, RESOLUTION_RESOURCE = 0x0404, 0x03ED
D65 = (0.3127, 0.3290)


@dataclass(frozen=True)
class Density:
    """Pixels along each axis in a metre, or in one length if it tells their shape alone."""

    x: float
    y: float
    metric: bool = True

    def as_png(self) -> bytes | None:
        """The body of a pHYs chunk; None if it cannot hold this."""
        x, y = self.x, self.y
        if not self.metric and not (x == round(x) and y == round(y)):
            x, y = Fraction(x / y).limit_denominator(10_000).as_integer_ratio()
        x, y = round(x), round(y)
        if not (0 < x < 1 << 31 and 0 < y < 1 << 31):
            return None
        return struct.pack(">IIB", x, y, self.metric)


@dataclass(frozen=True)
class Metadata:
    """What goes into a result beside its pixels."""

    icc: bytes | None = None
    """Colour profile."""
    exif: bytes | None = None
    """What the camera noted: a TIFF structure."""
    xmp: bytes | None = None
    """What people and programs noted, in XML."""
    density: Density | None = None
    color: tuple[Chunk, ...] = ()
    """Descriptions of colours other than profiles."""
    background: tuple[int, int, int] | None = None
    """The colour that transparent parts are meant to stand before, of 16 bits."""
    others: tuple[Chunk, ...] = ()
    """Texts, and whatever else a PNG may take over unknown."""

    def as_png(self, bit_depth: int, gray: bool) -> bytes:
        """The chunks of a PNG that stand behind its header."""
        chunks = [*self.color]
        if self.icc is not None:
            chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(self.icc)))
        if self.background is not None:
            levels = [level if bit_depth == 16 else level // 257 for level in self.background]
            chunks.append((b"bKGD", struct.pack(">3H", *levels)[: 2 if gray else 6]))
        if self.density is not None and (body := self.density.as_png()) is not None:
            chunks.append((b"pHYs", body))
        if self.exif is not None:
            chunks.append((b"eXIf", self.exif))
        if self.xmp is not None:
            chunks.append((b"iTXt", XMP_KEYWORD + bytes(5) + self.xmp))
        return b"".join(png_chunk(name, body) for name, body in [*chunks, *self.others])


NO_METADATA = Metadata()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@dataclass
class Found:
    """What a file says, as it holds for the pixels that it stores."""

    orientation: int = 1
    """How the picture is stored, as in EXIF; 1 is upright."""
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    density: Density | None = None
    color: dict[bytes, bytes] = field(default_factory=dict)
    background: tuple[int, int, int] | None = None
    others: list[Chunk] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """What cannot be kept, and why, in a sentence each."""

    def of_result(self, width: int, height: int, gray: bool) -> tuple[Metadata, tuple[str, ...]]:
        """As it holds for the upright picture of this size, and what a person should be told."""
        lost = [*self.lost]
        transposed = self.orientation in exif.TRANSPOSED
        profile = camera = None
        if self.icc is not None:
            try:
                profile = icc.fitting(self.icc, gray)
            except icc.ProfileError as error:
                lost.append(f"its colour profile {error}; it is left out")
        if self.exif is not None:
            try:
                camera = exif.of_result(self.exif, width, height, transposed)
            except (KeyError, struct.error):
                lost.append("its EXIF is damaged; it is left out")
        density = self.density
        if density is not None and transposed:
            density = Density(density.y, density.x, density.metric)
        if density is not None and density.as_png() is None:
            density = None  # absurd
        kept = Metadata(
            profile,
            camera,
            self._xmp_of_result(width, height, lost),
            density,
            tuple(self.color.items()),
            self.background,
            tuple(_of_result(self.others, self.orientation)),
        )
        return kept, tuple(lost)

    def _xmp_of_result(self, width: int, height: int, lost: list[str]) -> bytes | None:
        if self.xmp is None:
            return None
        xmp = self.xmp.rstrip(b"\0")
        try:
            if xmp[:2] in (b"\xfe\xff", b"\xff\xfe"):
                xmp = xmp.decode("utf-16").encode()
            xmp.decode()
            if b"\0" in xmp:
                raise ValueError("no text")
        except ValueError:
            lost.append("its XMP is damaged; it is left out")
            return None
        facts = {b"tiff:Orientation": 1, b"tiff:ImageWidth": width, b"tiff:ImageLength": height}
        facts |= {b"exif:PixelXDimension": width, b"exif:PixelYDimension": height}
        for name, value in facts.items():
            before = rb"(" + name + rb"\s*(?:=\s*[\"']|>\s*))[0-9]+"
            xmp = re.sub(before, rb"\g<1>%d" % value, xmp)
        return xmp

    def read_exif(self, resolution: bool = True) -> None:
        """Take the orientation, and a resolution if none is known, from EXIF, else from XMP."""
        self.exif = re.sub(rb"\A(Exif\0\0)+", b"", self.exif or b"") or None
        tags = PIL.Image.Exif()
        with contextlib.suppress(Exception):  # Pillow's parser raises whatever damage provokes
            tags.load(self.exif or b"")
            self.orientation = _orientation(tags.get(exif.ORIENTATION))
            x, y = (float(tags[tag]) for tag in (exif.X_RESOLUTION, exif.Y_RESOLUTION))
            if resolution and self.density is None:
                self.density = _density(x, y, int(tags.get(exif.RESOLUTION_UNIT, 2)))
        said = rb"tiff:Orientation\s*(?:=\s*[\"']|>\s*)([0-9]+)"
        if exif.ORIENTATION not in tags and (match := re.search(said, self.xmp or b"")):
            self.orientation = _orientation(int(match[1]))

    def add_color(self, name: bytes, body: bytes) -> None:
        """Take a colour description, if it is one and the first of its kind."""
        if not _is_valid(name, body):
            self.lost.append(f"its {name.decode()} chunk is not valid; it is left out")
        else:
            self.color.setdefault(name, body)

    def add_iptc(self, record: bytes) -> None:
        """Take what press agencies note, in the form that ImageMagick gave it in PNG."""
        size = struct.pack(">I", len(record))
        block = b"8BIM" + struct.pack(">H", IPTC_RESOURCE) + b"\0\0" + size + record
        block += bytes(len(record) % 2)
        digits = block.hex()
        lines = [digits[start : start + 72] for start in range(0, len(digits), 72)]
        text = "\n".join(["", "iptc", f"{len(block):8}", *lines, ""]).encode()
        self.others.append((b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(text)))


def find_metadata(data: bytes, image: PIL.Image.Image | None = None) -> Found:
    """Find what a file says beside its pixels.

    Parameters
    ----------
    data
        The whole file.
    image
        As Pillow has opened it, if it knows its kind.
    """
    found = Found()
    if data.startswith(PNG_SIGNATURE):
        _read_png(found, data)
    elif data[:2] in (b"II", b"MM"):
        _read_tiff(found, data)
    elif data[:2] == b"BM":
        _read_bmp(found, data)
    elif image is not None:
        _read_segments(found, image)
    if image is not None and image.mode == "CMYK":
        found.icc = None  # the pixels become RGB, and that is told
    return found


def _orientation(value: Any) -> int:
    return int(value) if value in range(1, 9) else 1


def _density(x: float, y: float, unit: int) -> Density | None:
    """Of a resolution in TIFF's units: 1 tells the shape of pixels alone, 2 is inch, 3 cm."""
    if not (0 < x < math.inf and 0 < y < math.inf):
        return None
    if unit == 1:
        return Density(x, y, metric=False) if x != y else None
    metres = METRES_PER_CENTIMETRE if unit == 3 else METRES_PER_INCH
    return Density(x / metres, y / metres)


# --- PNG --------------------------------------------------------------------------------------


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    """Name and content of the chunks of a PNG; no content if it is that of pixels or damaged."""
    place = len(PNG_SIGNATURE)
    while place + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        name, stop = data[place + 4 : place + 8], place + 8 + size
        if name in (b"IDAT", b"fdAT"):
            yield name, None
        else:
            body = data[place + 8 : stop]
            right = struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))
            yield name, body if data[stop : stop + 4] == right else None
        place = stop + 4


def _read_png(found: Found, data: bytes) -> None:
    header = palette = camera = b""
    pixels = False
    for name, body in _chunks(data):
        pixels = pixels or name == b"IDAT"
        early = not pixels  # where a chunk has to be that says how to show pixels
        if body is None:
            if name in COLOR_CHUNKS or name in (b"iCCP", b"eXIf", b"pHYs"):
                found.lost.append(f"its {name.decode()} chunk is damaged; it is left out")
        elif name == b"IHDR":
            header = header or body
        elif name == b"PLTE":
            palette = palette or body
        elif name in COLOR_CHUNKS:
            if early:
                found.add_color(name, body)
        elif name == b"iCCP":
            if early and found.icc is None:
                _read_profile(found, body)
        elif name == b"bKGD":
            if early and found.background is None:
                found.background = _background(body, header, palette)
        elif name == b"pHYs":
            if early and len(body) == 9 and body[8] <= 1 and found.density is None:
                x, y, unit = struct.unpack(">IIB", body)
                found.density = Density(x, y, metric=bool(unit)) if x and y else None
        elif name == b"eXIf":
            camera = camera or body
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            try:
                _read_text(found, name, body)
            except ValueError as error:
                found.lost.append(f"a text in it {error}; it is left out")
        elif len(body) <= MOST_TEXT and _may_be_copied(name):
            found.others.append((name, body))
    found.exif = camera or found.exif  # the chunk before the text that was in its place once
    found.read_exif(resolution=False)


def _may_be_copied(name: bytes) -> bool:
    """Known ones that still hold; of others the fourth letter says it (5.4)."""
    if name in (b"sCAL", b"sTER"):
        return True
    return name.isalpha() and name[:1].islower() and name[3:].islower()


def _is_valid(name: bytes, body: bytes) -> bool:
    if len(body) != COLOR_CHUNKS[name]:
        return False
    if name == b"gAMA":
        return 0 < int.from_bytes(body, "big") < 1 << 31
    if name == b"sRGB":
        return body[0] <= 3
    # Of RGB, which a matrix other than 0 would not be.
    return name != b"cICP" or (body[2] == 0 and body[3] <= 1)


def _read_profile(found: Found, body: bytes) -> None:
    _, _, rest = body.partition(b"\0")
    try:
        found.icc = _inflated(rest[1:], icc.MOST_BYTES)
    except ValueError as error:
        found.lost.append(f"its colour profile {error}; it is left out")


def _inflated(data: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(data, most)
    except zlib.error as error:
        raise ValueError("is damaged") from error
    if inflater.unconsumed_tail:
        raise ValueError(f"is larger than {most / 1e6:.0f} MB")
    if not inflater.eof:
        raise ValueError("is cut off")
    return content


def _background(body: bytes, header: bytes, palette: bytes) -> tuple[int, int, int] | None:
    """The colour of a bKGD chunk, of 16 bits."""
    if len(header) != 13 or not 1 <= header[8] <= 16:
        return None
    depth, color_type = header[8:10]
    if color_type == 3:
        rgb = palette[3 * body[0] : 3 * body[0] + 3] if body else b""
        levels: Sequence[int] = tuple(257 * level for level in rgb)
    else:
        size = 6 if color_type in (2, 6) else 2
        scale = 65535 // ((1 << depth) - 1)
        stored = struct.unpack(f">{size // 2}H", body) if len(body) == size else ()
        levels = [scale * level for level in stored] * (6 // size)
    if len(levels) != 3 or max(levels) > 65535:
        return None
    return levels[0], levels[1], levels[2]


def _read_text(found: Found, name: bytes, body: bytes) -> None:
    """Take over a text as it is; of EXIF and XMP, which say how to turn the picture, the content.

    Raises
    ------
    ValueError
        If it is damaged or too large.
    """
    keyword, _, content = body.partition(b"\0")
    if name == b"zTXt":
        content = _inflated(content[1:], MOST_TEXT)
    elif name == b"iTXt":
        compressed, rest = content[:1] == b"\1", content[2:].split(b"\0", 2)
        content = _inflated(rest[-1], MOST_TEXT) if compressed else rest[-1]
    if len(content) > MOST_TEXT:
        raise ValueError(f"is larger than {MOST_TEXT / 1e6:.0f} MB")
    kind = keyword.lower().removeprefix(b"raw profile type ")
    if keyword == XMP_KEYWORD:
        found.xmp = found.xmp or content
    elif kind != keyword.lower() and kind in (b"exif", b"app1", b"xmp"):
        try:  # ImageMagick's way: a name, a length, digits
            content = bytes.fromhex("".join(content.decode("ascii").split("\n")[3:]))
        except ValueError:
            raise ValueError("is damaged") from None
        if kind == b"xmp" or content.startswith(XMP_SEGMENT):
            found.xmp = found.xmp or content.removeprefix(XMP_SEGMENT)
        else:
            found.exif = found.exif or content
    else:
        found.others.append((name, body))


def _of_result(chunks: Sequence[Chunk], orientation: int) -> Iterator[Chunk]:
    """Chunks as they hold for the upright picture."""
    for name, body in chunks:
        if name == b"sCAL" and orientation in exif.TRANSPOSED:
            yield name, body[:1] + b"\0".join(reversed(body[1:].split(b"\0")))
        elif name != b"oFFs" or orientation == 1:  # whose corner is another one now
            yield name, body


# --- JPEG and WebP ----------------------------------------------------------------------------


def _read_segments(found: Found, image: PIL.Image.Image) -> None:
    info: dict[Any, Any] = image.info
    found.exif, found.xmp = info.get("exif"), info.get("xmp")
    found.icc = info.get("icc_profile")
    if "icc_profile" in info and found.icc is None:
        found.lost.append("its colour profile lacks a part; it is left out")
    x, y = info.get("jfif_density", (0, 0))
    unit = info.get("jfif_unit")
    # JFIF counts its units from 0 where TIFF does from 1.
    found.density = _density(x, y, unit + 1) if unit in (0, 1, 2) else None
    found.read_exif()
    photoshop = info.get("photoshop", {})
    if found.density is None and isinstance(size := photoshop.get(RESOLUTION_RESOURCE), dict):
        found.density = _density(size["XResolution"], size["YResolution"], 2)
    if record := photoshop.get(IPTC_RESOURCE):
        found.add_iptc(record)
    if comment := info.get("comment", b"").rstrip(b"\0"):
        found.others.append(_comment(comment))
    segments = [content for _, content in getattr(image, "applist", [])]
    if any(segment.startswith(b"http://ns.adobe.com/xmp/extension/") for segment in segments):
        found.lost.append("the second part of its XMP is left out")
    if found.xmp is not None and re.search(rb"hdrgm:Version|HDRGainMap", found.xmp):
        found.lost.append("has a gain map for HDR screens; the result is what other screens show")


def _comment(comment: bytes) -> Chunk:
    comment = comment.replace(b"\0", b" ")
    try:
        comment.decode()
    except ValueError:
        return b"tEXt", b"Comment\0" + comment
    return b"iTXt", b"Comment" + bytes(5) + comment


# --- TIFF -------------------------------------------------------------------------------------

TRANSFER_FUNCTION, WHITE_POINT, PRIMARIES = 301, 318, 319
XMP, IPTC, PROFILE = 700, 33723, 34675
OF_COLOR = {TRANSFER_FUNCTION, WHITE_POINT, PRIMARIES, PROFILE}
OF_SHAPE = {exif.ORIENTATION, exif.X_RESOLUTION, exif.Y_RESOLUTION, exif.RESOLUTION_UNIT}
WANTED = exif.ABOUT_THE_PHOTO | OF_COLOR | OF_SHAPE | {XMP, IPTC}


def _read_tiff(found: Found, data: bytes) -> None:
    try:
        order, tags = exif.tiff_tags(data, WANTED)
    except (KeyError, struct.error):
        found.lost.append("its metadata is damaged; it is left out")
        return

    def whole(tag: int, default: int) -> int:
        numbers = exif.numbers(order, tags.get(tag), exif.WHOLE)
        return int(numbers[0]) if numbers else default

    def fractions(*names: int) -> list[float]:
        entries = (exif.numbers(order, tags.get(tag), exif.FRACTIONS) for tag in names)
        return [number for numbers in entries for number in numbers]

    found.exif = exif.of_tiff(order, tags)
    found.xmp, found.icc, record = (exif.content(tags.get(tag)) for tag in (XMP, PROFILE, IPTC))
    found.read_exif(resolution=False)
    if exif.ORIENTATION in tags:
        found.orientation = _orientation(whole(exif.ORIENTATION, 1))
    if record is not None:
        found.add_iptc(record)
    resolution = fractions(exif.X_RESOLUTION, exif.Y_RESOLUTION)
    if len(resolution) == 2:
        x, y = resolution
        found.density = _density(x, y, whole(exif.RESOLUTION_UNIT, 2))
    xy = fractions(WHITE_POINT, PRIMARIES)
    if len(xy) == 8:
        _add_chromaticities(found, xy)
    if found.icc is None and TRANSFER_FUNCTION in tags:
        found.lost.append("its TransferFunction, which few programs heed, is left out")


def _add_chromaticities(found: Found, xy: Sequence[float]) -> None:
    """White, red, green, blue, x before y."""
    if all(0 <= value <= 1 for value in xy) and all(y > 0 for y in xy[1::2]):
        found.add_color(b"cHRM", struct.pack(">8I", *(round(100_000 * value) for value in xy)))


# --- BMP --------------------------------------------------------------------------------------


def _read_bmp(found: Found, data: bytes) -> None:
    """The headers of versions 3 to 5 (BITMAPV5HEADER of Windows, behind 14 bytes of the file's)."""
    with contextlib.suppress(struct.error):
        (size,) = struct.unpack_from("<I", data, 14)
        if size >= 40:
            x, y = struct.unpack_from("<ii", data, 38)
            found.density = Density(x, y) if x > 0 and y > 0 else None
        if size < 108:
            return
        kind = data[70:74][::-1]
        intent, place, length = struct.unpack_from("<III", data, 122) if size >= 124 else (0, 0, 0)
        if kind == b"sRGB":
            found.add_color(b"sRGB", bytes([{1: 2, 2: 1, 8: 3}.get(intent, 0)]))
        elif kind == b"MBED":
            found.icc = data[14 + place : 14 + place + length]
        elif kind == b"LINK":
            found.lost.append("its colour profile is another file; it is left out")
        elif kind == bytes(4):
            _read_calibration(found, data)


def _read_calibration(found: Found, data: bytes) -> None:
    endpoints = [value / (1 << 30) for value in struct.unpack_from("<9i", data, 74)]
    gammas = [value / (1 << 16) for value in struct.unpack_from("<3I", data, 110)]
    if min(gammas) > 0:
        if max(gammas) - min(gammas) > 0.01:
            found.lost.append("its three colours have gammas of their own; they are left out")
        else:
            # Of the screen or, as ImageMagick writes it, of the file.
            gamma = gammas[0] if gammas[0] < 1 else 1 / gammas[0]
            found.add_color(b"gAMA", struct.pack(">I", round(100_000 * gamma)))
    colors = [endpoints[start : start + 3] for start in (0, 3, 6)]
    if all(min(color) >= 0 and sum(color) > 0 for color in colors):
        white = [sum(values) for values in zip(*colors, strict=True)]
        # Most writers note how red, green and blue are, not how much of each makes white.
        unknown = all(abs(sum(color) - 1) < 0.01 for color in colors)
        points = [[*D65, 1 - sum(D65)] if unknown else white, *colors]
        _add_chromaticities(found, [v / sum(point) for point in points for v in point[:2]])
