"""What an image file holds once it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from restormer_cli.images.codecs.base import Pixels
from restormer_cli.images.metadata import NO_METADATA, Metadata


@dataclass(frozen=True)
class Picture:
    """A decoded image, upright."""

    pixels: Pixels
    """``(H, W, 3)`` RGB or ``(H, W, 1)`` gray."""
    alpha: Pixels | None = None
    """``(H, W)``, of the same dtype."""
    metadata: Metadata = NO_METADATA
    """What the file says beside its pixels, as it holds for the result."""
    notes: tuple[str, ...] = ()
    """What a person should know about how the file was read."""
    file_bits: int | None = None
    """Of a sample in the file that it comes from; None if as many as ``pixels`` have."""

    @property
    def bit_depth(self) -> int:
        return 8 * self.pixels.dtype.itemsize

    @property
    def mode(self) -> str:
        """``L``, ``LA``, ``RGB`` or ``RGBA``."""
        return ("L" if self.pixels.shape[2] == 1 else "RGB") + ("" if self.alpha is None else "A")

    def samples(self) -> Any:
        """Pixels and alpha in one contiguous array, ``(H, W)`` if it is gray alone."""
        if self.alpha is not None:
            return np.concatenate([self.pixels, self.alpha[..., None]], axis=2)
        pixels = self.pixels[..., 0] if self.pixels.shape[2] == 1 else self.pixels
        return np.ascontiguousarray(pixels)
