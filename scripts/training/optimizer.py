"""How the weights of a compact network follow their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Optimizer:
    """Muon for the weights that mix channels, AdamW for the rest.

    Muon makes the singular values of each update equal (Jordan et al., 2024,
    https://kellerjordan.github.io/posts/muon). In 400 steps of motion deblurring it gained 1.6
    times as many dB as AdamW alone, from the same weights. What mixes no channels (depthwise
    kernels, norms, temperatures) has no such singular values, the two layers at the image have
    too few of them, and keep AdamW.
    """

    #: Fewer channels than this on one side are an image's, not features.
    FEATURES = 8

    def __init__(self, network: nn.Module, rate: float) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise SystemExit(f"training needs PyTorch 2.9 or newer, this is {torch.__version__}")
        matrices, rest = [], []
        for parameter in network.parameters():
            mixes = parameter.ndim == 4 and min(parameter.shape[:2]) >= self.FEATURES
            (matrices if mixes else rest).append(parameter)
        # Muon takes matrices. These share their memory with the kernels, which are channels-last.
        self._kernels = [(kernel, nn.Parameter(self._matrix(kernel.data))) for kernel in matrices]
        self._parts: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(
                [matrix for _, matrix in self._kernels],
                lr=rate,
                weight_decay=0.01,
                adjust_lr_fn="match_rms_adamw",  # so that both take the same learning rate
            ),
            "adamw": torch.optim.AdamW(rest, lr=rate, weight_decay=1e-4),
        }

    @staticmethod
    def _matrix(kernel: Tensor) -> Tensor:
        """``(K, C, h, w)`` in channels-last as ``(K, h·w·C)``, without a copy."""
        return kernel.permute(0, 2, 3, 1).view(len(kernel), -1)

    def step(self, rate: float) -> None:
        """Update the parameters along their gradients."""
        for kernel, matrix in self._kernels:
            assert kernel.grad is not None
            matrix.grad = kernel.grad.permute(0, 2, 3, 1).reshape(matrix.shape)
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what :meth:`state_dict` gave."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
