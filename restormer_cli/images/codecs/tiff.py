"""TIFF (revision 6.0) and BigTIFF: whole numbers of up to 16 bit and floats, however stored."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from operator import index
from typing import Any, BinaryIO, cast

import numpy as np
import PIL.Image
import tifffile
from tifffile import EXTRASAMPLE, PHOTOMETRIC, SAMPLEFORMAT

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs import by_pillow, jpeg, jpeg2000, png
from restormer_cli.images.codecs.base import (
    CMYK_NOTE,
    EMPTY_END,
    Codec,
    Decoded,
    begins,
    empty_end,
    from_cmyk,
    from_floats,
    inverted,
    parsing,
    scaled,
    unmultiplied,
)
from restormer_cli.images.metadata.base import CREDENTIALS
from restormer_cli.images.metadata.tiff import read_tiff
from restormer_cli.images.pillow import open_image

SUB_FILE_TYPE, OLD_SUB_FILE_TYPE, PHOTOMETRIC_TAG = 254, 255, 262
ORIENTATION, SUB_DIRECTORIES, INK_SET, SUBSAMPLING = 274, 330, 332, 530
DNG_VERSION = 50706
#: Where Photoshop keeps its layers, and their names there, in either order of bytes.
PHOTOSHOP, LAYERS = 37724, (b"Layr", b"Lr16", b"Lr32", b"ryaL", b"61rL", b"23rL")
CREDENTIALS_TAG = 52545
#: Bits of the sub-file type.
REDUCED, MASK = 1, 4
#: How the older sub-file type says the same.
OLD_REDUCED = 2
CMYK_INKS = 1
#: So many pages are looked at to find the picture and to count the others.
MOST_PAGES = 1000
IMAGES_OF_IMAGEJ = re.compile(r"^images=([0-9]{1,9})\s*$", re.MULTILINE)

#: How many samples name a colour.
COLOURS = {
    PHOTOMETRIC.MINISWHITE: 1,
    PHOTOMETRIC.MINISBLACK: 1,
    PHOTOMETRIC.PALETTE: 1,
    PHOTOMETRIC.RGB: 3,
    PHOTOMETRIC.YCBCR: 3,
    PHOTOMETRIC.SEPARATED: 4,
}
RAW = {PHOTOMETRIC.CFA, PHOTOMETRIC.LINEAR_RAW}
#: Of a file, and below each of its pages, that are looked at to see whether it is a raw file.
MOST_DIRECTORIES = 16
#: Of floating-point samples: half, single and double precision.
FLOAT_BITS = {16, 32, 64}
#: Kinds of colours that are stored by some programs as floating-point samples.
OF_FLOATS = {
    PHOTOMETRIC.MINISWHITE,
    PHOTOMETRIC.MINISBLACK,
    PHOTOMETRIC.RGB,
    PHOTOMETRIC.SEPARATED,
}
#: Compressions that libtiff decodes better than tifffile: CCITT (2, 3, 4 and 32771), the JPEG
#: of TIFF 6.0 and ThunderScan. Numbers, since tifffile's names for them change.
BY_LIBTIFF = {2, 3, 4, 32771, 6, 32809}
NONE, JPEG, DNG_JPEG = 1, 7, 34892
DEFLATE = {8, 32946}
#: Bytes beyond the last row of a strip that are read to reach its checksum.
MOST_PADDING = 1 << 24
#: Bytes in front of what is deflated.
ZLIB_HEADER = 2
#: Bytes of a strip or tile that cannot all be zero, if it is compressed.
LEAST_EMPTY = 64
ALPHAS = {EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA}
FORMATS = {
    SAMPLEFORMAT.INT: "int",
    SAMPLEFORMAT.COMPLEXINT: "complex int",
    SAMPLEFORMAT.COMPLEXIEEEFP: "complex",
}


#: How files begin, big ones too.
STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
#: Images of other formats that a strip or tile can be.
IMAGES = (jpeg.CODEC, png.CODEC, jpeg2000.CODEC, by_pillow.WEBP)


@dataclass(frozen=True)
class _Page:
    """What the tags of a page say, and where it is."""

    number: int
    count: int
    """Of the pages that are pictures."""
    masked: bool
    """True if one of the others says what of the picture counts."""
    height: int
    width: int
    depth: int
    samples: int
    bits: int | tuple[int, ...]
    sample_format: Any
    photometric: Any
    compression: Any
    known_compression: bool
    extras: tuple[int, ...]
    ink_set: Any
    subsampling: Any
    orientation: Any
    palette: Any
    parts: int
    """Strips or tiles that there should be."""
    largest_part: int
    """Pixels of a tile, if there are tiles."""
    offsets: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def by_libtiff(self) -> bool:
        if self.compression in (JPEG, DNG_JPEG):
            return False
        luma_and_chroma = self.photometric == PHOTOMETRIC.YCBCR
        return self.compression in BY_LIBTIFF or (luma_and_chroma and self.compression != NONE)

    @property
    def alphas(self) -> int:
        return sum(extra in ALPHAS for extra in self.extras)

    @property
    def floats(self) -> bool:
        return self.sample_format == SAMPLEFORMAT.IEEEFP  # type: ignore[no-any-return]  # tifffile's


def _picture(tiff: tifffile.TiffFile) -> tuple[Any, _Page]:
    """The first page that is no thumbnail or mask, and what its tags say."""
    every = list(enumerate(itertools.islice(_pages(tiff), MOST_PAGES)))
    pages = [each for each in every if not _kind(each[1]) & (REDUCED | MASK)] or every[:1]
    number, page = pages[0]
    tags = page.tags
    _count_bytes(page, tiff.filehandle.size)
    facts = _Page(
        number=number,
        count=len(pages) if len(every) > 1 else _frames(page, tiff.filehandle.size),
        masked=any(_kind(other) & MASK for _, other in every if other is not page),
        height=index(page.imagelength),  # of whatever type a damaged tag is
        width=index(page.imagewidth),
        depth=index(page.imagedepth),
        samples=index(page.samplesperpixel),
        bits=page.bitspersample,
        sample_format=page.sampleformat,
        photometric=_photometric(page),
        compression=page.compression,
        known_compression=page.compression == NONE
        or page.compression in tifffile.TIFF.DECOMPRESSORS,
        extras=tuple(page.extrasamples),
        subsampling=tags.valueof(SUBSAMPLING, (2, 2)),
        ink_set=tags.valueof(INK_SET, CMYK_INKS),
        orientation=tags.valueof(ORIENTATION, 1),
        palette=page.colormap,
        parts=math.prod(page.chunked),
        largest_part=index(page.tilewidth) * index(page.tilelength),
        offsets=tuple(map(index, page.dataoffsets)),
        counts=tuple(map(index, page.databytecounts)),
    )
    return page, facts


def _pages(tiff: tifffile.TiffFile) -> Iterator[Any]:
    """Pages up to a damaged one."""
    yield tiff.pages.first
    for number in itertools.count(1):
        try:
            page = tiff.pages[number]
        except Exception:  # no more, or none that the parser understands
            return
        yield page


def _frames(page: Any, size: int) -> int:
    """How many pictures stand behind the one directory of a file, as ImageJ writes long stacks."""
    claimed = 1
    if page.is_imagej and (match := IMAGES_OF_IMAGEJ.search(page.description)):
        claimed = int(match[1])
    elif page.is_shaped:
        with contextlib.suppress(ValueError, KeyError, TypeError, ZeroDivisionError):
            claimed = math.prod(json.loads(page.shaped_description)["shape"]) // page.size
    if claimed < 2 or not page.nbytes or not page.is_contiguous:
        return 1
    return max(1, min(claimed, (size - index(page.dataoffsets[0])) // index(page.nbytes)))


def _kind(page: Any) -> int:
    value = page.tags.valueof(SUB_FILE_TYPE)
    if value is None:
        return REDUCED if page.tags.valueof(OLD_SUB_FILE_TYPE) == OLD_REDUCED else 0
    return value if isinstance(value, int) else 0


def _photometric(page: Any) -> Any:
    """What a file says, or what libtiff, and so most programs, guess where it does not."""
    if PHOTOMETRIC_TAG in page.tags:
        return page.photometric
    return PHOTOMETRIC.RGB if page.samplesperpixel >= 3 else PHOTOMETRIC.MINISBLACK


def _count_bytes(page: Any, size: int) -> None:
    """Count the bytes of a single strip, for which old programs write 0 or a wrong number."""
    if page.is_tiled or math.prod(page.chunked) != 1 or len(page.dataoffsets) != 1:
        return
    if page.compression == NONE and isinstance(page.bitspersample, int):
        row = -(-page.imagewidth * page.samplesperpixel * page.bitspersample // 8)
        page.databytecounts = (row * page.imagelength,)
    elif not any(page.databytecounts):
        page.databytecounts = (max(0, size - page.dataoffsets[0]),)


def is_raw(file: BinaryIO) -> bool:
    """True if a file in the manner of TIFF is what a sensor measured: DNG, NEF, ARW, PEF, …"""
    return any(
        DNG_VERSION in page.tags or page.photometric in RAW for page in _all_directories(file)
    )


def ends_of_parts(file: BinaryIO) -> list[int]:
    """Where the strips and tiles end of what a sensor measured."""
    return [
        index(offset) + index(count)
        for page in _all_directories(file)
        if page.photometric in RAW
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
    ]


def _all_directories(file: BinaryIO) -> list[Any]:
    """Pages, and what lies below them, as far as they can be read."""
    found: list[Any] = []
    file.seek(0)
    with contextlib.suppress(ImageError), parsing("TIFF"), tifffile.TiffFile(file) as tiff:
        for page in itertools.islice(_pages(tiff), MOST_DIRECTORIES):
            found.append(page)
            if SUB_DIRECTORIES in page.tags:
                found += itertools.islice(page.pages or (), MOST_DIRECTORIES)
    return found


def _measure(file: BinaryIO) -> tuple[int, int]:
    with parsing("TIFF"), tifffile.TiffFile(file) as tiff:
        page = _picture(tiff)[1]
    _refuse_unreadable(page)
    return page.height, page.width


def _refuse_unreadable(page: _Page) -> None:
    """Raise ImageError for what is whole, but of a kind that is not decoded."""
    bits, colours = page.bits, COLOURS.get(page.photometric)
    what = None
    if page.sample_format in FORMATS:
        signed = " (signed)" if page.sample_format == SAMPLEFORMAT.INT else ""
        what = f"{FORMATS[page.sample_format]}{bits} samples{signed}"
    elif not page.floats and page.sample_format not in (SAMPLEFORMAT.UINT, SAMPLEFORMAT.VOID):
        what = "samples of an unknown kind"
    elif not isinstance(bits, int):
        what = f"samples of different sizes ({', '.join(map(str, bits))} bit)"
    elif page.floats and (bits not in FLOAT_BITS or page.photometric not in OF_FLOATS):
        what = f"float{bits} samples of the kind {_name(page.photometric)}"
    elif not page.floats and not 1 <= bits <= 16:
        what = f"uint{bits} samples"
    elif colours is None:
        what = f"colours of the kind {_name(page.photometric)}"
    elif page.depth > 1:
        what = f"{page.depth} layers of depth"
    elif page.samples < colours:
        what = f"{page.samples} samples a pixel where its colours take {colours}"
    elif page.photometric == PHOTOMETRIC.MINISBLACK and page.samples - page.alphas > 4:
        what = f"{page.samples} bands, of which none is said to be red, green or blue"
    elif page.photometric == PHOTOMETRIC.SEPARATED and page.ink_set != CMYK_INKS:
        what = "inks other than CMYK"
    elif (
        page.photometric == PHOTOMETRIC.YCBCR
        and page.compression == NONE
        and (page.subsampling != (1, 1) or bits != 8)
    ):
        less = "chroma of less resolution" if bits == 8 else f"luma and chroma of {bits} bit"
        what = f"{less}, without JPEG"
    elif page.photometric == PHOTOMETRIC.PALETTE and page.palette is None:
        raise ImageError("is a TIFF file that is damaged: it lacks its palette")
    if what is not None:
        raise ImageError(f"is a TIFF that has {what}; convert it to 8 or 16 bit RGB or gray")
    if not page.by_libtiff and not page.known_compression:
        raise ImageError(
            f"is a TIFF compressed in a way that cannot be read ({_name(page.compression)}); "
            "save it without compression or with LZW"
        )


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))


def _decode(data: bytes) -> Decoded:
    with contextlib.ExitStack() as stack:
        with parsing("TIFF"):
            tiff = stack.enter_context(tifffile.TiffFile(io.BytesIO(data)))
            parsed, page = _picture(tiff)
        _refuse_unreadable(page)
        _refuse_missing(page, len(data))
        _refuse_empty_ends(page, data)
        _refuse_bombs(page, data)
        _refuse_cut_off(page, parsed.jpegtables or b"", data)
        notes: list[str] = []
        bits = None
        if page.by_libtiff:
            pixels, alpha, orientation = _by_pillow(data, page.number), None, 1
        else:
            samples = _interleaved(_stored(parsed, page, data))
            pixels, alpha, notes = _colours(page, samples)
            orientation = page.orientation if page.orientation in range(1, 9) else 1
            if not page.floats and page.photometric != PHOTOMETRIC.PALETTE:
                bits = cast(int, page.bits)
    notes += _companions(parsed)
    if page.masked:
        notes.append("its mask, which is a page of its own, is left out")
    if page.count > 1:
        notes.insert(0, f"only the first of {page.count} pages is restored")
    return Decoded(pixels, alpha, orientation, tuple(notes), bits)


def _companions(parsed: Any) -> list[str]:
    """What to say of that which stands beside the picture."""
    notes = []
    document = parsed.tags.valueof(PHOTOSHOP)
    if isinstance(document, bytes) and any(name in document for name in LAYERS):
        notes.append("its layers are left out; the result is what they look like together")
    if CREDENTIALS_TAG in parsed.tags:
        notes.append(CREDENTIALS)
    return notes


def _stored(parsed: Any, page: _Page, data: bytes) -> Any:
    """``(planes, depth, rows, columns, samples)`` as the file has them."""
    try:
        with parsing("TIFF"):
            return parsed.asarray(maxworkers=1, squeeze=False)
    except ImageError:
        if page.compression not in DEFLATE or parsed.is_tiled:
            raise
    strips = _deflated_anew(parsed, page, data)
    ends = list(itertools.accumulate(map(len, strips), initial=len(data)))
    with parsing("TIFF"), tifffile.TiffFile(io.BytesIO(b"".join([data, *strips]))) as tiff:
        again: Any = tiff.pages[page.number]
        again.dataoffsets, again.databytecounts = ends[:-1], [len(strip) for strip in strips]
        return again.asarray(maxworkers=1, squeeze=False)


def _interleaved(stored: Any) -> Any:
    """``(H, W, C)`` of what is stored."""
    return stored[:, 0].transpose(1, 2, 0, 3).reshape(*stored.shape[2:4], -1)


def _deflated_anew(parsed: Any, page: _Page, data: bytes) -> list[bytes]:
    """Strips without rows beyond the last and with their checksum, where a writer erred."""
    row = -(-math.prod(parsed.shaped[3:]) * parsed.bitspersample // 8)
    most = parsed.rowsperstrip
    strips_of_plane = -(-page.height // most)
    strips = []
    for number, (offset, count) in enumerate(zip(page.offsets, page.counts, strict=True)):
        rows = min(most, page.height - number % strips_of_plane * most)
        with parsing("TIFF"):
            inflater = zlib.decompressobj()
            strip = inflater.decompress(data[offset : offset + count], rows * row)
            inflater.decompress(inflater.unconsumed_tail, MOST_PADDING)  # raises if damaged
            # Zeros in the place of its end may be read as pixels; but then there is no end.
            bare = zlib.decompressobj(-zlib.MAX_WBITS)
            bare.decompress(data[offset + ZLIB_HEADER : offset + count], rows * row + MOST_PADDING)
            if not bare.eof:
                raise ValueError("the end of a strip is missing")
        strips.append(zlib.compress(strip, 1))
    return strips


def _refuse_missing(page: _Page, size: int) -> None:
    """Raise ImageError if a strip or tile is not in the file; libraries may fill it with black."""
    offsets, counts = page.offsets, page.counts
    if len(offsets) != len(counts) or len(offsets) < page.parts:
        raise ImageError("is a TIFF file that is damaged: it does not say where its pixels are")
    if any(offset + count > size for offset, count in zip(offsets, counts, strict=True)):
        raise ImageError("is a TIFF file that is cut off: a part of its pixels is missing")
    if not all(counts):
        raise ImageError(
            "is a TIFF file that is not complete: it leaves out a part of its pixels, being sparse "
            "(GeoTIFF) or never finished; save it again in full"
        )


def _refuse_empty_ends(page: _Page, data: bytes) -> None:
    """Raise ImageError if a failed copy has left zeros at the end of a compressed strip or tile."""
    if page.compression == NONE:
        return
    for offset, count in zip(page.offsets, page.counts, strict=True):
        end = data[max(offset, offset + count - len(EMPTY_END)) : offset + count]
        if len(end) >= LEAST_EMPTY and not end.strip(b"\0"):
            raise empty_end("TIFF")


def _refuse_bombs(page: _Page, data: bytes) -> None:
    """Raise ImageError if a strip or tile is an image of its own that is larger than the page."""
    if page.compression not in tifffile.TIFF.IMAGE_COMPRESSIONS and page.compression != JPEG:
        return
    most = max(page.largest_part, page.height * page.width)
    for offset, count in zip(page.offsets, page.counts, strict=True):
        part = io.BytesIO(data[offset : offset + count])
        for codec in IMAGES:
            if codec.matches(part.getvalue()[:64]) and math.prod(codec.measure(part)) > most:
                raise ImageError("is a damaged TIFF file: a part of it claims to be larger than it")


def _refuse_cut_off(page: _Page, tables: bytes, data: bytes) -> None:
    """Raise ImageError if a strip or tile of JPEG lacks its end, which decoders make gray."""
    if page.compression != JPEG:
        return
    for offset, count in zip(page.offsets, page.counts, strict=True):
        part = data[offset : offset + count]
        try:
            jpeg.decode_whole(tables[:-2] + part[2:] if tables else part)
        except ImageError as error:
            raise ImageError(f"is a TIFF file of which a part {error}") from error


def _by_pillow(data: bytes, number: int) -> Any:
    """``(H, W, C)`` as libtiff gives it, turned upright."""
    with parsing("TIFF"), open_image(io.BytesIO(data), ["TIFF"]) as image:
        image.seek(number)
        image.load()
    modes = {"1": "L", "L": "L", "RGB": "RGB", "RGBX": "RGB", "YCbCr": "RGB"}
    mode = modes.get(image.mode)
    if mode is None:
        raise ImageError(
            f"is a TIFF that has colours of the kind {image.mode}; convert it to 8 bit RGB or gray"
        )
    pixels = np.asarray(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def _colours(page: _Page, samples: Any) -> tuple[Any, Any, list[str]]:
    """RGB or gray, alpha, and what to say of the rest."""
    bits, photometric, extras = cast(int, page.bits), page.photometric, list(page.extras)
    notes: list[str] = []
    if page.floats:
        samples, clipped = from_floats(samples)
        bits = 16
        notes += clipped
    colours = COLOURS[photometric]
    total = samples.shape[2]
    if photometric == PHOTOMETRIC.MINISBLACK and total - page.alphas >= 3:
        colours = 3  # as satellite and microscope software writes RGB
    extras = extras[-(total - colours) :] if total > colours else []
    if total == 4 and not extras and photometric == PHOTOMETRIC.RGB:
        extras = [EXTRASAMPLE.UNASSALPHA]  # so do writers that forget to say so, OpenCV among them
    extras += [EXTRASAMPLE.UNSPECIFIED] * (total - colours - len(extras))
    place = next((i for i, extra in enumerate(extras) if extra in ALPHAS), None)
    left_out = len(extras) - (place is not None)
    if left_out:
        what = "a channel that is" if left_out == 1 else f"{left_out} channels that are"
        notes.append(f"has {what} neither colour nor transparency, left out of its result")
    alpha = None if place is None else scaled(samples[..., colours + place], bits)
    pixels = samples[..., :colours]
    if photometric == PHOTOMETRIC.PALETTE:
        pixels = _looked_up(page.palette, pixels[..., 0])
        if alpha is not None and alpha.dtype != pixels.dtype:
            alpha = scaled(alpha.astype(np.float64) * 257, 16)
    else:
        pixels = scaled(pixels, bits)
    if photometric == PHOTOMETRIC.MINISWHITE:
        pixels = inverted(pixels)
    if alpha is not None and extras[place or 0] == EXTRASAMPLE.ASSOCALPHA:
        pixels = unmultiplied(pixels, alpha)
    if photometric == PHOTOMETRIC.YCBCR and page.compression == NONE:
        pixels = _from_luma_and_chroma(pixels)
    if photometric == PHOTOMETRIC.SEPARATED:
        pixels = from_cmyk(pixels)
        notes.insert(0, CMYK_NOTE)
    return pixels, alpha, notes


def _from_luma_and_chroma(samples: Any) -> Any:
    """RGB of YCbCr without compression, which Pillow reads from version 13 on alone."""
    size = samples.shape[1::-1]
    return np.asarray(PIL.Image.frombytes("YCbCr", size, samples.tobytes()).convert("RGB"))


def _looked_up(palette: Any, index: Any) -> Any:
    """Colours of a palette, in 8 bit where its 16 bit hold no more."""
    palette = np.asarray(palette, np.uint16)
    if palette.max() < 256:  # a mistake of old writers
        colours = palette.astype(np.uint8)
    elif not (palette % 257).any() or not (palette & 255).any():
        colours = (palette >> 8).astype(np.uint8)
    else:
        colours = palette
    return colours[:, np.minimum(index, palette.shape[1] - 1)].transpose(1, 2, 0)


CODEC = Codec(
    name="TIFF",
    matches=begins(*STARTS),
    measure=_measure,
    decode=_decode,
    read_metadata=read_tiff,
    suffixes=".tif .tiff .btf .tf8",
    reads="BigTIFF, too; whole numbers, and floats from 0 to 1; strips, tiles or planes; any usual "
    "compression; gray, RGB, palette, YCbCr, CMYK",
    bits=(1, 16),
    alpha=True,
    colours="ICC, primaries",
    metadata="EXIF, XMP, IPTC",
)
