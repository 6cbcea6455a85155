"""Memory that is used again by every block: fresh pages from the system cost time."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

#: Gives memory for a shape, with undefined content: that of the call before.
Memory = Callable[..., Tensor]


class Buffers:
    """Buffers of one thread, by name.

    Parameters
    ----------
    held
        Where they are kept.
    like
        Gives the device and the precision.
    owner
        Whose they are: each owner's names are its own.
    """

    def __init__(self, held: dict[str, Tensor], like: Tensor, owner: str = "") -> None:
        self._held, self._like, self._owner = held, like, owner

    def __call__(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Memory for a shape, with undefined content: that of the call before.

        ``dtype`` is the same for all memory of this name.
        """
        size, name = math.prod(shape), name + self._owner
        flat = self._held.get(name)
        if flat is None or flat.numel() < size:
            self._held[name] = flat = self._like.new_empty(size, dtype=dtype)
        return flat[:size].view(shape)

    def named(self, name: str, dtype: torch.dtype | None = None) -> Memory:
        """What gives the memory of this name."""
        return functools.partial(self, name, dtype=dtype)

    def of(self, image: int) -> Buffers:
        """Those of one image among several."""
        return Buffers(self._held, self._like, f" of {image}")
