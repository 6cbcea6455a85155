"""The library of kernels: whether it is there, is sound, and does what it should."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

import torch
from torch import Tensor

from restormer_cli.network.native.build import LIBRARY, is_sound
from restormer_cli.network.native.calls import TYPES, Kernels
from restormer_cli.network.native.trial import trials
from restormer_cli.network.trials import doubt, near

_PROCESSORS = {
    "avx2": "AVX2",
    "avx512": "AVX-512",
    "avx512bf16": "AVX-512 with bfloat16",
    "neon": "NEON",
}


def kernels(dtype: torch.dtype) -> Kernels | None:
    """The kernels for a precision on this machine's CPU; None where PyTorch's serve alone."""
    found = _found(dtype)
    return found if isinstance(found, Kernels) else None


def kernels_for(like: Tensor) -> Kernels | None:
    """The kernels for maps on the device and in the precision of ``like``, if there are any."""
    return kernels(like.dtype) if like.device.type == "cpu" else None


def describe(dtype: torch.dtype) -> str:
    """Which kernels a CPU computes with in this precision, and why, as half a sentence."""
    found = _found(dtype)
    if isinstance(found, Kernels):
        return f"kernels in C for {_PROCESSORS[found.target]}"
    return f"PyTorch's kernels alone, because {found}"


@functools.cache
def _found(dtype: torch.dtype) -> Kernels | str:
    """The kernels, tried once a process against PyTorch; or why there are none."""
    if dtype not in TYPES:
        return f"those in C are for {' and '.join(TYPES.values())}"
    if os.environ.get("RESTORMER_NATIVE") == "0":
        return "RESTORMER_NATIVE is 0"
    if not LIBRARY.exists():
        return "those in C were not compiled at the installation"
    try:
        library = _load(LIBRARY)
        target = library.restormer_processor().decode()
        if not target:
            return "those in C are for AVX2, AVX-512 and NEON"
        found = Kernels(library, target, dtype)
        trouble = _try(found)
    except (OSError, AttributeError) as error:  # damaged, or for another system
        trouble = f"{LIBRARY.name} cannot be loaded ({error})"
    if trouble:
        doubt(trouble)
    return trouble or found


def _load(path: Path) -> ctypes.CDLL:
    if not is_sound(path):
        raise OSError("it is damaged or made from other sources: install again")
    library = ctypes.CDLL(str(path))
    library.restormer_processor.restype = ctypes.c_char_p
    return library


def _try(found: Kernels) -> str:
    """Compare every kernel with PyTorch; what is wrong, or nothing."""
    with torch.inference_mode():
        right = all(near(made, expected) for made, expected in trials(found))
    return "" if right else f"{LIBRARY.name} gives wrong numbers"
