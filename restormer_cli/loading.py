"""Loads restorers, from specs: plain data on weights, device and precision."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from restormer_cli.batch.outcomes import Provenance
from restormer_cli.errors import WeightsError
from restormer_cli.settings import Settings, read_window, tiling, windowing
from restormer_cli.system.files import is_file
from restormer_cli.system.memory import FREE_MEMORY_SHARE, free_memory
from restormer_cli.system.processors import processors
from restormer_cli.tasks import VARIANTS, Options, Variant, find_variant, shipped_options
from restormer_cli.weights import checksum
from restormer_cli.weights.registry import find_by_hash
from restormer_cli.weights.selection import (
    WeightsFile,
    find_weights,
    load_network,
    variant_of_file,
)

if TYPE_CHECKING:
    from restormer_cli.network.devices import Choice
    from restormer_cli.restorer import Restorer


class LoadedRestorer(NamedTuple):
    """A network that is ready to restore."""

    restorer: Restorer
    provenance: Provenance
    facts: list[str]
    """Sentences for people: device, threads and precision, with reasons."""


@dataclass(frozen=True)
class RestorerSpec:
    """Describes a restorer to load. Fields without a comment are those of :class:`Restorer`."""

    variant: Variant
    """What it is to restore."""
    file: WeightsFile
    """Where the weights are on the machine that made the spec."""
    sha256: str
    """SHA-256 of the weights."""
    device: str = "auto"
    """As ``--device``."""
    precision: str = "auto"
    """As ``--precision``."""
    max_memory: int | None = None
    tile: int | None = None
    tile_overlap: int = 32
    window: int | None = None
    self_ensemble: str | None = None
    options: str | None = None
    """SHA-256 of the file of ``--options``."""
    threads: int | None = None
    """Threads to compute with; None for one on each processor that this process may use."""
    sharers: int = 1
    """Number of processes that share the machine's memory."""
    device_share: float = 1.0
    """Share of the memory of its GPU, if several processes use the same."""

    @classmethod
    def find(
        cls,
        variant: Variant,
        weights: str = "auto",
        options: Path | None = None,
        *,
        window: int | str = "auto",
        self_ensemble: bool = False,
        **others: Any,
    ) -> RestorerSpec:
        """Make a spec for the weights and the hyper-parameters that a person names.

        Parameters
        ----------
        window
            Pixels, ``none``, or ``auto``: what the weights are best with, if they are known.
        self_ensemble
            Average over the flips and turns that the task allows.

        Raises
        ------
        WeightsError
            If there are no such weights.
        UsageError
            If ``window`` is none of these.
        OptionsError
            If the hyper-parameters cannot be used.
        """
        file = find_weights(variant, weights, options=options)
        sha256 = checksum.sha256(file.path)
        known = _known_options(file, sha256) or shipped_options(variant.name)
        return cls(
            variant,
            file,
            sha256,
            options=None if options is None else checksum.sha256(options),
            window=choose_window(window, file, sha256),
            self_ensemble=known.symmetries if self_ensemble else None,
            **others,
        )

    def settings(self) -> Settings:
        """The settings of results, for the journal."""
        return Settings(
            task=self.variant.task,
            weights=self.sha256,
            label=self.file.label,
            options=self.options,
            precision=None if self.precision == "auto" else self.precision,
            tile=tiling(self.tile, self.tile_overlap),
            window=windowing(self.window),
            self_ensemble=self.self_ensemble,
        )

    def load(self) -> LoadedRestorer:
        """Load the restorer in this process.

        Raises
        ------
        UsageError
            If the weights do not fit, or the device is not available.
        """
        threads = _settle_threads(self.threads)
        from restormer_cli.network import devices

        choice, restorer = devices.choose_usable(self.device, self.precision, self.restorer)
        facts = [
            f"weights: {self.file.path}",
            f"device: {choice.device}, {choice.device_reason}",
            f"threads: {threads}",
            f"precision: {choice.precision}, {choice.precision_reason}",
            f"attention: over {f'windows of {self.window} pixels' if self.window else 'the image'}",
            f"passes: {len(restorer.symmetries)}",
        ]
        provenance = Provenance(
            self.file.label,
            str(choice.device),
            choice.precision,
            self.window,
            self.self_ensemble,
        )
        return LoadedRestorer(restorer, provenance, facts)

    def restorer(self, choice: Choice) -> Restorer:
        """Load the restorer on the device that was chosen.

        Raises
        ------
        WeightsError
            If the weights cannot be read or do not fit.
        DeviceError
            If the device cannot be used, or gives wrong results.
        """
        from restormer_cli.network.device_memory import Shares
        from restormer_cli.restorer import Restorer

        max_memory = self.max_memory
        if max_memory is None and self.sharers > 1 and choice.device.type == "cpu":
            max_memory = int(FREE_MEMORY_SHARE * free_memory() / self.sharers)
        return Restorer(
            load_network(self.file, self.variant),
            views=self.variant.views,
            device=choice.device,
            dtype=choice.dtype,
            max_memory=max_memory,
            shares=Shares(self.device_share, 1 / self.sharers),
            tile=self.tile,
            tile_overlap=self.tile_overlap,
            window=self.window,
            self_ensemble=self.self_ensemble,
            settings=self.settings(),
        )

    def found_here(self) -> RestorerSpec:
        """Make the same spec with the path of the weights on this machine.

        Raises
        ------
        WeightsError
            If this machine has no such file, or another one of its name.
        """
        path: Path | None = self.file.path
        if not is_file(self.file.path):
            path = None if self.file.known is None else self.file.known.find()
        if path is None:
            raise WeightsError(f"{self.file.path}: not there; weights must be where workers see it")
        if checksum.sha256(path) != self.sha256:
            raise WeightsError(f"{path}: is another file than the weights of this run")
        return replace(self, file=replace(self.file, path=path))


def choose_window(window: int | str, file: WeightsFile, sha256: str | None = None) -> int | None:
    """Which local windows of attention weights get: pixels, or None for the whole image.

    Parameters
    ----------
    window
        Pixels, ``none``, or ``auto``: what the weights are best with. Of unknown ones nobody knows;
        they get none.
    sha256
        Of the file, if it is known already.

    Raises
    ------
    UsageError
        If ``window`` is none of these.
    """
    window = read_window(str(window))
    if window != "auto":
        return window if isinstance(window, int) else None
    known = _known_options(file, sha256)
    return None if known is None else known.window


def _known_options(file: WeightsFile, sha256: str | None) -> Options | None:
    """What is known of weights, by their name or their content; None if they are not ours."""
    known = file.known or find_by_hash(sha256 or checksum.sha256(file.path))
    return None if known is None else known.options


def load_restorer(
    task_or_path: str | Path,
    kind: str | None = None,
    sigma: int | None = None,
    *,
    weights: str = "auto",
    options: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    max_memory: int | None = None,
    tile: int | None = None,
    tile_overlap: int = 32,
    window: int | str = "auto",
    self_ensemble: bool = False,
) -> Restorer:
    """Load a restorer for a task of the command line, or from a checkpoint.

    >>> restorer = load_restorer("denoise", kind="color")
    >>> restored = restorer(pixels)  # uint8 or uint16, (H, W, 3)

    Parameters
    ----------
    task_or_path
        A task, such as ``derain``, or a file of weights, which is taken for the first task that
        it fits; ``kind``, ``sigma`` and ``weights`` then say nothing.
    kind, sigma, weights, options, device, precision, max_memory, tile, tile_overlap, window, \
    self_ensemble
        As the options of the command line; ``max_memory`` in bytes.

    Raises
    ------
    UsageError
        If there is no such task, the weights are missing or do not fit, or the device is not
        available.
    """
    from restormer_cli.network import devices

    if any(variant.task == task_or_path for variant in VARIANTS):
        variant = find_variant(str(task_or_path), kind, sigma)
    else:
        weights = str(task_or_path)
        variant = variant_of_file(Path(task_or_path))
    spec = RestorerSpec.find(
        variant,
        weights,
        options,
        device=device,
        precision=precision,
        max_memory=max_memory,
        tile=tile,
        tile_overlap=tile_overlap,
        window=window,
        self_ensemble=self_ensemble,
    )
    return devices.choose_usable(device, precision, spec.restorer)[1]


def _settle_threads(wanted: int | None) -> str:
    """Set the number of threads of PyTorch, and so of a restorer; return it and why, for people.

    What else the machine does makes no difference: each thread restores its own part of an image
    and waits for no other but at the end of a pass.
    """
    if wanted is None and "OMP_NUM_THREADS" in os.environ:
        return f"{os.environ['OMP_NUM_THREADS']}, as OMP_NUM_THREADS says"
    if wanted is not None:
        os.environ["OMP_NUM_THREADS"] = str(wanted)  # before PyTorch is loaded
    import torch

    allowed = processors()
    torch.set_num_threads(wanted or min(torch.get_num_threads(), allowed))
    if wanted is not None:
        return f"{wanted}, as each worker has"
    return f"{torch.get_num_threads()}, of {allowed} processors that this process may use"
