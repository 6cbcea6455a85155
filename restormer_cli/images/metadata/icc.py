"""Colour profiles (ICC.1:2022, 7): whether one is sound, and what of it fits a picture."""

from __future__ import annotations

import functools
import io
import struct

from PIL import ImageCms

#: Where in the header.
VERSION, CLASS, SPACE = 8, slice(12, 16), slice(16, 20)
SIGNATURE, IDENTITY = slice(36, 40), slice(84, 100)
HEADER_BYTES, TAG_BYTES = 128, 12
#: Input, display, output and colour space; others tell no colours of a picture.
CLASSES = frozenset({b"scnr", b"mntr", b"prtr", b"spac"})
#: A size field that is wrong by more than this is noise, and padding to it makes no sense.
MOST_PADDING = 1024
#: More than libpng, and so most programs, read.
MOST_BYTES = 8_000_000
#: What a gray profile takes from a colour one: name, rights, white, the black and how it is seen.
SHARED = (b"desc", b"cprt", b"wtpt", b"bkpt", b"chad", b"lumi")
CURVES = (b"rTRC", b"gTRC", b"bTRC")


class ProfileError(ValueError):
    """Why a profile cannot be kept, as the end of a sentence about it."""


@functools.lru_cache(maxsize=8)  # photos of a folder mostly share theirs
def fitting(profile: bytes, gray: bool) -> bytes:
    """The profile as it holds for a gray or RGB picture, of the size that it says.

    Of the profile of a colour space whose three curves are equal, a gray picture gets a gray
    profile with that curve: equal shares of the three colours look the same under both.

    Raises
    ------
    ProfileError
        If it is damaged or for other colours.
    """
    if len(profile) > MOST_BYTES:
        raise ProfileError(f"is too large ({len(profile) / 1e6:.0f} MB)")
    tags = _tags(profile)
    space = profile[SPACE]
    if space not in (b"RGB ", b"GRAY"):
        raise ProfileError(f"is for {_readable(space)} colours, not those of the result")
    if space == b"GRAY" and not gray:
        raise ProfileError("is for gray, and the image is in colour")
    if profile[CLASS] not in CLASSES:
        raise ProfileError("is not one of a device or colour space")
    profile = _sized(profile, max(start + size for start, size in tags.values()))
    _check_use(profile, "L" if space == b"GRAY" else "RGB")
    return _gray(profile, tags) if gray and space == b"RGB " else profile


def _readable(signature: bytes) -> str:
    text = signature.decode("latin-1").strip()
    return text if text.isalnum() and text.isascii() else "unknown"


def _tags(profile: bytes) -> dict[bytes, tuple[int, int]]:
    """Start and size of each tag, all of them within the file."""
    try:
        (count,) = struct.unpack_from(">I", profile, HEADER_BYTES)
        if profile[SIGNATURE] != b"acsp" or not 0 < count <= len(profile) // TAG_BYTES:
            raise ProfileError("is damaged")
        places = range(HEADER_BYTES + 4, HEADER_BYTES + 4 + TAG_BYTES * count, TAG_BYTES)
        entries = [struct.unpack_from(">4sII", profile, place) for place in places]
    except struct.error:
        raise ProfileError("is cut off") from None
    # Some writers leave out the padding of the last tag, and count it.
    if any(start + size > len(profile) + 3 for _, start, size in entries):
        raise ProfileError("is cut off")
    return {name: (start, size) for name, start, size in entries}


def _sized(profile: bytes, end: int) -> bytes:
    """Cut or padded to its size field; the field is mended where it makes no sense itself."""
    (size,) = struct.unpack_from(">I", profile)
    if not end <= size <= len(profile) + MOST_PADDING:
        size = max(end, len(profile))
    if size % 4 and profile[VERSION] >= 4:  # since when it has to be a multiple of four
        size += -size % 4
    if struct.pack(">I", size) != profile[:4]:
        # Its checksum held for another size; zero stands for none.
        profile = struct.pack(">I", size) + profile[4:]
        profile = profile[: IDENTITY.start] + bytes(16) + profile[IDENTITY.stop :]
    return profile[:size].ljust(size, b"\0")


def _check_use(profile: bytes, mode: str) -> None:
    """True if LittleCMS can convert with it."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        raise ProfileError("is damaged") from error


def _gray(profile: bytes, tags: dict[bytes, tuple[int, int]]) -> bytes:
    def body(name: bytes) -> bytes:
        start, size = tags[name]
        return profile[start : start + size]

    if not tags.keys() >= set(CURVES) or len({body(name) for name in CURVES}) > 1:
        raise ProfileError("is for colour, and the image is gray")
    bodies = {name: body(name) for name in SHARED if name in tags} | {b"kTRC": body(CURVES[0])}
    place = HEADER_BYTES + 4 + TAG_BYTES * len(bodies)
    table, rest = struct.pack(">I", len(bodies)), b""
    for name, content in bodies.items():
        table += name + struct.pack(">II", place + len(rest), len(content))
        rest += content + bytes(-len(content) % 4)
    header = bytearray(profile[:HEADER_BYTES])
    header[SPACE], header[IDENTITY] = b"GRAY", bytes(16)
    struct.pack_into(">I", header, 0, place + len(rest))
    return bytes(header) + table + rest
