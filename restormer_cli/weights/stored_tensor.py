"""A tensor in a file: its type, shape and place.

*Extent*: a piece of the file. Several tensors may share one, and each has an offset in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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


#: Longest name of a tensor; longer ones are ignored.
MAX_NAME = 300


class FormatError(Exception):
    """A fault of a file, as the end of a sentence that begins with its name."""


@dataclass(frozen=True)
class Extent:
    """A piece of a file that tensors are stored in."""

    start: int
    length: int
    crc32: int | None = None
    """The checksum that the file states, if any."""

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    """Elements between neighbours, for each dimension."""
    offset: int
    """Elements in the extent before its first one."""
    extent: Extent

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * ELEMENT_SIZES[self.dtype]

    def check(self, size: int) -> None:
        """Check that the tensor makes sense and lies in a file of ``size`` bytes.

        Raises
        ------
        FormatError
            If it does not.
        """
        if (
            len(self.shape) != len(self.stride)
            or min((*self.shape, *self.stride, self.offset), default=0) < 0
        ):
            raise FormatError("has a shape that makes no sense")
        last = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        needed = (self.offset + last + 1) * ELEMENT_SIZES[self.dtype] if self.elements else 0
        # Where strides are zero the last element is in the file, and yet all are too many.
        if max(needed, self.nbytes) > self.extent.length or self.extent.end > size:
            raise FormatError("claims more numbers than the file stores")
