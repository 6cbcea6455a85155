"""``restormer evaluate``: metrics of a folder of results, as a table, CSV or JSON lines."""

from __future__ import annotations

import contextlib
import csv as csv_module
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from restormer_cli.cli.options import MaxMemory, path_option
from restormer_cli.cli.progress import Progress
from restormer_cli.cli.stderr import complain
from restormer_cli.errors import UsageError
from restormer_cli.system.atomic import atomic_file
from restormer_cli.system.files import file_mode, is_file, is_folder, is_link, refuse_other_file
from restormer_cli.system.streams import encode_stdout
from restormer_cli.system.terminal import harmless, harmless_json
from restormer_cli.system.units import json_number

if TYPE_CHECKING:
    from restormer_cli.evaluation.evaluate import Evaluation, Score

NAME = "name"
#: Characters of a column of figures.
WIDTH = 7


def evaluate(
    result_dir: Annotated[Path, path_option("Folder of results.")],
    target_dir: Annotated[Path, path_option("Folder of true images, paired by name.")],
    protocol: Annotated[
        str,
        typer.Option(
            help="rgb, y, gray, gopro, sidd, realblur or dpdd, as the papers do; auto: what fits "
            "the task that made the results if that is known, else rgb."
        ),
    ] = "auto",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Walk sub-folders.")] = False,
    log_json: Annotated[
        Path | None,
        path_option("What --log-json wrote when the results were made.", "--log-json", "--report"),
    ] = None,
    json_lines: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for every image and the mean.")
    ] = False,
    csv: Annotated[Path | None, path_option("Write the figures to this file.")] = None,
    max_memory: MaxMemory = None,
) -> None:
    """Measure results against the true images: PSNR, SSIM and others."""
    from restormer_cli.evaluation.evaluate import evaluate_folder
    from restormer_cli.evaluation.protocols import choose_protocol
    from restormer_cli.evaluation.run_log import read_run_log

    if csv is not None:
        if is_folder(csv):
            raise UsageError(f"{csv}: is a folder; name a file for --csv")
        header = ",".join(_columns()).encode()
        refuse_other_file(csv, header, "exists and is no table of ours; name another for --csv")
    run_log = read_run_log(result_dir, log_json)
    protocol, reason = choose_protocol(protocol, run_log)
    with contextlib.closing(Progress(unit="image")) as bar:
        evaluation = evaluate_folder(
            result_dir,
            target_dir,
            protocol,
            recursive=recursive,
            max_memory=max_memory,
            progress=bar.show,
        )
    for notice in (*run_log.notices, *evaluation.notices):
        complain(notice)
    if reason:
        complain(f"protocol: {protocol}, {reason}")
    encode_stdout(json=json_lines)
    for line in as_json_lines(evaluation) if json_lines else as_table(evaluation):
        print(harmless_json(line) if json_lines else line)
    for problem in evaluation.problems:
        complain(f"error: {problem}")
    if csv is not None:
        try:
            _write_table(csv, as_csv(evaluation))
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(f"{csv}: cannot be written ({reason})") from error
    if not evaluation.complete:
        raise typer.Exit(1)


def _write_table(path: Path, text: str) -> None:
    try:
        content = text.encode("utf-8", errors="surrogateescape")
    except UnicodeEncodeError:  # a name of Windows that is no text
        content = text.encode("utf-8", errors="surrogatepass")
    if is_link(path) or (file_mode(path) and not is_file(path)):
        path.write_bytes(content)  # /dev/stdout, say, must not be renamed away
        return
    with atomic_file(path) as file:
        file.write(content)


def as_json_lines(evaluation: Evaluation) -> list[str]:
    """Make a JSON object for each score, with its name and metrics, and one named ``mean``.

    JSON has no infinity, so an infinite PSNR is the string ``"inf"``: a strict parser reads it,
    and ``float()`` makes a number of it. ``null`` stands only in the line ``mean``, and only if
    nothing could be compared.
    """
    return [json.dumps(row, ensure_ascii=False) for row in _rows(evaluation)]


def as_table(evaluation: Evaluation) -> list[str]:
    """Make aligned lines for people, the mean last."""
    from restormer_cli.evaluation.metrics import METRICS

    rows = [(harmless(score.name), score) for score in _scores(evaluation)]
    width = max((len(name) for name, _ in rows), default=0)
    labels = [f"{metric.label:>{WIDTH}}" for metric in METRICS.values()]
    lines = ["  ".join([f"{NAME:{width}}", *labels])]
    for name, score in rows:
        figures = [
            f"{value:{WIDTH}.{METRICS[key].decimals}f}" for key, value in score.figures.items()
        ]
        lines.append("  ".join([f"{name:{width}}", *figures]))
    return lines


def as_csv(evaluation: Evaluation) -> str:
    """Make CSV with a header, the mean last; infinite is ``inf``, a missing mean is empty."""
    header = {column: column for column in _columns()}
    return "".join(_csv_line(row) for row in [header, *_rows(evaluation)])


def _csv_line(row: Mapping[str, Any]) -> str:
    text = io.StringIO()
    # The module quotes what holds a character of the end of line, so for a name with a carriage
    # return that has to be one.
    csv_module.writer(text, lineterminator="\r\n").writerow(row.values())
    return text.getvalue()[: -len("\r\n")] + "\n"


def _columns() -> list[str]:
    from restormer_cli.evaluation.metrics import METRICS

    return [NAME, *METRICS]


def _rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The columns of each score and of the mean, which is last."""
    from restormer_cli.evaluation.evaluate import MEAN

    rows: list[dict[str, Any]] = [
        {NAME: score.name, **{key: json_number(value) for key, value in score.figures.items()}}
        for score in _scores(evaluation)
    ]
    return rows if evaluation.mean else [dict.fromkeys(_columns()) | {NAME: MEAN}]


def _scores(evaluation: Evaluation) -> list[Score]:
    """The scores and their mean, if there is any."""
    return [*evaluation.scores, *([evaluation.mean] if evaluation.mean else [])]
