"""``restormer reproduce``: measures the papers' tables again, beside the published figures."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restormer_cli.cli.options import MaxMemory, Precision, Window, path_option
from restormer_cli.cli.progress import Progress
from restormer_cli.cli.stderr import complain
from restormer_cli.errors import WeightsError
from restormer_cli.evaluation.paper_tables import (
    DataSet,
    Row,
    Table,
    choose_sets,
    find_table,
    tables,
)
from restormer_cli.system.limits import check_torch_can_load
from restormer_cli.system.streams import encode_stdout
from restormer_cli.system.terminal import harmless, harmless_json
from restormer_cli.system.units import json_number
from restormer_cli.tasks import Variant

if TYPE_CHECKING:
    from restormer_cli.evaluation.metrics import Metric
    from restormer_cli.evaluation.reproduce import Restore
    from restormer_cli.weights.selection import WeightsFile

OFFICIAL = "official"
#: Widths of columns: a data set with its part or noise, a figure.
LABEL_WIDTH, FIGURE_WIDTH = 26, 9


def as_list() -> list[str]:
    """Make a line for each table: number, name, and its data sets."""
    lines = []
    for table in tables():
        sets = ", ".join(dict.fromkeys(s.name for s in table.sets))
        lines.append(f"{table.number}  {table.name:18} {sets}")
    return lines


def as_heading(table: Table) -> list[str]:
    """Make the lines above the rows of a table."""
    columns = "".join(
        f"{metric.label:>{FIGURE_WIDTH}}{'paper':>{FIGURE_WIDTH}}{'Δ':>{FIGURE_WIDTH}}"
        for metric in _compared(table).values()
    )
    return [
        f"Table {table.number}: {table.title}",
        f"{'data set':{LABEL_WIDTH}}{'images':>7}{columns}",
    ]


def as_line(row: Row, table: Table) -> str:
    """Make a line of our figures, the paper's and the difference; a dash for none."""
    line = f"{row.label:{LABEL_WIDTH}}{row.images or '-':>7}"
    for key, metric in _compared(table).items():
        ours, paper = row.ours.get(key), row.paper.get(key)
        difference = None if ours is None or paper is None else ours - paper
        line += _aligned(ours, f".{metric.decimals}f")
        line += _aligned(paper, f".{metric.paper_decimals}f")
        line += _aligned(difference, f"+.{metric.decimals}f")
    return harmless(f"{line}  {row.note}" if row.note else line)


def as_json(row: Row, table: Table, weights: str | None, window: int | None = None) -> str:
    """Make a JSON object on one line; an infinite figure is the string ``"inf"``."""
    ours = {key: json_number(value) for key, value in row.ours.items()}
    made = {"weights": weights, "window": window, "ours": ours}
    values = {"table": table.name, **asdict(row), **made}
    return harmless_json(json.dumps(values, ensure_ascii=False))


def _compared(table: Table) -> dict[str, Metric]:
    """The metrics that the paper reports in a table."""
    from restormer_cli.evaluation.metrics import METRICS

    known = {key for s in table.sets for f in (s.paper, *s.parts.values()) for key in f}
    return {key: metric for key, metric in METRICS.items() if key in known}


def _aligned(value: float | None, form: str) -> str:
    return f"{'-' if value is None else format(value, form):>{FIGURE_WIDTH}}"


def reproduce(
    table: Annotated[
        str | None,
        typer.Argument(help="Name or number of a table of the paper; without it, they are listed."),
    ] = None,
    data: Annotated[
        Path, path_option("The authors' Datasets/test, or a folder that holds it.")
    ] = Path("Datasets"),
    only: Annotated[
        list[str] | None, typer.Option(help="A data set of the table; can be given again.")
    ] = None,
    sigma: Annotated[
        list[int] | None, typer.Option(help="A strength of noise; can be given again.")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="official, compact, the name of an official file, or a file.")
    ] = "official",
    options: Annotated[
        Path | None, path_option("Hyper-parameters of --weights FILE, as YAML.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="Numbers to compute with; the authors' are float32.")
    ] = Precision.float32,
    window: Window = "none",
    max_memory: MaxMemory = None,
    json_lines: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for every row.")
    ] = False,
) -> None:
    """Measure a table of the paper again, with its data sets and the official weights.

    With --window, published figures are those for such local windows, where there are any.
    """
    if table is None:
        print(*as_list(), sep="\n")
        return
    check_torch_can_load()
    from restormer_cli.evaluation.reproduce import reproduce as measure
    from restormer_cli.loading import choose_window

    wanted = find_table(table)
    sets = choose_sets(wanted, only or (), sigma or ())
    files = _find_weights(sets, weights, options)
    windows = {name: choose_window(window, file) for name, file in files.items()}
    network = _networks(files, windows, device, precision.value, max_memory)
    with contextlib.closing(Progress(unit="image")) as bar:

        def show(dataset: DataSet, done: int, count: int) -> None:
            bar.show(done, count, dataset.name)

        rows = measure(
            table,
            data,
            network,
            only=only or (),
            sigmas=sigma or (),
            windows=windows,
            # On a GPU it speaks of the GPU's memory.
            max_memory=max_memory if device in {"auto", "cpu"} else None,
            progress=show,
        )
        encode_stdout(json=json_lines)
        if not json_lines:
            print(*as_heading(wanted), sep="\n", flush=True)
        for row in rows:
            file = files.get(row.variant or "")
            bar.clear()
            if not json_lines:
                line = as_line(row, wanted)
            elif file is not None and row.images:
                line = as_json(row, wanted, file.label, windows[row.variant or ""])
            else:
                line = as_json(row, wanted, None)
            print(line, flush=True)
    if not json_lines:
        labels = dict.fromkeys(file.label for file in files.values())
        made = f"weights: {', '.join(labels)}; attention: over {_described(windows)}"
        source = wanted.for_windows(windows).source.strip()
        complain(f"{made}; paper: {source}")


def _described(windows: Mapping[str, int | None]) -> str:
    """Over what attention was, for people."""
    sizes = dict.fromkeys(windows.values())
    return " and ".join(f"windows of {size}" if size else "whole images" for size in sizes)


def _networks(
    files: Mapping[str, WeightsFile],
    windows: Mapping[str, int | None],
    device: str,
    precision: str,
    max_memory: int | None,
) -> Callable[[Variant], Restore]:
    """Return a function that loads the network of a variant, which restores unrounded."""

    def network(variant: Variant) -> Restore:
        from restormer_cli.network import devices
        from restormer_cli.restorer import Restorer
        from restormer_cli.weights.selection import load_network

        def load(choice: devices.Choice) -> Restorer:
            return Restorer(
                load_network(files[variant.name], variant),
                device=choice.device,
                dtype=choice.dtype,
                max_memory=max_memory,
                window=windows[variant.name],
            )

        return devices.choose_usable(device, precision, load)[1].unrounded

    return network


def _find_weights(
    sets: Sequence[DataSet], weights: str, options: Path | None
) -> dict[str, WeightsFile]:
    """Find the weights of all networks for ``sets``, by the variant's name."""
    from restormer_cli.weights.selection import find_weights

    found: dict[str, WeightsFile] = {}
    for variant in dict.fromkeys(s.variant for s in sets if s.layout != "none"):
        try:
            found[variant.name] = find_weights(variant, weights, options=options)
        except WeightsError as error:
            if weights != OFFICIAL:
                raise
            raise WeightsError(f"{error}, or measure others with --weights FILE") from None
    return found
