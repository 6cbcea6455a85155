"""The tensors of a checkpoint file, and where in it they lie, from its headers alone.

Each format has a reader: ``safetensors_file.py``, and ``torch_file.py`` for PyTorch's zip archives
and its older files. Formats are told apart by the first bytes of a file, whatever its name. A
header is checked against the file's size before anything is read or memory is taken. PyTorch is not
needed.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from restormer_cli.errors import WeightsError
from restormer_cli.system.files import is_file
from restormer_cli.weights import unreadable
from restormer_cli.weights.safetensors_file import read_safetensors
from restormer_cli.weights.stored_tensor import FormatError, StoredTensor
from restormer_cli.weights.torch_file import (
    PickledTensor,
    describe_other,
    find_tensors,
    read_legacy,
    read_zip,
)


class TensorFile:
    """The tensors of a checkpoint file by name.

    Names of nested dicts are joined by dots: ``params.output.weight``.

    Attributes
    ----------
    format
        ``zip`` or ``legacy``, which are PyTorch's, or ``safetensors``.
    size
        Bytes of the file.
    other
        Other contents that may be mistaken for a network, as words for people; "" if none.

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
                self._tensors, self.other = self._read(file)
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
        except FormatError as error:
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

    def _read(self, file: IO[bytes]) -> tuple[Mapping[str, StoredTensor | PickledTensor], str]:
        """The tensors, and a description of other contents."""
        if self.format == "safetensors":
            tensors = read_safetensors(self.path, file)
            return tensors, describe_other(tensors)
        read = read_zip if self.format == "zip" else read_legacy
        document, extents = read(file, self.size)
        return find_tensors(document, extents), describe_other(document)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __getitem__(self, name: str) -> StoredTensor:
        """The type, shape and place of a tensor.

        Raises
        ------
        WeightsError
            If the tensor claims more numbers than the file has, or its kind is not known.
        """
        try:
            found = self._tensors[name]
            tensor = found.locate() if isinstance(found, PickledTensor) else found
            tensor.check(self.size)
        except FormatError as error:
            raise WeightsError(f"{self.path}: {name} {error}") from error
        return tensor


def _detect(first: bytes, size: int) -> str:
    if first.startswith(b"PK\x03\x04"):
        return "zip"
    if first[8:9] == b"{" and int.from_bytes(first[:8], "little") <= size - 8:
        return "safetensors"
    return "legacy"
