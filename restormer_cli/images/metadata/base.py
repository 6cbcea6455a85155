"""What every format is read into, and the chunks of PNG that are made of it."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from restormer_cli.images.metadata import exif, icc

Chunk = tuple[bytes, bytes]
"""Name and content of a chunk of a PNG."""

#: Colour descriptions and their sizes. All that a file has are kept: which one counts is for
#: readers to say, cICP before iCCP before sRGB before gAMA and cHRM.
COLOR_CHUNKS = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32, b"mDCV": 24, b"cLLI": 8}
#: By number of the unit in TIFF: inch and centimetre.
METRES = {2: 0.0254, 3: 0.01}
XMP_KEYWORD = b"XML:com.adobe.xmp"
IPTC_RESOURCE = 0x0404
GAIN_MAP = "has a gain map for HDR screens; the result is what other screens show"
MOTION = "is a motion photo; its result is the still picture alone"
#: How XMP says so: as an attribute, or as exiftool writes it.
SAYS_MOTION = re.compile(rb":(?:MotionPhoto|MicroVideo)\s*(?:=\s*[\"']|>\s*)1")
#: How a video begins.
VIDEO = re.compile(rb"\0\0..ftyp", re.DOTALL)
#: How further pictures behind the first one do.
PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n")
#: Bytes behind a picture of which nobody need be told: cameras leave a few.
FEW_BYTES = 1 << 12
#: Primaries and transfer (ITU-T H.273) of what nobody says, and of sRGB, as which all is shown.
USUAL = frozenset({(2, 2), (1, 2), (2, 13), (1, 13), (1, 1)})
CREDENTIALS = "its content credentials (C2PA) hold for the unchanged file alone and are left out"


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

    def per_inch(self) -> tuple[float, float]:
        """To a hundredth, since PNG counts in metres; the shape of pixels in small numbers."""
        if self.metric:
            return round(self.x * METRES[2], 2), round(self.y * METRES[2], 2)
        return Fraction(self.x / self.y).limit_denominator(10_000).as_integer_ratio()


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
        chunks = []
        if self.icc is not None:  # before sRGB, since libpng heeds the first of the two
            chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(self.icc)))
        chunks += self.color
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

    def stripped(self) -> Metadata:
        """The same without what may be personal: what says how to show the pixels alone."""
        return replace(self, exif=None, xmp=None, others=())


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
            tuple(_upright(self.others, self.orientation)),
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

    def tell(self, sentence: str) -> None:
        """Note what cannot be kept, once."""
        if sentence not in self.lost:
            self.lost.append(sentence)

    def tell_motion(self) -> None:
        """Tell that the photo moves, if XMP says so."""
        if SAYS_MOTION.search(self.xmp or b""):
            self.tell(MOTION)

    def tell_rest(self, rest: bytes, *, known: bool = False) -> None:
        """Tell what a file holds behind its picture.

        Parameters
        ----------
        known
            What it is has been told, unless it is a video.
        """
        if VIDEO.search(rest):
            self.tell(MOTION)
        elif not known and MOTION not in self.lost:
            size = len(rest.strip(b"\0"))
            if size > FEW_BYTES or rest.startswith(PICTURES):
                self.tell(f"what stands behind its picture ({size} bytes) is left out")

    def read_exif(self, resolution: bool = True) -> None:
        """Take the orientation, and a resolution if none is known, from EXIF, else from XMP."""
        self.exif = re.sub(rb"\A(Exif\0\0)+", b"", self.exif or b"") or None
        tags = exif.shape_of_pixels(self.exif or b"")
        self.orientation = orientation_of(tags.get(exif.ORIENTATION))
        if resolution and self.density is None and tags.keys() >= exif.RESOLUTION:
            x, y = tags[exif.X_RESOLUTION], tags[exif.Y_RESOLUTION]
            self.density = density_of(x, y, int(tags.get(exif.RESOLUTION_UNIT, 2)))
        said = rb"tiff:Orientation\s*(?:=\s*[\"']|>\s*)([0-9]+)"
        if exif.ORIENTATION not in tags and (match := re.search(said, self.xmp or b"")):
            self.orientation = orientation_of(int(match[1]))

    def add_color(self, name: bytes, body: bytes) -> None:
        """Take a colour description, if it is one and the first of its kind."""
        if not _is_valid(name, body):
            self.tell(f"its {name.decode()} chunk is not valid; it is left out")
        else:
            self.color.setdefault(name, body)

    def add_code_points(self, primaries: int, transfer: int) -> None:
        """Take a colour description of videos (ITU-T H.273), unless it says the usual."""
        if (primaries, transfer) not in USUAL:  # of RGB with all values, as decoded
            self.add_color(b"cICP", bytes([primaries, transfer, 0, 1]))

    def add_chromaticities(self, xy: Sequence[float]) -> None:
        """White, red, green, blue, x before y."""
        if all(0 <= value <= 1 for value in xy) and all(y > 0 for y in xy[1::2]):
            self.add_color(b"cHRM", struct.pack(">8I", *(round(100_000 * value) for value in xy)))

    def add_iptc(self, record: bytes) -> None:
        """Take what press agencies note, in the form that ImageMagick gave it in PNG."""
        size = struct.pack(">I", len(record))
        block = b"8BIM" + struct.pack(">H", IPTC_RESOURCE) + b"\0\0" + size + record
        block += bytes(len(record) % 2)
        digits = block.hex()
        lines = [digits[start : start + 72] for start in range(0, len(digits), 72)]
        text = "\n".join(["", "iptc", f"{len(block):8}", *lines, ""]).encode()
        self.others.append((b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(text)))


def _is_valid(name: bytes, body: bytes) -> bool:
    if len(body) != COLOR_CHUNKS[name]:
        return False
    if name == b"gAMA":
        return 0 < int.from_bytes(body, "big") < 1 << 31
    if name == b"sRGB":
        return body[0] <= 3
    # Of RGB, which a matrix other than 0 would not be.
    return name != b"cICP" or (body[2] == 0 and body[3] <= 1)


def _upright(chunks: Sequence[Chunk], orientation: int) -> Iterator[Chunk]:
    """Chunks as they hold for the upright picture."""
    for name, body in chunks:
        if name == b"sCAL" and orientation in exif.TRANSPOSED:
            yield name, body[:1] + b"\0".join(reversed(body[1:].split(b"\0")))
        elif name != b"oFFs" or orientation == 1:  # whose corner is another one now
            yield name, body


def orientation_of(value: Any) -> int:
    return int(value) if value in range(1, 9) else 1


def density_of(x: float, y: float, unit: int) -> Density | None:
    """Of a resolution in TIFF's units: 1 tells the shape of pixels alone, 2 is inch, 3 cm."""
    if not (0 < x < math.inf and 0 < y < math.inf):
        return None
    if unit == 1:
        return Density(x, y, metric=False) if x != y else None
    return Density(x / METRES[unit], y / METRES[unit]) if unit in METRES else None
