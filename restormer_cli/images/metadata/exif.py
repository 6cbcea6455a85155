"""What a camera noted about a photo, as it holds for a result.

EXIF is a TIFF structure (TIFF 6.0, section 2; Exif 2.32, 4.6): directories of entries of twelve
bytes, each a tag, a type, a count, and a value or where it is.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Container
from fractions import Fraction

ORIENTATION, DIRECTORY, PLACE, INTEROPERABILITY = 0x0112, 0x8769, 0x8825, 0xA005
#: Values of the orientation that change width and height.
TRANSPOSED = frozenset({5, 6, 7, 8})
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
RESOLUTION = frozenset({X_RESOLUTION, Y_RESOLUTION})
#: Where width and height are noted: in the first directory and in that of the photo.
SIZES = ((0x0100, 0x0101), (0xA002, 0xA003))
#: Pairs of x and y, of the picture and of the camera's sensor.
RESOLUTIONS = ((X_RESOLUTION, Y_RESOLUTION), (0xA20E, 0xA20F))
THUMBNAIL_OFFSET, THUMBNAIL_LENGTH = 0x0201, 0x0202
SHORT, LONG = 3, 4
#: With a directory of nothing.
EMPTY = b"II*\0\x08\0\0\0" + bytes(6)
DESCRIPTION = 0x010E
#: In the directory of the photo; and in that of interoperability, which rules a file keeps to.
COLOR_SPACE, RULES = 0xA001, 1
#: Whole numbers and directories of BigTIFF.
EIGHT_BYTES = frozenset({16, 17, 18})
BYTES_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
#: Tags of a TIFF file that speak of its photo and not of how the file holds it: description,
#: maker, model, software, time, artist, computer, rights, ratings, and what Windows notes.
ABOUT_THE_PHOTO = frozenset(
    {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298, 0x4746, 0x4749}
    | {*range(0x9C9B, 0x9CA0)}
)
#: How ``struct`` calls the types of numbers.
WHOLE = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
FRACTIONS = {5: "II", 10: "ii", 11: "f", 12: "d"}
DIRECTORIES = frozenset({DIRECTORY, PLACE, INTEROPERABILITY})
OF_THE_PHOTO = ABOUT_THE_PHOTO | DIRECTORIES
OF_PIXELS = RESOLUTION | {ORIENTATION, RESOLUTION_UNIT}
#: What a page is, of which one bit says that it is a smaller copy, another that it is a mask.
SUB_FILE_TYPE, REDUCED_OR_MASK = 0x00FE, 1 | 4
MOST_PAGES = 16
#: Every tag there can be.
ALL = range(1 << 16)
Entry = tuple[int, bytes]
Directory = dict[int, "Entry | Directory"]
"""Type and value of each tag, or the directory that it points to."""


def of_result(exif: bytes, width: int, height: int, transposed: bool = False) -> bytes:
    """EXIF as it holds for the upright result: orientation 1, its size, no thumbnail.

    Changed in place, since the maker's notes hold only where they were.

    Parameters
    ----------
    width, height
        Of the upright picture.
    transposed
        True if what was stored had x for y.

    Raises
    ------
    KeyError, struct.error
        If it is damaged.
    """
    tiff = bytearray(exif)
    order = {b"II*\0": "<", b"MM\0*": ">"}[bytes(tiff[:4])]

    def number(place: int, kind: str = "I") -> int:
        return int(struct.unpack_from(order + kind, tiff, place)[0])

    def entries(start: int) -> dict[int, int]:
        """Where the entries of a directory are, by tag."""
        places = range(start + 2, start + 2 + 12 * number(start, "H"), 12)
        return {number(place, "H"): place for place in places}

    first = number(4)
    tags = entries(first)
    photo = entries(number(tags[DIRECTORY] + 8)) if DIRECTORY in tags else {}
    if ORIENTATION in tags:
        struct.pack_into(f"{order}HIHH", tiff, tags[ORIENTATION] + 2, SHORT, 1, 1, 0)
    for places, names, resolutions in zip((tags, photo), SIZES, RESOLUTIONS, strict=True):
        for tag, size in zip(names, (width, height), strict=True):
            if tag in places:
                struct.pack_into(f"{order}HII", tiff, places[tag] + 2, LONG, 1, size)
        if transposed and places.keys() >= set(resolutions):
            # All but the tags change places: type, count, value.
            x, y = (slice(places[tag] + 2, places[tag] + 12) for tag in resolutions)
            tiff[x], tiff[y] = tiff[y], tiff[x]
    link = first + 2 + 12 * number(first, "H")
    if len(tiff) >= link + 4 and number(link):
        thumbnail = entries(number(link))
        if THUMBNAIL_OFFSET in thumbnail and THUMBNAIL_LENGTH in thumbnail:
            start = number(thumbnail[THUMBNAIL_OFFSET] + 8)
            stop = min(len(tiff), start + number(thumbnail[THUMBNAIL_LENGTH] + 8))
            tiff[start:stop] = bytes(max(0, stop - start))
            if stop == len(tiff) and start > max(link + 4, number(link)):
                del tiff[start:]  # as usual, it stands behind all else
        struct.pack_into(f"{order}I", tiff, link, 0)
    return bytes(tiff)


def shape_of_pixels(exif: bytes) -> dict[int, float]:
    """Orientation and resolution as far as they can be read, whatever else is damaged."""
    found: dict[int, float] = {}
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return found
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    count = int.from_bytes(exif[start : start + 2], "little" if order == "<" else "big")
    stop = min(start + 2 + 12 * count, len(exif) - 11)
    for place in range(start + 2, stop, 12):
        tag, kind, length, value = struct.unpack_from(f"{order}HHII", exif, place)
        if tag in OF_PIXELS and length and (size := BYTES_OF_TYPE.get(kind, 0)):
            value = place + 8 if size * length <= 4 else value
            each = numbers(order, (kind, exif[value : value + size]), WHOLE | FRACTIONS)
            found.update((tag, number) for number in each[:1] if tag not in found)
    return found


def is_adobe_rgb(exif: bytes) -> bool:
    """True if a camera says so in place of a profile: by "R03" (DCF 2.0), or by 2 as some do."""
    try:
        order, tags = tiff_tags(exif, frozenset())
    except (KeyError, struct.error):
        return False
    photo = tags.get(DIRECTORY)
    if not isinstance(photo, dict):
        return False
    rules = photo.get(INTEROPERABILITY)
    index = content(rules.get(RULES)) if isinstance(rules, dict) else None
    return (index or b"")[:3] == b"R03" or numbers(order, photo.get(COLOR_SPACE), WHOLE) == (2,)


def tiff_tags(tiff: bytes, wanted: Container[int]) -> tuple[str, Directory]:
    """What the directory of a TIFF file's picture says, and those of the photo and the place.

    The picture is on the first page that is no thumbnail or mask. What such pages in front of it
    say of the photo counts as well.

    Parameters
    ----------
    tiff
        The file, also a BigTIFF.
    wanted
        Tags of the picture's directory; of the others all are given.

    Returns
    -------
    order, directory
        Order of bytes as for ``struct``, and types and values by tag. A value that is cut off is
        as long as it is.

    Raises
    ------
    KeyError, struct.error
        If it is damaged.
    """
    order = {b"II": "<", b"MM": ">"}[tiff[:2]]
    big = tiff[2:4] in (b"\x2b\0", b"\0\x2b")
    count_kind, offset_kind, inline, first = ("Q", "Q", 8, 8) if big else ("H", "I", 4, 4)
    left = len(tiff)  # values do not overlap, or a small file could fill the memory

    def number(place: int, kind: str) -> int:
        if place > len(tiff):  # perhaps more than struct can be told
            raise struct.error("an offset beyond the end")
        return int(struct.unpack_from(order + kind, tiff, place)[0])

    def places(start: int) -> range:
        """Where the entries of a directory are."""
        size, begin = 4 + 2 * inline, start + struct.calcsize(count_kind)
        return range(begin, begin + size * number(start, count_kind), size)

    def read(start: int, depth: int) -> Directory:
        nonlocal left
        found: Directory = {}
        for place in places(start):
            tag, kind, length = struct.unpack_from(f"{order}HH{offset_kind}", tiff, place)
            value, size = place + 4 + inline, BYTES_OF_TYPE.get(kind, 0) * length
            if tag in DIRECTORIES and depth:
                inner = number(value, "Q" if kind in EIGHT_BYTES else "I")
                found[tag] = read(inner, depth - 1)
            elif size and (depth < 2 or tag in wanted or tag == SUB_FILE_TYPE):
                value = value if size <= inline else number(value, offset_kind)
                content = tiff[value : value + size]
                left -= len(content)
                if left < 0:
                    raise struct.error("values overlap")
                found[tag] = kind, content
        return found

    start = number(first, offset_kind)
    about: Directory = {}
    for _ in range(MOST_PAGES):
        directory = read(start, 2)
        kind = numbers(order, directory.pop(SUB_FILE_TYPE, None), WHOLE)
        if not kind or not int(kind[0]) & REDUCED_OR_MASK:
            break
        about |= {tag: directory[tag] for tag in directory.keys() & OF_THE_PHOTO}
        if not (start := number(places(start).stop, offset_kind)):
            break
    return order, about | directory


def content(entry: Entry | Directory | None) -> bytes | None:
    """The value of a tag that holds bytes, whatever its type says of them."""
    return entry[1] if isinstance(entry, tuple) else None


def numbers(
    order: str, entry: Entry | Directory | None, kinds: dict[int, str]
) -> tuple[float, ...]:
    """The numbers of a tag that has one of these types; none if it has another, or no sense."""
    if not isinstance(entry, tuple) or entry[0] not in kinds:
        return ()
    kind, content = entry
    form = order + kinds[kind]
    size = struct.calcsize(form)
    found = struct.iter_unpack(form, content[: len(content) // size * size])
    try:
        return tuple(math.prod(value[:1]) / math.prod(value[1:]) for value in found)
    except ZeroDivisionError:
        return ()


def of_tiff(order: str, directory: Directory) -> bytes | None:
    """The EXIF of a TIFF file, which is spread over the file, in a structure of its own.

    Returns
    -------
    bytes or None
        None if the file says nothing about its photo.
    """

    def packed(directory: Directory, start: int) -> bytes:
        table, rest = struct.pack(f"{order}H", len(directory)), b""
        free = start + 2 + 12 * len(directory) + 4
        for tag, entry in sorted(directory.items()):
            place = struct.pack(f"{order}I", free + len(rest))
            if isinstance(entry, dict):
                kind, length, value = LONG, 1, place
                rest += packed(entry, free + len(rest))
            else:
                kind, value = entry
                length = len(value) // BYTES_OF_TYPE[kind]
                if len(value) > 4:
                    rest += value + bytes(len(value) % 2)
                    value = place
            table += struct.pack(f"{order}HHI", tag, kind, length) + value.ljust(4, b"\0")
        return table + bytes(4) + rest

    about = {tag: directory[tag] for tag in directory.keys() & OF_THE_PHOTO}
    if not about:
        return None
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(f"{order}I", 8) + packed(about, 8)


# Whatever is changed here, what a directory points to stays where it is: see of_result.


def _first_directory(tiff: bytes) -> tuple[str, int, dict[int, bytes]]:
    """Order of bytes, place of the first directory, and its entries of twelve bytes by tag."""
    order = {b"II": "<", b"MM": ">"}[bytes(tiff[:2])]
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    places = range(start + 2, start + 2 + 12 * count, 12)
    entries = [bytes(tiff[place : place + 12]) for place in places]
    tags = (struct.unpack_from(f"{order}H", entry)[0] for entry in entries if len(entry) == 12)
    return order, start, dict(zip(tags, entries, strict=False))


def _with_first_directory(tiff: bytes, order: str, entries: dict[int, bytes]) -> bytes:
    """The same with a first directory at its end; there is no further one."""
    padding = bytes(len(tiff) % 2)
    place = struct.pack(f"{order}I", len(tiff) + len(padding))
    count = struct.pack(f"{order}H", len(entries))
    table = b"".join(entry for _, entry in sorted(entries.items()))
    return b"".join([tiff[:4], place, tiff[8:], padding, count, table, bytes(4)])


def without_orientation(exif: bytes) -> bytes:
    """EXIF that does not say how the picture is turned."""
    order, start, entries = _first_directory(exif)
    if ORIENTATION not in entries:
        return exif
    old = struct.pack(f"{order}H", len(entries)) + b"".join(entries.values())
    del entries[ORIENTATION]
    new = struct.pack(f"{order}H", len(entries)) + b"".join(entries.values()) + bytes(4)
    if exif[start : start + len(old)] != old:  # not all of it makes sense
        return _with_first_directory(exif, order, entries)
    return exif[:start] + new.ljust(len(old) + 4, b"\0") + exif[start + len(old) + 4 :]


def with_resolution(exif: bytes | None, x: float, y: float, metric: bool) -> bytes:
    """EXIF, made if there is none, with a resolution.

    Parameters
    ----------
    x, y
        Pixels an inch, or their shape if it is not ``metric``.
    """
    exif = exif or EMPTY
    order, _, entries = _first_directory(exif)
    exif += bytes(len(exif) % 2)
    for tag, value in zip(sorted(RESOLUTION), (x, y), strict=True):
        entries[tag] = struct.pack(f"{order}HHII", tag, 5, 1, len(exif))
        share = Fraction(value).limit_denominator(100 if value < 1 << 25 else 1)
        exif += struct.pack(f"{order}II", share.numerator, share.denominator)
    unit = 2 if metric else 1
    entries[RESOLUTION_UNIT] = struct.pack(f"{order}HHIHH", RESOLUTION_UNIT, SHORT, 1, unit, 0)
    return _with_first_directory(exif, order, entries)


def describes(exif: bytes | None) -> bool:
    """True if it has a description of the picture."""
    return exif is not None and DESCRIPTION in _first_directory(exif)[2]


def of_file(exif: bytes, tiff: bytes) -> bytes:
    """A TIFF file that begins with EXIF, whose directory says of the photo what EXIF does."""
    order, _, about = _first_directory(exif)
    about = {tag: about[tag] for tag in about.keys() & OF_THE_PHOTO}
    return _with_first_directory(tiff, order, _first_directory(tiff)[2] | about)
