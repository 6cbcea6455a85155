"""``restormer weights``: list, download, verify, show, convert."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from restormer_cli.cli.options import typed_path
from restormer_cli.cli.progress import Progress
from restormer_cli.cli.stderr import complain
from restormer_cli.cli.stdout import print_line
from restormer_cli.errors import Stopped, UsageError, WeightsError
from restormer_cli.system.files import is_file
from restormer_cli.system.limits import check_torch_can_load
from restormer_cli.system.terminal import harmless, short
from restormer_cli.system.units import format_bytes
from restormer_cli.weights import checksum
from restormer_cli.weights.registry import (
    OFFICIAL_LICENCE,
    KnownFile,
    find_known,
    home,
    known_files,
    mismatch,
)

app = typer.Typer(help="Get, check and inspect files of weights.", no_args_is_help=True)


@app.command("list")
def list_weights() -> None:
    """List all official and embedded files: size, hash, licence, task, and where they are."""
    if os.environ.get("RESTORMER_HOME"):
        home()  # says so if it names no folder; having none at all is no obstacle
    rows = [("NAME", "SIZE", "HASH", "LICENCE")]
    below: list[list[str]] = [["tasks, and where it is"]]
    for known in known_files():
        path = known.find()
        size = known.size if path is None else path.stat().st_size
        rows.append(
            (
                known.name,
                "?" if size is None else format_bytes(size),
                _hash_state(known, path),
                known.licence,
            )
        )
        below.append([*known.labels, "not here" if path is None else short(path)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, lines in zip(rows, below, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print_line("  ".join(cells).rstrip())
        for line in lines:
            print_line(f"    {line}")


def _hash_state(known: KnownFile, path: Path | None) -> str:
    if known.sha256 is not None:
        return "known"
    places = known.places if path is None else [path]
    pinned = any(is_file(checksum.pin_of(place)) for place in places)
    return "pinned" if pinned else "not known"


@app.command()
def download(
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
    from restormer_cli.weights.download import download as fetch

    wanted = _choose(names or [], everything)
    complete = True
    complain(f"licence of the official weights: {OFFICIAL_LICENCE}")
    with contextlib.closing(_DownloadConsole()) as console:
        try:
            for known in wanted:
                try:
                    path = _elsewhere(known) or fetch(known, console, source=source)
                except WeightsError as error:
                    console.notice(f"error: {error}")
                    complete = False
                else:
                    console.close()
                    print_line(str(path))
        except KeyboardInterrupt:
            console.notice("stopped; the same command goes on from here")
            raise Stopped(signal.SIGINT) from None
    if not complete:
        raise typer.Exit(1)


def _choose(names: Sequence[str], everything: bool) -> list[KnownFile]:
    official = [known for known in known_files() if known.kind == "official"]
    if everything:
        return official
    if not names:
        raise UsageError("name the files to download, or say --all; `restormer weights list`")
    wanted = []
    for name in names:
        known = find_known(name)
        if known not in official:
            raise UsageError(
                f"{name}: no official file of that name; there are "
                + ", ".join(known.stem for known in official)
            )
        wanted.append(known)
    return wanted


def _elsewhere(known: KnownFile) -> Path | None:
    """Find a right file outside the download folder, in a checkout, say."""
    path = known.find()
    if path is None:
        return None
    with contextlib.suppress(WeightsError):  # without a cache folder, it is somewhere else
        if path == home() / known.name:
            return None
    found = checksum.check(path, known.sha256)
    return path if found.expected is not None and found.matches else None


class _DownloadConsole(Progress):
    """Shows downloads: a :class:`restormer_cli.weights.download.Listener`."""

    def __init__(self) -> None:
        super().__init__(lambda: self._text, unit="B", unit_scale=True)
        self._file = ""
        self._text = ""

    def notice(self, text: str) -> None:
        self.close()
        self.say(text)

    def progress(self, name: str, done: int, total: int | None) -> None:
        of_all = "" if total is None else f" of {format_bytes(total)}"
        self._text = f"{name}: {format_bytes(done)}{of_all}"
        if name != self._file:
            self.close()
            self._file = name
        self.show(done, total, name)


@app.command()
def verify() -> None:
    """Hash all files that are here again."""
    right = True
    for known in known_files():
        path = known.find()
        if path is None:
            continue
        try:
            found = checksum.check(path, known.sha256)
        except WeightsError as error:
            complain(f"error: {error}")
            right = False
            continue
        if not found.matches:
            print_line(f"wrong       {path}")
            complain(f"error: {mismatch(path, known, found)}")
            right = False
        elif found.source == "unknown":
            print_line(f"not pinned  {path}")
            complain(
                f"{path}: no hash is known, and none was pinned; its SHA-256 is {found.found}; "
                f"`restormer weights download {known.stem}` pins it"
            )
        else:
            print_line(f"{found.source:10}  {path}")
    if not right:
        raise typer.Exit(1)


@app.command()
def show(
    file: Annotated[str, typer.Argument(help="A checkpoint, or the name of a known file.")],
) -> None:
    """Say what a checkpoint is: network, tensors, task, hash."""
    check_torch_can_load()
    from restormer_cli.weights.description import describe

    facts = describe(file)
    width = max(map(len, facts))
    for key, value in facts.items():
        print(harmless(f"{key:{width}}  {value}"))


@app.command()
def convert(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A checkpoint, or the name of a known file.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", parser=typed_path)],
    half: Annotated[bool, typer.Option("--half", help="Store float16: half the size.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Write a checkpoint as safetensors, bit for bit."""
    check_torch_can_load()
    from restormer_cli.weights.conversion import convert as write

    print_line(str(write(source, target, half=half, overwrite=overwrite)))
