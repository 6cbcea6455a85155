"""The tensors of a file that ``torch.save`` wrote, from its headers, without PyTorch.

The formats are those of ``torch/serialization.py``: a zip archive, and the older one, a row of
pickles and then of raw storages.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from restormer_cli.system.terminal import harmless
from restormer_cli.weights import unreadable
from restormer_cli.weights.safe_pickle import Call, Global, PickleError, read_pickle
from restormer_cli.weights.stored_tensor import (
    ELEMENT_SIZES,
    MAX_NAME,
    Extent,
    FormatError,
    StoredTensor,
)

#: Deepest dict inside dicts in which tensors are looked for.
MAX_DEPTH = 4

_Extents = Mapping[str, Extent]
_STORAGE_TYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
}
_STORAGE_MODULES = {"torch", "torch.cuda", "torch.storage"}
_REBUILD = "torch._utils._rebuild_"
_REBUILD_TENSOR = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
_REBUILD_PARAMETER = {
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
}


@dataclass(frozen=True, eq=False)
class _Storage:
    """A storage as a pickle refers to it."""

    key: str
    dtype: str | None
    """None if it is not known here."""
    elements: int
    view_offset: int = 0
    """Files of PyTorch before 0.4 can hold views of storages; in elements."""


@dataclass(frozen=True, eq=False)
class PickledTensor:
    """A tensor as a pickle describes it.

    It is located only when it is needed, since a checkpoint may hold tensors of other kinds beside
    those of the network.
    """

    call: Call
    extents: Mapping[str, Extent]

    def locate(self) -> StoredTensor:
        """Find the place of the tensor in the file.

        Raises
        ------
        FormatError
            If it is of another kind, or not in the file.
        """
        call = self.call
        if call.function in _REBUILD_PARAMETER:
            call = next((part for part in call.arguments[:1] if isinstance(part, Call)), call)
        match call.arguments:
            case (
                _Storage(dtype=str(dtype)) as storage,
                int(offset),
                tuple(shape),
                tuple(stride),
                *_,
            ) if call.function in _REBUILD_TENSOR and _whole(offset, *shape, *stride):
                pass
            case _ if "rebuild_qtensor" in call.function:
                raise FormatError("is quantised; save the network before it is quantised")
            case _:
                raise FormatError("is a tensor of an unknown kind")
        if storage.key not in self.extents:
            raise FormatError("is not stored in the file")
        offset += storage.view_offset
        return StoredTensor(dtype, shape, stride, offset, self.extents[storage.key])


def _persistent_load(identity: Any) -> _Storage:
    match identity:
        case ("storage", Global(name=kind), str(key), _, int(elements), *view):
            module, _, name = kind.rpartition(".")
            dtype = _STORAGE_TYPES.get(name) if module in _STORAGE_MODULES else None
            view_offset = view[0][1] if view and isinstance(view[0], tuple) else 0
            if not _whole(elements, view_offset):
                raise PickleError("refers to a storage in a way that makes no sense")
            return _Storage(key, dtype, elements, view_offset)
    raise PickleError("refers to something that is no storage")


def _whole(*values: Any) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def read_zip(file: IO[bytes], size: int) -> tuple[Any, _Extents]:
    """Read the pickle of a zip archive.

    Parameters
    ----------
    file
        The open file.
    size
        Its size in bytes.

    Returns
    -------
    object
        The pickle, as :func:`read_pickle` gives it.
    dict of str to Extent
        The places of its storages in the file.

    Raises
    ------
    FormatError
        If the archive is no checkpoint, is damaged, or is of a kind that cannot be read.
    """
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
    if (what := unreadable.describe_zip(members)) is not None:
        raise FormatError(what)
    if sum(member.file_size for member in members.values()) > size or any(
        member.compress_type != zipfile.ZIP_STORED for member in members.values()
    ):
        raise FormatError("is compressed, which checkpoints never are")
    roots = [name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise FormatError("is a zip file of several checkpoints; unpack it and give one of them")
    root = roots[0]

    def extent(name: str) -> Extent:
        member = members[name]
        file.seek(member.header_offset)
        header = file.read(30)
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        start = member.header_offset + 30 + name_length + extra_length
        if header[:4] != b"PK\x03\x04" or start + member.file_size > size:
            raise FormatError("is damaged: its table of contents is wrong")
        # PyTorch can be told to leave checksums out, and writes 0 then.
        return Extent(start, member.file_size, member.CRC or None)

    def content(name: str) -> bytes:
        place = extent(name)
        file.seek(place.start)
        return file.read(place.length)

    if f"{root}byteorder" in members and content(f"{root}byteorder") != b"little":
        raise FormatError("was written on a big-endian machine, which is not supported")
    document = _pickled(io.BytesIO(content(f"{root}data.pkl")))
    stored = f"{root}data/"
    extents = {
        name.removeprefix(stored): extent(name) for name in members if name.startswith(stored)
    }
    return document, extents


_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def read_legacy(file: IO[bytes], size: int) -> tuple[Any, _Extents]:
    """Read the pickle of an older file; as :func:`read_zip`.

    Raises
    ------
    FormatError, PickleError
        If the file is no checkpoint, is damaged, or is of a kind that cannot be read.
    """
    # A memory map, unlike a file, never takes the memory for more bytes than there are.
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        if read_pickle(stream) != _MAGIC or read_pickle(stream) != _PROTOCOL:
            raise PickleError("is no PyTorch checkpoint")
        system = read_pickle(stream)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise FormatError("was written on a big-endian machine, which is not supported")
        storages: dict[str, _Storage] = {}

        def persistent_load(identity: Any) -> _Storage:
            storage = _persistent_load(identity)
            storages.setdefault(storage.key, storage)
            return storage

        document = _pickled(stream, persistent_load)
        extents = {}
        for key in read_pickle(stream):
            storage = storages[key]
            if storage.dtype is None:
                raise FormatError("stores numbers of an unknown kind")
            elements = int.from_bytes(stream.read(8), "little")
            place = Extent(stream.tell(), elements * ELEMENT_SIZES[storage.dtype])
            if elements != storage.elements or place.end > size:
                raise FormatError("is cut off, or claims more numbers than it stores")
            extents[key] = place
            stream.seek(place.end)
    return document, extents


def _pickled(stream: Any, persistent_load: Any = _persistent_load) -> Any:
    try:
        return read_pickle(stream, persistent_load)
    except PickleError as error:
        raise FormatError(f"its pickle {error}") from error


def find_tensors(document: Any, extents: Mapping[str, Extent]) -> dict[str, PickledTensor]:
    """The tensors in nested dicts, under their names joined by dots."""
    leaves: dict[str, PickledTensor] = {}
    pending = [("", document, 0)]
    seen = set()
    while pending:
        prefix, mapping, depth = pending.pop()
        # A dict can hold itself; and names that are long on every level would fill the memory.
        if not isinstance(mapping, dict) or id(mapping) in seen or depth > MAX_DEPTH:
            continue
        seen.add(id(mapping))
        for key, value in mapping.items():
            if not isinstance(key, str) or len(key) > MAX_NAME:
                continue
            if isinstance(value, dict):
                pending.append((f"{prefix}{key}.", value, depth + 1))
            elif isinstance(value, Call) and value.function.startswith(_REBUILD):
                leaves.setdefault(f"{prefix}{key}", PickledTensor(value, extents))
    return leaves


def describe_other(document: Any) -> str:
    """Contents other than a state dict that people take for a network; "" if none."""
    entries = document if isinstance(document, dict) else {"": document}
    keys = [key for key in entries if isinstance(key, str)]
    if {"state", "param_groups"} <= set(keys) or any("optim" in key.lower() for key in keys):
        return "the state of an optimizer; take the file of the network that was saved with it"
    for value in entries.values():
        if isinstance(value, Call) and value.function and not value.function.startswith(_REBUILD):
            name = harmless(value.function.rpartition(".")[2])[:60]
            return f"a whole network that was pickled ({name}); save its state_dict() instead"
    return ""
