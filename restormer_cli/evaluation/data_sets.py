"""The images of the paper's data sets: where they lie, and how they are read.

Layouts are those of the authors, as :mod:`restormer_cli.evaluation.paper_tables` names them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from restormer_cli.batch.discovery import list_images
from restormer_cli.errors import ImageError, UsageError
from restormer_cli.evaluation.memory_budget import Claim, MemoryBudget, comparison_bytes
from restormer_cli.evaluation.pairing import Pairing, pair_in_order, pair_names
from restormer_cli.evaluation.paper_tables import DataSet
from restormer_cli.evaluation.protocols import find_protocol
from restormer_cli.images.codecs.base import Pixels
from restormer_cli.images.pixels import Floats, normalise
from restormer_cli.images.reading import read_image
from restormer_cli.system.files import file_mode, is_file, is_folder, read_file

Value = TypeVar("Value")

#: Sub-folders of the inputs and of the targets, by layout.
_FOLDERS = {
    "pairs": (("input",), "target"),
    "clean": (("",), ""),
    "single": (("inputC",), "target"),
    "dual": (("inputL", "inputR"), "target"),
}
BLOCKS = {"input": "ValidationNoisyBlocksSrgb.mat", "target": "ValidationGtBlocksSrgb.mat"}
#: DPDD: numbers of the indoor and of the outdoor scenes, and what both together are called.
LABELS = "{}_labels.npy"
COMBINED = "combined"


def locate(dataset: DataSet, data_dir: Path) -> Path | None:
    """Find the folder of a data set and check that its files are there.

    Parameters
    ----------
    data_dir
        The authors' ``Datasets/test``, or a folder that holds it.

    Returns
    -------
    Path or None
        None if the data set is not to be measured here.

    Raises
    ------
    UsageError
        If its folder or one of its files is missing.
    """
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


@dataclass(frozen=True)
class Sample:
    """One image to restore, float32 ``(H, W, C)``, and its target."""

    name: str
    image: Floats
    target: Pixels


def read_samples(
    dataset: DataSet, place: Path, budget: MemoryBudget, notes: list[str]
) -> tuple[int, Iterator[Sample]]:
    """Read the images of a data set, in its order, each when it is asked for.

    Parameters
    ----------
    place
        The folder, as :func:`locate` gives it.
    budget
        Checked before an image is read.
    notes
        Gets sentences on files that are passed over.

    Returns
    -------
    int
        The number of images.
    iterator of Sample
        The images.

    Raises
    ------
    UsageError
        If inputs and targets do not pair, or a file is not what it should be.
    ImageError
        From the iterator, if an image cannot be read, or takes more memory than there is.
    """
    if dataset.layout == "blocks":
        return _blocks(place)
    return _files(dataset, place, budget, notes)


def _files(
    dataset: DataSet, place: Path, budget: MemoryBudget, notes: list[str]
) -> tuple[int, Iterator[Sample]]:
    inputs, target = _FOLDERS[dataset.layout]
    columns = [_names(place / name, notes) for name in (*inputs, target)]
    pairings = [_pair(place, names, columns[-1]) for names in columns[:-1]]
    rows = [dict(pairing.pairs) for pairing in pairings]
    # A target has one input in each folder; the first folder's order is that of the labels.
    by_target = [{target_name: name for name, target_name in row.items()} for row in rows]

    def samples() -> Iterator[Sample]:
        for name, target_name in rows[0].items():
            target_path, view_paths = place / target / target_name, []
            if dataset.sigma is None:
                view_paths = [
                    place / folder / column[target_name]
                    for folder, column in zip(inputs, by_target, strict=True)
                ]
            try:
                budget.check(_sample_bytes(dataset, [target_path, *view_paths]))
            except ImageError as error:
                raise ImageError(f"{place / name}: {error}") from error
            goal = _read(target_path, dataset.read)
            if dataset.sigma is not None:
                yield Sample(name, add_noise(normalise(goal), dataset.sigma), goal)
                continue
            views = [normalise(_read(path, dataset.read)) for path in view_paths]
            if len({view.shape for view in views}) > 1:
                raise ImageError(f"{place / name}: the two views differ in size")
            yield Sample(name, np.concatenate(views, axis=2), goal)

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


def _blocks(place: Path) -> tuple[int, Iterator[Sample]]:
    """Read SIDD's validation blocks: uint8 ``(40, 32, 256, 256, 3)``, noisy and clean."""
    noisy, clean = (_load_blocks(place / name) for name in BLOCKS.values())
    if noisy.shape != clean.shape:
        raise UsageError(f"{place}: the noisy blocks are {noisy.shape}, the clean {clean.shape}")

    def samples() -> Iterator[Sample]:
        for scene, block in np.ndindex(*noisy.shape[:2]):
            name = f"{scene + 1:04}_{block + 1:02}"
            yield Sample(name, normalise(noisy[scene, block]), clean[scene, block])

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


def scene_numbers(place: Path, part: str) -> list[int]:
    """Numbers of the indoor or outdoor scenes, which count from 1, from a file of DPDD.

    Raises
    ------
    UsageError
        If the file does not hold them.
    """
    path = place / LABELS.format(part)
    try:
        if not is_file(path):
            raise ValueError("no file")
        return [int(number) for number in np.load(path).ravel()]
    except Exception as error:  # NumPy's parser raises whatever a damaged file provokes
        raise UsageError(_no_numbers(path, part)) from error


def _no_numbers(path: Path, part: str) -> str:
    return f"{path}: does not hold the numbers of the {part} scenes"


def of_scenes(values: list[Value], numbers: list[int], place: Path, part: str) -> list[Value]:
    """Of the values of all scenes, those of a part; parameters as of :func:`scene_numbers`.

    Raises
    ------
    UsageError
        If there are no such scenes.
    """
    if not numbers or not all(1 <= number <= len(values) for number in numbers):
        raise UsageError(_no_numbers(place / LABELS.format(part), part))
    return [values[number - 1] for number in numbers]
