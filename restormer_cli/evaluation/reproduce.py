"""Measures the paper's tables again, with data sets in the authors' layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np

from restormer_cli.batch.discovery import list_images
from restormer_cli.errors import ImageError, UsageError
from restormer_cli.evaluation.memory_budget import Claim, MemoryBudget, comparison_bytes
from restormer_cli.evaluation.metrics import Metrics, mean_metrics
from restormer_cli.evaluation.pairing import Pairing, pair_in_order, pair_names
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
from restormer_cli.images.pixels import Floats, check_finite, normalise, quantise
from restormer_cli.images.reading import read_image
from restormer_cli.system.files import file_mode, is_file, is_folder, read_file
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
    places = [_locate(dataset, Path(data_dir)) for dataset in chosen]
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
        labels = {part: _numbers(place, part) for part in dataset.parts if part != COMBINED}
        if restore is None or before != dataset.variant:
            restore, before = network(dataset.variant), dataset.variant
        notes = [dataset.note] if dataset.note else []
        scores = _measure(dataset, place, restore, MemoryBudget(max_memory), notes, progress)
        noted = replace(dataset, note="; ".join(dict.fromkeys(notes)) or None)
        for part, figures in dataset.parts.items() or [(None, dataset.paper)]:
            numbers = labels.get(part) if part else None
            chosen = scores if numbers is None else _part(scores, numbers, place, part)
            yield _row(noted, part, figures, chosen)
        count += len(scores)
        mean = mean_metrics(scores)
        if mean is not None:
            means.append(mean)
    if table.average is not None and len(means) == len(table.sets):
        yield Row(AVERAGE, None, None, None, None, count, _figures(means), table.average)


# --- where the images are -----------------------------------------------------------------------

_FOLDERS = {
    "pairs": (("input",), "target"),
    "clean": (("",), ""),
    "single": (("inputC",), "target"),
    "dual": (("inputL", "inputR"), "target"),
}
BLOCKS = {"input": "ValidationNoisyBlocksSrgb.mat", "target": "ValidationGtBlocksSrgb.mat"}
LABELS = "{}_labels.npy"
COMBINED = "combined"


def _locate(dataset: DataSet, data_dir: Path) -> Path | None:
    """Find the folder of a data set and check its files; None if it is not measured."""
    if dataset.layout == "none":
        return None
    candidates = [data_dir / above / _folder(dataset) for above in ("", "test", "Datasets/test")]
    place = next((folder for folder in candidates if is_folder(folder)), None)
    if place is None:
        raise UsageError(f"{dataset.name}: no folder {candidates[0]}; {_expected(dataset)}")
    missing = [path for path in _needed(dataset, place) if not file_mode(path)]
    if missing:
        raise UsageError(f"{dataset.name}: {missing[0]} does not exist; {_expected(dataset)}")
    return place


def _folder(dataset: DataSet) -> str:
    return dataset.folder or dataset.name


def _needed(dataset: DataSet, place: Path) -> list[Path]:
    if dataset.layout == "blocks":
        return [place / name for name in BLOCKS.values()]
    inputs, target = _FOLDERS[dataset.layout]
    labels = [place / LABELS.format(part) for part in dataset.parts if part != COMBINED]
    return [place / name for name in (*inputs, target)] + labels


def _expected(dataset: DataSet) -> str:
    held = [path.name for path in _needed(dataset, Path(_folder(dataset)))]
    below = ", ".join(held) if dataset.layout != "clean" else "the clean images"
    return f"it should be {_folder(dataset)} in --data or its folder test, with {below}"


# --- restoring and comparing --------------------------------------------------------------------


@dataclass(frozen=True)
class _Sample:
    """One image to restore, float32 ``(H, W, C)``, and its target."""

    name: str
    image: Floats
    target: Pixels


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
    if dataset.layout == "blocks":
        count, samples = _blocks(place)
    else:
        count, samples = _files(dataset, place, budget, notes)
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


def _files(
    dataset: DataSet, place: Path, budget: MemoryBudget, notes: list[str]
) -> tuple[int, Iterator[_Sample]]:
    inputs, target = _FOLDERS[dataset.layout]
    columns = [_names(place / name, notes) for name in (*inputs, target)]
    pairings = [_pair(place, names, columns[-1]) for names in columns[:-1]]
    rows = [dict(pairing.pairs) for pairing in pairings]
    # A target has one input in each folder; the first folder's order is that of the labels.
    by_target = [{target_name: name for name, target_name in row.items()} for row in rows]

    def samples() -> Iterator[_Sample]:
        for name, target_name in rows[0].items():
            paths = [place / target / target_name]
            if dataset.sigma is None:
                paths += [
                    place / folder / column[target_name]
                    for folder, column in zip(inputs, by_target, strict=True)
                ]
            try:
                budget.check(_sample_bytes(dataset, paths))
            except ImageError as error:
                raise ImageError(f"{place / name}: {error}") from error
            goal = _read(place / target / target_name, dataset.read)
            if dataset.sigma is not None:
                yield _Sample(name, add_noise(normalise(goal), dataset.sigma), goal)
                continue
            views = [
                normalise(_read(place / folder / column[target_name], dataset.read))
                for folder, column in zip(inputs, by_target, strict=True)
            ]
            if len({view.shape for view in views}) > 1:
                raise ImageError(f"{place / name}: the two views differ in size")
            yield _Sample(name, np.concatenate(views, axis=2), goal)

    return len(rows[0]), samples()


def _sample_bytes(dataset: DataSet, paths: list[Path]) -> int:
    """Bytes to read, restore and compare: pixels, and float32 of inputs and result."""
    floats = max(Claim(path).samples for path in paths) * np.dtype(np.float32).itemsize
    compared = comparison_bytes(paths, find_protocol(dataset.protocol).memory)
    # The result, and two that quantising it makes.
    return compared + (len(paths) + 3) * floats


def _names(folder: Path, notes: list[str]) -> list[str]:
    listing = list_images(folder, recursive=False)
    notes += [f"without {name}, which {reason}" for name, reason in listing.problems.items()]
    notes += listing.notices
    if not listing.names:
        raise UsageError("; ".join([f"{folder}: no images found", *notes]))
    return listing.names


def _pair(place: Path, inputs: list[str], targets: list[str]) -> Pairing:
    """Pair by name if that pairs every file, else in natural order, as the authors do."""
    pairing = pair_names(inputs, targets)
    if len(pairing.pairs) == len(inputs) == len(targets):
        return pairing
    try:
        return pair_in_order(inputs, targets)
    except UsageError:
        raise UsageError(
            f"{place}: {len(inputs)} inputs and {len(targets)} targets do not pair"
        ) from None


def _read(path: Path, kind: str) -> Pixels:
    if kind == "gray8":
        # By OpenCV from the start, as the authors do: what it makes of colours while decoding
        # differs by one level, here and there, from what it makes of them afterwards.
        try:
            data = np.frombuffer(read_file(path)[0], np.uint8)
            gray: Any = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if len(data) else None
        except cv2.error:
            gray = None
        if gray is None:
            raise ImageError(f"{path}: is damaged or not an image")
        plane: Pixels = gray[..., None]
        return plane
    pixels: Any = read_image(path).pixels
    if pixels.dtype == np.uint16 and kind == "color8":
        pixels = (pixels >> 8).astype(np.uint8)
    color: Pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    return color


def add_noise(image: Floats, sigma: float) -> Floats:
    """Add the authors' noise: normal, of σ / 255, from the seed 0 for each image; not clipped.

    Parameters
    ----------
    image
        float32 ``(H, W, C)`` in [0, 1], RGB or gray.
    """
    random = np.random.RandomState(0)
    noisy = np.empty_like(image)
    for row, clean in zip(noisy, image, strict=True):  # the same numbers as all at once
        # Added in float64 and rounded once, which is what ``+=`` on a float32 array does.
        row[:] = clean + random.normal(0, sigma / 255.0, clean.shape)
    return noisy


def _blocks(place: Path) -> tuple[int, Iterator[_Sample]]:
    """Read SIDD's validation blocks: uint8 ``(40, 32, 256, 256, 3)``, noisy and clean."""
    noisy, clean = (_load_blocks(place / name) for name in BLOCKS.values())
    if noisy.shape != clean.shape:
        raise UsageError(f"{place}: the noisy blocks are {noisy.shape}, the clean {clean.shape}")

    def samples() -> Iterator[_Sample]:
        for scene, block in np.ndindex(*noisy.shape[:2]):
            name = f"{scene + 1:04}_{block + 1:02}"
            yield _Sample(name, normalise(noisy[scene, block]), clean[scene, block])

    return noisy.shape[0] * noisy.shape[1], samples()


def _load_blocks(path: Path) -> Any:
    # Comes with scikit-image; nothing else needs it.
    from scipy.io import loadmat  # type: ignore[import-untyped]

    try:
        blocks = loadmat(path)[path.stem]
    except MemoryError as error:
        raise ImageError(f"{path}: memory ran out") from error
    except Exception as error:  # SciPy's parser raises whatever a damaged file provokes
        raise UsageError(f"{path}: is not the file of that name that SIDD offers") from error
    if blocks.dtype != np.uint8 or blocks.ndim != 5:
        raise UsageError(f"{path}: holds {blocks.dtype} {blocks.shape}, not uint8 blocks")
    return blocks


# --- rows ---------------------------------------------------------------------------------------


def _numbers(place: Path, part: str) -> list[int]:
    """Numbers of the indoor or outdoor scenes, from a file of DPDD."""
    path = place / LABELS.format(part)
    try:
        if not is_file(path):
            raise ValueError("no file")
        return [int(number) for number in np.load(path).ravel()]
    except Exception as error:  # NumPy's parser raises whatever a damaged file provokes
        raise UsageError(_no_numbers(path, part)) from error


def _no_numbers(path: Path, part: str) -> str:
    return f"{path}: does not hold the numbers of the {part} scenes"


def _part(
    scores: list[Metrics], numbers: list[int], place: Path, part: str | None
) -> list[Metrics]:
    """The scores of the scenes with these numbers, which count from 1."""
    if not numbers or not all(1 <= number <= len(scores) for number in numbers):
        raise UsageError(_no_numbers(place / LABELS.format(part), part or ""))
    return [scores[number - 1] for number in numbers]


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
