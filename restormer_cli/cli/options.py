"""The options that all restoring subcommands share, declared once."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from restormer_cli.system.units import parse_bytes


class Precision(str, enum.Enum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class ExecutorName(str, enum.Enum):
    local = "local"
    ray = "ray"


class BitDepth(str, enum.Enum):
    auto = "auto"
    eight = "8"
    sixteen = "16"


def memory_size(text: str) -> int:
    """Read ``--max-memory``."""
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def typed_path(text: str | Path) -> Path:
    """Read the path of a folder or file that a person types.

    What is typed by mistake rather than meant is refused: nothing, as an unset variable of the
    shell leaves; ``-``, which is no stream here; and a ``~`` that the shell has left, since it
    does so in ``--option=~/x``, and a folder of that name is dangerous to remove.
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
    """An option that takes a path."""
    return typer.Option(*names, parser=typed_path, metavar="PATH", help=help)


@dataclass(frozen=True)
class Common:
    """What they are set to."""

    input_dir: Annotated[
        str, typer.Option(help="A folder, an image file, or - for paths from standard input.")
    ]
    result_dir: Annotated[Path, path_option("Where results go, as NAME.png.")]
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Walk sub-folders and mirror them.")
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
        int | None, typer.Option(min=1, help="Threads of each worker, and CPUs for Ray.")
    ] = None
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0.0, help="GPUs for Ray; by default 1 if there are any.")
    ] = None
    tile: Annotated[
        int | None, typer.Option(help="Restore in square tiles, as the authors do. Not exact.")
    ] = None
    tile_overlap: Annotated[int, typer.Option(help="Pixels that tiles share.")] = 32
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Redo what is done.")] = False
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Know inputs by content, not by size and time.")
    ] = False
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another run works in the result folder.")
    ] = False
    bit_depth: Annotated[BitDepth, typer.Option(help="Of results; auto: as the input.")] = (
        BitDepth.auto
    )
    png_compression: Annotated[
        int | None,
        typer.Option(min=0, max=9, help="Of results, 0 to 9; by default what is quick."),
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
    report: Annotated[Path | None, path_option("Append the lines of --json to this file.")] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failure.")] = (
        False
    )
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")] = False
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Say which device and weights are used, and why."),
    ] = False


def with_common(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of :class:`Common`, which it receives as ``common``."""
    hints = get_type_hints(Common, include_extras=True)
    own = [
        parameter.replace(annotation=get_type_hints(command, include_extras=True)[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if name != "common"
    ]
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=hints[field.name],
            default=(
                inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            ),
        )
        for field in dataclasses.fields(Common)
    ]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        common = Common(**{f.name: values.pop(f.name) for f in dataclasses.fields(Common)})
        command(**values, common=common)

    del wrapper.__wrapped__  # or its signature would be read
    # setattr, since no type says that a function has one.
    setattr(wrapper, "__signature__", inspect.Signature(parameters))  # noqa: B010 - see above
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper
