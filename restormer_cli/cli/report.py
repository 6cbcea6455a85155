"""``restormer report``: results as one HTML page, and as a contact sheet."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from restormer_cli.cli.options import MaxMemory, path_option, typed_path
from restormer_cli.cli.progress import Progress
from restormer_cli.cli.stderr import complain
from restormer_cli.cli.stdout import print_line


def report(
    result_dir: Annotated[Path, typer.Argument(help="Folder of results.", parser=typed_path)],
    input_dir: Annotated[
        Path | None, path_option("The folder that they came from, to compare with.")
    ] = None,
    target_dir: Annotated[
        Path | None, path_option("Folder of true images, paired by name, to measure with.")
    ] = None,
    log_json: Annotated[
        Path | None,
        path_option("What --log-json wrote when the results were made.", "--log-json", "--report"),
    ] = None,
    protocol: Annotated[str, typer.Option(help="As of restormer evaluate.")] = "auto",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Walk sub-folders.")] = False,
    output: Annotated[
        Path | None, path_option("The file to write; report.html among the results.")
    ] = None,
    contact_sheet: Annotated[
        Path | None, path_option("Draw a contact sheet as well, a PNG.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are not reports.")
    ] = False,
    max_memory: MaxMemory = None,
) -> None:
    """Show results in one HTML file: sliders, zoom, differences, figures, failures."""
    from restormer_cli.report.build import write_report

    with contextlib.closing(Progress(unit="image")) as bar:
        written = write_report(
            result_dir,
            input_dir=input_dir,
            target_dir=target_dir,
            log_json=log_json,
            protocol=protocol,
            recursive=recursive,
            output=output,
            contact_sheet=contact_sheet,
            overwrite=overwrite,
            max_memory=max_memory,
            progress=bar.show,
        )
    for notice in written.notices:
        complain(notice)
    for path in (written.html, *written.sheets):
        print_line(str(path))
    if written.beside is not None:
        complain(f"keep {written.beside} beside it")
