"""What a restoring subcommand does: options in, a run over a folder, its course on the console."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import SLOWER, Summary
from restormer_cli.batch.run import Executor, run
from restormer_cli.batch.shards import Shard
from restormer_cli.cli.console import Console
from restormer_cli.errors import RestormerError, Stopped, UsageError
from restormer_cli.executors import launch
from restormer_cli.images.reading import MAX_PIXELS
from restormer_cli.loading import RestorerSpec
from restormer_cli.system.files import refuse_other_file
from restormer_cli.system.line_file import LineFile
from restormer_cli.system.stopping import signals_stop
from restormer_cli.system.streams import quiet_libraries
from restormer_cli.system.units import format_bytes
from restormer_cli.tasks import find_variant
from restormer_cli.weights import selection as weights_module


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
    checksum: bool,
    wait: bool,
    bit_depth: int | None,
    png_compression: int | None,
    max_megapixels: float | None,
    shard: str | None,
    dry_run: bool,
    fail_fast: bool,
    json_lines: bool,
    report: Path | None,
    quiet: bool,
    verbose: bool,
    engine: str = "local",
    ray_address: str | None = None,
    workers: int | None = None,
    cpus_per_worker: int | None = None,
    gpus_per_worker: float | None = None,
) -> Summary:
    """Run one subcommand; the parameters are its options.

    Raises
    ------
    UsageError
        If the run cannot start as asked.
    """
    executor_options = launch.ExecutorOptions(
        engine, ray_address, workers, cpus_per_worker, gpus_per_worker
    )
    executor_options.check(device)
    variant = find_variant(task, kind, sigma)
    spec = RestorerSpec.find(
        variant,
        weights,
        options,
        device=device,
        precision=precision,
        max_memory=max_memory,
        tile=tile,
        tile_overlap=tile_overlap,
    )
    run_options = RunOptions(
        source=input_dir,
        result_dir=result_dir,
        recursive=recursive,
        sides=sides,
        null=null,
        overwrite=overwrite,
        checksum=checksum,
        wait=wait,
        bit_depth=bit_depth,
        png_compression=png_compression,
        dry_run=dry_run,
        fail_fast=fail_fast,
        max_pixels=MAX_PIXELS if max_megapixels is None else int(max_megapixels * 1e6),
        shard=None if shard is None else Shard.parse(shard),
        settings=spec.settings().with_bit_depth(bit_depth),
    )
    if report is not None:
        refuse_other_file(
            report, b'{"input": ', "exists and is no report; name another file for --report"
        )
    work = run_options.find_work()
    with contextlib.ExitStack() as stack:
        stream = None
        if report is not None:
            try:
                report.parent.mkdir(parents=True, exist_ok=True)
                stream = LineFile(report)
                stack.callback(_close, stream)
            except OSError as error:
                raise UsageError(f"{report}: cannot be written ({error.strerror})") from error
        if not verbose:
            stack.enter_context(quiet_libraries())
        console = Console(json_lines=json_lines, quiet=quiet, report=stream)

        def tell(text: str) -> None:
            if verbose or SLOWER in text:
                console.notice(text)

        def start() -> Executor:
            if weights == "auto":
                console.notice(weights_module.notice(spec.file, variant))
            if text := weights_module.ignored_notice(spec.file):
                console.notice(text)
            return launch.start(executor_options, run_options, spec, tell)

        stack.enter_context(signals_stop())
        summary = Summary()
        try:
            run(run_options, work, start, console, summary)
        except BaseException as error:
            if isinstance(error, Stopped) or (summary.left and (summary.done or summary.failed)):
                console.close(f"stopped {_cause(error)}: {summary}{_peak(summary)}", summary.left)
            raise
        if summary.left:
            console.say(summary.what_is_left)
        console.close(f"{summary}{_peak(summary)}", summary.left)
        summary.failed += console.incomplete
    return summary


def _cause(error: BaseException) -> str:
    """What has ended a run before its time."""
    if isinstance(error, Stopped):
        return f"by {signal.Signals(error.signal_number).name}"
    if isinstance(error, BrokenPipeError):
        return "since nobody reads standard output any more"
    return "by an error" if isinstance(error, RestormerError) else f"by {type(error).__name__}"


def _peak(summary: Summary) -> str:
    return f", peak memory {format_bytes(summary.peak_memory)}" if summary.done else ""


def _close(report: LineFile) -> None:
    with contextlib.suppress(OSError):  # a line that did not fit, as has been said
        report.close()
