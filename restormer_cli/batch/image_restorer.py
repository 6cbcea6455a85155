"""The protocol by which the batch runner calls a network. It knows nothing else of one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from restormer_cli.images.codecs.base import Pixels

#: Called with the fraction of the work that is done, 0 to 1. An exception stops the work.
Progress = Callable[[float], None]
#: uint8 or uint16 ``(H, W, C)`` to the same.
Function = Callable[..., Pixels]


@runtime_checkable
class ImageRestorer(Protocol):
    """Restores images in memory; :class:`restormer_cli.Restorer` is one."""

    def __call__(self, *views: Pixels, bit_depth: int | None, progress: Progress) -> Pixels:
        """Restore one image, from one view or a left and a right one."""

    def check_size(self, height: int, width: int) -> None:
        """Raise ImageError if an image of this size can never fit into memory."""

    def room_for(self, height: int, width: int) -> tuple[int, int]:
        """Bytes of main memory that are available now, and that an image of this size needs."""

    def images_together(self, height: int, width: int, channels: int) -> int:
        """Number of images of this size that are best restored together."""

    def restore_together(
        self, batch: Sequence[tuple[Pixels, ...]], *, bit_depth: int | None, progress: Progress
    ) -> list[Pixels]:
        """Restore up to :meth:`images_together` images of one size."""


class FunctionRestorer:
    """Adapts a function that restores one image to :class:`ImageRestorer`."""

    def __init__(self, function: Function) -> None:
        self._function = function

    def __call__(self, *views: Pixels, bit_depth: int | None, progress: Progress) -> Pixels:
        return self._function(*views, bit_depth=bit_depth, progress=progress)

    def check_size(self, height: int, width: int) -> None:
        """Accept any size."""

    def room_for(self, height: int, width: int) -> tuple[int, int]:
        return sys.maxsize, 0

    def images_together(self, height: int, width: int, channels: int) -> int:
        return 1

    def restore_together(
        self, batch: Sequence[tuple[Pixels, ...]], *, bit_depth: int | None, progress: Progress
    ) -> list[Pixels]:
        return [self(*views, bit_depth=bit_depth, progress=progress) for views in batch]


def as_image_restorer(restorer: ImageRestorer | Function) -> ImageRestorer:
    """Return a restorer as it is, or wrap a plain function."""
    return restorer if isinstance(restorer, ImageRestorer) else FunctionRestorer(restorer)
