"""Chooses the executor: this process, a process for each GPU, or the workers of a cluster."""

from __future__ import annotations

import importlib.util
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

from restormer_cli.batch.items import Item
from restormer_cli.batch.journal import Journal
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.progress import ProgressTracker
from restormer_cli.batch.run import Executor
from restormer_cli.errors import DeviceError, UsageError
from restormer_cli.executors.in_process import InProcess
from restormer_cli.executors.scheduler import Scheduler
from restormer_cli.loading import RestorerSpec
from restormer_cli.system.files import absolute_path
from restormer_cli.system.processors import processors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExecutorOptions:
    """The workers that a person asks for; None where the machine or the cluster decides."""

    engine: str = "local"
    """``local`` or ``ray``."""
    ray_address: str | None = None
    workers: int | None = None
    cpus_per_worker: int | None = None
    gpus_per_worker: float | None = None

    def check(self, device: str) -> None:
        """Check that the options fit together, without looking for devices or clusters.

        Raises
        ------
        UsageError
            If they do not, or Ray is not installed.
        """
        if self.engine == "ray":
            if importlib.util.find_spec("ray") is None:
                raise UsageError("Ray is not installed: pip install 'restormer-cli[ray]'")
            if re.fullmatch(r"cuda:\d+", device):
                raise UsageError("--engine ray gives each worker its GPU: say --device cuda")
            if device == "cuda" and self.gpus_per_worker == 0:
                raise UsageError("--device cuda needs GPUs: say --gpus-per-worker 1, or a part")
        elif self.ray_address is not None or self.gpus_per_worker is not None:
            raise UsageError("--ray-address and --gpus-per-worker need --engine ray")


def start(
    executor_options: ExecutorOptions,
    run_options: RunOptions,
    spec: RestorerSpec,
) -> Executor:
    """Make the executor that the options describe; log its devices and the reasons.

    Raises
    ------
    UsageError
        If weights, device or cluster are not available.
    """
    # For workers, which may have another working directory.
    elsewhere = replace(run_options, result_dir=Path(absolute_path(run_options.result_dir)))
    if executor_options.engine == "ray":
        from restormer_cli.executors.ray_cluster import RayCluster

        file = replace(spec.file, path=Path(absolute_path(spec.file.path)))
        spec = replace(spec, file=file)
        return Scheduler(RayCluster(executor_options, elsewhere, spec))
    specs = share_out(executor_options, spec)
    if len(specs) > 1:
        from restormer_cli.executors.process_pool import ProcessPool

        scheduler = Scheduler(ProcessPool(elsewhere, specs))
        if spec.device == "auto" and specs[0].device != "auto":
            return _CpuInstead(scheduler, replace(spec, device="cpu"))
        return scheduler
    return _in_process(specs[0])


def _in_process(spec: RestorerSpec) -> InProcess:
    loaded = spec.load()
    for fact in loaded.facts:
        logger.info(fact)
    return InProcess(loaded.restorer, loaded.provenance)


class _CpuInstead:
    """An executor on GPUs that nobody has asked for; where none can be used, the CPU is."""

    def __init__(self, on_gpus: Executor, on_cpu: RestorerSpec) -> None:
        self._executor, self._on_cpu = on_gpus, on_cpu

    def restore(
        self, run_options: RunOptions, journal: Journal, items: list[Item], tracker: ProgressTracker
    ) -> None:
        try:
            self._executor.restore(run_options, journal, items, tracker)
        except DeviceError as error:  # so no image has been begun
            logger.warning(f"{str(error).partition(';')[0]}; the CPU is used")
            self._executor.close(tracker)
            self._executor = _in_process(self._on_cpu)
            self._executor.restore(run_options, journal, items, tracker)

    def close(self, tracker: ProgressTracker) -> None:
        self._executor.close(tracker)

    def peak_memory(self) -> int:
        return self._executor.peak_memory()


def share_out(executor_options: ExecutorOptions, spec: RestorerSpec) -> list[RestorerSpec]:
    """Make a spec for each process of this machine, with all devices in turn."""
    found = [spec.device]
    if spec.device in {"auto", "cuda"}:
        from restormer_cli.network.devices import spread

        several = spread(spec.device)
        if len(several) > 1:  # else whoever loads it may still choose the CPU
            found = several
    count = executor_options.workers or len(found)
    threads = executor_options.cpus_per_worker
    if threads is None and count > 1:
        threads = max(1, processors() // count)
    taken = [found[number % len(found)] for number in range(count)]
    return [
        replace(
            spec,
            device=device,
            threads=threads,
            sharers=count,
            device_share=1 / taken.count(device),
        )
        for device in taken
    ]
