"""What tensors a checkpoint file holds and where in it they lie, from its headers alone.

PyTorch's zip archives, its older files without one, and safetensors all come to the same: a table
of names, types, shapes and positions in the file. The table is checked against the file's size
before anything is read or memory taken; PyTorch is not needed for it. Files are told apart by
their first bytes, whatever their names say.

Formats: PyTorch's are those that ``torch.save`` writes (``torch/serialization.py``), the older one
being a row of pickles and then of raw storages; safetensors is described at
https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError, safe_open

from restormer_cli.errors import WeightsError
from restormer_cli.system.files import is_file
from restormer_cli.system.terminal import harmless
from restormer_cli.weights import unreadable
from restormer_cli.weights.safe_pickle import Call, Global, PickleError, read_pickle

#: Bytes of an element, under PyTorch's names.
ELEMENT_SIZES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    # No network has these, but then a message names them.
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "complex32": 4,
    "complex64": 8,
    "complex128": 16,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
}

#: Dicts inside dicts, and the length of a name, beyond which no tensors are looked for.
MAX_DEPTH = 4
MAX_NAME = 300


@dataclass(frozen=True)
class Extent:
    """A piece of a file that tensors are stored in."""

    start: int
    length: int
    crc32: int | None = None
    """What the file says that it must be; None if it says nothing."""

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    """In elements."""
    offset: int
    """Of its first element in the extent, in elements."""
    extent: Extent

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * ELEMENT_SIZES[self.dtype]


class TensorFile:
    """The tensors of a checkpoint file by name.

    Names of nested dicts are joined by dots: ``params.output.weight``.

    Attributes
    ----------
    format
        ``zip`` or ``legacy``, which are PyTorch's, or ``safetensors``.
    size
        Of the file, in bytes.
    other
        What it holds beside tensors that may be mistaken for a network, for people; "" if nothing.

    Raises
    ------
    WeightsError
        If the file cannot be read, is cut off, damaged, or no checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises before Python 3.14
            raise WeightsError(f"{path}: {unreadable.describe_folder(path)}")
        if not is_file(path):
            raise WeightsError(f"{path}: no such file of weights")
        try:
            self.size = path.stat().st_size
            with path.open("rb") as file:
                head = file.read(unreadable.HEAD)
                self.format = _detect(head, self.size)
                document, extents = _READERS[self.format](path, file, self.size)
            self._leaves = _find_tensors(document, extents)
            self.other = _other(document)
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
        except _FormatError as error:
            raise WeightsError(f"{path}: {unreadable.describe_name(path) or error}") from error
        except zipfile.BadZipFile as error:
            reason = (
                unreadable.describe_name(path) or "is cut off: its end is missing; get it again"
            )
            raise WeightsError(f"{path}: {reason}") from error
        except Exception as error:  # damaged bytes provoke whatever they like
            what = unreadable.describe(path, head, self.size) if self.format == "legacy" else None
            raise WeightsError(
                f"{path}: {what or 'is cut off, damaged or no checkpoint'}"
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._leaves)

    def __len__(self) -> int:
        return len(self._leaves)

    def __getitem__(self, name: str) -> StoredTensor:
        """Where a tensor lies.

        Raises
        ------
        WeightsError
            If the file does not hold as much as the tensor claims, or its kind is not known.
        """
        try:
            leaf = self._leaves[name]
            return _checked(leaf.locate() if isinstance(leaf, _Pickled) else leaf, self.size)
        except _FormatError as error:
            raise WeightsError(f"{self.path}: {name} {error}") from error


_Leaves = dict[str, "StoredTensor | _Pickled"]
_Extents = Mapping[str, Extent]


class _FormatError(Exception):
    """What is wrong with a file, as the end of a sentence that begins with its name."""


def _detect(first: bytes, size: int) -> str:
    if first.startswith(b"PK\x03\x04"):
        return "zip"
    if first[8:9] == b"{" and int.from_bytes(first[:8], "little") <= size - 8:
        return "safetensors"
    return "legacy"


def _checked(tensor: StoredTensor, size: int) -> StoredTensor:
    if (
        len(tensor.shape) != len(tensor.stride)
        or min((*tensor.shape, *tensor.stride, tensor.offset), default=0) < 0
    ):
        raise _FormatError("has a shape that makes no sense")
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
    needed = (tensor.offset + last + 1) * ELEMENT_SIZES[tensor.dtype] if tensor.elements else 0
    # Where strides are zero the last element is in the file, and yet all are too many.
    if max(needed, tensor.nbytes) > tensor.extent.length or tensor.extent.end > size:
        raise _FormatError("claims more numbers than the file stores")
    return tensor


# --- safetensors --------------------------------------------------------------------------------

_SAFETENSORS_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


def _read_safetensors(path: Path, file: IO[bytes], size: int) -> tuple[_Leaves, _Extents]:
    try:
        with safe_open(path, framework="numpy"):
            pass  # checks the whole header against the file; what follows can rely on it
    except (SafetensorError, OSError, ValueError) as error:
        raise _FormatError(f"is a damaged safetensors file ({error})") from error
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    leaves: _Leaves = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in _SAFETENSORS_TYPES:
            continue
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        leaves[name] = StoredTensor(
            _SAFETENSORS_TYPES[entry["dtype"]],
            shape,
            tuple(math.prod(shape[i + 1 :]) for i in range(len(shape))),
            0,
            Extent(8 + length + begin, end - begin),
        )
    return leaves, {}


# --- what torch.save writes ---------------------------------------------------------------------

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
class _Pickled:
    """A tensor as a pickle describes it; looked at only when it is asked for.

    A checkpoint may hold tensors of other kinds beside those of the network.
    """

    call: Call
    extents: Mapping[str, Extent]

    def locate(self) -> StoredTensor:
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
                raise _FormatError("is quantised; save the network before it is quantised")
            case _:
                raise _FormatError("is a tensor of an unknown kind")
        if storage.key not in self.extents:
            raise _FormatError("is not stored in the file")
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


def _read_zip(path: Path, file: IO[bytes], size: int) -> tuple[Any, _Extents]:
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
    if (what := unreadable.describe_zip(path, members)) is not None:
        raise _FormatError(what)
    if sum(member.file_size for member in members.values()) > size or any(
        member.compress_type != zipfile.ZIP_STORED for member in members.values()
    ):
        raise _FormatError("is compressed, which checkpoints never are")
    roots = [name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise _FormatError("is a zip file of several checkpoints; unpack it and give one of them")
    root = roots[0]

    def extent(name: str) -> Extent:
        member = members[name]
        file.seek(member.header_offset)
        header = file.read(30)
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        start = member.header_offset + 30 + name_length + extra_length
        if header[:4] != b"PK\x03\x04" or start + member.file_size > size:
            raise _FormatError("is damaged: its table of contents is wrong")
        # PyTorch can be told to leave checksums out, and writes 0 then.
        return Extent(start, member.file_size, member.CRC or None)

    def content(name: str) -> bytes:
        place = extent(name)
        file.seek(place.start)
        return file.read(place.length)

    if f"{root}byteorder" in members and content(f"{root}byteorder") != b"little":
        raise _FormatError("was written on a big-endian machine, which is not supported")
    document = _pickled(io.BytesIO(content(f"{root}data.pkl")))
    stored = f"{root}data/"
    extents = {
        name.removeprefix(stored): extent(name) for name in members if name.startswith(stored)
    }
    return document, extents


_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def _read_legacy(path: Path, file: IO[bytes], size: int) -> tuple[Any, _Extents]:
    # A memory map, unlike a file, never takes the memory for more bytes than there are.
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        if read_pickle(stream) != _MAGIC or read_pickle(stream) != _PROTOCOL:
            raise PickleError("is no PyTorch checkpoint")
        system = read_pickle(stream)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise _FormatError("was written on a big-endian machine, which is not supported")
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
                raise _FormatError("stores numbers of an unknown kind")
            elements = int.from_bytes(stream.read(8), "little")
            place = Extent(stream.tell(), elements * ELEMENT_SIZES[storage.dtype])
            if elements != storage.elements or place.end > size:
                raise _FormatError("is cut off, or claims more numbers than it stores")
            extents[key] = place
            stream.seek(place.end)
    return document, extents


def _pickled(stream: Any, persistent_load: Any = _persistent_load) -> Any:
    try:
        return read_pickle(stream, persistent_load)
    except PickleError as error:
        raise _FormatError(f"its pickle {error}") from error


def _find_tensors(document: Any, extents: Mapping[str, Extent]) -> _Leaves:
    """The tensors in nested dicts, under their names joined by dots."""
    leaves: _Leaves = {}
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
            elif isinstance(value, StoredTensor):
                leaves[key] = value
            elif isinstance(value, Call) and value.function.startswith(_REBUILD):
                leaves.setdefault(f"{prefix}{key}", _Pickled(value, extents))
    return leaves


def _other(document: Any) -> str:
    """What a checkpoint holds that people take for a network."""
    entries = document if isinstance(document, dict) else {"": document}
    keys = [key for key in entries if isinstance(key, str)]
    if {"state", "param_groups"} <= set(keys) or any("optim" in key.lower() for key in keys):
        return "the state of an optimizer; take the file of the network that was saved with it"
    for value in entries.values():
        if isinstance(value, Call) and value.function and not value.function.startswith(_REBUILD):
            name = harmless(value.function.rpartition(".")[2])[:60]
            return f"a whole network that was pickled ({name}); save its state_dict() instead"
    return ""


_READERS = {"zip": _read_zip, "safetensors": _read_safetensors, "legacy": _read_legacy}
