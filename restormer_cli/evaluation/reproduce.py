"""Measures the paper's tables again, with data sets in the authors' layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from restormer_cli.errors import ImageError
from restormer_cli.evaluation.data_sets import (
    COMBINED,
    locate,
    of_scenes,
    read_samples,
    scene_numbers,
)
from restormer_cli.evaluation.memory_budget import MemoryBudget
from restormer_cli.evaluation.metrics import Metrics, mean_metrics
from restormer_cli.evaluation.paper_tables import (
    AVERAGE,
    DataSet,
    Row,
    Table,
    choose_sets,
    find_table,
)
from restormer_cli.evaluation.protocols import find_protocol
from restormer_cli.images.codecs.base import Pixels
from restormer_cli.images.pixels import Floats, check_finite, quantise
from restormer_cli.tasks import Variant

Restore = Callable[[Floats], Floats]
"""float32 ``(H, W, C)`` to the same; C is 6 for dual pixels, left before right."""

Progress = Callable[[DataSet, int, int], None]


def reproduce(
    table: str,
    data_dir: Path,
    network: Callable[[Variant], Restore],
    *,
    only: Sequence[str] = (),
    sigmas: Sequence[int] = (),
    windows: Mapping[str, int | None] = MappingProxyType({}),
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Row]:
    """Restore the data sets of a table, compare, and yield each row as soon as it is known.

    Missing files are found before work begins.

    Parameters
    ----------
    table
        Name or number of the table.
    data_dir
        The authors' ``Datasets/test``, or a folder that holds it.
    network
        Returns the function that restores for a variant. Called whenever a row needs another
        variant than the one before.
    only
        Names of data sets, in any case; by default all of the table.
    sigmas
        Noise levels, where the table has any; by default all.
    windows
        Pixels of the local windows that ``network`` restores with, by the variant's name: published
        figures are then those for such windows.
    max_memory
        Most bytes of main memory that this process may take; by default most of the free memory.
        An image that does not fit is refused.
    progress
        Called with the data set and the numbers of its images that are done and of all.

    Returns
    -------
    iterator of Row
        The data sets in the table's order, then their average if the paper has it and all were
        measured.

    Raises
    ------
    UsageError
        If a folder or file is missing or ``only`` or ``sigmas`` choose nothing; from the iterator,
        if inputs and targets do not pair.
    ImageError
        From the iterator, if an image cannot be read or compared: a mean without it would not be
        the paper's.
    """
    wanted = find_table(table).for_windows(windows)
    chosen = choose_sets(wanted, only, sigmas)
    places = [locate(dataset, Path(data_dir)) for dataset in chosen]
    return _rows(wanted, list(zip(chosen, places, strict=True)), network, max_memory, progress)


def _rows(
    table: Table,
    work: list[tuple[DataSet, Path | None]],
    network: Callable[[Variant], Restore],
    max_memory: int | None,
    progress: Progress | None,
) -> Iterator[Row]:
    restore: Restore | None = None
    before: Variant | None = None
    means: list[Metrics] = []
    count = 0
    for dataset, place in work:
        if place is None:
            yield _row(dataset, None, dataset.paper, [])
            continue
        labels = {part: scene_numbers(place, part) for part in dataset.parts if part != COMBINED}
        if restore is None or before != dataset.variant:
            restore, before = network(dataset.variant), dataset.variant
        notes = [dataset.note] if dataset.note else []
        scores = _measure(dataset, place, restore, MemoryBudget(max_memory), notes, progress)
        noted = replace(dataset, note="; ".join(dict.fromkeys(notes)) or None)
        for part, figures in dataset.parts.items() or [(None, dataset.paper)]:
            chosen = scores
            if part is not None and part in labels:
                chosen = of_scenes(scores, labels[part], place, part)
            yield _row(noted, part, figures, chosen)
        count += len(scores)
        mean = mean_metrics(scores)
        if mean is not None:
            means.append(mean)
    if table.average is not None and len(means) == len(table.sets):
        yield Row(AVERAGE, None, None, None, None, count, _figures(means), table.average)


def _measure(
    dataset: DataSet,
    place: Path,
    restore: Restore,
    budget: MemoryBudget,
    notes: list[str],
    progress: Progress | None,
) -> list[Metrics]:
    """Metrics in the data set's order; ``notes`` gets sentences on files that are passed over."""
    scores = []
    count, samples = read_samples(dataset, place, budget, notes)
    for number, sample in enumerate(samples, start=1):
        try:
            scores.append(_compare(dataset, restore(sample.image), sample.target))
        except MemoryError as error:
            raise ImageError(f"{sample.name}: memory ran out") from error
        except ImageError as error:
            raise ImageError(f"{sample.name}: {error}") from error
        if progress is not None:
            progress(dataset, number, count)
    return scores


def _compare(dataset: DataSet, restored: Floats, target: Pixels) -> Metrics:
    protocol = find_protocol(dataset.protocol)
    if dataset.rounded:
        return protocol.compare(quantise(restored, 8), target)
    check_finite(restored)
    return protocol.compare_unrounded(restored, target)


def _figures(scores: list[Metrics]) -> dict[str, float]:
    mean = mean_metrics(scores)
    return {} if mean is None else mean.figures


def _row(
    dataset: DataSet, part: str | None, paper: Mapping[str, float], scores: list[Metrics]
) -> Row:
    return Row(
        dataset.name,
        part,
        dataset.group,
        dataset.sigma,
        dataset.network,
        len(scores),
        _figures(scores),
        paper,
        dataset.note,
    )
