"""What a restoring subcommand does: options in, a run over a folder, its course on the console."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from restormer_cli import weights as weights_module
from restormer_cli.batch import Job, Labels, Restore, Summary, run
from restormer_cli.console import Console
from restormer_cli.errors import Stopped, UsageError
from restormer_cli.tasks import find_variant


def restore(
    *,
    task: str,
    kind: str | None,
    sigma: int | None,
    sides: tuple[str, ...],
    input_dir: str,
    result_dir: Path,
    weights: str,
    options: Path | None,
    device: str,
    precision: str,
    max_memory: int | None,
    tile: int | None,
    tile_overlap: int,
    recursive: bool,
    null: bool,
    overwrite: bool,
    bit_depth: int | None,
    dry_run: bool,
    fail_fast: bool,
    json_lines: bool,
    report: Path | None,
    quiet: bool,
    verbose: bool,
) -> Summary:
    """Run one subcommand; the parameters are its options.

    Raises
    ------
    UsageError
        If the run cannot start as asked.
    """
    variant = find_variant(task, kind, sigma)
    file = weights_module.find_weights(variant, weights, options=options)
    job = Job(
        source=input_dir,
        result_dir=result_dir,
        recursive=recursive,
        sides=sides,
        null=null,
        overwrite=overwrite,
        bit_depth=bit_depth,
        dry_run=dry_run,
        fail_fast=fail_fast,
    )
    work = job.find_work()
    with contextlib.ExitStack() as stack:
        stream = None
        if report is not None:
            try:
                report.parent.mkdir(parents=True, exist_ok=True)
                stream = stack.enter_context(report.open("a", encoding="utf-8"))
            except OSError as error:
                raise UsageError(f"{report}: cannot be written ({error.strerror})") from error
        console = Console(json_lines=json_lines, quiet=quiet, report=stream)

        def load() -> tuple[Restore, Labels]:
            from restormer_cli import devices
            from restormer_cli.restorer import Restorer

            choice = devices.choose(device, precision)
            if weights == "auto":
                console.notice(weights_module.notice(file, variant))
            if verbose:
                console.notice(f"weights: {file.path}")
                console.notice(f"device: {choice.device}, {choice.device_reason}")
                console.notice(f"precision: {choice.precision}, {choice.precision_reason}")
            restorer = Restorer(
                weights_module.load_network(file, variant),
                views=variant.views,
                device=choice.device,
                dtype=choice.dtype,
                max_memory=max_memory,
                tile=tile,
                tile_overlap=tile_overlap,
            )
            return restorer, Labels(file.label, str(choice.device), choice.precision)

        stack.enter_context(_signals_stop())
        try:
            summary = run(job, work, load, console)
        except Stopped as stop:
            console.close(f"stopped by {signal.Signals(stop.signal_number).name}")
            raise
        console.close(str(summary))
    return summary


@contextlib.contextmanager
def _signals_stop() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into :class:`Stopped`; a second one has its usual effect."""
    previous: dict[int, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        restore_handlers()
        raise Stopped(number)

    def restore_handlers() -> None:
        while previous:
            number, handler = previous.popitem()
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        restore_handlers()
