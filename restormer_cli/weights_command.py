"""What ``restormer weights`` does and says: list, download, verify, show, convert."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from restormer_cli import hashes
from restormer_cli.errors import Stopped, UsageError, WeightsError
from restormer_cli.files import atomic_file, file_mode, is_file
from restormer_cli.terminal import complain, harmless, shown_on
from restormer_cli.units import format_bytes
from restormer_cli.weights import (
    OFFICIAL_LICENCE,
    KnownFile,
    describe_ignored,
    find_known,
    fitting,
    home,
    known_files,
    mismatch,
)

if TYPE_CHECKING:
    from tqdm import tqdm

    from restormer_cli.checkpoints import Checkpoint

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
    pinned = any(is_file(hashes.pin_of(place)) for place in places)
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
        A mirror or a folder, as for :func:`restormer_cli.downloads.download`.

    Raises
    ------
    UsageError
        If no or unknown files are asked for.
    """
    from restormer_cli.downloads import download

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
    found = hashes.check(path, known.sha256)
    return path if found.expected is not None and found.matches else None


class _Console:
    """Tells a person how downloads go: implements :class:`restormer_cli.downloads.Listener`."""

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
            found = hashes.check(path, known.sha256)
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


# --- show ---------------------------------------------------------------------------------------

_FORMATS = {
    "zip": "PyTorch",
    "legacy": "PyTorch before 1.6, not zipped",
    "safetensors": "safetensors",
}


def show_weights(name: str) -> Iterator[str]:
    """What a checkpoint is, a line for each fact, from its headers.

    Parameters
    ----------
    name
        A path, or the name of a known file that is here.

    Raises
    ------
    WeightsError
        If it cannot be read or is no Restormer.
    """
    from restormer_cli.checkpoints import open_checkpoint

    path = _path_of(name)
    checkpoint = open_checkpoint(path)
    config = checkpoint.config()
    digest = hashes.sha256(path)
    facts = {
        "file": f"{path}, {format_bytes(path.stat().st_size)}, {_FORMATS[checkpoint.format]}",
        "SHA-256": digest,
        "known as": _identity(path, digest),
        "tensors": _tensors(checkpoint),
        "names begin with": checkpoint.prefix or "nothing, they are the official ones",
        **{key: _words(value) for key, value in config.to_mapping().items()},
        "fits": _fits(checkpoint),
    }
    if ignored := checkpoint.ignored:
        more = f" and {len(ignored) - 1} more" if len(ignored) > 1 else ""
        facts["left out"] = f"{ignored[0]}{more}"
    width = max(map(len, facts))
    for key, value in facts.items():
        yield harmless(f"{key:{width}}  {value}")


def _path_of(name: str) -> Path:
    path = Path(name)
    known = None if is_file(path) else find_known(name)
    found = known.find() if known is not None else None
    if known is not None and found is None:
        raise WeightsError(f"{known.name} is not on this machine")
    return found or path


def _identity(path: Path, digest: str) -> str:
    for known in known_files():
        if digest == known.sha256:
            return f"{known.kind} {known.name}"
    for known in known_files():
        place = known.find()
        if place is not None and hashes.read_pin(place) == digest:
            return f"{known.kind} {known.name}, as pinned on this machine"
    named = find_known(path.name)
    if named is not None and named.sha256 is not None:
        return f"not the {named.kind} {named.name}, whose SHA-256 is {named.sha256}"
    return "no known file"


def _tensors(checkpoint: Checkpoint) -> str:
    tensors = checkpoint.tensors.values()
    kinds = Counter(tensor.dtype for tensor in tensors)
    parameters = sum(tensor.elements for tensor in tensors)
    return f"{len(tensors)}, {parameters:,} parameters, {' and '.join(sorted(kinds))}"


def _fits(checkpoint: Checkpoint) -> str:
    """The tasks by channels, those first that use the same LayerNorm."""
    from restormer_cli.tasks import shipped_options

    config = checkpoint.config()
    variants = fitting(config)
    alike = [
        variant.label
        for variant in variants
        if shipped_options(variant.name).network["LayerNorm_type"] == config.LayerNorm_type
    ]
    others = [variant.label for variant in variants if variant.label not in alike]
    if not variants:
        return "no task: its channels are those of none"
    if not others:
        return ", ".join(alike)
    return f"{', '.join(alike)}; by its channels also {', '.join(others)}"


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


# --- convert ------------------------------------------------------------------------------------


def convert_weights(
    name: str, target: Path, *, half: bool = False, overwrite: bool = False
) -> Path:
    """Write a checkpoint as safetensors, under the official names of its parameters.

    Every bit is kept, unless ``half`` asks for float16.

    Raises
    ------
    UsageError
        If the target is there already, or is no ``.safetensors`` file.
    WeightsError
        If the checkpoint cannot be read, is no Restormer, or has values too large for float16.
    """
    import torch
    from safetensors.torch import save

    from restormer_cli.checkpoints import open_checkpoint

    source = _path_of(name)
    if target.suffix.lower() != ".safetensors":
        raise UsageError(f"{target}: should end in .safetensors")
    checkpoint = open_checkpoint(source)
    if file_mode(target) and (not overwrite or target.samefile(source)):
        raise UsageError(f"{target}: is there already")
    checkpoint.config()
    if text := describe_ignored(source, checkpoint.ignored):
        complain(text)
    state = {key: tensor.contiguous() for key, tensor in checkpoint.read().items()}
    if half:
        for key, tensor in state.items():
            state[key] = tensor.half()
            if torch.isfinite(tensor).all() and not torch.isfinite(state[key]).all():
                raise WeightsError(f"{source}: {key} holds values too large for float16")
    content = save(state, metadata={"format": "pt"})
    try:
        with atomic_file(target) as file:
            file.write(content)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror or error})") from error
    return target


__all__ = [
    "convert_weights",
    "download_weights",
    "list_weights",
    "show_weights",
    "verify_weights",
]
