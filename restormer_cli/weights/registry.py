"""The official and the embedded files: their names, sizes, hashes and places."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from restormer_cli.errors import WeightsError
from restormer_cli.system.files import is_file
from restormer_cli.tasks import VARIANTS, Options, Variant, shipped_folder, shipped_options
from restormer_cli.weights import checksum

RELEASE = "https://github.com/swz30/Restormer/releases/download/v1.0"
OFFICIAL_LICENCE = (
    "the authors' code is under the MIT licence since their commit 68dc6ac; "
    "no separate grant for the weights was found"
)
#: Approximate bytes of official files whose size is not known.
USUAL_SIZE = 104_700_000
FOLDER = "pretrained_models"


@dataclass(frozen=True)
class KnownFile:
    """An official file, whether it is on this machine or not, or an embedded one."""

    kind: Literal["official", "compact"]
    labels: tuple[str, ...]
    """Labels of its variants, such as ``deblur --kind motion``."""
    options: Options

    @property
    def name(self) -> str:
        """Name of the file, such as ``deraining.pth``."""
        return str(self.options.weights["file"])

    @property
    def stem(self) -> str:
        """The name without its suffix, as people may type it."""
        return Path(self.name).stem

    @property
    def size(self) -> int | None:
        """Size in bytes, if it is known."""
        return self.options.weights.get("bytes")

    @property
    def sha256(self) -> str | None:
        """The hash, if it is known; that of an embedded file is in its model card."""
        if self.kind == "official":
            return self.options.weights.get("sha256")
        card = _embedded(self.name).with_suffix(".md")
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        found = re.search(r"`([0-9a-f]{64})`", text)
        return found[1] if found else None

    @property
    def licence(self) -> str:
        """The licence in a word; for official files see :data:`OFFICIAL_LICENCE`."""
        return "MIT" if self.kind == "compact" else "MIT (code)"

    @property
    def places(self) -> list[Path]:
        """Paths at which it may be, the best first."""
        if self.kind == "compact":
            return [_embedded(self.name)]
        layout = self.options.weights.get("folder", FOLDER)
        checkout = shipped_folder(FOLDER).parent
        folders = [checkout / FOLDER, checkout / layout]
        with contextlib.suppress(WeightsError):  # without a cache folder there is nothing in it
            folders = [home(), home() / layout, *folders]
        return [folder / self.name for folder in folders]

    def find(self) -> Path | None:
        """Its path on this machine; None if it is not there."""
        return next((path for path in self.places if is_file(path)), None)


def official_file(variant: Variant) -> KnownFile:
    """The file with the authors' weights for a variant."""
    return KnownFile("official", (variant.label,), shipped_options(variant.name))


def compact_file(variant: Variant) -> KnownFile:
    """The file with this project's weights for a variant, embedded or yet to be trained."""
    labels = tuple(v.label for v in VARIANTS if v.compact == variant.compact)
    return KnownFile("compact", labels, shipped_options(variant.compact))


def known_files() -> list[KnownFile]:
    """All official files, then all embedded ones."""
    compact = {v.compact: compact_file(v) for v in VARIANTS if v.compact}
    embedded = [file for file in compact.values() if file.find() is not None]
    return [*map(official_file, VARIANTS), *embedded]


def find_known(name: str) -> KnownFile | None:
    """An official or embedded file by its name, with or without suffix."""
    return next((file for file in known_files() if name in {file.name, file.stem}), None)


def find_by_hash(sha256: str) -> KnownFile | None:
    """The official or embedded file of that SHA-256, known or pinned."""
    for file in known_files():
        expected = file.sha256
        if expected is None and (path := file.find()) is not None:
            with contextlib.suppress(WeightsError):  # a damaged pin; nobody has asked for it
                expected = checksum.read_pin(path)
        if expected == sha256:
            return file
    return None


def home() -> Path:
    """The folder of official weights: ``RESTORMER_HOME``, else the platform's cache folder.

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


def check_hash(path: Path, known: KnownFile) -> checksum.Hash:
    """Check that a file has the known or pinned hash.

    Raises
    ------
    WeightsError
        If it does not, with both hashes.
    """
    found = checksum.check(path, known.sha256)
    if not found.matches:
        raise WeightsError(mismatch(path, known, found))
    return found


def mismatch(path: Path, known: KnownFile, found: checksum.Hash) -> str:
    """The sentence for a file with a wrong hash."""
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
