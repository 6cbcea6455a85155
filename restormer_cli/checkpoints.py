"""Checkpoint files: reading them safely, and what network they hold.

Nothing in a checkpoint can run code: ``.pth`` files go through PyTorch's restricted unpickler
(``weights_only=True``), ``.safetensors`` files hold no code at all.
"""

from __future__ import annotations

import math
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from restormer_cli.architecture import Restormer, RestormerConfig
from restormer_cli.errors import OptionsError, WeightsError

StateDict = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]

#: Entries under which training scripts keep the state dict, the best first.
CONTAINERS = ("params_ema", "params", "state_dict")
#: What wrappers put before the names of parameters: DataParallel, mmagic's two generators.
PREFIXES = ("module.", "generator_ema.module.", "generator_ema.", "generator.module.", "generator.")
#: Always there, and in no other network.
SIGNATURE = "encoder_level1.0.attn.temperature"
EXPANSION_OF_THE_PAPER = 2.66


def read_state_dict(path: Path) -> StateDict:
    """Read the parameters of a checkpoint, under the official names.

    ``.pth`` files hold them bare or under one of :data:`CONTAINERS`; prefixes are taken off.
    Tensors of a zip-based ``.pth`` file stay on disk until they are used.

    Raises
    ------
    WeightsError
        If the file cannot be read, is cut off, would run code, or holds no state dict.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file of weights")
    if path.suffix.lower() == ".safetensors":
        document: Any = _read_safetensors(path)
    else:
        document = _read_pickle(path)
    state = _unwrap(document)
    if state is None:
        raise WeightsError(f"{path}: holds no state dict (looked in {', '.join(CONTAINERS)})")
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise WeightsError(f"{path}: {name} holds {tensor.dtype}, expected floating point")
        stored = tensor.untyped_storage().nbytes()
        if tensor.numel() * tensor.element_size() > stored:
            raise WeightsError(f"{path}: {name} claims more numbers than the file stores")
    return state


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: damaged or not a safetensors file ({error})") from error


def _read_pickle(path: Path) -> Any:
    size = path.stat().st_size
    zipped = zipfile.is_zipfile(path)
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                if sum(member.file_size for member in archive.infolist()) > size:
                    raise WeightsError(f"{path}: is compressed, which checkpoints never are")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except WeightsError:
        raise
    except Exception as error:  # the unpickler raises whatever damaged bytes provoke
        if "Unsupported" in str(error) or "weights_only" in str(error).lower():
            reason = "it holds more than tensors, which could run code, or is damaged"
        else:
            reason = "it is cut off, damaged or no PyTorch checkpoint"
        raise WeightsError(f"{path}: was not loaded: {reason}") from error


def _unwrap(document: Any) -> StateDict | None:
    """The state dict inside a checkpoint, without prefixes."""
    if not isinstance(document, dict):
        return None
    for name in CONTAINERS:
        if isinstance(document.get(name), dict):
            document = document[name]
            break
    tensors = {k: v for k, v in document.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        return None
    for prefix in PREFIXES:
        if prefix + SIGNATURE in tensors:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return tensors


def infer_config(shapes: Shapes) -> RestormerConfig:
    """The hyper-parameters of a network, from the names and shapes of its parameters.

    Raises
    ------
    WeightsError
        If they are not those of a Restormer; it says what is missing.
    """

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        if len(shapes.get(name, ())) != dimensions:
            raise WeightsError(
                f"is no Restormer: expected {name}, a tensor of {dimensions} dimensions"
            )
        return shapes[name]

    def count(stage: str) -> int:
        numbers = {int(m[1]) for name in shapes if (m := re.match(rf"{stage}\.(\d+)\.", name))}
        return len(numbers)

    stages = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    dim, inputs = shape("patch_embed.proj.weight", 4)[:2]
    blocks = tuple(count(stage) for stage in stages)
    heads = tuple(
        shape(f"{stage}.0.attn.temperature", 3)[0] if blocks[level] else 1
        for level, stage in enumerate(stages)
    )
    hidden = {
        level: shape(f"{stage}.0.ffn.project_out.weight", 4)[1]
        for level, stage in enumerate(stages)
        if blocks[level]
    }
    has_bias = any(name.endswith("norm1.body.bias") for name in shapes)
    try:
        return RestormerConfig(
            inp_channels=inputs,
            out_channels=shape("output.weight", 4)[0],
            dim=dim,
            num_blocks=(blocks[0], blocks[1], blocks[2], blocks[3]),
            num_refinement_blocks=count("refinement"),
            heads=(heads[0], heads[1], heads[2], heads[3]),
            ffn_expansion_factor=_infer_expansion(dim, hidden),
            bias="output.bias" in shapes,
            LayerNorm_type="WithBias" if has_bias else "BiasFree",
            dual_pixel_task="skip_conv.weight" in shapes,
        )
    except OptionsError as error:
        raise WeightsError(f"is no Restormer: {error}") from error


def _infer_expansion(dim: int, hidden: Mapping[int, int]) -> float:
    """The expansion factor that gives the hidden channels of all levels.

    Many do. The paper's comes first, then the one with the fewest decimals.
    """

    def fits(factor: float) -> bool:
        return all(int((dim << level) * factor) == count for level, count in hidden.items())

    if fits(EXPANSION_OF_THE_PAPER):
        return EXPANSION_OF_THE_PAPER
    for decimals in range(8):
        scale = int(10**decimals)
        lowest = max((math.ceil(c * scale / (dim << v)) for v, c in hidden.items()), default=1)
        for candidate in (lowest, lowest + 1):
            if fits(candidate / scale):
                return candidate / scale
    raise WeightsError("is no Restormer: no expansion factor gives its feed-forward channels")


def build_network(path: Path, config: RestormerConfig | None = None) -> Restormer:
    """The network of a checkpoint, in float32 on the CPU, ready to be evaluated.

    Parameters
    ----------
    config
        Its hyper-parameters; by default they are inferred.

    Raises
    ------
    WeightsError
        If the file cannot be read or holds another network than ``config`` describes.
    """
    state = read_state_dict(path)
    try:
        config = config or infer_config({name: tuple(t.shape) for name, t in state.items()})
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    with torch.device("meta"):
        network = Restormer(config)
    _check_shapes(path, network.state_dict(), state)
    state = {name: tensor.float() for name, tensor in state.items()}
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{path}: {name} holds values that are no numbers")
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _check_shapes(path: Path, expected: StateDict, found: StateDict) -> None:
    """Raise WeightsError with the first difference, if there is one."""
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    other = [n for n in expected if n in found and expected[n].shape != found[n].shape]
    if other:
        name = other[0]
        raise WeightsError(
            f"{path}: {name} has shape {tuple(found[name].shape)}, "
            f"expected {tuple(expected[name].shape)}"
        )
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"has {extra[0]}, which is not expected"
        raise WeightsError(f"{path}: {what}; found {len(found)} tensors, expected {len(expected)}")
