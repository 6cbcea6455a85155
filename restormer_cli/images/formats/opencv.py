"""What OpenCV encodes: PNG, and AVIF that Pillow does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from restormer_cli.errors import ImageError
from restormer_cli.images.picture import Picture


def encode_by_opencv(
    suffix: str,
    picture: Picture,
    parameters: Sequence[int],
    metadata: Mapping[int, bytes | None] | None = None,
) -> memoryview:
    """Encode gray, RGB or RGBA.

    Parameters
    ----------
    metadata
        By OpenCV's numbers of its kinds.

    Raises
    ------
    ImageError
        If OpenCV refuses.
    """
    image: Any = picture.pixels
    if picture.mode != "L":  # blue comes first
        image = image[..., ::-1]
    if picture.alpha is not None:
        image = np.concatenate([image, picture.alpha[..., None]], axis=2)
    kept = {kind: body for kind, body in (metadata or {}).items() if body}
    bodies = [np.frombuffer(body, np.uint8)[None] for body in kept.values()]
    image = np.ascontiguousarray(image)
    try:
        if kept:
            done, data = cv2.imencodeWithMetadata(suffix, image, list(kept), bodies, parameters)
        else:
            done, data = cv2.imencode(suffix, image, parameters)
    except cv2.error as error:
        raise ImageError(str(error.err)) from error
    if not done:
        raise ImageError("the encoder refuses")
    return memoryview(data.data).cast("B")
