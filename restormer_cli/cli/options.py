"""The options that all restoring commands share, declared once."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from restormer_cli.errors import UsageError
from restormer_cli.images.formats import FORMATS, PNG, bit_depths, find_format
from restormer_cli.settings import read_window
from restormer_cli.system.units import parse_bytes

#: PyTorch ends the process if the system does not allow as many threads as it is told to use.
MOST_THREADS = 1024
AUTO = "auto"
_DEPTHS = (AUTO, *map(str, bit_depths()))
_LOSSY = ", ".join(form.title for form in FORMATS if form.quality is not None)


class Precision(str, enum.Enum):
    """Choices of ``--precision``."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class ExecutorName(str, enum.Enum):
    """Choices of ``--engine``."""

    local = "local"
    ray = "ray"


def memory_size(text: str) -> int:
    """Parse ``--max-memory``.

    Raises
    ------
    BadParameter
        If the text is none such.
    """
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def window_size(text: str | int) -> int | str:
    """Read ``--window``; raises as :func:`memory_size`."""
    try:
        return read_window(str(text))
    except UsageError as error:
        raise typer.BadParameter(str(error).removeprefix("--window ")) from None


def sample_depth(text: str) -> str:
    """Read ``--bit-depth``; raises as :func:`memory_size`."""
    if text not in _DEPTHS:
        raise typer.BadParameter(f"{text!r} is none; choose {', '.join(_DEPTHS)}")
    return text


def format_name(text: str) -> str:
    """Read ``--format``: also a suffix of it, such as ``jpg``; raises as :func:`memory_size`."""
    try:
        return find_format(text).name
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None


def typed_path(text: str | Path) -> Path:
    """Read the path of a folder or file that a person types.

    Raises
    ------
    BadParameter
        If the path is probably a mistake: empty, as from an unset variable of the shell; ``-``,
        which is no stream here; or with a ``~`` that the shell did not expand, as in
        ``--option=~/x``, since a folder of that name is dangerous to remove.
    """
    text = str(text)
    if not text:
        raise typer.BadParameter("is empty; name a path")
    if text == "-":
        raise typer.BadParameter("is no stream here; ./- is a file or folder of that name")
    if re.match(r"~[/\\]|~$", text):
        raise typer.BadParameter(
            "begins with a ~ that the shell did not replace; put a blank before it instead of =, "
            "or write ./~ if it is called so"
        )
    return Path(text)


def path_option(help: str, *names: str) -> Any:
    """Declare an option that takes a path; without names it is called as its parameter."""
    return typer.Option(*names, parser=typed_path, metavar="PATH", help=help)


#: ``--max-memory`` of the commands that measure.
MaxMemory = Annotated[
    int | None,
    typer.Option(
        parser=memory_size, metavar="SIZE", help="Peak memory to stay under, such as 6GB."
    ),
]


#: ``--window`` of the commands that restore.
Window = Annotated[
    Any,  # read by its parser
    typer.Option(
        parser=window_size,
        metavar="auto|none|N",
        help="Attention over local windows of N pixels (TLC), or over the whole image; auto: what "
        "the weights are best with, for unknown ones none.",
    ),
]

#: How help groups the options of a command, those of its task included.
PANELS = {
    "Input and output": (
        *("input_dir", "result_dir", "recursive", "left", "right", "watch", "null"),
        *("overwrite", "checksum", "wait", "fail_fast"),
        *("format", "quality", "bit_depth", "png_compression", "strip", "max_megapixels"),
    ),
    "Weights": (
        *("kind", "sigma", "weights", "options", "window", "self_ensemble"),
        *("tile", "tile_overlap"),
    ),
    "Machine": ("device", "precision", "max_memory", "workers", "cpus_per_worker"),
    "Several machines": ("shard", "engine", "ray_address", "gpus_per_worker"),
    "What is printed": ("json_lines", "log_json", "dry_run", "quiet", "verbose"),
}


@dataclass(frozen=True)
class CommonOptions:
    """The values of the common options."""

    input_dir: Annotated[
        list[str],
        typer.Option(
            metavar="PATH...",
            help="Folders and image files, or - for paths from standard input.",
        ),
    ]
    result_dir: Annotated[Path, path_option("Where results go, called as their images.")]
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Walk sub-folders and mirror them.")
    ] = False
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, and restore what arrives in the folders.")
    ] = False
    weights: Annotated[
        str,
        typer.Option(help="auto, official, compact, the name of a known file, or a file."),
    ] = "auto"
    options: Annotated[Path | None, path_option("Hyper-parameters of --weights FILE, as YAML.")] = (
        None
    )
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda (all that are there), cuda:N or mps.")
    ] = "auto"
    precision: Annotated[Precision, typer.Option(help="Numbers to compute with.")] = Precision.auto
    max_memory: Annotated[
        int | None,
        typer.Option(
            parser=memory_size,
            metavar="SIZE",
            help="Peak memory of a worker to stay under, such as 6GB.",
        ),
    ] = None
    engine: Annotated[
        ExecutorName, typer.Option(help="This machine, or a cluster of Ray that sees the folders.")
    ] = ExecutorName.local
    ray_address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Of the cluster; by default what is up.")
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that restore; by default one for each GPU."),
    ] = None
    cpus_per_worker: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_THREADS, help="Threads of each worker, and CPUs for Ray."),
    ] = None
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0.0, help="GPUs for Ray; by default 1 if there are any.")
    ] = None
    tile: Annotated[
        int | None, typer.Option(help="Restore in square tiles, as the authors do. Not exact.")
    ] = None
    tile_overlap: Annotated[int, typer.Option(help="Pixels that tiles share.")] = 32
    window: Window = "auto"
    self_ensemble: Annotated[
        bool,
        typer.Option(
            "--self-ensemble",
            help="Restore each image flipped and turned as well, and take the mean: a little "
            "better, up to eight times as slow.",
        ),
    ] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Redo what is done.")] = False
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Know inputs by content, not by size and time.")
    ] = False
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another run works in the result folder.")
    ] = False
    format: Annotated[
        str,
        typer.Option(
            parser=format_name,
            metavar="NAME",
            help=f"Of results: {', '.join(form.name for form in FORMATS)}.",
        ),
    ] = PNG.name
    quality: Annotated[
        int | None,
        typer.Option(min=1, max=100, help=f"Of {_LOSSY}; at 100 they lose least, or nothing."),
    ] = None
    strip: Annotated[
        bool,
        typer.Option("--strip", help="Leave out place, camera, names, texts and thumbnails."),
    ] = False
    bit_depth: Annotated[
        str,
        typer.Option(
            parser=sample_depth,
            metavar=f"[{'|'.join(_DEPTHS)}]",
            help="Of results; auto: as the input, as far as the format goes.",
        ),
    ] = AUTO
    png_compression: Annotated[
        int | None,
        typer.Option(min=0, max=9, help="Of PNG results, 0 to 9; by default what is quick."),
    ] = None
    max_megapixels: Annotated[
        float | None,
        typer.Option(min=0.0, max=1073.0, help="Refuse larger images as decompression bombs."),
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Restore only this of N parts: 0/3, 1/3 or 2/3."),
    ] = None
    null: Annotated[
        bool, typer.Option("--null", "-0", help="Paths from standard input end in NUL.")
    ] = False
    json_lines: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for every image.")
    ] = False
    log_json: Annotated[
        Path | None,
        path_option("Append the lines of --json to this file.", "--log-json", "--report"),
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failure.")] = (
        False
    )
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")] = False
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            help="Say which device and weights are used, and why; -vv: all that helps to find a "
            "fault.",
        ),
    ] = 0


def common_parameters() -> list[inspect.Parameter]:
    """Make parameters of a command from the fields of :class:`CommonOptions`."""
    hints = get_type_hints(CommonOptions, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=hints[field.name],
            default=(
                inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            ),
        )
        for field in dataclasses.fields(CommonOptions)
    ]


def take_common(values: dict[str, Any]) -> CommonOptions:
    """Take the common options out of the values of a command."""
    fields = dataclasses.fields(CommonOptions)
    return CommonOptions(**{field.name: values.pop(field.name) for field in fields})


def option(name: str, kind: Any, default: Any, **words: Any) -> inspect.Parameter:
    """Make a parameter of a command for one option."""
    annotation = Annotated[kind, typer.Option(**words)]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )


def with_signature(
    command: Callable[..., None], parameters: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """Declare these parameters to Typer for a command that takes any keywords, in their panels."""
    place = {name: (panel, i) for panel in PANELS for i, name in enumerate(PANELS[panel])}
    panels = list(PANELS)
    for parameter in parameters:
        if parameter.name in place:
            (info,) = parameter.annotation.__metadata__
            info.rich_help_panel = place[parameter.name][0]
    parameters = sorted(
        parameters,
        key=lambda p: (panels.index(place[p.name][0]), place[p.name][1]) if p.name in place else (),
    )
    # setattr, since no type says that a function has one.
    setattr(command, "__signature__", inspect.Signature(parameters))  # noqa: B010 - see above
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command
