"""Which weights a task gets: official ones, embedded compact ones, or a file of the user's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from restormer_cli.errors import WeightsError
from restormer_cli.system.files import file_mode, is_file, kind
from restormer_cli.system.units import format_bytes
from restormer_cli.tasks import (
    VARIANTS,
    Options,
    Variant,
    read_options,
    shipped_options,
)
from restormer_cli.weights.unreadable import describe_folder

if TYPE_CHECKING:
    from restormer_cli.network.architecture import Restormer, RestormerConfig
from restormer_cli.weights.registry import (
    USUAL_SIZE,
    KnownFile,
    check_hash,
    compact_file,
    find_known,
    official_file,
)


@dataclass(frozen=True)
class WeightsFile:
    """Weights that were found."""

    path: Path
    kind: Literal["official", "compact", "file"]
    options: Options | None
    """What describes the network; None where it is inferred from the file."""
    known: KnownFile | None = None
    """What the file should be; None for a file of the user's."""

    @property
    def label(self) -> str:
        """How messages and reports name it, such as ``official deraining.pth``."""
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
        If there are none; it says how to get them.
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
    """The line that says which weights ``auto`` chose and how to get better ones."""
    line = f"weights: {file.label}"
    if file.kind == "compact":
        line += f"; for the paper's quality, {_how_to_get(official_file(variant))}"
    return line


def ignored_notice(file: WeightsFile) -> str | None:
    """The line that says what is left out of a file of the user's; None if nothing is.

    Raises
    ------
    WeightsError
        If it holds no network.
    """
    if file.kind != "file":
        return None
    from restormer_cli.weights.parameters import find_parameters
    from restormer_cli.weights.tensor_file import TensorFile

    return describe_ignored(file.path, find_parameters(file.path, TensorFile(file.path)).ignored)


def describe_ignored(path: Path, names: Sequence[str]) -> str | None:
    """What to say of entries of a checkpoint that are no parameters."""
    if not names:
        return None
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{path}: left out, since the network needs no such things: {names[0]}{more}"


def _how_to_get(file: KnownFile) -> str:
    size = format_bytes(file.size or USUAL_SIZE)
    return f"run `restormer weights download {file.stem}` ({size})"


def load_network(file: WeightsFile, variant: Variant) -> Restormer:
    """Load weights and check that they do what ``variant`` is for.

    Raises
    ------
    WeightsError
        If the file cannot be loaded, is not the official one that it is taken for, or its
        network takes or gives other channels.
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


def fitting(config: RestormerConfig) -> list[Variant]:
    """The variants that a network can be used for, going by its channels."""
    return [variant for variant in VARIANTS if not _misfits(config, variant)]


def variant_of_file(path: Path) -> Variant:
    """The first variant that a checkpoint fits, those first that use the same LayerNorm.

    Raises
    ------
    WeightsError
        If it cannot be read, or fits none.
    """
    from restormer_cli.weights.checkpoint import open_checkpoint

    config = open_checkpoint(path).config()
    variants = fitting(config)
    alike = [v for v in variants if _layer_norm(v) == config.LayerNorm_type]
    if not variants:
        raise WeightsError(f"{path}: fits no task: its channels are those of none")
    return [*alike, *variants][0]


def _layer_norm(variant: Variant) -> str:
    return str(shipped_options(variant.name).network["LayerNorm_type"])


def _misfits(config: RestormerConfig, variant: Variant) -> list[str]:
    from restormer_cli.network.architecture import RestormerConfig

    expected = RestormerConfig.from_mapping(shipped_options(variant.name).network)
    return [
        f"{name} is {getattr(config, name)}, expected {getattr(expected, name)}"
        for name in ("inp_channels", "out_channels", "dual_pixel_task")
        if getattr(config, name) != getattr(expected, name)
    ]
