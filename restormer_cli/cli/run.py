"""Runs a restoring command: turns its options into a run, shows progress on the console."""

from __future__ import annotations

import contextlib
import signal

from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Summary
from restormer_cli.batch.run import Executor, run
from restormer_cli.batch.shards import Shard
from restormer_cli.batch.watch import check as check_watch
from restormer_cli.batch.watch import watch
from restormer_cli.cli.console import Console
from restormer_cli.cli.logs import log_to
from restormer_cli.cli.options import AUTO, CommonOptions
from restormer_cli.errors import RestormerError, Stopped, UsageError, WatchError
from restormer_cli.executors.launch import ExecutorOptions, start
from restormer_cli.images.formats import find_format
from restormer_cli.images.reading import MAX_PIXELS
from restormer_cli.images.writing import OutputOptions
from restormer_cli.loading import RestorerSpec
from restormer_cli.system.files import refuse_other_file
from restormer_cli.system.line_file import LineFile
from restormer_cli.system.stopping import signals_stop
from restormer_cli.system.streams import quiet_libraries
from restormer_cli.system.units import format_bytes
from restormer_cli.tasks import Variant
from restormer_cli.weights.selection import ignored_notice, notice


def restore(variant: Variant, options: CommonOptions, sides: tuple[str, ...] = ()) -> Summary:
    """Restore images as a restoring command does.

    Parameters
    ----------
    variant
        The variant that was asked for.
    options
        The options of the command.
    sides
        Sub-folders that hold one view of each image, for variants with several views.

    Returns
    -------
    Summary
        The totals; a log that could not be written counts as a failure.

    Raises
    ------
    UsageError
        If the run cannot start as asked.
    """
    executor_options = _executor_options(options)
    spec = _spec(variant, options)
    run_options = _run_options(options, spec, sides)
    if options.log_json is not None:
        refuse_other_file(
            options.log_json,
            b'{"input": ',
            "exists and is no report; name another file for --log-json",
        )
    if options.watch:
        check_watch(run_options)
    work = None if options.watch else run_options.find_work()
    with contextlib.ExitStack() as stack:
        log = _open_log(options, stack)
        if not options.verbose:
            stack.enter_context(quiet_libraries())
        console = Console(
            json_lines=options.json_lines, quiet=options.quiet, log=log, goes_on=options.watch
        )
        stack.enter_context(log_to(console.notice, options.verbose))

        def executor() -> Executor:
            if options.weights == "auto":
                console.notice(notice(spec.file, variant))
            if text := ignored_notice(spec.file):
                console.notice(text)
            return start(executor_options, run_options, spec)

        stack.enter_context(signals_stop())
        summary = Summary()
        try:
            if work is None:
                watch(run_options, executor, console, summary)
                if not summary.left:  # else it is said below
                    console.say(f"stopped: {summary.reason}")
            else:
                run(run_options, work, executor, console, summary)
        except BaseException as error:
            told = summary.left and (summary.done or summary.failed)
            if told or isinstance(error, (Stopped, WatchError)):
                console.close(f"stopped {_cause(error)}: {summary}{_peak(summary)}", summary.left)
            raise
        if summary.left:
            console.say(summary.what_is_left)
        console.close(f"{summary}{_peak(summary)}", summary.left)
        summary.failed += console.incomplete
    return summary


def _executor_options(options: CommonOptions) -> ExecutorOptions:
    chosen = ExecutorOptions(
        options.engine.value,
        options.ray_address,
        options.workers,
        options.cpus_per_worker,
        options.gpus_per_worker,
    )
    chosen.check(options.device)
    return chosen


def _spec(variant: Variant, options: CommonOptions) -> RestorerSpec:
    return RestorerSpec.find(
        variant,
        options.weights,
        options.options,
        device=options.device,
        precision=options.precision.value,
        max_memory=options.max_memory,
        tile=options.tile,
        tile_overlap=options.tile_overlap,
        window=options.window,
        self_ensemble=options.self_ensemble,
    )


def _run_options(options: CommonOptions, spec: RestorerSpec, sides: tuple[str, ...]) -> RunOptions:
    output = OutputOptions(
        find_format(options.format),
        options.quality,
        None if options.bit_depth == AUTO else int(options.bit_depth),
        options.png_compression,
        options.strip,
    )
    megapixels = options.max_megapixels
    return RunOptions(
        sources=tuple(options.input_dir),
        result_dir=options.result_dir,
        recursive=options.recursive,
        sides=sides,
        null=options.null,
        overwrite=options.overwrite,
        checksum=options.checksum,
        wait=options.wait,
        output=output,
        dry_run=options.dry_run,
        fail_fast=options.fail_fast,
        max_pixels=MAX_PIXELS if megapixels is None else int(megapixels * 1e6),
        shard=None if options.shard is None else Shard.parse(options.shard),
        settings=output.applied_to(spec.settings()),
    )


def _open_log(options: CommonOptions, stack: contextlib.ExitStack) -> LineFile | None:
    path = options.log_json
    if path is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = LineFile(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
    stack.callback(_close, log)
    return log


def _close(log: LineFile) -> None:
    with contextlib.suppress(OSError):  # a line that did not fit, as has been said
        log.close()


def _cause(error: BaseException) -> str:
    """The cause of an early end of a run, as the end of a sentence."""
    if isinstance(error, Stopped):
        return f"by {signal.Signals(error.signal_number).name}"
    if isinstance(error, BrokenPipeError):
        return "since nobody reads standard output any more"
    return "by an error" if isinstance(error, RestormerError) else f"by {type(error).__name__}"


def _peak(summary: Summary) -> str:
    return f", peak memory {format_bytes(summary.peak_memory)}" if summary.done else ""
