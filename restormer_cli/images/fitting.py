"""What of a picture a format holds: alpha, depth and metadata, each kept, converted, or told.

Metadata comes in the terms of PNG, which holds all of it. For other formats colour descriptions
become a profile, and texts what the format has a place for.
"""

from __future__ import annotations

from dataclasses import replace

from restormer_cli.images.formats import OutputFormat
from restormer_cli.images.metadata import Metadata, exif, icc
from restormer_cli.images.metadata.base import Chunk
from restormer_cli.images.metadata.png import RAW_PROFILE, TEXTS, raw_profile, text_of

COMMENTS = frozenset({b"comment", b"description"})
#: Parts of a metadata that people know by these names.
NAMES = {"exif": "EXIF", "xmp": "XMP", "iptc": "IPTC", "comment": "comment"}


def fitted(
    metadata: Metadata, form: OutputFormat, *, gray: bool, written_gray: bool, sample_bytes: int
) -> tuple[Metadata, tuple[str, ...]]:
    """Metadata as a format holds it, and what a person should be told of the rest.

    Parameters
    ----------
    gray, written_gray
        True if the picture is gray, and if the format takes it so.
    sample_bytes
        Of the result, uncompressed.
    """
    if form.metadata is None:
        return metadata, ()
    lost: list[str] = []

    def holds(kind: str, size: int) -> bool:
        """True if it can be kept; told if not."""
        most = form.metadata.get(kind, 0) if form.metadata else 0
        if kind == "exif" and sample_bytes > form.largest_with_exif:
            most = 0
        if size <= most:
            return True
        why = "takes less" if most else "holds none"
        lost.append(f"its {NAMES[kind]} is left out, since {form.title} {why}")
        return False

    profile, color = _colors(metadata, form, gray, lost)
    if profile is not None and gray and not written_gray:
        profile = icc.in_colour(profile)
    kept: list[Chunk] = []
    rest: list[str] = []
    for chunk in metadata.others:
        kind, size = _kind(chunk)
        if kind is None:
            rest.append(_name(chunk))
        elif kind == "comment" and form.shared_description and exif.describes(metadata.exif):
            lost.append("its comment is left out, since its EXIF has a description")
        elif holds(kind, size):
            kept.append(chunk)
    if rest:
        names = ", ".join(dict.fromkeys(rest))
        lost.append(f"what else it says ({names}) is left out, since {form.title} has no place")
    if metadata.background is not None and form.alpha:
        lost.append(f"its background colour is left out, since {form.title} holds none")
    camera, density = metadata.exif, metadata.density
    if camera is not None and not holds("exif", len(camera)):
        camera = None
    if density is not None and "density" not in form.metadata:
        camera = exif.with_resolution(camera, *density.per_inch(), density.metric)
        density = None
    if density is not None and max(density.per_inch()) > form.metadata["density"]:
        density = None  # absurd
    xmp = metadata.xmp
    if xmp is not None and not holds("xmp", len(xmp)):
        xmp = None
    fitting = replace(
        metadata,
        icc=profile,
        exif=camera,
        xmp=xmp,
        density=density,
        color=color,
        others=tuple(kept),
    )
    return fitting, tuple(dict.fromkeys(lost))


def _colors(
    metadata: Metadata, form: OutputFormat, gray: bool, lost: list[str]
) -> tuple[bytes | None, tuple[Chunk, ...]]:
    """The profile of the result, and the colour descriptions that it has beside."""
    known = dict(metadata.color)
    own = b"cICP" in known and "cICP" in (form.metadata or {})
    if own:
        known = {b"cICP": known[b"cICP"]}
    if levels := _hdr_levels(metadata):
        lost.append(f"its HDR levels ({levels}) are left out, since {form.title} holds none")
    color = ((b"cICP", known[b"cICP"]),) if own else ()
    if metadata.icc is not None or own:
        if not own and b"cICP" in known and icc.is_hdr(known[b"cICP"]):
            lost.append(f"its HDR colours (cICP) are left out, since {form.title} holds none")
        return metadata.icc, color
    try:
        profile = icc.of_color(known)
        if profile is not None and gray:
            profile = icc.fitting(profile, gray)
    except icc.ProfileError as error:
        lost.append(f"its colours (cICP) {error}; they are left out")
        return None, color
    return profile, color


def _hdr_levels(metadata: Metadata) -> str:
    """Names of the chunks that say for which HDR screen it was made."""
    return ", ".join(name.decode() for name, _ in metadata.color if name in (b"mDCV", b"cLLI"))


def _text(chunk: Chunk) -> tuple[bytes, bytes] | None:
    """Keyword in small letters and content; None if it is no text, or a damaged one."""
    name, body = chunk
    if name not in TEXTS:
        return None
    try:
        keyword, content = text_of(name, body)
    except ValueError:
        return None
    return keyword.lower(), content


def _kind(chunk: Chunk) -> tuple[str | None, int]:
    """What another format calls it, and its size there."""
    text = _text(chunk)
    if text is not None and text[0] in COMMENTS:
        return "comment", len(text[1])
    block = _iptc(chunk)
    return (None, 0) if block is None else ("iptc", len(block))


def _iptc(chunk: Chunk) -> bytes | None:
    text = _text(chunk)
    if text is None or text[0] != RAW_PROFILE + b"iptc":
        return None
    try:
        return raw_profile(text[1])
    except ValueError:
        return None


def _name(chunk: Chunk) -> str:
    """As a person may know it."""
    text = _text(chunk)
    return (chunk[0] if text is None else chunk[1].partition(b"\0")[0]).decode("latin-1")


def iptc_of(metadata: Metadata) -> bytes | None:
    """What press agencies note, as a resource of Photoshop."""
    return next(filter(None, map(_iptc, metadata.others)), None)


def comment_of(metadata: Metadata) -> bytes | None:
    """Comment and description."""
    texts = filter(None, map(_text, metadata.others))
    return b"\n".join(content for keyword, content in texts if keyword in COMMENTS) or None
