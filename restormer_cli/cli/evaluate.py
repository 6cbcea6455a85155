""" """

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from restormer_cli.errors import UsageError
from restormer_cli.evaluation.evaluate import CSV_COLUMNS, MEAN, Evaluation, evaluate_folder
from restormer_cli.evaluation.protocols import choose_protocol
from restormer_cli.evaluation.run_log import read_run_log
from restormer_cli.system.atomic import atomic_file
from restormer_cli.system.files import file_mode, is_file, is_folder, refuse_other_file
from restormer_cli.system.streams import encode_stdout
from restormer_cli.system.terminal import complain, harmless, harmless_json
from restormer_cli.system.units import json_number

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
    run_log = read_run_log(result_dir, report)
    protocol, reason = choose_protocol(protocol, run_log)
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
    for notice in (*run_log.notices, *evaluation.notices):
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
