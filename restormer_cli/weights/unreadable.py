"""Describes files that are no checkpoints, with a remedy.

Most of them are failed downloads: a page of a web site, the answer of a server, a pointer of Git
LFS, an archive. They are recognised by their first bytes, then by name.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from restormer_cli.system.files import UNFINISHED
from restormer_cli.system.terminal import harmless

#: Bytes from which a file is recognised.
HEAD = 4096
_AGAIN = "download the file itself"
_UNPACK = "unpack it and give the checkpoint inside"
_NOT_PYTORCH = "this tool reads PyTorch and safetensors; export the state_dict() of the network"

#: First bytes, kind of file, and remedy.
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a rar archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"PK\x05\x06", "an empty zip archive", _AGAIN),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and TensorFlow write", _NOT_PYTORCH),
    (b"\x93NUMPY", "a NumPy array (.npy)", _NOT_PYTORCH),
    (b"GGUF", "a GGUF file", _NOT_PYTORCH),
    (b"lmgg", "a GGML file", _NOT_PYTORCH),
    (b"tjgg", "a GGML file", _NOT_PYTORCH),
    (b"%PDF", "a PDF document", _AGAIN),
    (b"\x7fELF", "a program", _AGAIN),
    (b"MZ", "a program of Windows", _AGAIN),
    (b"SQLite format 3\0", "a database of SQLite", _AGAIN),
    (b"\0\x05\x16\x07", "what macOS keeps beside a file (AppleDouble)", "give the file itself"),
    (b"\0\0\0\x01Bud1", "a settings file of macOS (.DS_Store)", "give the file itself"),
)
_LFS = (b"version https://git-lfs.github.com/", b"version https://hawser.github.com/")
#: The number that PyTorch's older files begin with, as pickles hold it.
_TORCH_PICKLE = bytes.fromhex("6cfc9c46f9206aa85019")
_PAGES = ("<!doctype html", "<html", "<head", "<body", "<script", "<title", "<meta")


def describe_folder(path: Path) -> str:
    """Describe a folder that was given as a checkpoint, as the end of a sentence."""
    try:
        entries = sorted(entry.name for entry in path.iterdir())
    except OSError:
        entries = []
    if any(name.endswith(".distcp") for name in entries):
        return (
            "is a distributed checkpoint in several parts; make one file of it with "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save"
        )
    if "saved_model.pb" in entries or "checkpoint" in entries:
        return f"is a folder of TensorFlow; {_NOT_PYTORCH}"
    if "data.pkl" in entries or "archive" in entries:
        return "is a checkpoint that was unpacked; give the file that it came from"
    ends = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
    inside = [name for name in entries if name.lower().endswith(ends)]
    if inside:
        return f"is a folder, not a file of weights; give a file in it, such as {inside[0]}"
    return "is a folder, not a file of weights"


def describe(path: Path, head: bytes, size: int) -> str | None:
    """Describe a file that is no checkpoint, as the end of a sentence; None if it is not known.

    Parameters
    ----------
    path
        For the suffix.
    head
        The first :data:`HEAD` bytes.
    size
        Bytes of the whole file.
    """
    if size == 0:
        return "is empty (0 bytes); download it again"
    if head.startswith(_LFS):
        return "is a Git LFS pointer, not the file; run `git lfs pull`, or download the file itself"
    for magic, what, remedy in _MAGIC:
        if head.startswith(magic) and (len(magic) > 2 or not _is_text(head)):
            return f"is {what}; {remedy}"
    from restormer_cli.images.codecs import CODECS  # slow to load, and seldom needed

    for codec in CODECS:
        if codec.matches(head):
            return f"is an image ({codec.name}); give the weights, not a photo"
    if head[4:8] == b"ftyp":
        return "is an image or a video (HEIF, MP4); give the weights, not a photo"
    if head[257:262] == b"ustar":
        return f"is a tar archive; {_UNPACK}"
    if head[4:8] == b"TFL3":
        return f"is a TensorFlow Lite model; {_NOT_PYTORCH}"
    if _is_onnx(path, head):
        return f"is an ONNX model; {_NOT_PYTORCH}"
    if head[:1] == b"\x80" and _TORCH_PICKLE not in head[:32]:
        return f"is a pickle that PyTorch did not write; {_NOT_PYTORCH}"
    if not head.strip(b"\0"):
        return "begins with nothing but zeros, as a download does that was cut off; get it again"
    if (text := _text(head)) is not None:
        return _describe_text(text, size)
    return describe_name(path)


def describe_zip(members: Collection[str]) -> str | None:
    """Describe a zip archive as :func:`describe` does, from the names in it."""
    files = [name for name in members if not name.endswith("/")]
    inside = [n for n in files if n.lower().endswith((".pth", ".pt", ".ckpt", ".safetensors"))]
    # Behind the folder that all is in, which is called like the file was.
    if any(n.split("/")[1:2] in (["code"], ["constants.pkl"]) for n in files):
        return "is a TorchScript archive; save the state_dict() of its model instead"
    if inside:
        return f"is a zip archive that holds {harmless(inside[0])}; {_UNPACK}"
    if files and all(name.endswith(".npy") for name in files):
        return f"is an archive of NumPy arrays (.npz); {_NOT_PYTORCH}"
    if "model.weights.h5" in files:
        return f"is a Keras model; {_NOT_PYTORCH}"
    if any(n.endswith(("serialized_exported_program.json", "models/model.json")) for n in files):
        return "is a program of torch.export; save the state_dict() of its model instead"
    if any(name.endswith(".mlmodel") for name in files):
        return f"is a Core ML model; {_NOT_PYTORCH}"
    if not any(name.endswith("data.pkl") for name in files):
        return "is a zip file of other things than a PyTorch checkpoint"
    return None


def describe_name(path: Path) -> str | None:
    """Describe a file by its name, as the end of a sentence; None if it is not known."""
    name = path.name.lower()
    if name.endswith(UNFINISHED):
        return "is a download that was cut off or has not ended; let it end, or begin again"
    if name.endswith(".distcp"):
        return (
            "is one part of a distributed checkpoint; make one file of its folder with "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save"
        )
    if name.endswith((".pb", ".index")) or ".data-0000" in name:
        return f"is a file of TensorFlow; {_NOT_PYTORCH}"
    return None


def _describe_text(text: str, size: int) -> str:
    start = text.lstrip("\ufeff \t\r\n")
    lowered = start.lower()
    if lowered.startswith(_PAGES):
        return f"is a web page (HTML); {_AGAIN}: the link to it, not to a page about it"
    if lowered.startswith("<?xml") and any(page in lowered for page in _PAGES):
        return f"is a web page (HTML); {_AGAIN}: the link to it, not to a page about it"
    if lowered.startswith(("<?xml", "<error", "<net", "<")):
        if "<net" in lowered and "<layers" in lowered:
            return f"is an OpenVINO model (XML); {_NOT_PYTORCH}"
        return f"is an XML document, such as a server's error message; {_AGAIN}"
    if start[:1] in {"{", "["}:
        if '"weight_map"' in text:
            return (
                "is the index of a checkpoint in several parts (JSON); make one file of them, and "
                "give that"
            )
        if _is_json(text, size):
            return f"is a JSON document, such as a server's error message; {_AGAIN}"
    line = harmless(start.splitlines()[0]) if start else ""
    excerpt = f" that begins with {line[:60]!r}" if line else ""
    return f"is a text file{excerpt}; {_AGAIN}"


def _is_json(text: str, size: int) -> bool:
    if size > len(text.encode()):
        return True  # only the beginning was looked at
    try:
        json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return False
    return True


def _text(head: bytes) -> str | None:
    """Decode the first bytes; None if they are no text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return head[: len(head) // 2 * 2].decode("utf-16")
        except UnicodeDecodeError:
            return None
    return head.decode("utf-8", "ignore") if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    try:
        # A character may be cut in two at the end.
        text = (head[:-3] if len(head) == HEAD else head).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\r\n\f\x1b\ufeff" for character in text)


def _is_onnx(path: Path, head: bytes) -> bool:
    """True if a protocol buffer begins as ONNX models do: version of the format, then maker."""
    return path.suffix.lower() == ".onnx" or (
        head[:1] == b"\x08" and head[1:2] < b"\x40" and head[2:3] in {b"\x12", b"\x3a"}
    )
