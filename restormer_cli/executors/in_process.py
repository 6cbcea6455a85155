""" """

from __future__ import annotations

from restormer_cli.batch import worker
from restormer_cli.batch.items import Item
from restormer_cli.batch.journal import Journal
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Provenance
from restormer_cli.batch.progress import ProgressTracker
from restormer_cli.system.memory import peak_memory


class InProcess:
    """Restores in this process."""

    def __init__(self, restore: worker.Restore, provenance: Provenance) -> None:
        self._restore, self._labels = restore, provenance

    def restore(
        self, run_options: RunOptions, journal: Journal, items: list[Item], tracker: ProgressTracker
    ) -> None:
        reason = worker.work(run_options, journal, self._restore, self._labels, [items], tracker)
        tracker.summary.reason = reason

    def peak_memory(self) -> int:
        return peak_memory()
