"""Feature maps in memory, on a device or in a scratch file: what strips are read from."""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile

import torch
from torch import Tensor

from restormer_cli.network.device_errors import is_out_of_memory
from restormer_cli.network.memory_plan import MemoryBudgetError, Storage, scratch_folder
from restormer_cli.system.memory import give_back


class FeatureMap:
    """Rows of ``(N, H, W, C)`` features: in the device's memory, the host's, or a scratch file.

    :meth:`read` gives rows on the compute device, where these are: a view, and changes to it are
    changes to the map. :meth:`write` makes sure of it in every case.
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
        return type(self)(packed, self.device, self._file)

    def read(self, first: int, last: int) -> Tensor:
        """Rows ``[first, last)``; do not keep them across a :meth:`write`."""
        return self.tensor[:, first:last]

    def write(self, first: int, last: int, rows: Tensor, left: int = 0) -> None:
        """Put rows back, or put new ones there, from column ``left`` on."""
        _put(self.tensor[:, first:last, left : left + rows.shape[2]], rows)
        self.release(first, last)

    def flush(self) -> None:
        """See that all that was written is where other maps in the same memory find it."""

    def release(self, first: int, last: int) -> None:
        """Let go of the memory behind rows that are in a file; elsewhere nothing happens."""
        if self._file is None or not hasattr(self._file, "madvise"):
            return  # Windows has no such call and decides alone
        row = self.tensor.stride(1) * self.tensor.element_size()
        offset = self.tensor.storage_offset() * self.tensor.element_size()
        start = (offset + first * row) // mmap.PAGESIZE * mmap.PAGESIZE
        length = offset + last * row - start
        self._file.madvise(mmap.MADV_DONTNEED, int(start), int(length))

    def forget(self, first: int, last: int) -> None:
        """Rows that nobody reads again: in main memory, what they take is free from now on."""
        if self.tensor.device.type == "cpu" and self._file is None:
            for rows in self.tensor[:, first:last]:
                give_back(rows.data_ptr(), rows.nbytes)


def _put(target: Tensor, rows: Tensor) -> None:
    # Not by address: on MPS that is a buffer's number, and tells nothing within it.
    if rows.device != target.device or not rows.is_set_to(target):
        target.copy_(rows)


#: Rows above a strip that are read again: as many as the two depthwise convolutions of a block lag.
KEPT_ROWS = 4


class RemoteMap(FeatureMap):
    """A map that lives elsewhere than it is computed: in main memory or in a file, for a GPU.

    The rows that were read last are on the device, and what is written to them goes back when
    others take their place. So whoever goes from top to bottom moves each row once to and once
    fro, though a block reads it three times and writes it twice.
    """

    def __init__(self, tensor: Tensor, device: torch.device, file: mmap.mmap | None = None) -> None:
        super().__init__(tensor, device, file)
        self._first = self._end = 0
        self._rows = torch.empty((len(tensor), 0, *tensor.shape[2:]), device=device)
        self._changed = (0, 0)

    def read(self, first: int, last: int) -> Tensor:
        if not self._first <= first <= last <= self._end:
            self._fetch(first, last)
        return self._rows[:, first - self._first : last - self._first]

    def write(self, first: int, last: int, rows: Tensor, left: int = 0) -> None:
        if self._first <= first <= last <= self._end:
            here = self._rows[:, first - self._first : last - self._first]
            _put(here[:, :, left : left + rows.shape[2]], rows)
            above, below = self._changed
            self._changed = (min(above, first), max(below, last)) if below else (first, last)
        else:
            self.flush()
            super().write(first, last, rows, left)
            super().release(first, last)

    def release(self, first: int, last: int) -> None:
        """Nothing: what is read is copied, and let go of at once."""

    def forget(self, first: int, last: int) -> None:
        """Nothing: memory that a card reads directly must stay where it is."""

    def flush(self) -> None:
        self._write_back(self._end)
        self._first = self._end = 0
        self._rows = self._rows[:, :0].clone()

    def _fetch(self, first: int, last: int) -> None:
        goes_on = self._first <= first <= self._end < last
        if not goes_on:
            self.flush()
            self._first = self._end = first
        start = max(self._first, min(first, self._end - KEPT_ROWS))
        self._write_back(start)
        kept = self._rows[:, start - self._first :]
        shape = (len(kept), last - start, *kept.shape[2:])
        rows = torch.empty(shape, dtype=self.tensor.dtype, device=self.device)
        rows[:, : kept.shape[1]] = kept
        rows[:, kept.shape[1] :] = self.tensor[:, self._end : last]
        super().release(self._end, last)
        self._rows, self._first, self._end = rows, start, last

    def _write_back(self, last: int) -> None:
        """Bring changed rows above ``last`` to where they live."""
        first, end = self._changed
        last = min(last, end)
        if first < last:
            self.tensor[:, first:last] = self._rows[:, first - self._first : last - self._first]
            super().release(first, last)
        self._changed = (last, end) if last < end else (0, 0)


def allocate(
    shape: tuple[int, int, int, int],
    device: torch.device,
    dtype: torch.dtype,
    storage: Storage,
    *,
    pinned: bool = False,
) -> FeatureMap:
    """A feature map with undefined content. A scratch file vanishes with the last use of it.

    Where main memory for it is refused, it is a scratch file. ``pinned`` memory is read and written
    by a card at full speed, if there is any.

    Raises
    ------
    MemoryBudgetError
        If there is no room for a scratch file.
    """
    if storage == "device":
        return FeatureMap(torch.empty(shape, dtype=dtype, device=device), device)
    kind = FeatureMap if device.type == "cpu" else RemoteMap
    tensor = _main_memory(shape, dtype, pinned) if storage == "host" else None
    if tensor is not None:
        return kind(tensor, device)
    mapping = _scratch_mapping(math.prod(shape) * dtype.itemsize)
    return kind(torch.frombuffer(mapping, dtype=dtype).view(shape), device, mapping)


def _main_memory(shape: tuple[int, ...], dtype: torch.dtype, pinned: bool) -> Tensor | None:
    """Main memory, pinned if that is wanted and granted; None if there is none."""
    for pin in (True, False) if pinned else (False,):
        try:
            return torch.empty(shape, dtype=dtype, pin_memory=pin)
        except (RuntimeError, MemoryError) as error:
            if not pin and not is_out_of_memory(error):
                raise
    return None


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
