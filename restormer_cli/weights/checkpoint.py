"""Checkpoints: infer the network of a file, and build it.

Nothing in a checkpoint can run code: pickles are not executed but read as data
(:mod:`restormer_cli.weights.safe_pickle`), safetensors files hold no code at all. The file is
mapped into memory, so that float32 weights are never copied on their way into the network.
"""

from __future__ import annotations

import itertools
import math
import mmap
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from restormer_cli.errors import OptionsError, WeightsError
from restormer_cli.network.architecture import Restormer, RestormerConfig
from restormer_cli.weights.parameters import SIGNATURE, find_parameters, looks_like
from restormer_cli.weights.stored_tensor import ELEMENT_SIZES, StoredTensor
from restormer_cli.weights.tensor_file import TensorFile

StateDict = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]

EXPANSION_OF_THE_PAPER = 2.66
FLOATING_POINT = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True)
class Checkpoint:
    """The parameters of a network in a file, under the official names; not yet read."""

    path: Path
    format: str
    """``zip``, ``legacy`` or ``safetensors``."""
    prefix: str
    """The prefix of the names in the file, such as ``params.module.``."""
    tensors: Mapping[str, StoredTensor]
    ignored: Sequence[str] = ()
    """Names of other entries, which are no parameters."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def config(self) -> RestormerConfig:
        """Infer the hyper-parameters from the shapes.

        Raises
        ------
        WeightsError
            If they are not those of a Restormer.
        """
        try:
            return infer_config(self.shapes)
        except WeightsError as error:
            other = f"; {hint}" if (hint := looks_like(self.tensors)) else ""
            raise WeightsError(f"{self.path}: {error}{other}") from error

    def read(self) -> StateDict:
        """Read the tensors, in the precision of the file, which stays mapped while they are used.

        Raises
        ------
        WeightsError
            If the file cannot be read, or a checksum is wrong.
        """
        try:
            with self.path.open("rb") as file:
                # Private: should a tensor be written to, the file does not change.
                mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
                return {n: self._read_tensor(n, t, file, mapping) for n, t in self.tensors.items()}
        except (OSError, ValueError) as error:
            raise WeightsError(f"{self.path}: cannot be read ({error})") from error

    def _read_tensor(
        self, name: str, tensor: StoredTensor, file: IO[bytes], mapping: mmap.mmap
    ) -> Tensor:
        place, dtype = tensor.extent, getattr(torch, tensor.dtype)
        if place.end > len(mapping):
            raise WeightsError(f"{self.path}: was cut off while it was read")
        if place.crc32 is not None:
            with memoryview(mapping) as content:
                if zlib.crc32(content[place.start : place.end]) != place.crc32:
                    raise WeightsError(f"{self.path}: is damaged: the checksum of {name} is wrong")
        if not tensor.elements:
            return torch.empty(tensor.shape, dtype=dtype)
        if place.start % ELEMENT_SIZES[tensor.dtype]:
            # Numbers must be aligned. Read, not copied from the map, which would take both.
            file.seek(place.start)
            numbers = torch.frombuffer(bytearray(file.read(place.length)), dtype=dtype)
        else:
            count = place.length // ELEMENT_SIZES[tensor.dtype]
            numbers = torch.frombuffer(mapping, dtype=dtype, count=count, offset=place.start)
        return numbers.as_strided(tensor.shape, tensor.stride, tensor.offset)


def open_checkpoint(path: Path) -> Checkpoint:
    """Find the parameters of a network in a file, by its headers; see :func:`find_parameters`.

    Raises
    ------
    WeightsError
        If the file cannot be read, is cut off or damaged, holds no parameters or several networks,
        or parameters that are not floating point or more than the file has room for.
    """
    file = TensorFile(path)
    found = find_parameters(path, file)
    tensors = {name: file[stored] for name, stored in found.names.items()}
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATING_POINT:
            raise WeightsError(
                f"{path}: {name} holds {tensor.dtype}, expected {', '.join(FLOATING_POINT)}"
            )
    if sum(tensor.nbytes for tensor in tensors.values()) > file.size:
        raise WeightsError(f"{path}: its tensors claim more numbers than the file stores")
    return Checkpoint(path, file.format, found.prefix, tensors, found.ignored)


def infer_config(shapes: Shapes) -> RestormerConfig:
    """Infer the hyper-parameters of a network from the names and shapes of its parameters.

    Raises
    ------
    WeightsError
        If they are not those of a Restormer.
    """

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        if len(shapes.get(name, ())) != dimensions:
            raise WeightsError(
                f"is no Restormer: expected {name}, a tensor of {dimensions} dimensions"
            )
        return shapes[name]

    def count(stage: str) -> int:
        numbers = {int(m[1]) for name in shapes if (m := re.match(rf"{stage}\.(\d+)\.", name))}
        missing = next(n for n in itertools.count() if n not in numbers)
        if missing < len(numbers):
            raise WeightsError(
                f"lacks the block {stage}.{missing}, though it has {stage}.{max(numbers)}"
            )
        return len(numbers)

    stages = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    dim, inputs = shape(SIGNATURE, 4)[:2]
    blocks = [count(stage) for stage in stages]
    for stage, number in zip(stages, blocks, strict=True):
        if not number:  # as likely lost as never there
            raise WeightsError(
                f"has no blocks of {stage}; if the network is made so, describe it with --options"
            )
    refinements = count("refinement")
    heads = [1, 1, 1, 1]
    hidden: dict[int, int] = {}
    # Refinement has the heads of the first level and the width of the second.
    for level, width, stage in ((0, 1, "refinement"), *((n, n, s) for n, s in enumerate(stages))):
        if stage != "refinement" or refinements:
            heads[level] = shape(f"{stage}.0.attn.temperature", 3)[0]
            hidden[width] = shape(f"{stage}.0.ffn.project_out.weight", 4)[1]
    has_bias = any(name.endswith("norm1.body.bias") for name in shapes)
    try:
        return RestormerConfig(
            inp_channels=inputs,
            out_channels=shape("output.weight", 4)[0],
            dim=dim,
            num_blocks=(blocks[0], blocks[1], blocks[2], blocks[3]),
            num_refinement_blocks=refinements,
            heads=(heads[0], heads[1], heads[2], heads[3]),
            ffn_expansion_factor=_infer_expansion(dim, hidden),
            bias="output.bias" in shapes,
            LayerNorm_type="WithBias" if has_bias else "BiasFree",
            dual_pixel_task="skip_conv.weight" in shapes,
        )
    except OptionsError as error:
        raise WeightsError(f"is no Restormer: {error}") from error


def _infer_expansion(dim: int, hidden: Mapping[int, int]) -> float:
    """Find an expansion factor that gives the hidden channels of all levels.

    Of many possible ones take that of the paper, else the one with the fewest decimals.
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
    """Build the network of a checkpoint, in float32 on the CPU, in evaluation mode.

    Parameters
    ----------
    config
        Its hyper-parameters; by default they are inferred.

    Raises
    ------
    WeightsError
        If the file cannot be read or holds another network than ``config`` describes.
    """
    checkpoint = open_checkpoint(path)
    config = config or checkpoint.config()
    # Without memory and random values, which the file's would replace.
    with torch.device("meta"):
        network = Restormer(config)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    _check_shapes(path, expected, checkpoint.shapes)
    state = {name: tensor.float() for name, tensor in checkpoint.read().items()}
    for name, tensor in state.items():
        # The extremes are not finite if any value is not; they take a tenth of isfinite's time.
        if not all(map(math.isfinite, torch.aminmax(tensor))):
            raise WeightsError(f"{path}: {name} holds values that are no numbers")
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _check_shapes(path: Path, expected: Shapes, found: Shapes) -> None:
    """Raise WeightsError with the first difference, if there is one."""
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    other = [n for n in expected if n in found and expected[n] != found[n]]
    if other:
        name = other[0]
        raise WeightsError(f"{path}: {name} has shape {found[name]}, expected {expected[name]}")
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"has {extra[0]}, which is not expected"
        hint = looks_like(found)
        if re.search(r"-\d+-of-\d+\.", path.name):
            hint = "it is one part of several; make one file of them"
        raise WeightsError(
            f"{path}: {what}; found {len(found)} tensors, expected {len(expected)}"
            + (f"; {hint}" if hint else "")
        )
