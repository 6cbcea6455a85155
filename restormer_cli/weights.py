"""Where weights come from: official ones on this machine, embedded compact ones, or a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from restormer_cli.errors import OptionsError, WeightsError
from restormer_cli.tasks import (
    VARIANTS,
    Options,
    Variant,
    read_options,
    shipped_folder,
    shipped_options,
)

if TYPE_CHECKING:
    from restormer_cli.architecture import Restormer

RELEASE = "https://github.com/swz30/Restormer/releases/download/v1.0/"


@dataclass(frozen=True)
class WeightsFile:
    """Weights that were found."""

    path: Path
    kind: Literal["official", "compact", "file"]
    options: Options | None
    """What describes the network; None where it is inferred from the file."""

    @property
    def label(self) -> str:
        """How messages and reports name it, such as ``official deraining.pth``."""
        return self.path.name if self.kind == "file" else f"{self.kind} {self.path.name}"


def find_weights(variant: Variant, choice: str, *, options: Path | None = None) -> WeightsFile:
    """Find the weights for a task.

    Parameters
    ----------
    choice
        ``auto`` (official ones if they are here, else compact), ``official``, ``compact``, the
        name of an official file, or a path.
    options
        A YAML file with the hyper-parameters, for a path.

    Raises
    ------
    WeightsError
        If there are none; it says how to get them.
    OptionsError
        If ``options`` cannot be used.
    """
    described = None if options is None else read_options(options)
    if choice in {"auto", "official"}:
        found = _official(variant)
        if found is None and choice == "auto":
            found = _compact(variant)
        if found is None:
            raise WeightsError(
                f"no weights for {variant.label!r} are on this machine; {_how_to_get(variant)}"
            )
    elif choice == "compact":
        found = _compact(variant)
        if found is None:
            raise WeightsError(f"no compact weights for {variant.label!r} are embedded")
    else:
        found = _named(choice) or WeightsFile(Path(choice), "file", None)
        if not found.path.is_file():
            raise WeightsError(
                f"{choice}: no such file of weights, and no official file of that name"
            )
    return found if described is None else WeightsFile(found.path, found.kind, described)


def notice(file: WeightsFile, variant: Variant) -> str:
    """The line that says which weights ``auto`` chose and how to get better ones."""
    line = f"weights: {file.label}"
    if file.kind == "compact":
        line += f"; for the paper's quality, {_how_to_get(variant)}"
    return line


def _how_to_get(variant: Variant) -> str:
    name = shipped_options(variant.name).weights["file"]
    return f"download {RELEASE}{name} into {home()} (100 MB)"


def home() -> Path:
    """Where official weights are put: ``RESTORMER_HOME``, else a folder in the user's cache."""
    if "RESTORMER_HOME" in os.environ:
        return Path(os.environ["RESTORMER_HOME"])
    cache = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache"
    return Path(cache).expanduser() / "restormer-cli"


def _places() -> list[Path]:
    return [home(), shipped_folder("pretrained_models")]


def _official(variant: Variant) -> WeightsFile | None:
    options = shipped_options(variant.name)
    for folder in _places():
        path = folder / options.weights["file"]
        if path.is_file():
            return WeightsFile(path, "official", options)
    return None


def _compact(variant: Variant) -> WeightsFile | None:
    options = shipped_options(variant.compact)
    path = shipped_folder("pretrained_models") / "compact" / options.weights["file"]
    return WeightsFile(path, "compact", options) if path.is_file() else None


def _named(name: str) -> WeightsFile | None:
    """An official file by its name, with or without ``.pth``."""
    for variant in VARIANTS:
        file = shipped_options(variant.name).weights["file"]
        if name in {file, file.removesuffix(".pth")}:
            return _official(variant)
    return None


def load_network(file: WeightsFile, variant: Variant) -> Restormer:
    """Load weights and check that they do what ``variant`` is for.

    Raises
    ------
    WeightsError
        If the file cannot be loaded or its network takes or gives other channels.
    """
    from restormer_cli.architecture import RestormerConfig
    from restormer_cli.checkpoints import build_network

    config = None if file.options is None else RestormerConfig.from_mapping(file.options.network)
    network = build_network(file.path, config)
    expected = RestormerConfig.from_mapping(shipped_options(variant.name).network)
    for name in ("inp_channels", "out_channels", "dual_pixel_task"):
        found, wanted = getattr(network.config, name), getattr(expected, name)
        if found != wanted:
            raise WeightsError(
                f"{file.path}: does not fit {variant.label!r}: {name} is {found}, expected {wanted}"
            )
    return network


__all__ = ["OptionsError", "WeightsFile", "find_weights", "home", "load_network", "notice"]
