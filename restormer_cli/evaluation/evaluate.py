"""Evaluates a folder of results against their targets: a score for each image, and the mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from restormer_cli.batch.discovery import Listing, list_images
from restormer_cli.errors import ImageError, UsageError
from restormer_cli.evaluation.memory_budget import MemoryBudget, comparison_bytes, map_in_order
from restormer_cli.evaluation.metrics import Metrics, mean_metrics
from restormer_cli.evaluation.pairing import pair_names
from restormer_cli.evaluation.protocols import find_protocol
from restormer_cli.images.reading import read_image
from restormer_cli.system.files import is_folder

MEAN = "mean"


@dataclass(frozen=True)
class Score(Metrics):
    """The metrics of one image, or the mean of all."""

    name: str


@dataclass(frozen=True)
class Evaluation:
    """The result of comparing two folders."""

    protocol: str
    scores: list[Score] = field(default_factory=list)
    """One for each image, in natural order of their names."""
    errors: dict[str, str] = field(default_factory=dict)
    """Results that could not be compared, each with the reason."""
    unmatched_results: list[str] = field(default_factory=list)
    """Results without a target."""
    unmatched_targets: list[str] = field(default_factory=list)
    """Targets without a result."""
    notices: list[str] = field(default_factory=list)
    """Sentences on other contents of the folders."""

    @property
    def mean(self) -> Score | None:
        """The mean of all scores, as :func:`mean_metrics`; None if there are none."""
        mean = mean_metrics(self.scores)
        return None if mean is None else Score(**mean.figures, name=MEAN)

    @property
    def complete(self) -> bool:
        """True if every result and every target was compared."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """A sentence for every result or target that was not compared."""
        return [
            *(f"{name}: {reason}" for name, reason in self.errors.items()),
            *(f"{name}: has no target" for name in self.unmatched_results),
            *(f"{name}: has no result" for name in self.unmatched_targets),
        ]


def evaluate_folder(
    result_dir: Path,
    target_dir: Path,
    protocol: str = "rgb",
    *,
    recursive: bool = False,
    max_memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Compare every result in a folder with its target in another.

    Parameters
    ----------
    protocol
        A name in :data:`restormer_cli.evaluation.protocols.PROTOCOLS`.
    recursive
        Walk sub-folders, which must have the same names on both sides.
    max_memory
        Most bytes of main memory that this process may take; by default most of the free memory.
        It decides how many pairs are measured together.
    progress
        Called with the number of results that are done and of all.

    Raises
    ------
    UsageError
        If a folder does not exist or holds no image, or there is no such protocol. Errors of
        single images are in :attr:`Evaluation.errors`.
    """
    method = find_protocol(protocol)
    result_dir, target_dir = Path(result_dir), Path(target_dir)
    results, targets = (_listing(folder, recursive) for folder in (result_dir, target_dir))
    pairing = pair_names(results.names, targets.names)
    evaluation = Evaluation(
        protocol,
        errors=results.problems
        | {f"target {name}": reason for name, reason in targets.problems.items()}
        | pairing.errors,
        unmatched_results=pairing.unmatched_results,
        unmatched_targets=pairing.unmatched_targets,
        notices=results.notices + targets.notices,
    )
    budget = MemoryBudget(max_memory)

    def compare(pair: tuple[str, str]) -> Metrics | ImageError:
        paths = (result_dir / pair[0], target_dir / pair[1])
        try:
            with budget.take(comparison_bytes(paths, method.memory)):
                return method.compare(*(read_image(path).pixels for path in paths))
        except ImageError as error:
            return error

    for number, (pair, found) in enumerate(
        zip(pairing.pairs, map_in_order(compare, pairing.pairs), strict=True), start=1
    ):
        if isinstance(found, ImageError):
            evaluation.errors[pair[0]] = str(found)
        else:
            evaluation.scores.append(Score(**found.figures, name=pair[0]))
        if progress is not None:
            progress(number, len(pairing.pairs))
    return evaluation


def _listing(folder: Path, recursive: bool) -> Listing:
    if not is_folder(folder):
        raise UsageError(f"{folder}: no such folder")
    listing = list_images(folder, recursive)
    if not listing.names:
        reasons = [f"{name} {reason}" for name, reason in listing.problems.items()]
        raise UsageError("; ".join([f"{folder}: no images found", *reasons, *listing.notices]))
    return listing
