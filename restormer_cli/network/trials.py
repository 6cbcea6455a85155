"""What trials of operators and kernels have in common: numbers to try, when results agree, and what
is done without because it failed."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def waves(*shape: int) -> Tensor:
    """Numbers from -1 to 1 that look random; the host program's generator is left alone."""
    return torch.arange(math.prod(shape), dtype=torch.float64).mul(2.4).cos().view(shape).float()


def near(made: Tensor, expected: Tensor) -> bool:
    """True if two results differ by rounding alone."""
    if (made.shape, made.dtype) != (expected.shape, expected.dtype):
        return False
    tolerance = 16 * torch.finfo(expected.dtype).eps * expected.abs().max().item()
    return bool(((made - expected).abs() <= tolerance).all())  # not so where one is no number


#: What it mostly costs.
SLOWER = "slower than need be"
#: What this process does without, a sentence each.
distrusted: dict[str, None] = {}


def distrust(operators: str, reason: str, cost: str = SLOWER) -> None:
    """Take note that operators of PyTorch are not used."""
    doubt(f"PyTorch {torch.__version__} computes without {operators}, {reason}", cost)


def doubt(trouble: str, cost: str = SLOWER) -> None:
    """Take note that something is not used."""
    distrusted[f"{cost}: {trouble}"] = None
