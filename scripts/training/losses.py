"""How far a restored batch is from the clean one; smaller is better."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Mean square error, that of 45 dB, below which images count less and less. At 40 dB a network
#: could draw rims around soft edges of sharp photos almost for nothing.
FINE = 3e-5


def absolute(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference."""
    return F.l1_loss(restored, clean)


def decibels(restored: Tensor, clean: Tensor) -> Tensor:
    """Minus the PSNR in dB, mean over the images ``(N, C, H, W)``, levelled off at 45 dB.

    A strong blur leaves errors ten times as large as a slight one, and with the mean difference
    the network would learn of it alone, and harm photos that are hardly shaken. In dB all count
    alike (Chen et al., "HINet: Half Instance Normalization Network for Image Restoration", CVPR
    Workshops 2021); levelled off, so do those that are all but sharp.
    """
    error = (restored - clean).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(error + FINE).mean()
