"""Kernels in C: what PyTorch needs several passes over memory for, in one.

Each thread that calls one computes alone, without the interpreter lock. A pixel's result does not
depend on how a map is split into calls.
"""

from restormer_cli.network.native.calls import Filter, Kernels, Matrix
from restormer_cli.network.native.library import describe, kernels, kernels_for
from restormer_cli.network.native.passes import (
    Block,
    FirstPass,
    ImagePart,
    Projection,
    SecondPass,
)

__all__ = [
    "Block",
    "Filter",
    "FirstPass",
    "ImagePart",
    "Kernels",
    "Matrix",
    "Projection",
    "SecondPass",
    "describe",
    "kernels",
    "kernels_for",
]
