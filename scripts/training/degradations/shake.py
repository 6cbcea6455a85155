"""Motion blur as cameras make it, synthesised in batches on any device.

A high-speed camera would see the scene of a shaken exposure as a row of frames, each a little
displaced against the last; the exposure is their mean, in light. :func:`shake` makes these frames
from one sharp crop and averages them:

- the camera moves along a smooth curve, and turns, comes nearer and tilts along others; rows are
  read one after the other (rolling shutter);
- near things are displaced farther than distant ones, and some samples show a thing from another
  photo that moves by itself in front and hides what is behind it;
- some crops are out of focus, in places or everywhere, and stay so;
- frames may be softened, sharpened and compressed before they are averaged, as those of the
  GoPro data set are (Nah et al., "Deep Multi-scale Convolutional Neural Network for Dynamic Scene
  Deblurring", CVPR 2017), and are averaged as encoded, or in the light that a camera response
  curve says they stand for, with highlights brighter than white in some;
- noise, rounding and sometimes JPEG come after.

The sharp image is the crop, which the frames are displaced from by nothing on their mean: blur
tells where a thing was on the mean of an exposure, not where it was in its middle, and a network
that must guess how far the two are apart learns to stay soft. What a sample is like is drawn on the
CPU from a generator of its own; images stay on the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from degradations.defocus import disk_kernel

Array = NDArray[np.float64]

#: Shares of training samples: sharp ones come back as they are; slight, usual and strong shakes
#: have extents in pixels drawn uniformly from these ranges.
EXTENTS = (
    (0.12, (0.0, 0.0)),
    (0.13, (0.2, 3.0)),
    (0.65, (2.0, 25.0)),
    (0.10, (20.0, 40.0)),
)
#: Numbers of frames that an exposure is averaged from; the least that samples the path is taken.
FRAMES = (8, 12, 16, 24, 32)
#: Frames a pixel of the path. Fewer would leave ghosts, which real blur has not.
FRAMES_PER_PIXEL = 0.6
#: Displacement by rotation, zoom and keystone at the crop's edge, as a share of the extent (σ).
ROTATION, ZOOM, KEYSTONE = 0.35, 0.15, 0.1
#: Harmonics of the curves beside the straight line, and the range of their decay: from straight
#: and even to swinging.
HARMONICS, DECAY = 3, (0.0, 0.35)
#: Largest share of the exposure between the first and the last row's start.
ROLLING = 0.5
#: Share of samples with a depth that varies smoothly, and how much it changes the displacement.
RELIEF_SHARE, RELIEF = 0.4, 0.35
#: Share of samples with a thing in front that moves by itself, and with a camera at rest then.
OBJECT_SHARE, TRIPOD_SHARE = 0.25, 0.2
#: Share of samples whose crop is out of focus first, the largest radius of its disk in pixels, and
#: the share of these that are so in some places only. They are to stay so: a network that has not
#: seen any takes soft backgrounds for shake, and draws rims around them.
SOFT_SHARE, SOFT_RADIUS, SOFT_IN_PARTS = 0.4, 9.0, 0.6
#: Share of samples whose crop is made to look like a video frame, the σ in pixels of the
#: softening and the amount of the sharpening after it.
VIDEO_SHARE, VIDEO_SOFTNESS, VIDEO_SHARPENING = 0.45, (0.4, 0.9), (0.0, 0.6)
#: Share of these whose frames are compressed before they are averaged, and their JPEG quality.
COMPRESSED_SHARE, COMPRESSED_QUALITY = 0.3, (80, 98)
#: Share of samples that are saved as JPEG at last, and its quality.
JPEG_SHARE, JPEG_QUALITY = 0.08, (85, 99)
#: Responses that exposures are averaged with: encoded values, a gamma of 2.2, sRGB, measured.
RESPONSE_SHARES = (0.35, 0.25, 0.2, 0.2)
#: Share of samples averaged in light whose highlights were brighter than white, up to this gain.
HIGHLIGHT_SHARE, HIGHLIGHT_GAIN = 0.25, 4.0
#: Strongest noise in 8-bit grey levels; the square of a uniform draw makes weak noise frequent.
NOISE = 2.0
#: Entries of a response curve.
CURVE = 1024


def read_responses(folder: Path, held_out: bool = False) -> Array:
    """Measured camera responses ``(N, CURVE)``, light to encoded value, both in [0, 1].

    From ``201_CRF_data.mat`` in ``folder`` (Grossberg and Nayar, "What is the Space of Camera
    Response Functions?", CVPR 2003). Every third is ``held_out``, to measure on.
    """
    from scipy.io import loadmat  # comes with scikit-image

    data = loadmat(folder / "201_CRF_data.mat")
    grid = np.linspace(0, 1, CURVE)
    pairs = enumerate(zip(data["I"], data["B"], strict=True))
    return np.stack([np.interp(grid, i, b) for n, (i, b) in pairs if (n % 3 == 2) == held_out])


def _srgb(light: Array) -> Array:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


# --- What a sample is like ------------------------------------------------------------------


@dataclass(frozen=True)
class Curves:
    """How something moves during an exposure.

    ``coefficients`` ``(5, 1 + 2 · HARMONICS)`` are those of shift down, shift right, rotation,
    zoom and keystone over time from -1 to 1: a line and sines and cosines. Shifts are in pixels,
    the others in pixels at half a crop's side from its centre.
    """

    coefficients: Array
    length: float
    """Length of the path in pixels, at the edge of the crop."""


def basis(time: Array) -> Array:
    """The functions of :class:`Curves` at ``time``, ``(..., 1 + 2 · HARMONICS)``."""
    angles = math.pi * time[..., None] * np.arange(1, HARMONICS + 1)
    return np.concatenate([time[..., None], np.sin(angles), np.cos(angles)], axis=-1)


def random_curves(rng: np.random.Generator, extent: float, turn: float = 1.0) -> Curves:
    """Smooth curves whose shift fills a circle of diameter ``extent`` pixels, from its mean.

    ``turn`` scales what is no shift.
    """
    decay = rng.uniform(*DECAY)
    falloff = decay ** np.arange(1, HARMONICS + 1)
    scale = np.concatenate([[1.0], falloff, falloff])
    coefficients = rng.standard_normal((5, 1 + 2 * HARMONICS)) * scale
    times = basis(np.linspace(-1, 1, 65))
    path = coefficients @ times.T
    path -= path.mean(axis=1, keepdims=True)
    size = np.abs(path).max(axis=1)
    size[:2] = np.hypot(*path[:2]).max()
    wanted = np.abs(rng.standard_normal(3)) * (ROTATION, ZOOM, KEYSTONE) * turn
    coefficients *= np.array([0.5, 0.5, *wanted])[:, None] * extent / size[:, None]
    steps = np.abs(np.diff(coefficients @ times.T, axis=1)).sum(axis=1)
    return Curves(coefficients, float(np.hypot(*steps[:2]) + steps[2:].sum()))


@dataclass(frozen=True)
class Waves:
    """A smooth random map of mean 0 and variance 1: a sum of plane waves."""

    frequency: Array
    phase: Array


def random_waves(rng: np.random.Generator, scale: float) -> Waves:
    """Features of about ``scale`` pixels."""
    return Waves(rng.standard_normal((4, 2)) / scale, rng.uniform(0, 2 * math.pi, 4))


@dataclass(frozen=True)
class Sample:
    """All that is random about one sample but its noise."""

    camera: Curves
    rolling: float
    relief: tuple[float, Waves]
    thing: tuple[Curves, Waves, float] | None
    """How the thing in front moves, its shape, and the level above which the shape is."""
    soft: tuple[float, Waves | None, float] | None
    """Radius of what is out of focus, and where: above a level, or everywhere."""
    duty: tuple[int, float]
    """Frames of the high-speed camera, and the share of its time that each is open."""
    video: tuple[float, float, float | None] | None
    """Softening σ, amount of sharpening, and JPEG quality if frames are compressed."""
    response: Array
    gain: float
    """How much brighter than white the highlights were."""
    noise: float
    coarse: float
    """σ in pixels of a Gaussian that makes neighbours in the noise alike."""
    quality: float | None
    """Of the JPEG file, if it is one."""
    offset: tuple[int, int]
    """Where the grid of JPEG blocks begins."""
    jitter: Array

    @property
    def still(self) -> bool:
        """True if nothing moved: the sample is given back as it is."""
        return self.camera.length == 0 and self.thing is None

    @property
    def frames(self) -> int:
        """How many frames sample the longest path."""
        length = max(self.camera.length, self.thing[0].length if self.thing else 0)
        enough = [count for count in FRAMES if count >= FRAMES_PER_PIXEL * length + 4]
        return enough[0] if enough else FRAMES[-1]


def random_sample(
    rng: np.random.Generator, responses: Array | None = None, extent: float | None = None
) -> Sample:
    """Draw a sample; its ``extent`` in pixels as :data:`EXTENTS` says, if it is not given."""
    if extent is None:
        shares = [share for share, _ in EXTENTS]
        extent = rng.uniform(*EXTENTS[rng.choice(len(EXTENTS), p=shares)][1])
    camera = random_curves(rng, extent)
    thing = None
    if extent and rng.random() < OBJECT_SHARE:
        own = random_curves(rng, extent * rng.uniform(0.2, 1.2), turn=0.5)
        nearer = rng.uniform(1, 1.5)
        if rng.random() < TRIPOD_SHARE:
            camera = Curves(0 * camera.coefficients, 0.0)
        moves = Curves(
            own.coefficients + nearer * camera.coefficients, own.length + nearer * camera.length
        )
        thing = moves, random_waves(rng, rng.uniform(25, 90)), rng.uniform(-0.3, 1.0)
    grid = np.linspace(0, 1, CURVE)
    kind = rng.choice(4, p=RESPONSE_SHARES)
    gain = 0.0
    if kind == 3 and responses is not None:
        response = responses[rng.integers(len(responses))]
    else:
        response = (grid, grid ** (1 / 2.2), _srgb(grid), _srgb(grid))[kind]
    if kind and rng.random() < HIGHLIGHT_SHARE:
        gain = rng.uniform(0, HIGHLIGHT_GAIN)
    video = None
    if rng.random() < VIDEO_SHARE:
        quality = rng.uniform(*COMPRESSED_QUALITY) if rng.random() < COMPRESSED_SHARE else None
        video = rng.uniform(*VIDEO_SOFTNESS), rng.uniform(*VIDEO_SHARPENING), quality
    soft = None
    if rng.random() < SOFT_SHARE:
        where = random_waves(rng, 60) if rng.random() < SOFT_IN_PARTS else None
        soft = 1 + (SOFT_RADIUS - 1) * rng.random() ** 1.5, where, rng.uniform(-0.5, 0.5)
    return Sample(
        camera=camera,
        rolling=rng.uniform(-ROLLING, ROLLING),
        relief=(
            rng.uniform(0, RELIEF) if rng.random() < RELIEF_SHARE else 0.0,
            random_waves(rng, rng.uniform(40, 150)),
        ),
        thing=thing,
        soft=soft,
        duty=(int(rng.integers(3, 8)) * 2 - 1, rng.uniform(0.4, 1) if rng.random() < 0.4 else 1.0),
        video=video,
        response=response,
        gain=gain,
        noise=NOISE * rng.random() ** 2,
        coarse=rng.uniform(0, 1) if rng.random() < 0.5 else 0.0,
        quality=rng.uniform(*JPEG_QUALITY) if rng.random() < JPEG_SHARE else None,
        offset=(int(rng.integers(8)), int(rng.integers(8))),
        jitter=rng.uniform(0, 1, FRAMES[-1]),
    )


@dataclass(frozen=True)
class Shaking:
    """What :func:`random_sample` draws from."""

    responses: Array | None = None
    """Measured camera responses ``(N, CURVE)``, if there are any."""

    def draw(self, rng: np.random.Generator) -> Sample:
        """A sample for training."""
        return random_sample(rng, self.responses)


# --- Steps on batches of images -------------------------------------------------------------


def look_up(values: Tensor, curves: Tensor) -> Tensor:
    """Map ``(N, C, H, W)``, clamped to [0, 1], by a curve ``(N, CURVE)`` each, interpolated."""
    place = values.clamp(0, 1) * (CURVE - 1)
    below = place.floor().clamp_(max=CURVE - 2)
    first = CURVE * torch.arange(len(curves), device=values.device)[:, None, None, None]
    index = below.long() + first
    low = curves.take(index)
    return low + (curves.take(index + 1) - low) * (place - below)


def gaussian(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur ``(N, C, H, W)`` with a σ in pixels ``(N,)`` each, 1.5 at most."""
    at = torch.arange(-4, 5, device=images.device)
    kernel = torch.exp(-0.5 * (at / sigma[:, None].clamp(min=1e-3)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(images.shape[1], 0)
    flat = images.flatten(0, 1)[None]
    groups = flat.shape[1]
    flat = F.conv2d(
        F.pad(flat, (4, 4, 4, 4), mode="reflect"), kernel[:, None, None, :], groups=groups
    )
    return F.conv2d(flat, kernel[:, None, :, None], groups=groups)[0].unflatten(0, images.shape[:2])


@lru_cache
def _jpeg_constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """DCT matrix, luma and chroma steps at quality 50 (ITU-T T.81, annex K), RGB to YCbCr."""
    k, n = np.mgrid[:8, :8]
    dct = np.cos(math.pi * (2 * n + 1) * k / 16) * np.where(k == 0, math.sqrt(1 / 8), 0.5)
    luma = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29
    51 87 80 62 18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101
    72 92 95 98 112 100 103 99"""
    chroma = np.full((8, 8), 99.0)
    chroma[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
    to_ycc = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    arrays = (dct, np.array(luma.split(), float).reshape(8, 8), chroma, np.array(to_ycc))
    return tuple(  # type: ignore[return-value]
        torch.tensor(array, dtype=torch.float32, device=device) for array in arrays
    )


def _compress_plane(plane: Tensor, steps: Tensor, dct: Tensor) -> Tensor:
    """Round the DCT of 8×8 blocks of ``(N, H, W)`` to multiples of ``steps`` ``(N, 8, 8)``."""
    count, height, width = plane.shape
    blocks = plane.view(count, height // 8, 8, width // 8, 8).transpose(2, 3)
    steps = steps[:, None, None]
    rounded = (dct @ blocks @ dct.T / steps).round() * steps
    return (dct.T @ rounded @ dct).transpose(2, 3).reshape(plane.shape)


def jpeg(images: Tensor, quality: Tensor, offset: tuple[int, int] = (0, 0)) -> Tensor:
    """What JPEG of a ``quality`` ``(N,)`` leaves of RGB ``(N, 3, H, W)`` in [0, 1].

    Chroma has half the resolution; the grid of blocks begins ``offset``, down and right, before
    the images.
    """
    dct, luma, chroma, to_ycc = _jpeg_constants(images.device)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None] / 100
    height, width = images.shape[2:]
    (top, left), bottom, right = offset, -(height + offset[0]) % 16, -(width + offset[1]) % 16
    padded = F.pad(images.clamp(0, 1), (left, right, top, bottom), mode="replicate")
    y, *colours = (torch.einsum("kc,nchw->knhw", to_ycc, padded) * 255).unbind()
    y = _compress_plane(y - 128, (luma * scale).round().clamp(min=1), dct) + 128
    steps = (chroma * scale).round().clamp(min=1)
    small = [_compress_plane(F.avg_pool2d(c[:, None], 2)[:, 0], steps, dct) for c in colours]
    blue, red = (
        F.interpolate(c[:, None], scale_factor=2, mode="bilinear", align_corners=False)[:, 0]
        for c in small
    )
    rgb = torch.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], 1)
    return rgb[..., top : top + height, left : left + width].round().clamp(0, 255) / 255


def wave_map(waves: list[Waves], size: int, device: torch.device) -> Tensor:
    """The maps ``(N, size, size)``."""
    frequency, phase = (
        torch.tensor(np.stack([getattr(w, name) for w in waves]), dtype=torch.float32).to(device)
        for name in ("frequency", "phase")
    )
    at = torch.arange(size, device=device)
    down, right = (
        torch.polar(torch.ones_like(angle), angle)
        for angle in (frequency[..., :1] * at + phase[..., None], frequency[..., 1:] * at)
    )
    # cos(a + b) summed over the waves is the real part of a product of matrices.
    return (down.mT @ right).real * math.sqrt(2 / frequency.shape[1])


def displacements(
    curves: list[Curves], times: Array, rolling: Array, size: int, device: torch.device
) -> Tensor:
    """Rows of the displacement of frames at ``times`` ``(N, F)``: ``(N, F, size, 4)``.

    The last axis holds the shift down and right of a row's middle, and what both grow by from
    there over half a crop's width. The mean over the frames is 0 for each row.
    """
    row = np.linspace(-1, 1, size)
    moved = basis(times[..., None] + rolling[:, None, None] * row)
    moved -= moved.mean(axis=1, keepdims=True)
    coefficients = np.stack([c.coefficients for c in curves])
    down, right, turn, zoom, tilt = np.einsum("nck,nfrk->cnfr", coefficients, moved)
    rows = np.stack(
        [down + zoom * row + tilt * row**2, right - turn * row, turn + tilt * row, zoom], axis=-1
    )
    return torch.tensor(rows, dtype=torch.float32).to(device)


def warp(images: Tensor, rows: Tensor, relief: Tensor | None = None) -> Tensor:
    """The middle of the frames of ``images`` ``(N, C, S, S)``, as ``(N, C, F, R, R)``, cubic.

    ``rows`` are :func:`displacements` of R rows; ``relief`` ``(N, R, R)`` says by what share
    farther a place is displaced. What lies outside the images is their border, continued.
    """
    count, channels, size, _ = images.shape
    frames, inner = rows.shape[1:3]
    column = torch.linspace(-1, 1, inner, device=images.device)
    down, right = (rows[..., at, None] + rows[..., at + 2, None] * column for at in (0, 1))
    if relief is not None:
        down, right = (moved * (1 + relief[:, None]) for moved in (down, right))
    place = torch.arange(inner, device=images.device, dtype=torch.float32) + (size - inner) / 2
    # Coordinates from -1 to 1 are what grid_sample takes; frames lie below each other.
    grid = torch.stack([right + place, down + place[:, None]], dim=-1) * (2 / (size - 1)) - 1
    seen = F.grid_sample(
        images,
        grid.flatten(1, 2),
        mode="bicubic",
        padding_mode="border",
        align_corners=True,
    )
    return seen.view(count, channels, frames, inner, inner)


# --- The whole ------------------------------------------------------------------------------


def _floats(values: list[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def _times(sample: Sample, frames: int) -> Array:
    """When the frames are, from -1 to 1: at random in equal parts of the exposure."""
    even = (np.arange(frames) + sample.jitter[:frames]) / frames
    count, duty = sample.duty
    frame = np.floor(even * count)
    return 2 * (frame + 0.5 + duty * (even * count - frame - 0.5)) / count - 1


def _out_of_focus(crops: Tensor, samples: list[Sample]) -> Tensor:
    """Crops ``(N, 3, S, S)`` with what their samples have out of focus, in light."""
    crops = crops.clone()
    for n, sample in enumerate(samples):
        if sample.soft is None:
            continue
        radius, where, level = sample.soft
        disk = torch.from_numpy(disk_kernel(radius)).to(crops.device)
        sharp = crops[n, :, None]
        light = F.pad(sharp, (len(disk) // 2,) * 4, mode="reflect").clamp(0, 1) ** 2.2
        there = F.conv2d(light, disk[None, None]).clamp(0, 1) ** (1 / 2.2)
        if where is not None:
            shape = wave_map([where], crops.shape[-1], crops.device)
            cover = (0.5 + 2 * (shape - level)).clamp(0, 1)
            there = cover * there + (1 - cover) * sharp
        crops[n] = (there[:, 0] * 255).round() / 255
    return crops


def _video(crops: Tensor, samples: list[Sample]) -> Tensor:
    """Crops as a video camera renders them: softened, then sharpened."""
    chosen = [n for n, s in enumerate(samples) if s.video]
    if not chosen:
        return crops
    softness = _floats([s.video[0] for s in samples if s.video], crops.device)
    amount = _floats([s.video[1] for s in samples if s.video], crops.device)
    soft = gaussian(crops[chosen], softness)
    unsharp = gaussian(soft, torch.full_like(softness, 1.2))
    sharpened = soft + amount[:, None, None, None] * (soft - unsharp)
    crops = crops.clone()
    crops[chosen] = ((sharpened.clamp(0, 1) * 255).round()) / 255
    return crops


def _exposure(
    scene: Tensor, others: Tensor, samples: list[Sample], frames: int, margin: int
) -> tuple[Tensor, Tensor]:
    """Blurred and sharp ``(N, 3, R, R)`` of samples that take so many frames, margins cut off.

    ``others`` holds what the things in front look like; either all samples have one or none.
    """
    device, size = scene.device, scene.shape[-1]
    inside = slice(margin, size - margin)
    inner = size - 2 * margin
    times = np.stack([_times(s, frames) for s in samples])
    rolling = np.array([s.rolling for s in samples])
    forward = np.stack([s.response for s in samples])
    grid = np.linspace(0, 1, CURVE)
    inverse = np.stack([np.interp(grid, curve, grid) for curve in forward])
    to_code, to_light = (
        torch.tensor(c, dtype=torch.float32).to(device) for c in (forward, inverse)
    )
    gain = _floats([s.gain for s in samples], device)[:, None, None, None]

    def light(codes: Tensor) -> Tensor:
        clipped = (codes * 255 - 254).clamp(0, 1)
        return look_up(codes, to_light) * (1 + gain * clipped)

    relief = None
    if any(s.relief[0] for s in samples):
        strength = _floats([s.relief[0] for s in samples], device)[:, None, None]
        relief = strength * wave_map([s.relief[1] for s in samples], inner, device)
    rows = displacements([s.camera for s in samples], times, rolling, inner, device)
    seen = warp(light(scene), rows, relief)
    sharp = scene[..., inside, inside]
    things = [s.thing for s in samples if s.thing]
    if things:
        level = _floats([thing[2] for thing in things], device)[:, None, None]
        shape = wave_map([thing[1] for thing in things], size, device) - level
        slope = torch.stack(torch.gradient(shape, dim=(1, 2))).square().sum(0).sqrt()
        cover = (0.5 + shape / (slope + 1e-3)).clamp(0, 1)[:, None]
        rows = displacements([thing[0] for thing in things], times, rolling, inner, device)
        front = warp(torch.cat([light(others) * cover, cover], 1), rows)
        seen = front[:, :3] + (1 - front[:, 3:]) * seen
        sharp = light(others) * cover + light(scene) * (1 - cover)
        sharp = (look_up(sharp[..., inside, inside], to_code) * 255).round() / 255
    packed = [s.video[2] if s.video and s.video[2] else 0.0 for s in samples]
    chosen = [n for n, quality in enumerate(packed) if quality]
    for n in chosen:  # the block grid of each lies elsewhere
        quality = _floats([packed[n]], device)
        curves = to_code[n : n + 1], to_light[n : n + 1]
        codes = look_up(seen[n].transpose(0, 1).reshape(1, 3 * frames, inner, inner), curves[0])
        codes = jpeg(codes.view(frames, 3, inner, inner), quality.expand(frames), samples[n].offset)
        back = look_up(codes.view(1, 3 * frames, inner, inner), curves[1])
        seen[n] = back.view(frames, 3, inner, inner).transpose(0, 1)
        sharp = sharp.index_copy(
            0, torch.tensor([n], device=device), jpeg(sharp[n : n + 1], quality, samples[n].offset)
        )
    return look_up(seen.mean(2), to_code), sharp


def shake(
    crops: Tensor, samples: list[Sample], generator: torch.Generator, margin: int
) -> tuple[Tensor, Tensor]:
    """Blurred and sharp patches ``(N, 3, P, P)``, both in [0, 1] and of 8 bits.

    ``crops`` are uint8 ``(N, 3, S, S)``, ``margin`` pixels more than P on each side, from which
    things come into the patch. ``generator``, of the crops' device, makes the noise. What moves by
    itself in a sample is taken from the crop before it.
    """
    device = crops.device
    clean = _video(_out_of_focus(crops.float() / 255, samples), samples)
    inside = slice(margin, crops.shape[-1] - margin)
    sharp = clean[..., inside, inside].clone()
    blurred = sharp.clone()
    before = clean.roll(1, 0)
    groups: dict[tuple[int, bool], list[int]] = {}
    for n, sample in enumerate(samples):
        if not sample.still:
            groups.setdefault((sample.frames, sample.thing is not None), []).append(n)
    for (frames, _), members in groups.items():
        blurred[members], sharp[members] = _exposure(
            clean[members], before[members], [samples[n] for n in members], frames, margin
        )
    moved = [n for n, sample in enumerate(samples) if not sample.still]
    if moved:
        noise = torch.empty(blurred[moved].shape, device=device).normal_(generator=generator)
        strength = _floats([samples[n].noise for n in moved], device)[:, None, None, None]
        smooth = gaussian(noise, _floats([samples[n].coarse for n in moved], device))
        smooth = smooth / smooth.std(dim=(1, 2, 3), keepdim=True)
        noisy = blurred[moved] + strength / 255 * smooth
        blurred[moved] = (noisy.clamp(0, 1) * 255).round() / 255
    for n in moved:
        if (quality := samples[n].quality) is not None:
            one = slice(n, n + 1)
            blurred[one] = jpeg(blurred[one], _floats([quality], device), samples[n].offset)
    return blurred, sharp
