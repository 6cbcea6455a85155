"""Flips and turns that a self-ensemble averages over.

What a network makes of a photo and of its mirror image is not quite the same. The mean over several
ways to hold the photo is better than each, if the network has learned from photos held so. Which
these are is a fact of the task: rain falls, and the views of a dual-pixel sensor are told apart by
left and right.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Symmetry(NamedTuple):
    """A way to hold an image: turned, then mirrored."""

    turns: int = 0
    """Quarter turns to the left."""
    mirrored: bool = False
    """Left for right, after the turns."""

    def apply(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """A view of ``(…, H, W, C)`` held so; ``(…, W, H, C)`` after an odd number of turns."""
        turned = np.rot90(image, self.turns, axes=(-3, -2))
        return turned[..., ::-1, :] if self.mirrored else turned

    def undo(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """A view of what :meth:`apply` gave as it was before."""
        turned = image[..., ::-1, :] if self.mirrored else image
        return np.rot90(turned, -self.turns, axes=(-3, -2))


AS_IT_IS, MIRRORED = Symmetry(), Symmetry(mirrored=True)
UPSIDE_DOWN = Symmetry(2, mirrored=True)  # the mirror image of a half turn: top for bottom

#: What ``symmetries`` of an options file may say.
SYMMETRIES = MappingProxyType(
    {
        "mirror": (AS_IT_IS, MIRRORED),
        "flip": (AS_IT_IS, UPSIDE_DOWN),
        "all": tuple(Symmetry(turns, mirrored) for turns in range(4) for mirrored in (False, True)),
    }
)
