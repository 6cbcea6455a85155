"""A picture to a file, in any of the formats of results."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from restormer_cli.errors import ImageError, UsageError
from restormer_cli.images.codecs.base import Pixels
from restormer_cli.images.fitting import fitted
from restormer_cli.images.formats import PNG, Encoding, OutputFormat
from restormer_cli.images.picture import Picture
from restormer_cli.images.pixels import normalise, quantise
from restormer_cli.images.transparency import flatten
from restormer_cli.settings import Settings
from restormer_cli.system.atomic import write_file
from restormer_cli.system.limits import is_memory_message


@dataclass(frozen=True)
class OutputOptions:
    """How results are written.

    Raises
    ------
    UsageError
        If the format cannot be written so.
    """

    format: OutputFormat = PNG
    quality: int | None = None
    """1 to 100; None: what is usual for the format."""
    bit_depth: int | None = None
    """None: as the input, as far as the format goes."""
    compression: int | None = None
    """0 to 9, of PNG; None: what is quick."""
    strip: bool = False
    """Leave out metadata that may be personal."""

    def __post_init__(self) -> None:
        form = self.format
        if self.quality is not None and form.quality is None:
            raise UsageError(f"--quality: {form.title} has none, since it loses nothing")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"--quality {self.quality}: is a number from 1 to 100")
        if self.compression is not None and not form.compressions:
            raise UsageError(f"--png-compression: is for PNG, not for --format {form.name}")
        if self.bit_depth is not None and self.bit_depth not in form.bits:
            bits = " or ".join(map(str, form.bits))
            raise UsageError(f"--bit-depth {self.bit_depth}: {form.title} has {bits} bit")

    def applied_to(self, settings: Settings) -> Settings:
        """The same settings for results that are written so."""
        quality = self.quality or self.format.quality
        return replace(
            settings,
            bit_depth=str(self.bit_depth or "auto"),
            format=self.format.name,
            quality=None if quality is None else str(quality),
            metadata="stripped" if self.strip else None,
        )

    @property
    def restored_depth(self) -> int | None:
        """8 or 16, which a network is to round to; None: as the input."""
        if self.bit_depth is not None:
            return 8 if self.bit_depth <= 8 else 16
        return 8 if self.format.bits[-1] <= 8 else None

    def prepare(self, picture: Picture) -> Picture:
        """A picture that was read, with metadata as the result holds it; notes say what is lost."""
        form = self.format
        notes = list(picture.notes)
        depth = picture.bit_depth if self.restored_depth is None else self.restored_depth
        bits = self._bits(depth)
        if self.bit_depth is None and bits < (picture.file_bits or picture.bit_depth):
            notes.append(f"becomes {bits} bit, since {form.title} has no more")
        alpha = picture.alpha
        if alpha is not None and not form.alpha:
            if alpha.min() == np.iinfo(alpha.dtype).max:
                alpha = None
            else:
                ground = "white" if picture.metadata.background is None else "its background colour"
                notes.append(
                    f"what is transparent shows {ground}, since {form.title} has no transparency"
                )
        metadata = picture.metadata.stripped() if self.strip else picture.metadata
        written = self._mode(picture.pixels.shape[2] == 1, alpha is not None)
        samples = picture.pixels.shape[0] * picture.pixels.shape[1] * len(written)
        metadata, lost = fitted(
            metadata,
            form,
            gray=picture.pixels.shape[2] == 1,
            written_gray=written[0] == "L",
            sample_bytes=samples * depth // 8,
        )
        return replace(picture, alpha=alpha, metadata=metadata, notes=(*notes, *lost))

    def _bits(self, depth: int) -> int:
        """Of a sample in the file, for pixels of 8 or 16 bit."""
        if depth == 8:
            return 8
        return min(self.bit_depth or depth, self.format.bits[-1])

    def _mode(self, gray: bool, alpha: bool) -> str:
        """In which a picture is written, if the format has transparency where there is any."""
        mode = ("L" if gray else "RGB") + ("A" if alpha and self.format.alpha else "")
        return mode if mode in self.format.modes else mode.replace("L", "RGB")


def encode_image(picture: Picture, output: OutputOptions = OutputOptions()) -> bytes:
    """Encode a picture whose metadata is such as :meth:`OutputOptions.prepare` gives it.

    Raises
    ------
    ImageError
        If the encoder refuses.
    """
    form = output.format
    if picture.alpha is not None and not form.alpha:
        picture = flatten(picture)
    bits = output._bits(picture.bit_depth)
    pixels, alpha = picture.pixels, picture.alpha
    if picture.mode not in form.modes:  # gray that is written as colour
        pixels = pixels.repeat(3, axis=2)
    if bits != picture.bit_depth:
        pixels, alpha = _of_bits(pixels, bits), None if alpha is None else _of_bits(alpha, bits)
    encoding = Encoding(bits, output.quality or form.quality, output.compression)
    try:
        return form.encode(replace(picture, pixels=pixels, alpha=alpha), encoding)
    except (ImageError, OSError) as error:
        raise ImageError(f"cannot be encoded as {form.title} ({error})") from error
    except (RuntimeError, ValueError) as error:
        if is_memory_message(str(error)):
            raise MemoryError from error
        raise


def _of_bits(samples: Pixels, bits: int) -> Pixels:
    """Samples of 16 bit in fewer."""
    return quantise(normalise(np.arange(1 << 16, dtype=np.uint16)), bits)[samples]


def write_image(
    path: Path,
    picture: Picture,
    output: OutputOptions = OutputOptions(),
    before_rename: Callable[[os.stat_result], None] | None = None,
) -> None:
    """Write a picture so that ``path`` holds all of it or what it held before.

    ``before_rename`` is called with size and time of the file that is about to be there.

    Raises
    ------
    ImageError
        If it cannot be written.
    """
    try:
        data = encode_image(picture, output)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    write_file(path, data, before_rename)
