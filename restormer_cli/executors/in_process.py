"""The executor that restores in this process."""

from __future__ import annotations

from restormer_cli.batch import worker
from restormer_cli.batch.image_restorer import Function, ImageRestorer, as_image_restorer
from restormer_cli.batch.items import Item
from restormer_cli.batch.journal import Journal
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Provenance
from restormer_cli.batch.progress import ProgressTracker
from restormer_cli.system.memory import peak_memory


class InProcess:
    """Restores in this process: an :class:`~restormer_cli.batch.run.Executor`."""

    def __init__(self, restorer: ImageRestorer | Function, provenance: Provenance) -> None:
        self._restorer, self._provenance = as_image_restorer(restorer), provenance
        self._streaks = worker.Streaks()

    def restore(
        self, run_options: RunOptions, journal: Journal, items: list[Item], tracker: ProgressTracker
    ) -> None:
        reason = worker.work(
            run_options,
            journal,
            self._restorer,
            self._provenance,
            [items],
            tracker,
            streaks=self._streaks,
        )
        tracker.summary.reason = reason

    def close(self, tracker: ProgressTracker) -> None: ...

    def peak_memory(self) -> int:
        return peak_memory()
