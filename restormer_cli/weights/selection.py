"""Selects weights for a task: official ones, embedded compact ones, or a file of the user."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from restormer_cli.errors import WeightsError
from restormer_cli.system.files import file_mode, is_file, kind
from restormer_cli.system.units import format_bytes
from restormer_cli.tasks import VARIANTS, Options, Variant, read_options, shipped_options
from restormer_cli.weights.registry import (
    USUAL_SIZE,
    KnownFile,
    check_hash,
    compact_file,
    find_known,
    official_file,
)
from restormer_cli.weights.unreadable import describe_folder

if TYPE_CHECKING:
    from restormer_cli.network.architecture import Restormer, RestormerConfig


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights that was found."""

    path: Path
    kind: Literal["official", "compact", "file"]
    options: Options | None
    """The hyper-parameters; None if they are inferred from the file."""
    known: KnownFile | None = None
    """The registry's entry; None for a file of the user."""

    @property
    def label(self) -> str:
        """Name in messages and reports, such as ``official deraining.pth``."""
        return self.path.name if self.kind == "file" else f"{self.kind} {self.path.name}"


def find_weights(variant: Variant, choice: str, *, options: Path | None = None) -> WeightsFile:
    """Find the weights for a task.

    Parameters
    ----------
    choice
        ``auto`` (official ones if they are here, else compact), ``official``, ``compact``, a
        path, or the name of an official or embedded file. A file of that path comes first.
    options
        A YAML file with the hyper-parameters, for a path.

    Raises
    ------
    WeightsError
        If there are none.
    OptionsError
        If ``options`` cannot be used.
    """
    if not choice:
        raise WeightsError("--weights is empty; name a file, auto, official or compact")
    described = None if options is None else read_options(options)
    official = official_file(variant)
    compact = [compact_file(variant)] if variant.compact else []
    candidates = {"auto": [official, *compact], "official": [official], "compact": compact}
    if choice in candidates:
        wanted = candidates[choice]
    elif is_file(Path(choice)):
        return WeightsFile(Path(choice), "file", described)
    elif (named := find_known(choice)) is not None:
        wanted = [named]
    elif os.path.isdir(choice):  # noqa: PTH112 - Path.is_dir raises before Python 3.14
        raise WeightsError(f"{choice}: {describe_folder(Path(choice))}")
    elif file_mode(Path(choice)):
        raise WeightsError(f"{choice}: is {kind(file_mode(Path(choice)))}, not a file of weights")
    else:
        raise WeightsError(f"{choice}: no such file of weights, and no official file of that name")
    for known in wanted:
        if (path := known.find()) is not None:
            return WeightsFile(path, known.kind, described or known.options, known)
    if choice == "compact":
        raise WeightsError(f"no compact weights for {variant.label!r} are embedded")
    if choice in candidates:
        raise WeightsError(
            f"no weights for {variant.label!r} are on this machine; {_how_to_get(official)}"
        )
    raise WeightsError(f"{wanted[0].name} is not on this machine; {_how_to_get(wanted[0])}")


def notice(file: WeightsFile, variant: Variant) -> str:
    """A notice of the weights that ``auto`` chose, and how to get better ones."""
    line = f"weights: {file.label}"
    if file.kind == "compact":
        line += f"; for the paper's quality, {_how_to_get(official_file(variant))}"
    return line


def ignored_notice(file: WeightsFile) -> str | None:
    """A notice of entries that are left out of a file of the user; None if there are none.

    Raises
    ------
    WeightsError
        If the file holds no network.
    """
    if file.kind != "file":
        return None
    from restormer_cli.weights.parameters import find_parameters
    from restormer_cli.weights.tensor_file import TensorFile

    return describe_ignored(file.path, find_parameters(file.path, TensorFile(file.path)).ignored)


def describe_ignored(path: Path, names: Sequence[str]) -> str | None:
    """A notice of entries of a checkpoint that are no parameters; None if there are none."""
    if not names:
        return None
    return f"{path}: left out, since the network needs no such things: {first_of(names)}"


def first_of(names: Sequence[str]) -> str:
    """The first name and the number of others."""
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]


def _how_to_get(file: KnownFile) -> str:
    size = format_bytes(file.size or USUAL_SIZE)
    return f"run `restormer weights download {file.stem}` ({size})"


def load_network(file: WeightsFile, variant: Variant) -> Restormer:
    """Load weights and check that they fit ``variant``.

    Raises
    ------
    WeightsError
        If the file cannot be loaded, does not have the official hash, or its network takes or
        gives other channels.
    """
    from restormer_cli.network.architecture import RestormerConfig
    from restormer_cli.weights.checkpoint import build_network

    if file.known is not None and file.kind == "official":
        check_hash(file.path, file.known)
    config = None if file.options is None else RestormerConfig.from_mapping(file.options.network)
    network = build_network(file.path, config)
    if misfits := _misfits(network.config, variant):
        raise WeightsError(f"{file.path}: does not fit {variant.label!r}: {misfits[0]}")
    return network


def fitting(config: RestormerConfig) -> tuple[list[Variant], list[Variant]]:
    """Find the variants with the channels of a network.

    Returns
    -------
    list of Variant
        Those that use the same LayerNorm.
    list of Variant
        The others.
    """
    variants = [variant for variant in VARIANTS if not _misfits(config, variant)]
    norms = [shipped_options(variant.name).network["LayerNorm_type"] for variant in variants]
    alike = [v for v, norm in zip(variants, norms, strict=True) if norm == config.LayerNorm_type]
    return alike, [variant for variant in variants if variant not in alike]


def variant_of_file(path: Path) -> Variant:
    """The first variant that a checkpoint fits; those with the same LayerNorm come first.

    Raises
    ------
    WeightsError
        If it cannot be read, or fits none.
    """
    from restormer_cli.weights.checkpoint import open_checkpoint

    alike, others = fitting(open_checkpoint(path).config())
    if not (alike or others):
        raise WeightsError(f"{path}: fits no task: its channels are those of none")
    return [*alike, *others][0]


def _misfits(config: RestormerConfig, variant: Variant) -> list[str]:
    from restormer_cli.network.architecture import RestormerConfig

    expected = RestormerConfig.from_mapping(shipped_options(variant.name).network)
    return [
        f"{name} is {getattr(config, name)}, expected {getattr(expected, name)}"
        for name in ("inp_channels", "out_channels", "dual_pixel_task")
        if getattr(config, name) != getattr(expected, name)
    ]
