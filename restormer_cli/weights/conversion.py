"""Converts checkpoints to safetensors."""

from __future__ import annotations

import logging
from pathlib import Path

from restormer_cli.errors import UsageError, WeightsError
from restormer_cli.system.atomic import atomic_file
from restormer_cli.system.files import file_mode, is_link
from restormer_cli.weights.description import path_of
from restormer_cli.weights.selection import describe_ignored

logger = logging.getLogger(__name__)


def convert(name: str, target: Path, *, half: bool = False, overwrite: bool = False) -> Path:
    """Write a checkpoint as safetensors, under the official names of its parameters.

    Parameters
    ----------
    name
        A path, or the name of a known file that is here.
    target
        The file to write.
    half
        Store float16; by default every bit is kept.
    overwrite
        Replace a target that exists.

    Returns
    -------
    Path
        The target.

    Raises
    ------
    UsageError
        If the target is there already, or is no ``.safetensors`` file.
    WeightsError
        If the checkpoint cannot be read, is no Restormer, or has values too large for float16.
    """
    import torch
    from safetensors.torch import save

    from restormer_cli.weights.checkpoint import open_checkpoint

    source = path_of(name)
    if target.suffix.lower() != ".safetensors":
        raise UsageError(f"{target}: should end in .safetensors")
    checkpoint = open_checkpoint(source)
    there = file_mode(target)
    if (there and target.samefile(source)) or ((there or is_link(target)) and not overwrite):
        raise UsageError(f"{target}: is there already")
    checkpoint.config()
    if text := describe_ignored(source, checkpoint.ignored):
        logger.warning(text)
    state = {key: tensor.contiguous() for key, tensor in checkpoint.read().items()}
    if half:
        for key, tensor in state.items():
            state[key] = tensor.half()
            if torch.isfinite(tensor).all() and not torch.isfinite(state[key]).all():
                raise WeightsError(f"{source}: {key} holds values too large for float16")
    content = save(state, metadata={"format": "pt"})
    try:
        with atomic_file(target) as file:
            file.write(content)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror or error})") from error
    return target
