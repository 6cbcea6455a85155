"""Who restores: this process, one for each GPU of this machine, or the workers of a cluster."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from restormer_cli.batch import Engine, Here
from restormer_cli.dispatch import Dispatcher, absolute_path
from restormer_cli.errors import UsageError
from restormer_cli.job import Job
from restormer_cli.process import processors, share_the_machine
from restormer_cli.recipe import Recipe


@dataclass(frozen=True)
class Workforce:
    """Workers as a person asks for them; None where the machine or the cluster decides."""

    engine: str = "local"
    """``local`` or ``ray``."""
    ray_address: str | None = None
    workers: int | None = None
    cpus_per_worker: int | None = None
    gpus_per_worker: float | None = None

    def check(self, device: str) -> None:
        """See that this can be had, without looking for devices or clusters.

        Raises
        ------
        UsageError
            If it cannot.
        """
        if self.engine == "ray":
            if importlib.util.find_spec("ray") is None:
                raise UsageError("Ray is not installed: pip install 'restormer-cli[ray]'")
            if re.fullmatch(r"cuda:\d+", device):
                raise UsageError("--engine ray gives each worker its GPU: say --device cuda")
        elif self.ray_address is not None or self.gpus_per_worker is not None:
            raise UsageError("--ray-address and --gpus-per-worker need --engine ray")


def start(workforce: Workforce, job: Job, recipe: Recipe, tell: Callable[[str], None]) -> Engine:
    """Make the engine that a workforce describes.

    Parameters
    ----------
    tell
        Is told what is used, and why.

    Raises
    ------
    UsageError
        If weights, device or cluster are not to be had.
    """
    # For workers, which may have another working directory.
    elsewhere = replace(job, result_dir=absolute_path(job.result_dir))
    if workforce.engine == "ray":
        from restormer_cli.distributed import Cluster

        file = replace(recipe.file, path=absolute_path(recipe.file.path))
        recipe = replace(recipe, file=file)
        return Dispatcher(Cluster(workforce, elsewhere, recipe, tell), tell)
    recipes = share_out(workforce, recipe)
    if len(recipes) > 1:
        from restormer_cli.processes import Processes

        return Dispatcher(Processes(elsewhere, recipes), tell)
    loaded = recipes[0].load()
    for fact in loaded.facts:
        tell(fact)
    return Here(loaded.restorer, loaded.labels)


def share_out(workforce: Workforce, recipe: Recipe) -> list[Recipe]:
    """A recipe for each process of this machine; all devices in turn."""
    found = [recipe.device]
    if recipe.device in {"auto", "cuda"}:
        share_the_machine()  # before PyTorch is loaded
        from restormer_cli.devices import spread

        found = spread(recipe.device)
    count = workforce.workers or len(found)
    threads = workforce.cpus_per_worker
    if threads is None and count > 1:
        threads = max(1, processors() // count)
    return [
        replace(recipe, device=found[number % len(found)], threads=threads, sharers=count)
        for number in range(count)
    ]
