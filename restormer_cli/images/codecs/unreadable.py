"""What is no damaged picture but something else, told by its first bytes."""

from __future__ import annotations

import re

EXPORT = "export its picture as PNG, JPEG or TIFF"
NO_PICTURE = "it is no picture"
#: Kinds of Targa pictures without a palette; such files begin with little else.
TARGA = (2, 3, 10, 11)
#: Where the bytes stand, what they are, what that is, and what to do, if not to convert it.
SIGNATURES: tuple[tuple[int, bytes, str, str | None], ...] = (
    (0, b"II\xbc", "a JPEG XR picture", None),
    (0, b"\x89PNG\n\x1a\n", "a PNG that was changed as if it were text", "copy it again as it is"),
    (0, b"EP*\0", "a scan of Microsoft Document Imaging (MDI)", None),
    (0, b"\x8aMNG", "an animation (MNG)", None),
    (0, b"\x8bJNG", "a JNG picture", None),
    (0, b"8BPS", "a Photoshop document (PSD)", EXPORT),
    (0, b"gimp xcf", "a GIMP document (XCF)", EXPORT),
    (0, b"%PDF-", "a PDF document", EXPORT),
    (0, b"%!PS", "a PostScript document", EXPORT),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript document (EPS)", EXPORT),
    (0, b"v/1\x01", "an OpenEXR picture of floating-point samples", None),
    (0, b"#?RADIANCE", "a Radiance HDR picture of floating-point samples (float32)", None),
    (0, b"#?RGBE", "a Radiance HDR picture of floating-point samples (float32)", None),
    (0, b"qoif", "a QOI picture", None),
    (0, b"DDS ", "a DirectDraw texture (DDS)", None),
    (0, b"BPG\xfb", "a BPG picture", None),
    (0, b"SIMPLE  =", "a FITS picture", None),
    *((0, bytes([0, 0, kind, 0, 0, 0, 0, 0]), "a Targa picture (TGA)", None) for kind in TARGA),
    (0, b"\0\0\1\0", "an icon (ICO)", None),
    (0, b"\0\0\2\0", "a cursor (CUR)", None),
    (0, b"icns", "an icon (ICNS)", None),
    (14, b"BM", "an array of OS/2 bitmaps", None),
    (0, b"\x0a\5\1", "a PC Paintbrush picture (PCX)", None),
    (0, b"\xd7\xcd\xc6\x9a", "a drawing (WMF)", EXPORT),
    (40, b" EMF", "a drawing (EMF)", EXPORT),
    (0, b"AT&TFORM", "a DjVu document", EXPORT),
    (0, b"\x97JB2\r\n\x1a\n", "a JBIG2 picture", None),
    (0, b"\xabKTX ", "a Khronos texture (KTX)", None),
    (0, b"FLIF", "a FLIF picture", None),
    (0, b"CSFCHUNK", "a Clip Studio document", EXPORT),
    (0, b"\x59\xa6\x6a\x95", "a Sun raster picture", None),
    (0, b"\x01\xda", "an SGI picture", None),
    (0, b"FORM", "an IFF picture", None),
    (128, b"DICM", "a DICOM picture", None),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska or WebM)", NO_PICTURE),
    (0, b"\0\0\1\xba", "a video (MPEG)", NO_PICTURE),
    (0, b"\0\0\1\xb3", "a video (MPEG)", NO_PICTURE),
    (0, b"FLV\1", "a video (FLV)", NO_PICTURE),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a video (WMV)", NO_PICTURE),
    (8, b"AVI ", "a video (AVI)", NO_PICTURE),
    (8, b"WAVE", "a sound", NO_PICTURE),
    (0, b"ID3", "a sound (MP3)", NO_PICTURE),
    (0, b"OggS", "a sound or video (Ogg)", NO_PICTURE),
    (0, b"fLaC", "a sound (FLAC)", NO_PICTURE),
    (0, b"PK\3\4", "a ZIP archive or a document of an office program", "unpack it first"),
    (0, b"PK\5\6", "an empty ZIP archive", NO_PICTURE),
    (0, b"Rar!", "a RAR archive", "unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (0, b"BZh", "a bzip2 archive", "unpack it first"),
    (0, b"\xfd7zXZ\0", "an xz archive", "unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", "unpack it first"),
    (257, b"ustar", "a tar archive", "unpack it first"),
    (0, b"\x89HDF", "an HDF5 file", NO_PICTURE),
    (0, b"\x93NUMPY", "a NumPy array", NO_PICTURE),
    (0, b"SQLite format 3", "a database", NO_PICTURE),
    (0, b"\x7fELF", "a program", NO_PICTURE),
    (0, b"MZ", "a program", NO_PICTURE),
    (0, b"\xd0\xcf\x11\xe0", "a document of an office program", EXPORT),
    (0, b"\0\0\0\1Bud1", "what macOS notes of a folder (.DS_Store)", NO_PICTURE),
    (0, b"L\0\0\0\1\x14\2\0", "a shortcut of Windows", "look for the file itself"),
    (0, b"\0\5\x16\7", "what macOS notes beside a file (AppleDouble)", "look for the file itself"),
    (
        0,
        b"version https://git-lfs",
        "only the pointer to a picture that Git LFS keeps",
        "get it by `git lfs pull`",
    ),
    (
        0,
        b"/annex/objects/",
        "only the pointer to a picture that git-annex keeps",
        "get it by `git annex get`",
    ),
)
NETPBM = re.compile(rb"P[1-7Ff]\s")
WEB_PAGE = re.compile(rb"\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)\b", re.I | re.S)
SVG = re.compile(rb"\s*(<\?xml.*?\?>\s*)?((<!--.*?-->|<!doctype[^>]*>)\s*)*<svg\b", re.I | re.S)
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
NOT_TEXT = bytes(set(range(32)) - set(b"\t\n\r\f\x1b")) + b"\x7f"
CONVERT = "convert it to PNG, JPEG or TIFF"


def describe(head: bytes) -> str:
    """One sentence on what a file is that no codec takes, and what to do."""
    for place, start, what, remedy in SIGNATURES:
        if head[place : place + len(start)] == start:
            return f"is {what}; {remedy or CONVERT}"
    if head[4:8] == b"ftyp":
        return f"is a video (MP4 or QuickTime); {NO_PICTURE}"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return f"is a video (QuickTime); {NO_PICTURE}"
    if NETPBM.match(head):
        return f"is a Netpbm picture (PNM); {CONVERT}"
    text = head.removeprefix(b"\xef\xbb\xbf")
    if SVG.match(text):
        return f"is a drawing (SVG); {EXPORT}"
    if WEB_PAGE.match(text):
        return "is a web page and not an image; the download went wrong, so get it once more"
    if not head.strip(b"\0"):
        return "is empty inside (zero bytes alone), as copies are that failed; copy it once more"
    if head.startswith(UTF_16) or head.translate(None, NOT_TEXT) == head:
        return "is text and not an image"
    return f"is damaged from its first byte on, or not an image; {CONVERT}"
