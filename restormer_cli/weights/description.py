"""Describes a checkpoint: its network, tensors, hash, and the tasks that it fits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from restormer_cli.errors import WeightsError
from restormer_cli.system.files import is_file
from restormer_cli.system.units import format_bytes
from restormer_cli.weights import checksum
from restormer_cli.weights.registry import find_by_hash, find_known
from restormer_cli.weights.selection import first_of, fitting

if TYPE_CHECKING:
    from restormer_cli.network.architecture import RestormerConfig
    from restormer_cli.weights.checkpoint import Checkpoint


_FORMATS = {
    "zip": "PyTorch",
    "legacy": "PyTorch before 1.6, not zipped",
    "safetensors": "safetensors",
}


def describe(name: str) -> dict[str, str]:
    """Describe a checkpoint from its headers.

    Parameters
    ----------
    name
        A path, or the name of a known file that is here.

    Returns
    -------
    dict of str to str
        Facts by name, in the order to show them.

    Raises
    ------
    WeightsError
        If it cannot be read or is no Restormer.
    """
    from restormer_cli.weights.checkpoint import open_checkpoint

    path = path_of(name)
    checkpoint = open_checkpoint(path)
    config = checkpoint.config()
    digest = checksum.sha256(path)
    facts = {
        "file": f"{path}, {format_bytes(path.stat().st_size)}, {_FORMATS[checkpoint.format]}",
        "SHA-256": digest,
        "known as": _identity(path, digest),
        "tensors": _tensors(checkpoint),
        "names begin with": checkpoint.prefix or "nothing, they are the official ones",
        **{key: _words(value) for key, value in config.to_mapping().items()},
        "fits": _fits(config),
    }
    if (known := find_by_hash(digest)) is not None:
        window = known.options.window
        facts["best with"] = f"--window {window}" if window else "--window none, whole images"
    if checkpoint.ignored:
        facts["left out"] = first_of(checkpoint.ignored)
    return facts


def path_of(name: str) -> Path:
    """Find a checkpoint by its path or the name of a known file.

    Raises
    ------
    WeightsError
        If a known file is not on this machine.
    """
    path = Path(name)
    known = None if is_file(path) else find_known(name)
    found = known.find() if known is not None else None
    if known is not None and found is None:
        raise WeightsError(f"{known.name} is not on this machine")
    return found or path


def _identity(path: Path, digest: str) -> str:
    if (known := find_by_hash(digest)) is not None:
        pinned = ", as pinned on this machine" if known.sha256 is None else ""
        return f"{known.kind} {known.name}{pinned}"
    named = find_known(path.name)
    if named is not None and named.sha256 is not None:
        return f"not the {named.kind} {named.name}, whose SHA-256 is {named.sha256}"
    return "no known file"


def _tensors(checkpoint: Checkpoint) -> str:
    tensors = checkpoint.tensors.values()
    kinds = Counter(tensor.dtype for tensor in tensors)
    parameters = sum(tensor.elements for tensor in tensors)
    return f"{len(tensors)}, {parameters:,} parameters, {' and '.join(sorted(kinds))}"


def _fits(config: RestormerConfig) -> str:
    alike, others = (", ".join(v.label for v in variants) for variants in fitting(config))
    if not (alike or others):
        return "no task: its channels are those of none"
    return f"{alike}; by its channels also {others}" if others else alike


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
