"""Restores one image in memory: normalise → pad → network → crop → clamp."""

from __future__ import annotations

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
from restormer_cli.network.memory_plan import (
    CPU_STRIP_VALUES,
    Plan,
    check_size,
    plan_memory,
    room_for,
)
from restormer_cli.network.streaming import Progress, StreamingRestormer
from restormer_cli.settings import Settings, tiling
from restormer_cli.system.limits import is_memory_message

#: Number of small images that are restored at once, if together they fit into a strip. Measured
#: with 24 channels on one core: images of 32×32 then take a half (float32) or a third (bfloat16) of
#: their time, those of 48×48 gain nearly nothing. A single image of its size takes three times its
#: usual time.
TOGETHER = 8
LARGEST_TOGETHER = 64 * 64


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
    tile, tile_overlap
        Restore in overlapping square tiles and average them, as the authors' scripts do. The
        result differs from that of the whole image; it is for comparison with theirs.
    settings
        Settings of the results for the journal of a folder, by which a later run knows its own
        results; by default a hash of the network's parameters, precision and tiles.

    Raises
    ------
    UsageError
        If the tile is no multiple of 8 or not larger than the overlap.
    """

    def __init__(
        self,
        network: Restormer,
        *,
        views: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        max_memory: int | None = None,
        tile: int | None = None,
        tile_overlap: int = 32,
        settings: Settings | None = None,
    ) -> None:
        if tile is not None and (tile < SIZE_MULTIPLE or tile % SIZE_MULTIPLE):
            raise UsageError(f"--tile must be a multiple of {SIZE_MULTIPLE}, not {tile}")
        if tile is not None and not 0 <= tile_overlap < tile:
            raise UsageError("--tile-overlap must be from 0 to less than --tile")
        self.config = network.config
        self.views = views
        self.engine = StreamingRestormer(network, device, dtype)
        self.max_memory = max_memory
        self.tile, self.tile_overlap = tile, tile_overlap
        self.settings = settings or Settings(
            weights=_fingerprint(network),
            precision=devices.precision_name(dtype),
            tile=tiling(tile, tile_overlap),
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
        height, width, channels = views[0].shape
        if channels > self.config.inp_channels // self.views:
            batch = torch.from_numpy(image).permute(2, 0, 1)[:, None]
            restored = torch.cat([self._run(plane[None], None) for plane in batch]).transpose(0, 1)
            if progress is not None:
                progress(1.0)
        elif self.images_together(*views[0].shape) > 1:
            return self.restore_together([views], bit_depth=bit_depth, progress=progress)[0]
        else:
            restored = self._run(torch.from_numpy(image)[None].permute(0, 3, 1, 2), progress)
        return _output(restored[0], height, width, channels, bit_depth or _bits(views[0]))

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
        engine, tile = self.engine, self.tile or max(height, width)
        rows, columns = (min(size, tile) for size in (height, width))
        available, needed = room_for(
            self.config,
            rows + -rows % SIZE_MULTIPLE,
            columns + -columns % SIZE_MULTIPLE,
            engine.device,
            engine.dtype,
            self.max_memory,
        )
        whole = 0 if self.tile is None else 8 * height * width * self.config.out_channels
        return available, needed + whole

    def images_together(self, height: int, width: int, channels: int) -> int:
        """Number of images of this size that are best restored together; 1 if it gains nothing."""
        if self.tile is not None or channels > self.config.inp_channels // self.views:
            return 1
        bottom, right = (-size % SIZE_MULTIPLE for size in (height, width))
        pixels = (height + bottom) * (width + right)
        fits = TOGETHER * pixels * 2 * self.config.dim <= CPU_STRIP_VALUES
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
        restored = self._run(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), progress)
        return [
            _output(image, height, width, channels, bit_depth or _bits(views[0]))
            for image, views in zip(restored, batch, strict=False)  # without those filled up
        ]

    def _input(self, views: tuple[Pixels, ...]) -> Floats:
        """Make the padded input ``(H, W, C)``; C may be more, for planes restored one by one."""
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
        return pad(np.concatenate(planes, axis=2) if len(planes) > 1 else planes[0])

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
        height, width = image.shape[:2]
        restored = self._run(torch.from_numpy(pad(image))[None].permute(0, 3, 1, 2), None)
        result: Floats = restored[0, :, :height, :width].permute(1, 2, 0).numpy()
        return result

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

    def _run_whole(self, image: Tensor, progress: Progress | None) -> Tensor:
        height, width = image.shape[2:]
        engine = self.engine
        plan: Plan | None = plan_memory(
            self.config, height, width, engine.device, engine.dtype, self.max_memory
        )
        while plan is not None:
            try:
                return engine(image, plan, progress)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                plan = plan.smaller()
            # Outside the handler, where the failed attempt's tensors are no longer held.
            if engine.device.type == "cuda":
                torch.cuda.empty_cache()
        raise ImageError(f"{engine.device} ran out of memory for {width}×{height} pixels")


def _fingerprint(network: Restormer) -> str:
    """Hash the parameters; in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _bits(view: Pixels) -> int:
    return 8 * view.dtype.itemsize


def _output(image: Tensor, height: int, width: int, channels: int, bit_depth: int) -> Pixels:
    """Turn an output ``(C, H, W)`` into ``(height, width, channels)`` pixels."""
    if channels < image.shape[0]:
        image = image.mean(dim=0, keepdim=True)
    return quantise(image[:, :height, :width].permute(1, 2, 0).numpy(), bit_depth)


def _is_out_of_memory(error: BaseException) -> bool:
    """True if memory ran out; PyTorch has no single exception for it."""
    # PyTorch before 2.5 has only the texts.
    if isinstance(error, (MemoryError, getattr(torch, "OutOfMemoryError", MemoryError))):
        return True
    return is_memory_message(str(error))


def pad(image: Floats) -> Floats:
    """Pad ``(H, W, C)`` by reflection at the bottom and right, to multiples of 8.

    An image that is smaller than the padding is reflected repeatedly.
    """
    bottom, right = (-size % SIZE_MULTIPLE for size in image.shape[:2])
    if not bottom and not right:
        return image
    return np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="reflect")


def tile_positions(size: int, tile: int, overlap: int) -> list[int]:
    """Positions of tiles along one side, ``tile - overlap`` apart; the last ends at the edge."""
    return [*range(0, size - tile, tile - overlap), size - tile]
