"""Films of a shaken camera, to measure deblurring on: made in another way than for training.

A photo stands for a distant scene at twice the size. A camera that drifts and trembles turns in
front of it, and its frames, projected by homographies, saved as JPEG and averaged with a camera
response that no training saw, are reduced to half: so neither the interpolation, nor the paths,
nor the compression are those of :mod:`degradations.shake`.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from degradations.images import Image

#: Of a film that a high-speed camera takes, so many frames are one exposure, and each is itself
#: made of so many moments.
FRAMES, MOMENTS = 9, 3
#: Time of an exposure in seconds, and the frequencies at which hands tremble, in hertz.
EXPOSURE, TREMBLING = (0.03, 0.12), (1.0, 12.0)
#: JPEG quality of the frames.
QUALITY = (85, 98)


def tremor(rng: np.random.Generator, moments: int, extent: float) -> NDArray[np.float64]:
    """Pan, tilt and roll over an exposure ``(3, moments)``, in pixels, 0 on their mean.

    A hand drifts and trembles at several frequencies, the slower ones farther.
    """
    time = np.linspace(-0.5, 0.5, moments) * rng.uniform(*EXPOSURE)
    frequency = rng.uniform(*TREMBLING, (3, 5, 1))
    size, phase = rng.standard_normal((3, 5, 1)) / frequency, rng.uniform(0, 7, (3, 5, 1))
    swinging = (size * np.sin(2 * np.pi * frequency * time + phase)).sum(axis=1)
    path = swinging + 2 * rng.standard_normal((3, 1)) * time
    path -= path.mean(axis=1, keepdims=True)
    path *= extent / np.hypot(*np.ptp(path[:2], axis=1))
    return path * np.array([[1], [1], [0.5]])


def filmed(
    clean: Image,
    rng: np.random.Generator,
    extent: float,
    responses: NDArray[np.float64] | None = None,
    thing: bool = False,
) -> Image:
    """The exposure of ``(H, W, 3)``, encoded, in [0, 1]; on its mean it looks at ``clean``.

    ``extent`` is the diagonal in pixels of the rectangle that the path fills. Of the camera's
    ``responses``, light to code over an even grid, one in a row, any is taken; by default it is a
    gamma of 2.2. With a ``thing``, part of the photo moves against the rest.
    """
    height, width = clean.shape[:2]
    size = (2 * width, 2 * height)
    if responses is None:
        responses = np.linspace(0, 1, 256)[None] ** (1 / 2.2)
    code = responses[rng.integers(len(responses))]
    grid = np.linspace(0, 1, len(code))

    def to_light(image: Image) -> Image:
        return np.interp(image, code, grid).astype(np.float32)

    def project(image: Image, view: NDArray[np.float64]) -> Image:
        return cv2.warpPerspective(
            image, view, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )

    light = to_light(clean)
    scene = cv2.resize(light, size, interpolation=cv2.INTER_CUBIC)
    for _ in range(5):  # back-projection: the scene reduced is the photo, not softer than it
        missing = light - cv2.resize(scene, (width, height), interpolation=cv2.INTER_AREA)
        scene += cv2.resize(missing, size, interpolation=cv2.INTER_CUBIC)
    path, own = tremor(rng, FRAMES * MOMENTS, 2 * extent), tremor(rng, FRAMES * MOMENTS, extent)
    focal = 3.0 * width
    centre = np.array([[1, 0, width], [0, 1, height], [0, 0, 1]], float)
    camera = centre @ np.diag([focal, focal, 1.0])
    mask = np.zeros(scene.shape[:2], np.float32)
    place, axes = rng.uniform(0.6, 1.4, 2) * (width, height), rng.uniform(0.6, 1.4, 2) * width
    cv2.ellipse(mask, (tuple(place), tuple(axes), rng.uniform(0, 180)), 1.0, -1, cv2.LINE_AA)
    settings = [
        *(cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(*QUALITY))),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    ]
    total = np.zeros_like(clean)
    for frame in range(FRAMES):
        exposed = np.zeros_like(scene)
        for at in range(MOMENTS * frame, MOMENTS * (frame + 1)):
            pan, tilt, roll = path[:, at] / (focal, focal, width)
            turned, _ = cv2.Rodrigues(np.array([tilt, -pan, roll]))
            view = camera @ turned @ np.linalg.inv(camera)
            seen = project(scene, view)
            if thing:
                shift = np.array([[1, 0, own[0, at]], [0, 1, own[1, at]], [0, 0, 1]]) @ view
                cover = project(mask, shift)[..., None]
                seen = cover * project(scene, shift) + (1 - cover) * seen
            exposed += seen
        small = cv2.resize(exposed / MOMENTS, (width, height), interpolation=cv2.INTER_AREA)
        pixels = np.rint(255 * np.interp(small, grid, code)).astype(np.uint8)
        _, file = cv2.imencode(".jpg", pixels[..., ::-1], settings)
        total += to_light(cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1] / np.float32(255))
    return (np.rint(255 * np.interp(total / FRAMES, grid, code)) / 255).astype(np.float32)
