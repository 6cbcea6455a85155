"""TF32: on a card float32 stays float32, whatever the host program has settled.

From Ampere on, cuDNN rounds float32 to 10 bits of mantissa unless it is told not to, and so do
products of matrices if the host program wants it. What was settled for the whole process is the
host program's, and other threads see it: so nothing is set here. One operator takes the permission
as an argument, of each call: the convolution that TorchScript files are made of.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from restormer_cli.network.device_errors import is_device_trouble
from restormer_cli.network.trials import distrust, waves


def convolve(rows: Tensor, kernel: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """A 3×3 convolution of ``(N, C, R + 2, W)``, in which float32 stays float32."""
    padding = (0, 1)
    if not (may_be_tf32(rows) and can_forbid_tf32(rows.device)):
        return F.conv2d(rows, kernel, bias, padding=padding, groups=groups)
    return without_tf32(rows, kernel, bias, padding, groups)


def without_tf32(
    rows: Tensor, kernel: Tensor, bias: Tensor | None, padding: tuple[int, int], groups: int
) -> Tensor:
    cudnn: Any = torch.backends.cudnn  # it has no types
    repeatable = cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    kept = (cudnn.benchmark, repeatable, cudnn.enabled)  # as it would be without this
    geometry = ((1, 1), padding, (1, 1), False, (0, 0), groups)
    out: Tensor = torch.ops.aten._convolution(rows, kernel, bias, *geometry, *kept, False)
    return out


def may_be_tf32(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda" and tensor.dtype == torch.float32


@functools.cache
def can_forbid_tf32(device: torch.device) -> bool:
    """True if the convolution that takes the permission does what the usual one does."""
    rows, kernel = (waves(*shape).to(device) for shape in ((1, 2, 4, 5), (3, 2, 3, 3)))
    try:
        made = without_tf32(rows, kernel, None, (0, 1), 1)
        usual = F.conv2d(rows, kernel, padding=(0, 1))  # which may be TF32
        trouble = "" if torch.allclose(made, usual, atol=0.05) else "which gives wrong numbers"
    except (AttributeError, TypeError, RuntimeError) as error:
        if is_device_trouble(error):
            raise
        trouble = f"which cannot be called ({type(error).__name__})"
    if trouble:
        distrust("a convolution that forbids TF32", trouble, "float32 may be TF32")
    return not trouble


def products_may_be_tf32(factor: Tensor) -> bool:
    """True if the host program lets products of such matrices be TF32; by default they are not."""
    if not may_be_tf32(factor):
        return False
    matmul = torch.backends.cuda.matmul
    precision = getattr(matmul, "fp32_precision", None)
    if precision is None:  # PyTorch before 2.9; a later one may refuse to tell by this name
        return bool(matmul.allow_tf32)
    return bool(precision == "tf32")


def exact_product(pixels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``(P, C)`` times ``(K, C)`` transposed, as a convolution that may forbid TF32."""
    column = pixels[None, :, None].permute(0, 3, 1, 2)
    out = without_tf32(column, weight[:, :, None, None], bias, (0, 0), 1)
    return out.permute(0, 2, 3, 1).reshape(len(pixels), -1)


def for_products(factor: Tensor) -> Tensor:
    """What to multiply instead, where a product of matrices of it would be TF32."""
    return factor.double() if products_may_be_tf32(factor) else factor
