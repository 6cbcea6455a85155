"""Colour profiles (ICC.1:2022, 7): whether one is sound, and what of it fits a picture."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Mapping

import imagecodecs
import numpy as np
from PIL import ImageCms

#: Where in the header.
VERSION, CLASS, SPACE = 8, slice(12, 16), slice(16, 20)
DATE = slice(24, 36)
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
#: White, red, green and blue, x before y, by their numbers in cICP (ITU-T H.273, 8.1).
_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
PRIMARIES: dict[int, tuple[float, ...]] = {
    1: (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060),
    4: (*_C, 0.670, 0.330, 0.210, 0.710, 0.140, 0.080),
    5: (*_D65, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
PRIMARIES[2] = PRIMARIES[1]  # nobody says
#: Gamma, or the name of a curve, by their numbers in cICP (8.2).
TRANSFERS: dict[int, float | str] = {1: "BT.709", 6: "BT.709", 14: "BT.709", 15: "BT.709"}
TRANSFERS |= {2: "sRGB", 13: "sRGB", 4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
#: The level up to which a curve is straight, how steep it is there, and the rest of it.
CURVES_WITH_SLOPE = {
    "sRGB": (0.04045, 12.92, 0.055, 2.4),
    "BT.709": (0.081, 4.5, 0.099, 1 / 0.45),
}
CURVE_POINTS = 1024


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
    return _gray(profile) if gray and space == b"RGB " else profile


@functools.lru_cache(maxsize=8)
def in_colour(profile: bytes) -> bytes:
    """A colour profile under which equal shares of the three colours look as gray did.

    Parameters
    ----------
    profile
        Of gray, as :func:`fitting` gives it.

    Raises
    ------
    ProfileError
        If it has no curve.
    """
    gray = _bodies(profile)
    if b"kTRC" not in gray:
        raise ProfileError("has no curve, and gray is written as colour")
    bodies = _bodies(_srgb()) | dict.fromkeys(CURVES, gray[b"kTRC"])
    bodies |= {name: gray[name] for name in (b"desc", b"cprt") if name in gray}
    header = bytearray(_srgb()[:HEADER_BYTES])
    header[VERSION] = profile[VERSION]  # names are written in another way since version 4
    return _assembled(header, bodies)


def is_hdr(cicp: bytes) -> bool:
    """True of colours for screens that are brighter than others: PQ and HLG."""
    return cicp[1] in (16, 18)


@functools.lru_cache(maxsize=8)
def _of_color(primaries: tuple[float, ...], gamma: float | str) -> bytes:
    """A profile of white, red, green and blue, x before y, and a curve."""
    white, *colors = ((x, y, 1.0) for x, y in zip(primaries[::2], primaries[1::2], strict=True))
    if isinstance(gamma, str):
        levels = np.linspace(0, 1, CURVE_POINTS)
        low, slope, offset, power = CURVES_WITH_SLOPE[gamma]
        light = np.where(levels <= low, levels / slope, ((levels + offset) / (1 + offset)) ** power)
        curve = {"transferfunction": np.rint(65535 * light).astype(np.uint16)}
    else:
        curve = {"gamma": gamma}
    try:
        profile = imagecodecs.cms_profile(
            "rgb", whitepoint=white, primaries=[v for color in colors for v in color], **curve
        )
        profile = _undated(profile)
        _check_use(profile, "RGB")
    except (RuntimeError, ValueError) as error:
        raise ProfileError("make no sense") from error
    return profile


def of_color(color: Mapping[bytes, bytes]) -> bytes | None:
    """A profile of the colours that chunks of a PNG describe: cICP, else sRGB, else gAMA and cHRM.

    Returns
    -------
    bytes or None
        None if they describe none.

    Raises
    ------
    ProfileError
        If no profile can say it.
    """
    if b"cICP" in color:
        number, transfer = color[b"cICP"][:2]
        if number not in PRIMARIES or transfer not in TRANSFERS:
            raise ProfileError("are such as no profile describes (cICP)")
        return _of_color(PRIMARIES[number], TRANSFERS[transfer])
    if b"sRGB" in color:
        return _srgb()
    if not color.keys() & {b"gAMA", b"cHRM"}:
        return None
    primaries = PRIMARIES[1]
    if b"cHRM" in color:
        primaries = tuple(value / 100_000 for value in struct.unpack(">8I", color[b"cHRM"]))
    if b"gAMA" in color:
        return _of_color(primaries, 100_000 / int.from_bytes(color[b"gAMA"], "big"))
    return _of_color(primaries, "sRGB")


@functools.cache
def _srgb() -> bytes:
    return _undated(imagecodecs.cms_profile("srgb"))


def _undated(profile: bytes) -> bytes:
    """With a fixed date, so that a result is the same tomorrow."""
    return profile[: DATE.start] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[DATE.stop :]


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
    """Raise ProfileError if LittleCMS cannot convert with it."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        raise ProfileError("is damaged") from error


def _gray(profile: bytes) -> bytes:
    of_colour = _bodies(profile)
    curves = {of_colour.get(name) for name in CURVES}
    if None in curves or len(curves) > 1:
        raise ProfileError("is for colour, and the image is gray")
    bodies = {name: of_colour[name] for name in SHARED if name in of_colour}
    header = bytearray(profile[:HEADER_BYTES])
    header[SPACE] = b"GRAY"
    return _assembled(header, bodies | {b"kTRC": of_colour[CURVES[0]]})


def _bodies(profile: bytes) -> dict[bytes, bytes]:
    return {name: profile[start : start + size] for name, (start, size) in _tags(profile).items()}


def _assembled(header: bytearray, bodies: Mapping[bytes, bytes]) -> bytes:
    """A profile of these tags."""
    place = HEADER_BYTES + 4 + TAG_BYTES * len(bodies)
    table, rest = struct.pack(">I", len(bodies)), b""
    for name, content in bodies.items():
        table += name + struct.pack(">II", place + len(rest), len(content))
        rest += content + bytes(-len(content) % 4)
    header[IDENTITY] = bytes(16)
    struct.pack_into(">I", header, 0, place + len(rest))
    return bytes(header) + table + rest
