"""Threads that read images together, within a budget of memory.

The memory for an image is computed from its header, before it is read. A :class:`MemoryBudget` lets
threads work while their images fit, so a large pair is measured alone and many small ones together.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import cv2
import psutil

from restormer_cli.errors import ImageError
from restormer_cli.images.codecs import find_codec, header_of
from restormer_cli.system.files import is_file
from restormer_cli.system.memory import FREE_MEMORY_SHARE, free_memory
from restormer_cli.system.units import format_bytes

Item = TypeVar("Item")
Value = TypeVar("Value")

#: Reading and comparing release the interpreter's lock; more threads would mostly take memory.
WORKERS = min(4, os.cpu_count() or 1)
#: Bytes of libraries that are loaded at the first image, and of allocators for each thread.
OVERHEAD_BYTES = 128 * 2**20
#: Most bytes for each sample while an image is decoded: buffers, and copies that convert colours
#: and depth and turn the picture upright.
DECODING_COPIES = 5
SAMPLES = 3
PNG_BIT_DEPTH = 24
#: ``cv::Error::StsNoMem``, whose name in Python depends on the version.
OPENCV_NO_MEMORY = -4


class MemoryBudget:
    """The memory that all images may take together.

    Parameters
    ----------
    max_memory
        Most bytes of main memory that this process may take; by default most of the free memory.
    """

    def __init__(self, max_memory: int | None = None) -> None:
        if max_memory is None:
            self.total = int(FREE_MEMORY_SHARE * free_memory())
            self._limit = f"the memory that is free ({format_bytes(self.total)})"
            self._taken = 0
        else:
            self._taken = int(psutil.Process().memory_info().rss) + OVERHEAD_BYTES
            self.total = max_memory - self._taken
            self._limit = f"--max-memory ({format_bytes(max_memory)})"
        self._left = self.total
        self._change = threading.Condition()

    def check(self, needed: int) -> None:
        """Check that so many bytes can ever fit.

        Raises
        ------
        ImageError
            If they are more than the whole budget.
        """
        if needed > self.total:
            least = format_bytes(needed + self._taken)
            raise ImageError(f"needs about {least} of memory, more than {self._limit}")

    @contextlib.contextmanager
    def take(self, needed: int) -> Iterator[None]:
        """Wait until so many bytes are left, and take them until the context ends.

        Raises
        ------
        ImageError
            As :meth:`check`, and if memory runs out nevertheless.
        """
        self.check(needed)
        with self._change:
            self._change.wait_for(lambda: needed <= self._left)
            self._left -= needed
        try:
            yield
        except (MemoryError, cv2.error) as error:
            if not is_out_of_memory(error):
                raise
            raise ImageError(f"memory ran out; about {format_bytes(needed)} are needed") from error
        finally:
            with self._change:
                self._left += needed
                self._change.notify_all()


def is_out_of_memory(error: Exception) -> bool:
    """True if Python or OpenCV was refused memory."""
    return isinstance(error, MemoryError) or getattr(error, "code", 0) == OPENCV_NO_MEMORY


class Claim:
    """The memory for an image, by the header of its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file_bytes = 0
        self.height = self.width = 0
        self.sample_bytes = 1
        if not is_file(path):
            return  # reading it will say so
        with contextlib.suppress(OSError):
            self.file_bytes = path.stat().st_size
        with contextlib.suppress(ImageError, OSError), path.open("rb") as file:
            header = header_of(file)
            codec = find_codec(header)
            self.height, self.width = codec.measure(header)
            deep = codec.deep
            if codec.name == "PNG":
                file.seek(PNG_BIT_DEPTH)
                deep = file.read(1) > b"\x08"
            self.sample_bytes = 2 if deep else 1

    @property
    def samples(self) -> int:
        """Most samples: pixels times channels."""
        return self.height * self.width * SAMPLES

    @property
    def held(self) -> int:
        """Bytes of the pixels."""
        return self.samples * self.sample_bytes

    @property
    def decoding(self) -> int:
        """Most bytes that decoding needs beside the pixels."""
        return self.file_bytes + DECODING_COPIES * self.held


def comparison_bytes(
    paths: Iterable[Path], compare: Callable[[int, int], int] | None = None
) -> int:
    """Bytes to read images one after the other, hold two of them, and compare these.

    Parameters
    ----------
    paths
        The images.
    compare
        Returns the bytes to compare two images of a height and width, beside their pixels.
    """
    claims = [Claim(path) for path in paths]
    held = sum(sorted((claim.held for claim in claims), reverse=True)[:2])
    largest = max(claims, key=lambda claim: claim.held)
    compared = 0 if compare is None else compare(largest.height, largest.width)
    return held + max(compared, *(claim.decoding for claim in claims))


def map_in_order(
    function: Callable[[Item], Value], items: Iterable[Item], workers: int = WORKERS
) -> Iterator[Value]:
    """Call a function for each item, in threads that are a few items ahead; results in order."""
    ahead: deque[Future[Value]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
