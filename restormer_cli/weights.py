"""Where weights come from: official ones on this machine, embedded compact ones, or a file."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from restormer_cli import hashes
from restormer_cli.errors import OptionsError, WeightsError
from restormer_cli.files import is_file
from restormer_cli.mistaken import describe_folder
from restormer_cli.tasks import (
    VARIANTS,
    Options,
    Variant,
    read_options,
    shipped_folder,
    shipped_options,
)
from restormer_cli.units import format_bytes

if TYPE_CHECKING:
    from restormer_cli.architecture import Restormer, RestormerConfig

RELEASE = "https://github.com/swz30/Restormer/releases/download/v1.0"
OFFICIAL_LICENCE = (
    "the authors' code is under the MIT licence since their commit 68dc6ac; "
    "no separate grant for the weights was found"
)
#: Of the official files whose size is not known, about this.
USUAL_SIZE = 104_700_000
FOLDER = "pretrained_models"


@dataclass(frozen=True)
class KnownFile:
    """An official file, whether it is on this machine or not, or an embedded one."""

    kind: Literal["official", "compact"]
    labels: tuple[str, ...]
    """Of the variants that it is for, such as ``deblur --kind motion``."""
    options: Options

    @property
    def name(self) -> str:
        """Of the file, such as ``deraining.pth``."""
        return str(self.options.weights["file"])

    @property
    def stem(self) -> str:
        """The name without its suffix, as people may type it."""
        return Path(self.name).stem

    @property
    def size(self) -> int | None:
        """In bytes, where it is known."""
        return self.options.weights.get("bytes")

    @property
    def sha256(self) -> str | None:
        """Where it is known; that of an embedded file stands in its model card."""
        if self.kind == "official":
            return self.options.weights.get("sha256")
        card = _embedded(self.name).with_suffix(".md")
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        found = re.search(r"`([0-9a-f]{64})`", text)
        return found[1] if found else None

    @property
    def licence(self) -> str:
        """Shortly; :data:`OFFICIAL_LICENCE` says what is known of the official files."""
        return "MIT" if self.kind == "compact" else "MIT (code)"

    @property
    def places(self) -> list[Path]:
        """Where it may be, the best first."""
        if self.kind == "compact":
            return [_embedded(self.name)]
        layout = self.options.weights.get("folder", FOLDER)
        checkout = shipped_folder(FOLDER).parent
        folders = [checkout / FOLDER, checkout / layout]
        with contextlib.suppress(WeightsError):  # without a cache folder there is nothing in it
            folders = [home(), home() / layout, *folders]
        return [folder / self.name for folder in folders]

    def find(self) -> Path | None:
        """Where it is on this machine."""
        return next((path for path in self.places if is_file(path)), None)


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


def official_file(variant: Variant) -> KnownFile:
    """The file with the authors' weights for a variant."""
    return KnownFile("official", (variant.label,), shipped_options(variant.name))


def compact_file(variant: Variant) -> KnownFile:
    """The file with this project's weights for a variant, embedded or yet to be trained."""
    labels = tuple(v.label for v in VARIANTS if v.compact == variant.compact)
    return KnownFile("compact", labels, shipped_options(variant.compact))


def known_files() -> list[KnownFile]:
    """All official files, then all embedded ones."""
    compact = {variant.compact: compact_file(variant) for variant in VARIANTS}
    embedded = [file for file in compact.values() if file.find() is not None]
    return [*map(official_file, VARIANTS), *embedded]


def find_known(name: str) -> KnownFile | None:
    """An official or embedded file by its name, with or without suffix."""
    return next((file for file in known_files() if name in {file.name, file.stem}), None)


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
    described = None if options is None else read_options(options)
    official, compact = official_file(variant), compact_file(variant)
    candidates = {"auto": [official, compact], "official": [official], "compact": [compact]}
    if choice in candidates:
        wanted = candidates[choice]
    elif is_file(Path(choice)):
        return WeightsFile(Path(choice), "file", described)
    elif (named := find_known(choice)) is not None:
        wanted = [named]
    elif os.path.isdir(choice or "."):  # noqa: PTH112 - Path.is_dir raises before Python 3.14
        raise WeightsError(f"{choice or '--weights'}: {describe_folder(Path(choice))}")
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
    from restormer_cli.parameters import find_parameters
    from restormer_cli.tensorfiles import TensorFile

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


def home() -> Path:
    """Where official weights are put: ``RESTORMER_HOME``, else the platform's cache folder.

    Raises
    ------
    WeightsError
        If there is none: the user has no home, say, as in some containers.
    """
    if chosen := os.environ.get("RESTORMER_HOME"):
        try:
            return Path(chosen).expanduser()
        except RuntimeError as error:
            raise WeightsError(f"RESTORMER_HOME: {chosen} names the home of nobody here") from error
    import platformdirs

    try:
        return platformdirs.user_cache_path("restormer-cli", appauthor=False)
    except (OSError, RuntimeError, KeyError) as error:
        raise WeightsError(
            "there is no home folder for weights; name a folder in RESTORMER_HOME"
        ) from error


def _embedded(name: str) -> Path:
    return shipped_folder(FOLDER) / "compact" / name


def check_hash(path: Path, known: KnownFile) -> hashes.Hash:
    """See that a file is the one that it is taken for.

    Raises
    ------
    WeightsError
        If it is not, with both hashes.
    """
    found = hashes.check(path, known.sha256)
    if not found.matches:
        raise WeightsError(mismatch(path, known, found))
    return found


def mismatch(path: Path, known: KnownFile, found: hashes.Hash) -> str:
    """What to say of a file that is not what it should be."""
    wrong = "is not the official file" if found.source == "known" else "is not what was pinned"
    if known.kind == "compact":
        return (
            f"{path}: is damaged: its SHA-256 is {found.found}, its card says {found.expected}; "
            "install the package anew"
        )
    return (
        f"{path}: {wrong}: its SHA-256 is {found.found}, expected {found.expected}; "
        f"`restormer weights download {known.stem}` puts it aside and gets the right one, "
        f"--weights {path} uses it all the same"
    )


def load_network(file: WeightsFile, variant: Variant) -> Restormer:
    """Load weights and check that they do what ``variant`` is for.

    Raises
    ------
    WeightsError
        If the file cannot be loaded, is not the official one that it is taken for, or its
        network takes or gives other channels.
    """
    from restormer_cli.architecture import RestormerConfig
    from restormer_cli.checkpoints import build_network

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


def _misfits(config: RestormerConfig, variant: Variant) -> list[str]:
    from restormer_cli.architecture import RestormerConfig

    expected = RestormerConfig.from_mapping(shipped_options(variant.name).network)
    return [
        f"{name} is {getattr(config, name)}, expected {getattr(expected, name)}"
        for name in ("inp_channels", "out_channels", "dual_pixel_task")
        if getattr(config, name) != getattr(expected, name)
    ]


__all__ = [
    "OptionsError",
    "WeightsFile",
    "find_weights",
    "home",
    "load_network",
    "notice",
]
