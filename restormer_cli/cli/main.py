"""The words a person types. No logic: each command builds a job and hands it on."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from restormer_cli import __version__
from restormer_cli.cli.options import (
    BitDepth,
    Common,
    Precision,
    memory_size,
    path_option,
    typed_path,
    with_common,
)
from restormer_cli.errors import BusyError, ImageError, OutputError, RestormerError, Stopped
from restormer_cli.system import obstacles
from restormer_cli.system.terminal import complain

app = typer.Typer(
    help="Restore folders of photos with Restormer: rain, noise, motion blur, defocus.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_BUSY = 75


MaxMemory = Annotated[
    int | None,
    typer.Option(
        parser=memory_size, metavar="SIZE", help="Peak memory to stay under, such as 6GB."
    ),
]


class DenoiseKind(str, enum.Enum):
    real = "real"
    color = "color"
    gray = "gray"


class DeblurKind(str, enum.Enum):
    motion = "motion"
    defocus = "defocus"


def _restore(
    common: Common,
    task: str,
    kind: str | None = None,
    sigma: int | None = None,
    sides: tuple[str, ...] = (),
) -> None:
    obstacles.check_address_space()
    from restormer_cli.cli.restore import restore

    bit_depth = None if common.bit_depth is BitDepth.auto else int(common.bit_depth.value)
    values = dataclasses.asdict(common)
    values |= {"bit_depth": bit_depth, "precision": common.precision.value}
    values |= {"engine": common.engine.value}
    summary = restore(task=task, kind=kind, sigma=sigma, sides=sides, **values)
    if summary.failed or summary.left:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
@with_common
def derain(common: Common) -> None:
    """Remove rain streaks."""
    _restore(common, "derain")


@app.command()
@with_common
def denoise(
    common: Common,
    kind: Annotated[
        DenoiseKind, typer.Option(help="Noise of a camera, or Gaussian in colour or gray.")
    ] = DenoiseKind.real,
    sigma: Annotated[
        int | None, typer.Option(help="Known strength of Gaussian noise: 15, 25 or 50.")
    ] = None,
) -> None:
    """Remove noise; without --sigma its strength need not be known."""
    _restore(common, "denoise", kind.value, sigma)


@app.command()
@with_common
def deblur(
    common: Common,
    kind: Annotated[DeblurKind, typer.Option(help="What blurred the photos.")] = DeblurKind.motion,
) -> None:
    """Remove motion blur or defocus blur."""
    _restore(common, "deblur", kind.value)


@app.command()
@with_common
def dual_pixel(
    common: Common,
    left: Annotated[str, typer.Option(help="Sub-folder with the left views.")] = "inputL",
    right: Annotated[str, typer.Option(help="Sub-folder with the right views.")] = "inputR",
) -> None:
    """Remove defocus blur using both views of a dual-pixel sensor."""
    _restore(common, "dual-pixel", sides=(left, right))


@app.command()
def devices(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="Numbers to compute with.")] = Precision.auto,
) -> None:
    """Say what this machine has, what would be used, and why."""
    obstacles.check_address_space()
    from restormer_cli.network.devices import describe

    for line in describe(device, precision.value):
        print(line)


weights_app = typer.Typer(help="Get, check and inspect files of weights.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")


@weights_app.command("list")
def weights_list() -> None:
    """List all official and embedded files: size, hash, licence, task, and where they are."""
    from restormer_cli.cli.weights import list_weights

    for line in list_weights():
        print(line)


@weights_app.command("download")
def weights_download(
    names: Annotated[
        list[str] | None, typer.Argument(help="Official files, with or without .pth.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All official files.")] = False,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL|FOLDER", help="A mirror, or a folder without network."),
    ] = None,
) -> None:
    """Get official files, whole and with the right hash; goes on where it was interrupted."""
    from restormer_cli.cli.weights import download_weights

    if not download_weights(names or [], everything=everything, source=source):
        raise typer.Exit(EXIT_SOME_FAILED)


@weights_app.command("verify")
def weights_verify() -> None:
    """Hash all files that are here again."""
    from restormer_cli.cli.weights import verify_weights

    if not verify_weights():
        raise typer.Exit(EXIT_SOME_FAILED)


@weights_app.command("show")
def weights_show(
    file: Annotated[str, typer.Argument(help="A checkpoint, or the name of a known file.")],
) -> None:
    """Say what a checkpoint is: network, tensors, task, hash."""
    obstacles.check_address_space()
    from restormer_cli.weights.description import show_weights

    for line in show_weights(file):
        print(line)


@weights_app.command("convert")
def weights_convert(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A checkpoint, or the name of a known file.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", parser=typed_path)],
    half: Annotated[bool, typer.Option("--half", help="Store float16: half the size.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Write a checkpoint as safetensors, bit for bit."""
    obstacles.check_address_space()
    from restormer_cli.weights.conversion import convert_weights

    print(convert_weights(source, target, half=half, overwrite=overwrite))


@app.command()
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
    report: Annotated[
        Path | None, path_option("What --report wrote when the results were made.")
    ] = None,
    json_lines: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for every image and the mean.")
    ] = False,
    csv: Annotated[Path | None, path_option("Write the figures to this file.")] = None,
    max_memory: MaxMemory = None,
) -> None:
    """Measure results against the true images: PSNR, SSIM, MAE."""
    from restormer_cli.cli.evaluate import run

    evaluation = run(
        result_dir, target_dir, protocol, recursive, report, json_lines, csv, max_memory
    )
    if not evaluation.complete:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
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
    max_memory: MaxMemory = None,
    json_lines: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for every row.")
    ] = False,
) -> None:
    """Measure a table of the paper again, with its data sets and the official weights."""
    if table is None:
        from restormer_cli.cli.reproduce import as_list

        print(*as_list(), sep="\n")
        return
    obstacles.check_address_space()
    from restormer_cli.cli.reproduce import run

    run(
        table,
        data,
        only=only or (),
        sigmas=sigma or (),
        weights=weights,
        options=options,
        device=device,
        precision=precision.value,
        max_memory=max_memory,
        json_lines=json_lines,
    )


@app.command()
def report(
    result_dir: Annotated[Path, typer.Argument(help="Folder of results.", parser=typed_path)],
    input_dir: Annotated[
        Path | None, path_option("The folder that they came from, to compare with.")
    ] = None,
    target_dir: Annotated[
        Path | None, path_option("Folder of true images, paired by name, to measure with.")
    ] = None,
    runs: Annotated[
        Path | None, path_option("What --report wrote when the results were made.", "--report")
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

    written = write_report(
        result_dir,
        input_dir=input_dir,
        target_dir=target_dir,
        runs=runs,
        protocol=protocol,
        recursive=recursive,
        output=output,
        contact_sheet=contact_sheet,
        overwrite=overwrite,
        max_memory=max_memory,
    )
    for notice in written.notices:
        complain(notice)
    print(written.html, *written.sheets, sep="\n")
    if written.beside is not None:
        complain(f"keep {written.beside} beside it")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"restormer-cli {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Say which version."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: run a command, turn our errors into one line and an exit status."""
    try:
        from restormer_cli.system.streams import (
            encode_stdout,
            forget_unusable_width,
            open_standard_streams,
        )

        open_standard_streams()
        forget_unusable_width()
        encode_stdout()
        app()
    except BusyError as error:
        _fail(error, EXIT_BUSY)
    except (OutputError, ImageError) as error:  # the latter: of a command that needs the image
        _fail(error, EXIT_SOME_FAILED)
    except RestormerError as error:
        _fail(error, EXIT_USAGE)
    except Stopped as stop:
        _end_at_once(128 + stop.signal_number)
    except BrokenPipeError:
        _flush_nowhere()
        sys.exit(EXIT_SOME_FAILED)
    except (ImportError, MemoryError, OSError, RuntimeError) as error:
        reason = obstacles.reason(error)
        if reason is None:  # an error of ours
            raise
        _fail(reason, EXIT_USAGE if obstacles.is_loading(error) else EXIT_SOME_FAILED)


def _fail(reason: object, status: int) -> NoReturn:
    """End with one line. Whoever read our output may have gone, or the disk be full."""
    complain(f"error: {reason}")
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    _flush_nowhere()
    sys.exit(status)


def _end_at_once(status: int) -> NoReturn:
    """End without Python's own end, which a thread that is inside a decoder would abort."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _flush_nowhere() -> None:
    """Whoever read our output has gone; say nothing more, now or when Python flushes."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
