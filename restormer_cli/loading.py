"""Which network restores, and on what: plain data that travels to where it is loaded."""

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
from restormer_cli.system.processors import share_the_machine
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
    """For people who want to know: where it computes, how, and why."""


@dataclass(frozen=True)
class RestorerSpec:
    """What to load; the fields that are not explained are those of a :class:`Restorer`."""

    variant: Variant
    file: WeightsFile
    sha256: str
    """Of the weights."""
    device: str = "auto"
    precision: str = "auto"
    max_memory: int | None = None
    tile: int | None = None
    tile_overlap: int = 32
    window: int | None = None
    self_ensemble: str | None = None
    options: str | None = None
    """SHA-256 of the file of ``--options``."""
    threads: int | None = None
    """Threads to compute with; None: as many as processors are free."""
    sharers: int = 1
    """Processes like this one among which the machine's memory is divided."""
    device_share: float = 1.0
    """Of the memory of its GPU, where several use the same."""

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
        """For the weights and the hyper-parameters that a person names.

        Parameters
        ----------
        window
            Pixels, ``none``, or ``auto``: what the weights are best with, if they are known.
        self_ensemble
            Average over the flips and turns that the task allows.

        Raises
        ------
        WeightsError
            If the weights are not there.
        UsageError
            If ``window`` is none of these.
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
        """What the record of a folder says of results that are made so."""
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
        """Load it in this process. PyTorch should not have been imported before.

        Raises
        ------
        UsageError
            If weights or device are not what they should be.
        """
        threads = share_the_machine() if self.threads is None else _take(self.threads)
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
        """The network on the device that was chosen.

        Raises
        ------
        WeightsError
            If the weights cannot be read or do not fit.
        DeviceError
            If the device cannot be used, or gives wrong results.
        """
        from restormer_cli.network.memory_plan import Shares
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
        """The same with the weights as this machine has them, which may be another one.

        Raises
        ------
        WeightsError
            If it does not have them, or others under their name.
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
    """Load what restores: for a task of the command line, or from a checkpoint.

    >>> restorer = load_restorer("denoise", kind="color")
    >>> restored = restorer(pixels)  # uint8 or uint16, (H, W, 3)

    Parameters
    ----------
    task_or_path
        A task, such as ``derain``, or a file of weights; of the latter the task is the first
        that it fits.
    kind, sigma, weights, options, device, precision, max_memory, tile, tile_overlap, window, \
    self_ensemble
        As the options of the command line; ``max_memory`` in bytes.

    Raises
    ------
    UsageError
        If there is no such task, the weights are missing or do not fit, or the device is not to
        be had.
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


def _take(threads: int) -> str:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    return f"{threads}, as each worker has"
