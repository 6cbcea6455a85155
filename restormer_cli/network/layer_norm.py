"""LayerNorm without its affine part, which is folded into the 1×1 convolution behind it."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from restormer_cli.network import native
from restormer_cli.network.buffers import Memory
from restormer_cli.network.device_errors import is_device_trouble
from restormer_cli.network.trials import distrust, near, waves


def layer_norm(
    rows: Tensor, center: bool, epsilon: float, memory: Memory, scales: Tensor | None = None
) -> Tensor:
    """LayerNorm over the last axis, without its affine part.

    Parameters
    ----------
    rows
        ``(N, R, W, C)``.
    center
        True if the mean is subtracted; the variance is about it in any case.
    memory
        Asked for memory for the result, or not.
    scales
        ``(N, R, W, 1)``, of :func:`scales_dtype`: what each pixel is multiplied by, written.
    """
    own = native.kernels_for(rows)
    if own is not None:
        out = memory(*rows.shape)
        own.normalise(rows, out, epsilon, center, None if scales is None else scales[..., 0])
        return out
    channels = rows.shape[-1:]
    # With an affine part that does nothing, the library's kernel is twice as fast as without.
    # On a CPU the statistics that it returns have the precision of that part.
    one, zero = _affine(channels[0], rows.device, scales_dtype(rows))
    if has_layer_norm(rows.device, rows.dtype):
        normalised, _, found = torch.native_layer_norm(rows, channels, one, zero, epsilon)
    else:
        normalised, found = _plain_layer_norm(rows, one, zero, epsilon)
    if scales is not None:
        scales.copy_(found)
    return normalised if center else torch.mul(rows, found.to(rows.dtype), out=normalised)


def scaled(rows: Tensor, scales: Tensor, memory: Memory) -> Tensor:
    """Pixels times what :func:`layer_norm` found."""
    own = native.kernels_for(rows)
    if own is None:
        return rows * scales.to(rows.dtype)
    out = memory(*rows.shape)
    own.scale(rows, scales[..., 0], out)
    return out


def scales_dtype(like: Tensor) -> torch.dtype:
    """Precision of what LayerNorm multiplies pixels by."""
    return torch.float32 if like.device.type == "cpu" else like.dtype


@functools.cache
def _affine(channels: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    one = torch.ones(channels, device=device, dtype=dtype)
    return one, torch.zeros_like(one)


def _plain_layer_norm(
    rows: Tensor, scale: Tensor, shift: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    wide = rows.float()
    variance = wide.var(-1, keepdim=True, correction=0)
    normalised = F.layer_norm(wide, scale.shape, scale.float(), shift.float(), epsilon)
    return normalised.to(rows.dtype), torch.rsqrt(variance + epsilon).to(scale.dtype)


@functools.cache
def has_layer_norm(device: torch.device, dtype: torch.dtype) -> bool:
    """True if ``torch.native_layer_norm``, which is in no documentation, does what it should."""
    like = torch.empty(0, device=device, dtype=dtype)
    with torch.inference_mode():
        rows = waves(1, 2, 3, 8).to(like)
        wide = torch.float32 if device.type == "cpu" else dtype
        one, zero = rows.new_ones(8, dtype=wide), rows.new_zeros(8, dtype=wide)
        try:
            made = torch.native_layer_norm(rows, one.shape, one, zero, 1e-5)
            right = all(
                a.shape == b.shape and near(a.to(b), b)
                for a, b in zip(made[::2], _plain_layer_norm(rows, one, zero, 1e-5), strict=True)
            )
            trouble = "" if right else "which gives wrong numbers"
        except Exception as error:  # whatever a changed operator raises
            if device.type != "cpu" and is_device_trouble(error):
                raise
            trouble = f"which cannot be called ({type(error).__name__})"
    if trouble:
        distrust("native_layer_norm", trouble)
    return not trouble
