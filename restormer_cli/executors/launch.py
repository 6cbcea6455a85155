"""Chooses the executor: this process, a process for each GPU, or the workers of a cluster."""

from __future__ import annotations

import importlib.util
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.run import Executor
from restormer_cli.errors import UsageError
from restormer_cli.executors.in_process import InProcess
from restormer_cli.executors.scheduler import Scheduler
from restormer_cli.loading import RestorerSpec
from restormer_cli.system.files import absolute_path
from restormer_cli.system.processors import processors, share_the_machine

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

        return Scheduler(ProcessPool(elsewhere, specs))
    loaded = specs[0].load()
    for fact in loaded.facts:
        logger.info(fact)
    return InProcess(loaded.restorer, loaded.provenance)


def share_out(executor_options: ExecutorOptions, spec: RestorerSpec) -> list[RestorerSpec]:
    """Make a spec for each process of this machine, with all devices in turn."""
    found = [spec.device]
    if spec.device in {"auto", "cuda"}:
        share_the_machine()  # before PyTorch is loaded
        from restormer_cli.network.devices import spread

        found = spread(spec.device)
    count = executor_options.workers or len(found)
    threads = executor_options.cpus_per_worker
    if threads is None and count > 1:
        threads = max(1, processors() // count)
    return [
        replace(spec, device=found[number % len(found)], threads=threads, sharers=count)
        for number in range(count)
    ]
