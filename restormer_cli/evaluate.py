"""How close a folder of results is to its targets: a score an image, and their mean."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from restormer_cli.budget import MemoryBudget, comparison_bytes, in_order
from restormer_cli.discovery import Listing, list_images
from restormer_cli.errors import ImageError, UsageError
from restormer_cli.files import atomic_file, file_mode, is_file, is_folder, refuse_other_file
from restormer_cli.history import History, read_history
from restormer_cli.images import read_image
from restormer_cli.metrics import Metrics, find_protocol
from restormer_cli.pairing import pair_names
from restormer_cli.process import encode_stdout
from restormer_cli.terminal import complain, harmless, harmless_json
from restormer_cli.units import json_number

MEAN = "mean"
CSV_COLUMNS = ("name", "psnr", "ssim", "mae")
AUTO = "auto"
#: For results of which it is not known which task made them.
USUAL_PROTOCOL = "rgb"


def choose_protocol(asked: str, history: History) -> tuple[str, str]:
    """A protocol by name; for ``auto`` the one that fits the task that made the results.

    Returns
    -------
    str
        The name of the protocol.
    str
        Why it was chosen; empty if it was asked for.
    """
    if asked != AUTO:
        return find_protocol(asked).name, ""
    names = {variant.protocol for variant in history.variants}
    if len(names) == 1:
        tasks = " and ".join(sorted({variant.label for variant in history.variants}))
        return names.pop(), f"as the papers measure {tasks}"
    if names:
        return USUAL_PROTOCOL, "since several tasks made these results"
    return USUAL_PROTOCOL, "since it is not known which task made these results"


@dataclass(frozen=True)
class Score:
    """The metrics of one image, or of all in the mean."""

    name: str
    psnr: float
    ssim: float
    mae: float


@dataclass(frozen=True)
class Evaluation:
    """What came of comparing two folders."""

    protocol: str
    scores: list[Score] = field(default_factory=list)
    """One an image, in natural order of their names."""
    errors: dict[str, str] = field(default_factory=dict)
    """Results that could not be compared, and a sentence each."""
    results_alone: list[str] = field(default_factory=list)
    """Results without a target."""
    targets_alone: list[str] = field(default_factory=list)
    """Targets without a result."""
    notices: list[str] = field(default_factory=list)
    """What else lies in the folders and a person should know of."""

    @property
    def mean(self) -> Score | None:
        """The mean of each metric over all scores; None if there are none.

        One infinite PSNR makes the mean infinite, as in the papers' scripts.
        """
        return mean_score(self.scores)

    @property
    def complete(self) -> bool:
        """Whether every result and every target was compared."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """A sentence for every result or target that was not compared."""
        return [
            *(f"{name}: {reason}" for name, reason in self.errors.items()),
            *(f"{name}: has no target" for name in self.results_alone),
            *(f"{name}: has no result" for name in self.targets_alone),
        ]


def mean_score(scores: Iterable[Score]) -> Score | None:
    """The mean of each metric; None of nothing."""
    rows = list(scores)
    if not rows:
        return None
    return Score(
        MEAN, fmean(s.psnr for s in rows), fmean(s.ssim for s in rows), fmean(s.mae for s in rows)
    )


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
        A name in :data:`PROTOCOLS`.
    recursive
        Walk sub-folders, which must have the same names on both sides.
    max_memory
        Bytes that the peak of this process must stay under; by default most of what is free may
        be taken. It decides how many pairs are measured together.
    progress
        Called with the number of results dealt with and that of all.

    Raises
    ------
    UsageError
        If a folder does not exist or holds no image, or there is no such protocol. What is wrong
        with one image is in ``errors``.
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
        results_alone=pairing.results_alone,
        targets_alone=pairing.targets_alone,
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
        zip(pairing.pairs, in_order(compare, pairing.pairs), strict=True), start=1
    ):
        if isinstance(found, ImageError):
            evaluation.errors[pair[0]] = str(found)
        else:
            evaluation.scores.append(Score(pair[0], *astuple(found)))
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


# --- on the console -----------------------------------------------------------------------------


def run(
    result_dir: Path,
    target_dir: Path,
    protocol: str,
    recursive: bool,
    report: Path | None,
    json_lines: bool,
    csv_file: Path | None,
    max_memory: int | None = None,
) -> Evaluation:
    """Do what ``restormer evaluate`` does; the parameters are its options.

    Raises
    ------
    UsageError
        As :func:`evaluate_folder`, and if ``csv_file`` cannot be written.
    """
    if csv_file is not None:
        if is_folder(csv_file):
            raise UsageError(f"{csv_file}: is a folder; name a file for --csv")
        header = ",".join(CSV_COLUMNS).encode()
        refuse_other_file(
            csv_file, header, "exists and is no table of ours; name another for --csv"
        )
    history = read_history(result_dir, report)
    protocol, reason = choose_protocol(protocol, history)
    with tqdm(unit="image", leave=False, disable=None) as bar:  # None: shown on a terminal only

        def show(done: int, count: int) -> None:
            bar.total = count
            bar.update()

        evaluation = evaluate_folder(
            result_dir,
            target_dir,
            protocol,
            recursive=recursive,
            max_memory=max_memory,
            progress=show,
        )
    for notice in (*history.notices, *evaluation.notices):
        complain(notice)
    if reason:
        complain(f"protocol: {protocol}, {reason}")
    encode_stdout(json=json_lines)
    for line in as_json_lines(evaluation) if json_lines else as_table(evaluation):
        print(harmless_json(line) if json_lines else line)
    for problem in evaluation.problems:
        complain(f"error: {problem}")
    if csv_file is not None:
        try:
            _write_table(csv_file, as_csv(evaluation))
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(f"{csv_file}: cannot be written ({reason})") from error
    return evaluation


def _write_table(path: Path, text: str) -> None:
    try:
        content = text.encode("utf-8", errors="surrogateescape")
    except UnicodeEncodeError:  # a name of Windows that is no text
        content = text.encode("utf-8", errors="surrogatepass")
    if path.is_symlink() or (file_mode(path) and not is_file(path)):
        path.write_bytes(content)  # /dev/stdout, say, must not be renamed away
        return
    with atomic_file(path) as file:
        file.write(content)


def as_json_lines(evaluation: Evaluation) -> list[str]:
    """One JSON object a score, ``{"name","psnr","ssim","mae"}``, and a last one named ``mean``.

    JSON has no infinity, so an infinite PSNR is the string ``"inf"``: a strict parser reads it,
    and ``float()`` makes a number of it. ``null`` stands only in the line ``mean``, and only if
    nothing could be compared.
    """
    return [json.dumps(row, ensure_ascii=False) for row in _rows(evaluation)]


def as_table(evaluation: Evaluation) -> list[str]:
    """Aligned lines for people, the mean last."""
    scores = [*evaluation.scores, *([evaluation.mean] if evaluation.mean else [])]
    rows = [(harmless(score.name), score) for score in scores]
    width = max((len(name) for name, _ in rows), default=0)
    lines = [f"{'name':{width}}  {'PSNR':>7}  {'SSIM':>7}  {'MAE':>7}"]
    lines += [f"{name:{width}}  {s.psnr:7.2f}  {s.ssim:7.4f}  {s.mae:7.4f}" for name, s in rows]
    return lines


def as_csv(evaluation: Evaluation) -> str:
    """The same as a table with a header; infinite is ``inf``, nothing is empty."""
    names = dict(zip(CSV_COLUMNS, CSV_COLUMNS, strict=True))
    return "".join(_csv_line(row) for row in [names, *_rows(evaluation)])


def _csv_line(row: Mapping[str, Any]) -> str:
    text = io.StringIO()
    # The module quotes what holds a character of the end of line, so for a name with a carriage
    # return that has to be one.
    csv.DictWriter(text, CSV_COLUMNS, lineterminator="\r\n").writerow(row)
    return text.getvalue()[: -len("\r\n")] + "\n"


def _rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"name": s.name, "psnr": json_number(s.psnr), "ssim": s.ssim, "mae": s.mae}
        for s in evaluation.scores
    ]
    mean = evaluation.mean
    rows.append(
        {"name": MEAN, "psnr": None, "ssim": None, "mae": None}
        if mean is None
        else {"name": MEAN, "psnr": json_number(mean.psnr), "ssim": mean.ssim, "mae": mean.mae}
    )
    return rows
