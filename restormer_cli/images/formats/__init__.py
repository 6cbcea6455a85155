"""Formats that results are written in: a row for each in :data:`FORMATS`, an encoder in a file.

The file of a format is called as the format and has a function ``encode``, an :data:`Encoder`. It
is loaded when the first image is encoded: the help of a command lists the formats, and should not
wait for libraries. What a format cannot hold is settled before, in
:mod:`restormer_cli.images.fitting`, so an encoder gets only what its row says.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, cast

from restormer_cli.errors import ImageError, UsageError

if TYPE_CHECKING:
    from restormer_cli.images.picture import Picture

#: For what is as large as it likes.
ANY = 1 << 62
#: Of a TIFF file that is no BigTIFF, with room for what stands beside the samples.
CLASSIC_TIFF = (1 << 32) - (1 << 25)
#: What a segment of a JPEG holds.
_SEGMENT = 65533


class Encoding(NamedTuple):
    """How a picture is to be encoded."""

    bits: int
    """Of a sample; in uint8 up to 8, else in uint16."""
    quality: int | None = None
    """1 to 100, of which 100 is without loss where the format can; None where it has none."""
    compression: int | None = None
    """0 to 9, where the format has levels; None: what is quick."""


Encoder = Callable[["Picture", Encoding], bytes]
"""A picture in one of the format's modes to a file; what a library raises is passed on."""


@dataclass(frozen=True)
class OutputFormat:
    """One format of results, and what it holds."""

    name: str
    """As ``--format`` takes it, and the name of its file here."""
    title: str
    """As people write it."""
    suffixes: tuple[str, ...]
    """The first one is that of results; the others are understood as names of the format."""
    bits: tuple[int, ...]
    """Depths of a sample, rising."""
    modes: frozenset[str]
    """Of ``L`` (gray), ``LA`` (with alpha), ``RGB`` and ``RGBA``; RGB at least."""
    largest_side: int
    """Pixels in width and in height."""
    largest_area: int = ANY
    """Pixels in all."""
    quality: int | None = None
    """The usual one of 1 to 100; None if the format has no loss."""
    compressions: bool = False
    """True if ``--png-compression`` is for it."""
    metadata: Mapping[str, int] | None = field(default_factory=dict, hash=False)
    """Bytes at most of each kind that it holds: ``icc``, ``exif``, ``xmp``, ``iptc``, ``comment``;
    also ``density``, of which it is pixels an inch, and ``cICP``. None: all that PNG holds."""
    largest_with_exif: int = ANY
    """Bytes of samples above which there is no place for EXIF."""
    shared_description: bool = False
    """True if a comment stands where EXIF has its description."""
    encoding_copies: int = 4
    """Times its pixels that a picture takes while it is encoded, file included (measured)."""

    @property
    def suffix(self) -> str:
        """Of results."""
        return self.suffixes[0]

    @property
    def alpha(self) -> bool:
        return "RGBA" in self.modes

    def fits(self, height: int, width: int) -> bool:
        """True if a result of this size can be written."""
        return max(height, width) <= self.largest_side and height * width <= self.largest_area

    def check_size(self, height: int, width: int) -> None:
        """Check that a result of this size can be written.

        Raises
        ------
        ImageError
            If it is too large for the format.
        """
        if not self.fits(height, width):
            limit = f"{self.largest_side} a side"
            if self.largest_area < ANY:
                limit += f" and {self.largest_area / 1e6:.0f} megapixels"
            larger = [form.name for form in FORMATS if form.fits(height, width)]
            remedy = f"choose --format {' or '.join(larger)}" if larger else "cut it into parts"
            raise ImageError(
                f"is {width}×{height} pixels, and {self.title} takes no more than {limit}; {remedy}"
            )

    def encode(self, picture: Picture, encoding: Encoding) -> bytes:
        """Encode by the function of that name in the format's file."""
        module = importlib.import_module(f"{__name__}.{self.name}")
        return cast(Encoder, module.encode)(picture, encoding)

    def describe(self) -> tuple[str, ...]:
        """Cells of a row of the table in the docs: see :data:`COLUMNS`."""
        colours = "gray, colour"
        if "L" not in self.modes:
            colours = "colour"
        elif self.alpha and "LA" not in self.modes:
            colours = "gray (colour if transparent), colour"
        size = f"{self.largest_side:,} a side"
        if self.largest_area < ANY:
            size += f", {self.largest_area / 1e6:.0f} MP"
        held = KINDS if self.metadata is None else self.metadata
        kept = [word for kind, word in KINDS.items() if kind in held]
        if self.metadata is None:
            kept += ["texts", "sRGB", "gamma", "primaries"]
        return (
            self.title,
            self.suffix,
            f"{', '.join(map(str, self.bits))} bit",
            colours,
            "yes" if self.alpha else "laid over the background",
            ", ".join(kept) or "nothing",
            "without loss" if self.quality is None else f"{self.quality} by default",
            size,
        )


#: What people call kinds of metadata.
KINDS = {
    "icc": "colour profile",
    "exif": "EXIF",
    "xmp": "XMP",
    "iptc": "IPTC",
    "comment": "comment",
    "density": "resolution",
    "cICP": "cICP",
}
#: Of the table that :meth:`OutputFormat.describe` fills.
COLUMNS = ("format", "suffix", "bits", "colours", "alpha", "kept", "`--quality`", "largest")

GRAY_AND_COLOUR = frozenset({"L", "LA", "RGB", "RGBA"})

PNG = OutputFormat(
    "png",
    "PNG",
    (".png",),
    bits=(8, 16),
    modes=GRAY_AND_COLOUR,
    largest_side=1_000_000,  # of libpng
    compressions=True,
    metadata=None,
)
FORMATS = (
    PNG,
    OutputFormat(
        "tiff",
        "TIFF",
        (".tif", ".tiff"),
        bits=(8, 16),
        modes=GRAY_AND_COLOUR,
        largest_side=(1 << 31) - 1,
        metadata=dict.fromkeys(("icc", "exif", "xmp", "iptc", "comment", "density"), ANY),
        largest_with_exif=CLASSIC_TIFF,
        shared_description=True,
    ),
    OutputFormat(
        "jpeg",
        "JPEG",
        (".jpg", ".jpeg"),
        bits=(8,),
        modes=frozenset({"L", "RGB"}),
        largest_side=65_500,  # of libjpeg; the format has 35 more
        quality=95,
        # Less the names that the segments begin with.
        metadata={
            "icc": ANY,  # in several segments
            "exif": _SEGMENT - 6,
            "xmp": _SEGMENT - 29,
            "iptc": _SEGMENT - 14,
            "comment": _SEGMENT,
            "density": (1 << 16) - 1,
        },
    ),
    OutputFormat(
        "webp",
        "WebP",
        (".webp",),
        bits=(8,),
        modes=frozenset({"RGB", "RGBA"}),
        largest_side=16_383,
        quality=95,
        metadata={"icc": ANY, "exif": ANY, "xmp": ANY},
        encoding_copies=15,
    ),
    OutputFormat(
        "avif",
        "AVIF",
        (".avif",),
        bits=(8, 10, 12),
        modes=frozenset({"L", "RGB", "RGBA"}),
        # More than these libavif and browsers refuse to read.
        largest_side=1 << 15,
        largest_area=1 << 28,
        quality=90,
        metadata={"icc": ANY, "exif": ANY, "xmp": ANY, "cICP": ANY},
        encoding_copies=16,
    ),
)


def result_suffixes() -> tuple[str, ...]:
    """Suffixes that results may have."""
    return tuple(form.suffix for form in FORMATS)


def bit_depths() -> tuple[int, ...]:
    """Of all formats, rising."""
    return tuple(sorted({bits for form in FORMATS for bits in form.bits}))


def find_format(name: str) -> OutputFormat:
    """A format by its name or one of its suffixes, in any case.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    wanted = name.lower()
    for form in FORMATS:
        if wanted == form.name or f".{wanted.removeprefix('.')}" in form.suffixes:
            return form
    raise UsageError(f"no format {name!r}; choose {', '.join(form.name for form in FORMATS)}")
