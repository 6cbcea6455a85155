"""Small things that several test files need."""

from __future__ import annotations

import contextlib
import copy
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from hypothesis import Phase
from safetensors.torch import save_file
from torch import nn

from restormer_cli.cli.main import main
from restormer_cli.network import kernels, native
from restormer_cli.network.architecture import Restormer, RestormerConfig

#: For properties whose examples take long: looking for the smallest that fails would take minutes.
NO_SHRINKING = tuple(phase for phase in Phase if phase not in (Phase.shrink, Phase.explain))
TINY = {"dim": 8, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1, "heads": (1, 2, 4, 8)}
#: The differences of the task variants, at any size.
KINDS: dict[str, dict[str, Any]] = {
    "with_bias": {"LayerNorm_type": "WithBias"},
    "bias_free": {"LayerNorm_type": "BiasFree"},
    "gray": {"LayerNorm_type": "BiasFree", "inp_channels": 1, "out_channels": 1},
    "dual_pixel": {"LayerNorm_type": "WithBias", "inp_channels": 6, "dual_pixel_task": True},
}


def tiny_network(kind: str = "with_bias", seed: int = 0, **values: Any) -> Restormer:
    """A network of a few thousand parameters, all of them random, LayerNorms included."""
    config = RestormerConfig(**{**TINY, **KINDS[kind], **values})
    network = Restormer(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith(("body.weight", "temperature")) and parameter.dim() != 4:
            parameter.copy_(1 + 0.2 * noise)
        elif parameter.dim() == 4:
            parameter.copy_(noise / np.sqrt(parameter[0].numel()))
        else:
            parameter.copy_(0.1 * noise)
    return network


def zero_network(kind: str = "with_bias", **values: Any) -> Restormer:
    """A network whose output is its input: all parameters are zero, the residual remains."""
    network = tiny_network(kind, **values)
    for parameter in network.parameters():
        parameter.zero_()
    return network


#: Ways to the same numbers: which of them a processor takes depends on its instructions.
PATHS = ("all in C", "in C beside PyTorch", "oneDNN", "plain PyTorch")


@contextlib.contextmanager
def along(path: str, strip_bytes: int = native.passes.STRIP_BYTES) -> Iterator[None]:
    """Compute so, in an engine that is made and called within; in strips of so many bytes in C."""
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(native.passes, "STRIP_BYTES", strip_bytes))
        if path == "in C beside PyTorch":
            patches.enter_context(mock.patch.object(native, "kernels_for", _without_products))
        elif path != "all in C":
            patches.enter_context(mock.patch.object(native, "kernels_for", return_value=None))
        if path == "plain PyTorch":
            patches.enter_context(mock.patch.object(kernels, "_onednn", return_value=None))
        yield


def _without_products(like: torch.Tensor) -> native.Kernels | None:
    """Kernels as on processors for which PyTorch's libraries multiply faster."""
    found = native.kernels(like.dtype) if like.device.type == "cpu" else None
    found = copy.copy(found)
    if found is not None:
        found.multiplies = False
    return found


def save(network: nn.Module, path: Path) -> Path:
    """Save as the suffix says; ``.pth`` in the container of the official checkpoints."""
    if path.suffix == ".safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save({"params": network.state_dict()}, path)
    return path


def random_pixels(height: int, width: int, channels: int = 3, bits: int = 8, seed: int = 0) -> Any:
    """``(H, W, channels)`` of every value there is."""
    dtype = np.uint8 if bits == 8 else np.uint16
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**bits, (height, width, channels), dtype=dtype)


def smooth_pixels(height: int, width: int) -> Any:
    """``(H, W, 3)`` of 8 bit that survives JPEG: a different slope in each direction."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.rint(255 * np.stack([x, y, 1 - (x + y) / 2], axis=2)).astype(np.uint8)


def write(path: Path, pixels: Any, parameters: tuple[int, ...] = ()) -> Path:
    """Write RGB, RGBA or gray ``(H, W, C)`` in the format that the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.shape[2] >= 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    suffix = path.suffix.lower()
    # OpenCV 4 and 5 both write WebP without loss from quality 101 on.
    parameters = parameters or ((cv2.IMWRITE_WEBP_QUALITY, 101) if suffix == ".webp" else ())
    done, data = cv2.imencode(suffix, np.ascontiguousarray(pixels), list(parameters))
    assert done
    path.write_bytes(data.tobytes())
    return path


def read(path: Path) -> Any:
    """RGB, RGBA or gray ``(H, W, C)`` of a PNG, as it is stored."""
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    image = image.reshape(*image.shape[:2], -1)
    channels = image.shape[2]
    return image if channels < 3 else image[..., [2, 1, 0, 3][:channels]]


def names(folder: Path) -> list[str]:
    """Files in a result folder other than the record, with leftovers."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".restormer")


@dataclass(frozen=True)
class Ran:
    """Output and exit status of a command."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def restormer(*words: object, stdin: bytes = b"") -> Ran:
    """Run the command in this process, through its real entry point."""
    out, err = io.StringIO(), io.StringIO()
    status: Any = 0
    argv = ["restormer", *map(str, words)]
    keyboard = io.TextIOWrapper(io.BytesIO(stdin))
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(sys, "stdin", keyboard),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
    return Ran(status, out.getvalue(), err.getvalue())


def make_images(folder: Path, count: int, size: int = 12) -> Path:
    """Random square images ``0.png``, ``1.png``, …, in a folder."""
    for index in range(count):
        write(folder / f"{index}.png", random_pixels(size, size, seed=index))
    return folder
