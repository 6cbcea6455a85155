""" """

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from restormer_cli.batch import worker
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Collector, Outcome, Provenance
from restormer_cli.batch.run import run
from restormer_cli.executors.in_process import InProcess


def restore_folder(
    restorer: worker.Restore,
    input_dir: Path | str,
    result_dir: Path | str,
    **settings: Any,
) -> list[Outcome]:
    """Restore every image of a folder into another; the Python face of the subcommands.

    Parameters
    ----------
    restorer
        A :class:`~restormer_cli.Restorer`, or anything that is called like one. Results of
        another network or other settings are made again, if the restorer has ``settings`` that
        tell; else whatever is there counts as done.
    settings
        Further fields of :class:`Job`, such as ``recursive=True``.

    Returns
    -------
    list of Outcome
        One for each image, failed ones included.

    Raises
    ------
    UsageError
        If there is nothing to do or the folders make no sense.
    BusyError
        If another run works in the result folder.
    """
    collector = Collector()
    options = RunOptions(str(input_dir), Path(result_dir), **settings)
    made_by = getattr(restorer, "settings", options.settings)
    options = replace(options, settings=made_by.with_bit_depth(options.bit_depth))
    run(options, options.find_work(), lambda: InProcess(restorer, Provenance()), collector)
    return collector.outcomes
