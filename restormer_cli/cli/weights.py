"""What ``restormer weights`` does and says: list, download, verify, show, convert."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from restormer_cli.errors import Stopped, UsageError, WeightsError
from restormer_cli.system.files import is_file
from restormer_cli.system.terminal import complain, shown_on
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

if TYPE_CHECKING:
    from tqdm import tqdm


#: Without a terminal there is no bar, but a line this often, in seconds.
LINE_EVERY = 60.0


# --- list ---------------------------------------------------------------------------------------


def list_weights() -> Iterator[str]:
    """A table of all official and embedded files, under a line of headings.

    Raises
    ------
    WeightsError
        If ``RESTORMER_HOME`` names no folder; having none at all is no obstacle.
    """
    if os.environ.get("RESTORMER_HOME"):
        home()
    rows = [("NAME", "SIZE", "HASH", "LICENCE", "WHERE", "TASK")]
    for known in known_files():
        path = known.find()
        size = known.size if path is None else path.stat().st_size
        rows.append(
            (
                known.name,
                "?" if size is None else format_bytes(size),
                _hash_state(known, path),
                known.licence,
                "not here" if path is None else str(path),
                ", ".join(known.labels),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(cells).rstrip()


def _hash_state(known: KnownFile, path: Path | None) -> str:
    if known.sha256 is not None:
        return "known"
    places = known.places if path is None else [path]
    pinned = any(is_file(checksum.pin_of(place)) for place in places)
    return "pinned" if pinned else "not known"


# --- download -----------------------------------------------------------------------------------


def download_weights(
    names: Sequence[str], *, everything: bool = False, source: str | None = None
) -> bool:
    """Get official files and print where each is; whether all are there.

    Parameters
    ----------
    names
        Of official files, with or without ``.pth``.
    source
        A mirror or a folder, as for :func:`restormer_cli.weights.download.download`.

    Raises
    ------
    UsageError
        If no or unknown files are asked for.
    """
    from restormer_cli.weights.download import download

    wanted = _choose(names, everything)
    console = _Console()
    complete = True
    complain(f"licence of the official weights: {OFFICIAL_LICENCE}")
    try:
        for known in wanted:
            try:
                path = _elsewhere(known) or download(known, console, source=source)
            except WeightsError as error:
                console.close()
                complain(f"error: {error}")
                complete = False
            else:
                console.close()
                print(shown_on(sys.stdout, str(path)), flush=True)
    except KeyboardInterrupt:
        console.close()
        complain("stopped; the same command goes on from here")
        raise Stopped(signal.SIGINT) from None
    return complete


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
    """A right file in a place that downloads do not go to, such as a checkout."""
    path = known.find()
    if path is None:
        return None
    with contextlib.suppress(WeightsError):  # without a cache folder, it is somewhere else
        if path == home() / known.name:
            return None
    found = checksum.check(path, known.sha256)
    return path if found.expected is not None and found.matches else None


class _Console:
    """Tells a person how downloads go.

    Implements :class:`restormer_cli.weights.download.Listener`.
    """

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.spoke = time.monotonic()

    def notice(self, text: str) -> None:
        self.close()
        complain(text)

    def progress(self, name: str, done: int, total: int | None) -> None:
        if sys.stderr.isatty():
            if self.bar is None:
                from tqdm import tqdm

                # What was there before this run counts as done, not as fast.
                self.bar = tqdm(
                    desc=name, total=total, initial=done, unit="B", unit_scale=True, leave=False
                )
            self.bar.update(done - self.bar.n)
        elif time.monotonic() - self.spoke >= LINE_EVERY:
            self.spoke = time.monotonic()
            of_all = "" if total is None else f" of {format_bytes(total)}"
            complain(f"{name}: {format_bytes(done)}{of_all}")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


# --- verify -------------------------------------------------------------------------------------


def verify_weights() -> bool:
    """Hash all files that are here again and print what came of it; whether all are right."""
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
            print(f"wrong       {path}", flush=True)
            complain(f"error: {mismatch(path, known, found)}")
            right = False
        elif found.source == "unknown":
            print(f"not pinned  {path}", flush=True)
            complain(
                f"{path}: no hash is known, and none was pinned; its SHA-256 is {found.found}; "
                f"`restormer weights download {known.stem}` pins it"
            )
        else:
            print(f"{found.source:10}  {path}", flush=True)
    return right
