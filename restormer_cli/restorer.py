"""Restores one image in memory: normalise → pad → network → crop → clamp."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from restormer_cli.errors import ImageError, UsageError
from restormer_cli.images.codecs.base import Pixels
from restormer_cli.images.pixels import Floats, normalise, quantise
from restormer_cli.network import devices
from restormer_cli.network.architecture import SIZE_MULTIPLE, Restormer
from restormer_cli.network.device_errors import first_line, is_out_of_memory
from restormer_cli.network.device_memory import WHOLE, Shares
from restormer_cli.network.memory_plan import (
    CPU_STRIP_BYTES,
    MemoryBudgetError,
    Plan,
    check_size,
    plan_memory,
    room_for,
)
from restormer_cli.network.self_check import load_checked
from restormer_cli.network.streaming import Progress
from restormer_cli.settings import Settings, check_window, tiling, windowing
from restormer_cli.symmetries import AS_IT_IS, SYMMETRIES

#: Number of small images that are restored at once, if together they fit into a strip. Measured
#: with 24 channels on one core: images of 32×32 then take a half (float32) or a third (bfloat16) of
#: their time, those of 48×48 gain nearly nothing. A single image of its size takes three times its
#: usual time.
TOGETHER = 8
LARGEST_TOGETHER = 64 * 64
#: On a CUDA card, launching a step takes longer than a small image in it. Not measured.
TOGETHER_ON_CARD = 16
PIXELS_TOGETHER_ON_CARD = 256 * 256


class Restorer:
    """A network that is called with an image.

    Parameters
    ----------
    network
        The network; its parameters are copied.
    views
        Images that make one input: two for dual-pixel networks.
    device, dtype
        Device and precision to compute with.
    max_memory
        Most bytes of memory at the peak; by default most of the free memory.
    shares
        Share of that memory, if other processes like this one use it as well.
    tile, tile_overlap
        Restore in overlapping square tiles and average them, as the authors' scripts do. The
        result differs from that of the whole image; it is for comparison with theirs.
    window
        Take the statistics of attention over overlapping local windows of so many rows and
        columns, a multiple of 8; None: over the whole image. See
        :mod:`restormer_cli.network.windows`.
    self_ensemble
        Give the mean over flips and turns of the image: a name in
        :data:`restormer_cli.symmetries.SYMMETRIES`; None: the image is restored once, as it is.
    settings
        Settings of the results for the journal of a folder, by which a later run knows its own
        results; by default a hash of the network's parameters, and all that is named above and
        changes results.

    Raises
    ------
    UsageError
        If the tile or the window is no multiple of 8, the tile not larger than the overlap, there
        are no symmetries of that name, or the device cannot be used or gives wrong results: on a
        GPU, one small image is restored and compared.
    """

    def __init__(
        self,
        network: Restormer,
        *,
        views: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        max_memory: int | None = None,
        shares: Shares = WHOLE,
        tile: int | None = None,
        tile_overlap: int = 32,
        window: int | None = None,
        self_ensemble: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        if tile is not None and (tile < SIZE_MULTIPLE or tile % SIZE_MULTIPLE):
            raise UsageError(f"--tile must be a multiple of {SIZE_MULTIPLE}, not {tile}")
        if tile is not None and not 0 <= tile_overlap < tile:
            raise UsageError("--tile-overlap must be from 0 to less than --tile")
        if window is not None:
            check_window(window)
        if self_ensemble is not None and self_ensemble not in SYMMETRIES:
            known = ", ".join(SYMMETRIES)
            raise UsageError(f"no symmetries {self_ensemble!r} to average over; there are {known}")
        self.config = network.config
        self.views = views
        self.engine = load_checked(network, device, dtype)
        self.max_memory, self.shares = max_memory, shares
        self.tile, self.tile_overlap = tile, tile_overlap
        self.window = window
        self.symmetries = SYMMETRIES[self_ensemble] if self_ensemble else (AS_IT_IS,)
        self.settings = settings or Settings(
            weights=_fingerprint(network),
            precision=devices.precision_name(dtype),
            tile=tiling(tile, tile_overlap),
            window=windowing(window),
            self_ensemble=self_ensemble,
        )

    def __call__(
        self, *views: Pixels, bit_depth: int | None = None, progress: Progress | None = None
    ) -> Pixels:
        """Restore one image.

        Parameters
        ----------
        views
            uint8 or uint16 ``(H, W, 3)`` RGB or ``(H, W, 1)`` gray; left and right for dual
            pixels. A colour network takes gray as three equal channels and its three results
            are averaged; a gray network restores the channels of a colour image one by one.
        bit_depth
            8 or 16, of the result; by default that of the input.
        progress
            Called with the fraction of the work that is done.

        Returns
        -------
        ndarray
            ``(H, W, C)`` of the same size and channels.

        Raises
        ------
        ImageError
            If the views do not fit together, memory is too small, or the result is not finite.
        """
        image = self._input(views)
        channels = views[0].shape[2]
        if channels > self.config.inp_channels // self.views:
            planes = [
                self._restored(
                    image[None, ..., plane : plane + 1], _part(progress, plane, channels)
                )
                for plane in range(channels)
            ]
            restored = np.concatenate(planes, axis=-1)
        elif self.images_together(*views[0].shape) > 1:
            return self.restore_together([views], bit_depth=bit_depth, progress=progress)[0]
        else:
            restored = self._restored(image[None], progress)
        return _output(restored[0], channels, bit_depth or _bits(views[0]))

    def check_size(self, height: int, width: int) -> None:
        """Check that an image of this size fits into memory, before it is decoded.

        Raises
        ------
        ImageError
            If it can never fit.
        """
        check_size(self.config, height, width, self.engine.device, self.max_memory)

    def room_for(self, height: int, width: int) -> tuple[int, int]:
        """Bytes of main memory that are available now, and that an image of this size needs."""
        available, needed = room_for(
            self.config,
            *self._at_once(height, width),
            self.engine.device,
            self.engine.dtype,
            self.max_memory,
            shares=self.shares,
            window=self.window,
        )
        whole = 0 if self.tile is None else 8 * height * width * self.config.out_channels
        if len(self.symmetries) > 1:  # their sum
            whole += 4 * height * width * self.config.out_channels
        return available, needed + whole

    def images_together(self, height: int, width: int, channels: int) -> int:
        """Number of images of this size that are best restored together; 1 if it gains nothing."""
        if self.tile is not None or channels > self.config.inp_channels // self.views:
            return 1
        pixels = _padded(height) * _padded(width)
        device = self.engine.device.type
        if device == "cuda":
            return max(1, min(TOGETHER_ON_CARD, PIXELS_TOGETHER_ON_CARD // pixels))
        if device == "mps":  # where grouped convolutions of several images have been wrong
            return 1
        # In either precision, so that the same images go together.
        fits = TOGETHER * pixels * 2 * self.config.dim * 2 <= CPU_STRIP_BYTES
        return TOGETHER if fits and pixels <= LARGEST_TOGETHER else 1

    def restore_together(
        self,
        batch: Sequence[tuple[Pixels, ...]],
        *,
        bit_depth: int | None = None,
        progress: Progress | None = None,
    ) -> list[Pixels]:
        """Restore up to :meth:`images_together` images of one size.

        Each result is independent of the others and of their number: matrix products of other
        sizes may round differently, so the batch is always filled up to the full number.

        Parameters and exceptions are those of a call, with the views of each image in ``batch``.
        """
        height, width, channels = batch[0][0].shape
        images = [self._input(views) for views in batch]
        images += images[-1:] * (self.images_together(height, width, channels) - len(images))
        restored = self._restored(np.stack(images), progress)
        return [
            _output(image, channels, bit_depth or _bits(views[0]))
            for image, views in zip(restored, batch, strict=False)  # without those filled up
        ]

    def _input(self, views: tuple[Pixels, ...]) -> Floats:
        """Make the input ``(H, W, C)``; C may be more, for planes restored one by one."""
        if len(views) != self.views:
            raise ImageError(f"this network takes {self.views} images at once, not {len(views)}")
        if len({view.shape for view in views}) > 1:
            kinds = " and ".join(
                f"{v.shape[1]}×{v.shape[0]}, {'gray' if v.shape[2] == 1 else 'colour'}"
                for v in views
            )
            raise ImageError(f"the two views differ in size or channels ({kinds})")
        planes = [normalise(view) for view in views]
        expected = self.config.inp_channels // self.views
        if views[0].shape[2] < expected:
            planes = [np.repeat(plane, expected, axis=2) for plane in planes]
        return np.concatenate(planes, axis=2) if len(planes) > 1 else planes[0]

    def unrounded(self, image: Floats) -> Floats:
        """Restore without rounding, for measurements.

        Parameters
        ----------
        image
            float32 ``(H, W, C)`` about [0, 1] with the channels of the network; for dual pixels
            the left view before the right one.

        Returns
        -------
        ndarray
            float32 ``(H, W, C)`` of the network's channels, not clamped.

        Raises
        ------
        ImageError
            If memory is too small.
        """
        restored: Floats = self._restored(image[None], None)[0]
        return restored

    def _restored(self, images: Floats, progress: Progress | None) -> Floats:
        """What comes of ``(N, H, W, C)``, of the same size: the mean over the symmetries."""
        if self.symmetries == (AS_IT_IS,):
            return self._cropped(images, progress)
        # Filled, since zeros would take memory only when they are added to: what is left for the
        # passes is known when the sum is there.
        total = np.full((*images.shape[:-1], self.config.out_channels), 0, np.float32)
        for shape in {symmetry.apply(images).shape for symmetry in self.symmetries}:
            # Before work begins rather than in the third pass.
            self._plan(torch.Size((1, 0, *self._at_once(*shape[1:3]))))
        passes = len(self.symmetries)
        for number, symmetry in enumerate(self.symmetries):
            held = symmetry.apply(images)
            total += symmetry.undo(self._cropped(held, _part(progress, number, passes)))
        total /= np.float32(passes)
        return total

    def _cropped(self, images: Floats, progress: Progress | None) -> Floats:
        """What comes of ``(N, H, W, C)``, held as it is: padded, restored, cropped."""
        height, width = images.shape[1:3]
        padded = torch.from_numpy(np.ascontiguousarray(pad(images)))
        restored = self._run(padded.permute(0, 3, 1, 2), progress)
        cropped: Floats = restored.permute(0, 2, 3, 1)[:, :height, :width].numpy()
        return cropped

    def _run(self, image: Tensor, progress: Progress | None) -> Tensor:
        """Restore ``(N, C, H, W)``, whole or in tiles; for tiles N is 1."""
        if self.tile is None:
            return self._run_whole(image, progress)
        height, width = image.shape[2:]
        tile = min(self.tile, height, width)
        # Tiles that shrank to a small image must still advance.
        overlap = self.tile_overlap if self.tile_overlap < tile else tile // 2
        tops = tile_positions(height, tile, overlap)
        lefts = tile_positions(width, tile, overlap)
        total = image.new_zeros(1, self.config.out_channels, height, width)
        counts = torch.zeros_like(total)
        for number, (top, left) in enumerate((top, left) for top in tops for left in lefts):
            part = (..., slice(top, top + tile), slice(left, left + tile))
            total[part] += self._run_whole(image[part].contiguous(), None)
            counts[part] += 1
            if progress is not None:
                progress((number + 1) / (len(tops) * len(lefts)))
        return total / counts

    def _at_once(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns that the network gets of an image: all, padded, or those of a tile."""
        rows, columns = _padded(height), _padded(width)
        if self.tile is None:
            return rows, columns
        return min(rows, self.tile), min(columns, self.tile)

    def _run_whole(self, image: Tensor, progress: Progress | None) -> Tensor:
        engine, plan, said = self.engine, None, ""
        with _working_on(engine.device):
            while True:
                plan = self._plan(image.shape, failed=plan, said=said)
                try:
                    return engine(image, plan, progress, self.window)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    said = first_line(error)
                # Outside the handler, where the failed attempt's tensors are no longer held.
                _empty_cache(engine.device)

    def _plan(self, shape: torch.Size, *, failed: Plan | None = None, said: str = "") -> Plan:
        """A plan that is more frugal than one that the device has answered with ``said``."""
        engine = self.engine
        count, _, height, width = shape
        sizes = (self.config, height, width, engine.device, engine.dtype, self.max_memory)
        try:
            return plan_memory(
                *sizes, count=count, shares=self.shares, failed=failed, window=self.window
            )
        except MemoryBudgetError as error:
            if failed is None:
                raise
            what = f"{engine.device} ran out of memory for {width}×{height} pixels ({said})"
            raise ImageError(what) from error


def _working_on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Make a card the current one: what names none would wake up another, and take memory there."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _empty_cache(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _part(progress: Progress | None, number: int, count: int) -> Progress | None:
    """What the progress of one of ``count`` equal parts is told to."""
    if progress is None:
        return None
    return lambda share: progress((number + share) / count)


def _fingerprint(network: Restormer) -> str:
    """Hash the parameters; in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _padded(size: int) -> int:
    """The next multiple of 8."""
    return size + -size % SIZE_MULTIPLE


def _bits(view: Pixels) -> int:
    return 8 * view.dtype.itemsize


def _output(image: Floats, channels: int, bit_depth: int) -> Pixels:
    """Turn an output ``(H, W, C)`` of the network into pixels of so many channels."""
    if channels < image.shape[2]:
        image = image.mean(axis=2, keepdims=True)
    return quantise(image, bit_depth)


def pad(images: Floats) -> Floats:
    """Pad ``(…, H, W, C)`` by reflection at the bottom and right, to multiples of 8.

    An image that is smaller than the padding is reflected repeatedly.
    """
    bottom, right = (-size % SIZE_MULTIPLE for size in images.shape[-3:-1])
    if not bottom and not right:
        return images
    around = ((0, 0),) * (images.ndim - 3) + ((0, bottom), (0, right), (0, 0))
    return np.pad(images, around, mode="reflect")


def tile_positions(size: int, tile: int, overlap: int) -> list[int]:
    """Positions of tiles along one side, ``tile - overlap`` apart; the last ends at the edge."""
    return [*range(0, size - tile, tile - overlap), size - tile]
