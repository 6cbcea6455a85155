"""TLC as its authors compute it: loops over windows, on the plain forward."""

from __future__ import annotations

import copy
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from restormer_cli.network.architecture import MDTA, Restormer


def window_starts(size: int, window: int) -> list[int]:
    """Where the windows along one side begin."""
    count = (size - 1) // window + 1
    step = window if count == 1 else -(-(size - window) // (count - 1))
    starts, start, last = [], 0, False
    while start < size and not last:
        if start + window >= size:
            start, last = size - window, True
        starts.append(start)
        start += step
    return starts


def attention(qkv: Tensor, heads: int, temperature: Tensor) -> Tensor:
    """What comes of q, k and v ``(N, 3 C, H, W)`` before ``project_out``."""
    height, width = qkv.shape[-2:]
    q, k, v = rearrange(qkv, "n (part head c) h w -> part n head c (h w)", part=3, head=heads)
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    matrix = (q @ k.transpose(-2, -1) * temperature).softmax(dim=-1)
    return rearrange(matrix @ v, "n head c (h w) -> n (head c) h w", h=height, w=width)


def local_attention(module: MDTA, window: tuple[int, int], x: Tensor) -> Tensor:
    """Forward of one MDTA in windows of so many rows and columns of its own map."""
    qkv = module.qkv_dwconv(module.qkv(x))
    height, width = x.shape[-2:]
    rows, columns = min(window[0], height), min(window[1], width)
    total = torch.zeros_like(x)
    counts = torch.zeros_like(x)
    for top in window_starts(height, rows):
        for left in window_starts(width, columns):
            part = (..., slice(top, top + rows), slice(left, left + columns))
            total[part] += attention(qkv[part], module.heads, module.temperature)
            counts[part] += 1
    return module.project_out(total / counts)


def forward(network: Restormer, image: Tensor, base: int) -> Tensor:
    """The network on ``(N, C, H, W)`` with windows of ``base`` pixels at full resolution."""
    local = copy.deepcopy(network)
    height, width = image.shape[-2:]

    def attend(module: MDTA, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2] * base // height, x.shape[-1] * base // width
        return local_attention(module, (rows, columns), x)

    for module in local.modules():
        if isinstance(module, MDTA):
            module.forward = partial(attend, module)  # type: ignore[method-assign]
    with torch.no_grad():
        return local(image)
