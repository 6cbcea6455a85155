""" """

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from restormer_cli.errors import WeightsError
from restormer_cli.system.terminal import harmless, harmless_json
from restormer_cli.system.units import json_number
from restormer_cli.tasks import Variant

# isort: split
from restormer_cli.evaluation.paper_tables import (
    _FIGURE,
    _LABEL,
    DataSet,
    Row,
    Table,
    choose_sets,
    find_table,
    tables,
)
from restormer_cli.evaluation.reproduce import OFFICIAL, Restore, reproduce
from restormer_cli.system.streams import encode_stdout
from restormer_cli.weights.selection import WeightsFile, find_weights

# --- on the console -----------------------------------------------------------------------------

#: What is compared, in the order of the columns, with its decimals: ours, and the paper's.
_FIGURES = {"psnr": ("PSNR", 2, 2), "ssim": ("SSIM", 4, 3), "mae": ("MAE", 4, 3)}


def as_list() -> list[str]:
    """A line a table: number, name, and the data sets in it."""
    lines = []
    for table in tables():
        sets = ", ".join(dict.fromkeys(s.name for s in table.sets))
        lines.append(f"{table.number}  {table.name:18} {sets}")
    return lines


def as_heading(table: Table) -> list[str]:
    """The lines above the rows of a table."""
    names = [_FIGURES[key][0] for key in _compared(table)]
    columns = "".join(f"{name:>{_FIGURE}}{'paper':>{_FIGURE}}{'Δ':>{_FIGURE}}" for name in names)
    return [
        f"Table {table.number}: {table.title}",
        f"{'data set':{_LABEL}}{'images':>7}{columns}",
    ]


def as_line(row: Row, table: Table) -> str:
    """Our figures, the paper's and the difference; a dash where there is none."""
    line = f"{row.label:{_LABEL}}{row.images or '-':>7}"
    for key in _compared(table):
        _, decimals, published = _FIGURES[key]
        ours, paper = row.ours.get(key), row.paper.get(key)
        difference = None if ours is None or paper is None else ours - paper
        line += _aligned(ours, f".{decimals}f") + _aligned(paper, f".{published}f")
        line += _aligned(difference, f"+.{decimals}f")
    return harmless(f"{line}  {row.note}" if row.note else line)


def as_json(row: Row, table: Table, weights: str | None) -> str:
    """A JSON object on one line; an infinite figure is the string ``"inf"``."""
    ours = {key: json_number(value) for key, value in row.ours.items()}
    values = {"table": table.name, **asdict(row), "weights": weights, "ours": ours}
    return harmless_json(json.dumps(values, ensure_ascii=False))


def _compared(table: Table) -> list[str]:
    known = {key for s in table.sets for f in (s.paper, *s.parts.values()) for key in f}
    return [key for key in _FIGURES if key in known]


def _aligned(value: float | None, form: str) -> str:
    return f"{'-' if value is None else format(value, form):>{_FIGURE}}"


# --- the command --------------------------------------------------------------------------------


def run(
    table: str,
    data_dir: Path,
    *,
    only: Sequence[str],
    sigmas: Sequence[int],
    weights: str,
    options: Path | None,
    device: str,
    precision: str,
    max_memory: int | None,
    json_lines: bool,
) -> None:
    """Do what ``restormer reproduce TABLE`` does; the parameters are its options.

    Raises
    ------
    UsageError
        As :func:`reproduce`, and if weights are missing; before work begins.
    ImageError
        As :func:`reproduce`.
    """
    wanted = find_table(table)
    files = _find_weights(choose_sets(wanted, only, sigmas), weights, options)
    with tqdm(unit="image", leave=False, disable=None) as bar:  # None: shown on a terminal only

        def show(dataset: DataSet, done: int, count: int) -> None:
            bar.set_description(dataset.name, refresh=False)
            bar.total = count
            bar.update(done - bar.n)

        def network(variant: Variant) -> Restore:
            from restormer_cli.network import devices
            from restormer_cli.restorer import Restorer
            from restormer_cli.weights.selection import load_network

            choice = devices.choose(device, precision)
            return Restorer(
                load_network(files[variant.name], variant),
                device=choice.device,
                dtype=choice.dtype,
                max_memory=max_memory,
            ).unrounded

        rows = reproduce(
            table,
            data_dir,
            network,
            only=only,
            sigmas=sigmas,
            # On a GPU it speaks of the GPU's memory.
            max_memory=max_memory if device in {"auto", "cpu"} else None,
            progress=show,
        )
        encode_stdout(json=json_lines)
        if not json_lines:
            print(*as_heading(wanted), sep="\n", flush=True)
        for row in rows:
            file = files.get(row.variant or "")
            line = (
                as_json(row, wanted, file.label if file and row.images else None)
                if json_lines
                else as_line(row, wanted)
            )
            bar.clear()
            print(line, flush=True)
    if not json_lines:
        labels = dict.fromkeys(file.label for file in files.values())
        print(f"weights: {', '.join(labels)}; paper: {wanted.source.strip()}", file=sys.stderr)


def _find_weights(
    sets: Sequence[DataSet], weights: str, options: Path | None
) -> dict[str, WeightsFile]:
    """The weights of every network that ``sets`` need, by the variant's name."""
    found: dict[str, WeightsFile] = {}
    for variant in dict.fromkeys(s.variant for s in sets if s.layout != "none"):
        try:
            found[variant.name] = find_weights(variant, weights, options=options)
        except WeightsError as error:
            if weights != OFFICIAL:
                raise
            raise WeightsError(f"{error}, or measure others with --weights FILE") from None
    return found
