"""Protocols, the ways in which papers measure: colours, kind of SSIM, alignment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from restormer_cli.errors import ImageError, UsageError
from restormer_cli.evaluation.alignment import ALIGNMENT_BYTES, align
from restormer_cli.evaluation.metrics import (
    GAUSSIAN,
    STRIP_COPIES,
    UNIFORM,
    VOLUME,
    Metrics,
    Planes,
    Similarity,
    gray_plane,
    measure,
    rgb_planes,
    strips,
    y_plane,
)
from restormer_cli.evaluation.run_log import RunLog
from restormer_cli.images.codecs.base import Pixels
from restormer_cli.images.pixels import Floats

AUTO = "auto"
#: For results of an unknown task.
USUAL_PROTOCOL = "rgb"


def choose_protocol(asked: str, run_log: RunLog) -> tuple[str, str]:
    """Choose a protocol by name; for ``auto`` that of the task that made the results.

    Returns
    -------
    str
        The name of the protocol.
    str
        The reason; empty if it was asked for.
    """
    if asked != AUTO:
        return find_protocol(asked).name, ""
    names = {variant.protocol for variant in run_log.variants}
    if len(names) == 1:
        tasks = " and ".join(sorted({variant.label for variant in run_log.variants}))
        return names.pop(), f"as the papers measure {tasks}"
    if names:
        return USUAL_PROTOCOL, "since several tasks made these results"
    return USUAL_PROTOCOL, "since it is not known which task made these results"


# --- protocols ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class EvaluationProtocol:
    """The way in which a benchmark compares two images."""

    name: str
    planes: Callable[[Pixels], Planes] = rgb_planes
    similarity: Similarity = GAUSSIAN
    aligned: bool = False
    """True if brightness and place are matched first, and only the common part is compared."""

    def compare(self, result: Pixels, target: Pixels) -> Metrics:
        """Compare two images as read from files, of 8 or 16 bit.

        Raises
        ------
        ImageError
            If they differ in size or channels, or are too small for this protocol.
        """
        shape = self._shape(result, target, self.planes(result[:1]))
        if self.aligned:
            self.similarity.check_size(*shape[:2])
            warped, inside = align(result, target)

            def masked(a: int, b: int) -> tuple[Planes, Planes, Planes]:
                mask = np.repeat(inside[a:b, :, None], shape[2], axis=2).astype(np.float64)
                reference = rgb_planes(target[a:b]).astype(np.float32)
                return warped[a:b] * mask, reference * mask, mask

            return measure(shape, masked, self.similarity)

        def rows(a: int, b: int) -> tuple[Planes, Planes, None]:
            return self.planes(result[a:b]), self.planes(target[a:b]), None

        return measure(shape, rows, self.similarity)

    def compare_unrounded(self, result: Floats, target: Pixels) -> Metrics:
        """Compare the output of a network, ``(H, W, C)``, clamped to [0, 1] and not rounded.

        Raises
        ------
        ImageError
            As :meth:`compare`.
        """
        shape = self._shape(result, target, result[:1])

        def rows(a: int, b: int) -> tuple[Planes, Planes, None]:
            clamped = np.clip(result[a:b], 0, 1).astype(np.float64)
            return clamped, self.planes(target[a:b]), None

        return measure(shape, rows, self.similarity)

    def _shape(self, result: Any, target: Pixels, row: Any) -> tuple[int, int, int]:
        """Height, width and channels of the planes; ``row`` is the first row of the result's."""
        if result.shape[:2] != target.shape[:2]:
            sizes = " against ".join(f"{p.shape[1]}×{p.shape[0]}" for p in (result, target))
            raise ImageError(f"the result differs in size from its target ({sizes})")
        channels = [row.shape[2], self.planes(target[:1]).shape[2]]
        if channels[0] != channels[1]:
            kinds = ["gray" if count == 1 else "in colour" for count in channels]
            raise ImageError(f"the result is {kinds[0]}, its target {kinds[1]}")
        return *target.shape[:2], channels[0]

    def memory(self, height: int, width: int) -> int:
        """Most bytes that a comparison needs beside the pixels of both images."""
        rows = min(height, strips(height, width, 3)[0][1] + 1 + 2 * self.similarity.halo)
        strip = rows * width * 3 * np.dtype(np.float64).itemsize
        return STRIP_COPIES * strip + (height * width * ALIGNMENT_BYTES if self.aligned else 0)


#: Sources: the evaluation scripts of the Restormer repository (``Deraining``, ``Denoising``,
#: ``Motion_Deblurring``, ``Defocus_Deblurring``) and of the RealBlur benchmark. Where scikit-image
#: and these scripts differ is said at each protocol. The figures there were measured on
#: scikit-image's photographs astronaut, chelsea, coffee and rocket, 300×451 to 512×512 pixels, with
#: noise of σ 3 and 10 (of 255) and with a blur of σ 1.5 pixels.
PROTOCOLS: Mapping[str, EvaluationProtocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            # Gaussian colour denoising: the paper reports PSNR alone, which everyone computes
            # alike. This SSIM is the one that is usual beside it.
            EvaluationProtocol("rgb"),
            # Deraining. Of luma that was not rounded, PSNR comes out 0.01 to 0.03 dB higher near
            # 30 dB and 0.2 to 0.3 dB at 43 dB, SSIM up to 0.002. MATLAB's built-in ssim, which the
            # script does not call, counts the borders too and differs by up to 0.005.
            EvaluationProtocol("y", y_plane),
            # Gaussian gray denoising; as with rgb.
            EvaluationProtocol("gray", gray_plane),
            # GoPro and HIDE: the script calls MATLAB's psnr and ssim on uint8 RGB. PSNR is that
            # of scikit-image; SSIM is not: per channel it is 0.03 to 0.36 lower for the
            # photographs above, and with the official weights 0.950 instead of 0.961 on GoPro,
            # 0.935 instead of 0.942 on HIDE.
            EvaluationProtocol("gopro", similarity=VOLUME),
            # SIDD's validation blocks of 256×256, by the same two functions, but before the
            # result is rounded to 8 bit. DND's targets are not public: its server measures.
            EvaluationProtocol("sidd", similarity=VOLUME),
            # RealBlur-R and -J. scikit-image has the SSIM map; the mask and the mean over it are
            # the benchmark's.
            EvaluationProtocol("realblur", aligned=True),
            # DPDD. The script has 100 dB for equal images where this has infinity, and computes
            # in float32, which moves SSIM by less than 1e-6. Its single-image part reads the
            # 16-bit files as 8 bit (the upper byte), its dual-pixel part as they are.
            EvaluationProtocol("dpdd", similarity=UNIFORM),
        )
    }
)


def find_protocol(name: str) -> EvaluationProtocol:
    """Find a protocol by name.

    Raises
    ------
    UsageError
        If there is none.
    """
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise UsageError(f"no protocol {name!r}; there are {', '.join(PROTOCOLS)}") from None
