"""The tensors of a safetensors file, from its header.

The format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import IO

from safetensors import SafetensorError, safe_open

from restormer_cli.weights.stored_tensor import MAX_NAME, Extent, FormatError, StoredTensor

_TYPES = {
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


def read_safetensors(path: Path, file: IO[bytes]) -> dict[str, StoredTensor]:
    """Find all tensors whose type is known.

    Raises
    ------
    FormatError
        If the header is damaged or does not fit the file.
    """
    try:
        with safe_open(path, framework="numpy"):
            pass  # checks the whole header against the file; what follows can rely on it
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(f"is a damaged safetensors file ({error})") from error
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    tensors: dict[str, StoredTensor] = {}
    for name, entry in header.items():
        if name == "__metadata__" or len(name) > MAX_NAME or entry["dtype"] not in _TYPES:
            continue
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        tensors[name] = StoredTensor(
            _TYPES[entry["dtype"]],
            shape,
            tuple(math.prod(shape[i + 1 :]) for i in range(len(shape))),
            0,
            Extent(8 + length + begin, end - begin),
        )
    return tensors
