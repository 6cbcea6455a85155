"""What of a picture a format holds: alpha, depth and metadata, each kept, converted, or told.

Metadata comes in the terms of PNG, which holds all of it. For other formats colour descriptions
become a profile, and texts what the format has a place for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from restormer_cli.images.formats import KINDS, OutputFormat
from restormer_cli.images.metadata import Metadata, exif, icc
from restormer_cli.images.metadata.base import Chunk
from restormer_cli.images.metadata.png import RAW_PROFILE, TEXTS, raw_profile, text_of

COMMENTS = frozenset({b"comment", b"description"})


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
    limits = dict(form.metadata)
    if sample_bytes > form.largest_with_exif:
        limits["exif"] = 0
    lost: list[str] = []

    def held(kind: str, part: bytes | None) -> bytes | None:
        """The same, or None if it cannot be kept, which is told."""
        if part is None or len(part) <= limits.get(kind, 0):
            return part
        why = "takes less" if limits.get(kind) else "cannot hold it"
        lost.append(f"its {KINDS[kind]} is left out, since {form.title} {why}")
        return None

    profile, color = _colors(metadata, "cICP" in limits, gray, lost)
    if profile is not None and gray and not written_gray:
        try:
            profile = icc.in_colour(profile)
        except icc.ProfileError as error:
            profile = None
            lost.append(f"its colour profile {error}; it is left out")
    others = _others(metadata, form, held, lost)
    if metadata.background is not None and form.alpha:
        lost.append(f"its background colour is left out, since {form.title} cannot hold it")
    camera, density = held("exif", metadata.exif), metadata.density
    if density is not None and "density" not in limits:
        if limits.get("exif"):
            camera = exif.with_resolution(camera, *density.per_inch(), density.metric)
        else:
            lost.append(f"its resolution is left out, since {form.title} cannot hold it")
        density = None
    elif density is not None and max(density.per_inch()) > limits["density"]:
        density = None  # absurd
    fitting = replace(
        metadata,
        icc=held("icc", profile),
        exif=camera,
        xmp=held("xmp", metadata.xmp),
        density=density,
        color=color,
        others=others,
    )
    return fitting, tuple(dict.fromkeys(lost))


def _others(
    metadata: Metadata,
    form: OutputFormat,
    held: Callable[[str, bytes | None], bytes | None],
    lost: list[str],
) -> tuple[Chunk, ...]:
    """Texts for which the format has a place of another name."""
    kept: list[Chunk] = []
    comments: list[bytes] = []
    rest: list[str] = []
    for chunk in metadata.others:
        text, block = _text(chunk), _iptc(chunk)
        comment = text[1] if text is not None and text[0] in COMMENTS else None
        if comment is None and block is None:
            rest.append(_name(chunk))
        elif comment and form.shared_description and exif.describes(metadata.exif):
            lost.append("its comment is left out, since its EXIF has a description")
        elif comment is None:
            kept += [chunk] if held("iptc", block) else []
        elif held("comment", joined([*comments, comment])):
            comments.append(comment)
            kept.append(chunk)
    if rest:
        names = ", ".join(dict.fromkeys(rest))
        lost.append(f"what else it says ({names}) is left out, since {form.title} cannot hold it")
    return tuple(kept)


def _colors(
    metadata: Metadata, says_cicp: bool, gray: bool, lost: list[str]
) -> tuple[bytes | None, tuple[Chunk, ...]]:
    """The profile of the result, and the colour description that it has beside."""
    known = dict(metadata.color)
    if levels := ", ".join(name.decode() for name in (b"mDCV", b"cLLI") if name in known):
        lost.append(f"what it says of HDR screens ({levels}) is left out")
    if b"cICP" in known and says_cicp:
        return metadata.icc, ((b"cICP", known[b"cICP"]),)
    if metadata.icc is not None:
        if b"cICP" in known and icc.is_hdr(known[b"cICP"]):
            lost.append("its HDR colours (cICP) are left out; its profile stays")
        return metadata.icc, ()
    try:
        profile = icc.of_color(known)
        if profile is not None and gray:
            profile = icc.fitting(profile, gray)
    except icc.ProfileError as error:
        lost.append(f"its colours {error}; what it says of them is left out")
        return None, ()
    return profile, ()


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
    return joined([content for keyword, content in texts if keyword in COMMENTS]) or None


def joined(comments: list[bytes]) -> bytes:
    """In one, for formats that have one."""
    return b"\n".join(comments)
