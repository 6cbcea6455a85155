"""Loads restorers, from specs: plain data on weights, device and precision."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from restormer_cli.batch.outcomes import Provenance
from restormer_cli.errors import WeightsError
from restormer_cli.settings import Settings, tiling
from restormer_cli.system.files import is_file
from restormer_cli.system.memory import FREE_MEMORY_SHARE, free_memory
from restormer_cli.system.processors import share_the_machine
from restormer_cli.tasks import VARIANTS, Variant, find_variant
from restormer_cli.weights import checksum
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
    file: WeightsFile
    sha256: str
    """SHA-256 of the weights."""
    device: str = "auto"
    precision: str = "auto"
    max_memory: int | None = None
    tile: int | None = None
    tile_overlap: int = 32
    options: str | None = None
    """SHA-256 of the file of ``--options``."""
    threads: int | None = None
    """Threads to compute with; None for one on each idle processor."""
    sharers: int = 1
    """Number of processes that share the machine's memory."""

    @classmethod
    def find(
        cls, variant: Variant, weights: str = "auto", options: Path | None = None, **others: Any
    ) -> RestorerSpec:
        """Make a spec for the weights and the hyper-parameters that a person names.

        Raises
        ------
        WeightsError
            If there are no such weights.
        OptionsError
            If the hyper-parameters cannot be used.
        """
        file = find_weights(variant, weights, options=options)
        options_hash = None if options is None else checksum.sha256(options)
        return cls(variant, file, checksum.sha256(file.path), options=options_hash, **others)

    def settings(self) -> Settings:
        """The settings of results, for the journal."""
        return Settings(
            task=self.variant.task,
            weights=self.sha256,
            label=self.file.label,
            options=self.options,
            precision=None if self.precision == "auto" else self.precision,
            tile=tiling(self.tile, self.tile_overlap),
        )

    def load(self) -> LoadedRestorer:
        """Load the restorer in this process. PyTorch should not have been imported before.

        Raises
        ------
        UsageError
            If the weights do not fit, or the device is not available.
        """
        threads = share_the_machine() if self.threads is None else _take(self.threads)
        from restormer_cli.network import devices

        choice = devices.choose(self.device, self.precision)
        max_memory = self.max_memory
        if max_memory is None and self.sharers > 1 and choice.device.type == "cpu":
            max_memory = int(FREE_MEMORY_SHARE * free_memory() / self.sharers)
        restorer = replace(self, max_memory=max_memory).restorer(choice)
        facts = [
            f"weights: {self.file.path}",
            f"device: {choice.device}, {choice.device_reason}",
            f"threads: {threads}",
            f"precision: {choice.precision}, {choice.precision_reason}",
        ]
        return LoadedRestorer(
            restorer, Provenance(self.file.label, str(choice.device), choice.precision), facts
        )

    def restorer(self, choice: Choice) -> Restorer:
        """Load the restorer on the device that was chosen.

        Raises
        ------
        WeightsError
            If the weights cannot be read or do not fit.
        """
        from restormer_cli.restorer import Restorer

        return Restorer(
            load_network(self.file, self.variant),
            views=self.variant.views,
            device=choice.device,
            dtype=choice.dtype,
            max_memory=self.max_memory,
            tile=self.tile,
            tile_overlap=self.tile_overlap,
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
) -> Restorer:
    """Load a restorer for a task of the command line, or from a checkpoint.

    >>> restorer = load_restorer("denoise", kind="color")
    >>> restored = restorer(pixels)  # uint8 or uint16, (H, W, 3)

    Parameters
    ----------
    task_or_path
        A task, such as ``derain``, or a file of weights, which is taken for the first task that
        it fits.
    kind, sigma, weights, options, device, precision, max_memory, tile, tile_overlap
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
    )
    return spec.restorer(devices.choose(device, precision))


def _take(threads: int) -> str:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    return f"{threads}, as each worker has"
