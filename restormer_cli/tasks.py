"""The tasks: a row for each variant, a YAML file in ``Options/`` for each network.

A task is data. A new one is a YAML file with the network's hyper-parameters and a row in
:data:`VARIANTS`; no other module depends on the task. This one does not import torch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from restormer_cli.errors import OptionsError, UsageError

NETWORK_BLOCK = "network_g"
NETWORK_TYPE = "Restormer"


@dataclass(frozen=True)
class Variant:
    """One variant of a task."""

    name: str
    """Stem of the YAML file of the official network."""
    task: str
    """The subcommand."""
    compact: str = ""
    """Stem of the YAML file of the compact network for it; empty if there is none."""
    kind: str | None = None
    sigma: int | None = None
    help: str = ""
    """For the first variant of a task: the help of the subcommand."""
    kind_help: str = ""
    """For the first variant of a kind: the help of ``--kind``."""
    views: int = 1
    """Number of images of one input: two for dual-pixel pairs."""
    protocol: str = "rgb"
    """The papers' protocol, a name in :data:`restormer_cli.evaluation.protocols.PROTOCOLS`."""

    @property
    def label(self) -> str:
        """Subcommand and options, such as ``denoise --kind gray --sigma 25``."""
        kind = f" --kind {self.kind}" if self.kind else ""
        sigma = f" --sigma {self.sigma}" if self.sigma else ""
        return f"{self.task}{kind}{sigma}"


VARIANTS = (
    Variant("derain", "derain", "compact_derain", protocol="y", help="Remove rain streaks."),
    Variant(
        "denoise_real",
        "denoise",
        "compact_denoise_real",
        kind="real",
        protocol="sidd",
        help="Remove noise; without --sigma its strength need not be known.",
        kind_help="noise of a camera",
    ),
    Variant(
        "denoise_color_blind",
        "denoise",
        "compact_denoise_color",
        kind="color",
        kind_help="Gaussian noise in colour",
    ),
    *(
        Variant(f"denoise_color_sigma{s}", "denoise", "compact_denoise_color", "color", s)
        for s in (15, 25, 50)
    ),
    Variant(
        "denoise_gray_blind",
        "denoise",
        "compact_denoise_gray",
        kind="gray",
        protocol="gray",
        kind_help="Gaussian noise in gray",
    ),
    *(
        Variant(
            f"denoise_gray_sigma{s}", "denoise", "compact_denoise_gray", "gray", s, protocol="gray"
        )
        for s in (15, 25, 50)
    ),
    Variant(
        "deblur_motion",
        "deblur",
        "compact_deblur_motion",
        kind="motion",
        protocol="gopro",
        help="Remove motion blur or defocus blur.",
        kind_help="blur of motion or shake",
    ),
    Variant(
        "deblur_defocus",
        "deblur",
        "compact_deblur_defocus",
        kind="defocus",
        protocol="dpdd",
        kind_help="blur of what is out of focus",
    ),
    Variant(
        "dual_pixel",
        "dual-pixel",
        "compact_dual_pixel",
        views=2,
        protocol="dpdd",
        help="Remove defocus blur using both views of a dual-pixel sensor.",
    ),
)


@dataclass(frozen=True)
class Task:
    """A subcommand: the variants that share its name."""

    name: str
    variants: tuple[Variant, ...]

    @property
    def help(self) -> str:
        """The help of the subcommand."""
        return self.variants[0].help

    @property
    def kinds(self) -> dict[str, str]:
        """The choices of ``--kind`` with their help, the default first; empty without choices."""
        return {v.kind: v.kind_help for v in self.variants if v.kind and v.kind_help}

    @property
    def sigmas(self) -> list[int]:
        """The choices of ``--sigma``; empty without this option."""
        return sorted({v.sigma for v in self.variants if v.sigma is not None})

    @property
    def views(self) -> int:
        """Number of images of one input."""
        return self.variants[0].views


def tasks() -> list[Task]:
    """All subcommands that restore, in the order of :data:`VARIANTS`."""
    names = dict.fromkeys(variant.task for variant in VARIANTS)
    return [Task(name, tuple(v for v in VARIANTS if v.task == name)) for name in names]


def find_variant(task: str, kind: str | None = None, sigma: int | None = None) -> Variant:
    """Find the variant for a subcommand and its options; without ``kind``, the task's first.

    Raises
    ------
    UsageError
        If there is no such variant.
    """
    of_task = [v for v in VARIANTS if v.task == task]
    if not of_task:
        raise UsageError(
            f"no task {task!r}; there are {', '.join(dict.fromkeys(v.task for v in VARIANTS))}"
        )
    kind = kind or of_task[0].kind
    for variant in of_task:
        if (variant.kind, variant.sigma) == (kind, sigma):
            return variant
    choices = "; ".join(v.label for v in of_task)
    asked = Variant("", task, "", kind, sigma).label
    raise UsageError(f"no weights exist for {asked!r}; choose from: {choices}")


def variant_of_weights(label: str) -> Variant | None:
    """Find the first variant of shipped weights, by their file name or a label that ends in it.

    Returns
    -------
    Variant or None
        None for weights of another name.
    """
    name = label.rpartition(" ")[2]
    for variant in VARIANTS:
        for options in filter(None, (variant.name, variant.compact)):
            if name == shipped_options(options).weights.get("file"):
                return variant
    return None


#: Most bytes of a file of options; those of the authors, with all of their training, have 4,000.
_LARGEST_OPTIONS = 1 << 20


@dataclass(frozen=True)
class Options:
    """The contents of a YAML file of a network."""

    name: str
    """Stem of the file."""
    network: Mapping[str, Any]
    """Hyper-parameters, for :meth:`RestormerConfig.from_mapping`."""
    weights: Mapping[str, Any] = field(default_factory=dict)
    """Of its weights: ``file``, ``bytes`` and ``sha256`` as far as they are known, and what suits
    them: ``window`` and ``symmetries``."""

    @property
    def window(self) -> int | None:
        """Rows and columns of the local windows of attention that these weights are best with.

        None: attention over whole images.
        """
        window = self.weights.get("window")
        return window if isinstance(window, int) else None

    @property
    def symmetries(self) -> str:
        """Name of the flips and turns that a self-ensemble may average over.

        Names are those of :data:`restormer_cli.symmetries.SYMMETRIES`. By default the mirror image
        alone: only dual pixels tell it from the original.
        """
        return str(self.weights.get("symmetries", "mirror"))


def shipped_folder(name: str) -> Path:
    """Find a folder of the package: inside it in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


@functools.cache  # a start looks through all of them
def shipped_options(name: str) -> Options:
    """Read ``Options/<name>.yml``."""
    return read_options(shipped_folder("Options") / f"{name}.yml")


def read_options(path: Path) -> Options:
    """Read hyper-parameters from a YAML file, ours or the authors'.

    Only the block ``network_g`` and, in ours, ``weights`` are read.

    Raises
    ------
    OptionsError
        If the file cannot be read, is not YAML or does not describe a Restormer.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_OPTIONS + 1)
        if len(text) > _LARGEST_OPTIONS:
            raise OptionsError(f"{path}: too large for a file of hyper-parameters")
        document = yaml.safe_load(text.decode("utf-8-sig"))
    except OSError as error:
        raise OptionsError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, ArithmeticError, RecursionError, yaml.YAMLError) as error:
        # No UTF-8, a date or number that is none, lists in lists without end.
        raise OptionsError(f"{path}: not a YAML file") from error
    network = document.get(NETWORK_BLOCK) if isinstance(document, dict) else None
    if not isinstance(network, dict):
        raise OptionsError(f"{path}: has no block {NETWORK_BLOCK!r} with hyper-parameters")
    weights = document.get("weights") or {}
    for name, block in ((NETWORK_BLOCK, network), ("weights", weights)):
        if not isinstance(block, dict):
            raise OptionsError(f"{path}: the block {name!r} holds no names with values")
        for key, value in block.items():
            if not _is_plain(key, value):
                raise OptionsError(f"{path}: {key!r} in {name!r} is no name with a plain value")
    kind = network.get("type", NETWORK_TYPE)
    if kind != NETWORK_TYPE:
        raise OptionsError(f"{path}: describes the network {kind}, not {NETWORK_TYPE}")
    return Options(path.stem, {k: v for k, v in network.items() if k != "type"}, weights)


def _is_plain(key: object, value: object) -> bool:
    """True for a name with a value or a list of values that are not nested."""
    values = value if isinstance(value, list) else [value]
    return isinstance(key, str) and not any(isinstance(one, (list, dict, set)) for one in values)
