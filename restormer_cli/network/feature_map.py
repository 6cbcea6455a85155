"""Feature maps in memory, on a device or in a scratch file: what strips are read from."""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile

import torch
from torch import Tensor

from restormer_cli.network.memory_plan import MemoryBudgetError, Storage, scratch_folder


class FeatureMap:
    """Rows of ``(N, H, W, C)`` features: in the device's memory, the host's, or a scratch file.

    :meth:`read` gives rows on the compute device. Where they live there, that is a view, and
    changes to it are changes to the map; :meth:`write` makes sure of it in every case.
    """

    def __init__(self, tensor: Tensor, device: torch.device, file: mmap.mmap | None = None) -> None:
        self.tensor = tensor
        self.device = device
        self._file = file

    @property
    def shape(self) -> torch.Size:
        return self.tensor.shape

    def narrowed(self, channels: int) -> FeatureMap:
        """A map with fewer channels, packed into the beginning of this one's memory."""
        shape = (*self.shape[:3], channels)
        packed = self.tensor.flatten()[: math.prod(shape)].view(shape)
        return FeatureMap(packed, self.device, self._file)

    def read(self, first: int, last: int) -> Tensor:
        """Rows ``[first, last)``; do not keep them across a :meth:`write`."""
        rows = self.tensor[:, first:last]
        return rows if self.tensor.device == self.device else rows.to(self.device)

    def write(self, first: int, last: int, rows: Tensor) -> None:
        """Put rows back, or put new ones there."""
        target = self.tensor[:, first:last]
        # Not by address: on MPS that is a buffer's number, and tells nothing within it.
        if rows.device != target.device or not rows.is_set_to(target):
            target.copy_(rows)
        self.release(first, last)

    def release(self, first: int, last: int) -> None:
        """Let go of the memory behind rows that are in a file; elsewhere nothing happens."""
        if self._file is None or not hasattr(self._file, "madvise"):
            return  # Windows has no such call and decides alone
        row = self.tensor.stride(1) * self.tensor.element_size()
        offset = self.tensor.storage_offset() * self.tensor.element_size()
        start = (offset + first * row) // mmap.PAGESIZE * mmap.PAGESIZE
        length = offset + last * row - start
        self._file.madvise(mmap.MADV_DONTNEED, int(start), int(length))


def allocate(
    shape: tuple[int, int, int, int], device: torch.device, dtype: torch.dtype, storage: Storage
) -> FeatureMap:
    """A feature map with undefined content. A scratch file vanishes with the last use of it.

    Raises
    ------
    MemoryBudgetError
        If there is no room for a scratch file.
    """
    if storage == "scratch":
        mapping = _scratch_mapping(math.prod(shape) * dtype.itemsize)
        return FeatureMap(torch.frombuffer(mapping, dtype=dtype).view(shape), device, mapping)
    where = torch.device("cpu") if storage == "host" else device
    return FeatureMap(torch.empty(shape, dtype=dtype, device=where), device)


def _scratch_mapping(size: int) -> mmap.mmap:
    folder = scratch_folder()
    try:
        with tempfile.TemporaryFile(dir=folder, prefix="restormer-") as file:
            file.truncate(size)
            _take_room(file.fileno(), size)
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        reason = error.strerror or error
        raise MemoryBudgetError(
            f"needs {size / 1e9:.2f} GB in {folder}, which has no room ({reason}); "
            "TMPDIR names another folder"
        ) from error


def _take_room(descriptor: int, size: int) -> None:
    """Have a file's blocks now: where others fill the disk, a page without one is a fatal error."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:  # not every disk can
            raise
