"""A network on a GPU is tried before it restores anything: does it give what the CPU gives?

Drivers and PyTorch's Metal kernels have been wrong without a word: LayerNorm where the variance is
tiny, grouped convolutions, views of channels-last memory that do not begin at its start. So one
small image goes through the network in strips, and through the plain forward on the CPU.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from restormer_cli.errors import DeviceError
from restormer_cli.network.architecture import Restormer, RestormerConfig
from restormer_cli.network.device_errors import unusable
from restormer_cli.network.memory_plan import Plan
from restormer_cli.network.streaming import StreamingRestormer
from restormer_cli.network.trials import waves

#: Rows and columns of the image; three strips at the first level.
SIZE = (24, 16)
STRIP_ROWS = 8
#: How far a result may be off, as a share of what the network changes. On a CPU, those tried were
#: off by 1.4e-6, 0.021 and 0.0027 at most; a card may choose faster ways that round more.
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.1}
#: A network may change nothing; then so much counts as what it does.
LEAST_CHANGE = 1e-3


@dataclass(frozen=True)
class SelfCheck:
    """What came of it."""

    error: float
    """Root mean square error, as a share of what the network changes; maybe not finite."""
    tolerance: float
    seconds: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


def load_checked(
    network: Restormer, device: torch.device | str, dtype: torch.dtype
) -> StreamingRestormer:
    """The network on a device, tried there if that is a GPU.

    Raises
    ------
    DeviceError
        If the device cannot be used, or gives wrong results.
    """
    if torch.device(device).type == "cpu":
        return StreamingRestormer(network, device, dtype)
    return check_device(network, device, dtype)[0]


def check_device(
    network: Restormer, device: torch.device | str, dtype: torch.dtype
) -> tuple[StreamingRestormer, SelfCheck]:
    """The network on a GPU, and what came of the check; parameters and exceptions as above."""
    try:
        engine = StreamingRestormer(network, device, dtype)
        check = compare_with_cpu(network, engine)
    except Exception as error:  # whatever a driver, its libraries or PyTorch's kernels say
        raise unusable(device, error) from error
    if not check.passed:
        off = f"by {check.error:.1%} of what the network changes" if check.error < 10 else "by far"
        raise DeviceError(
            f"{device} gives other results than the CPU in {str(dtype).removeprefix('torch.')} "
            f"({off}); say --device cpu"
        )
    return engine, check


def compare_with_cpu(network: Restormer, engine: StreamingRestormer) -> SelfCheck:
    """Restore a small image with both."""
    began = time.monotonic()
    channels = network.config.inp_channels
    image = waves(1, channels, *SIZE).add(1).div(2)
    image[:, :, : SIZE[0] // 3] /= 256  # nearly black, where features vary hardly at all
    plan = Plan(STRIP_ROWS * SIZE[1] * network.config.dim, "device", 0)
    made = engine(image, plan).to("cpu", torch.float64)
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        expected = network.on_cpu(torch.float32)(image).double()
    change = expected if network.config.dual_pixel_task else expected - image
    error = _size(made - expected) / (_size(change) + LEAST_CHANGE)
    if not math.isfinite(_size(expected)):  # which is the weights' fault
        error = 0.0
    return SelfCheck(error, TOLERANCES[engine.dtype], time.monotonic() - began)


def example_network() -> Restormer:
    """A small network that uses all there is, for a check without weights."""
    config = RestormerConfig(dim=16, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1)
    network = Restormer(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        values = waves(*parameter.shape)
        if parameter.dim() == 4:
            parameter.copy_(values / math.sqrt(parameter[0].numel()))
        else:
            parameter.copy_(1 + values / 4)
    return network


def _size(values: Tensor) -> float:
    return values.square().mean().sqrt().item()
