"""Restores folders from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from restormer_cli.batch.image_restorer import Function, ImageRestorer
from restormer_cli.batch.options import RunOptions
from restormer_cli.batch.outcomes import Collector, Outcome, Provenance
from restormer_cli.batch.run import run
from restormer_cli.batch.shards import Shard
from restormer_cli.executors.in_process import InProcess
from restormer_cli.images.formats import PNG, find_format
from restormer_cli.images.reading import MAX_PIXELS
from restormer_cli.images.writing import OutputOptions


def restore_folder(
    restorer: ImageRestorer | Function,
    input_dir: Path | str | Sequence[Path | str],
    result_dir: Path | str,
    *,
    recursive: bool = False,
    sides: tuple[str, ...] = (),
    overwrite: bool = False,
    checksum: bool = False,
    wait: bool = False,
    format: str = PNG.name,
    quality: int | None = None,
    bit_depth: int | None = None,
    png_compression: int | None = None,
    strip: bool = False,
    max_pixels: int = MAX_PIXELS,
    shard: Shard | None = None,
    dry_run: bool = False,
    fail_fast: bool = False,
) -> list[Outcome]:
    """Restore every image of a folder into another.

    Parameters
    ----------
    restorer
        A :class:`~restormer_cli.Restorer`, or a function with the same parameters. If it has
        ``settings``, results of other settings are restored again; else all results that are
        there count as done.
    input_dir
        A folder or an image file, or several of them.
    result_dir
        The folder of results.
    sides
        Sub-folders with one view of each image, for dual pixels ``("inputL", "inputR")``.
    recursive, overwrite, checksum, wait, max_pixels, shard, dry_run
        As the options of the command line.
    format, quality, bit_depth, png_compression, strip
        As the options of the command line; they say what results are like.
    fail_fast
        Stop at the first failure; images that were not begun have no outcome.

    Returns
    -------
    list of Outcome
        One for each image, failed ones included.

    Raises
    ------
    UsageError
        If there are no images, a folder cannot be used, or the format cannot be written so.
    BusyError
        If another run works in the result folder.
    """
    collector = Collector()
    output = OutputOptions(find_format(format), quality, bit_depth, png_compression, strip)
    sources = [input_dir] if isinstance(input_dir, (Path, str)) else input_dir
    options = RunOptions(
        tuple(map(str, sources)),
        Path(result_dir),
        recursive=recursive,
        sides=sides,
        overwrite=overwrite,
        checksum=checksum,
        wait=wait,
        output=output,
        max_pixels=max_pixels,
        shard=shard,
        dry_run=dry_run,
        fail_fast=fail_fast,
    )
    made_by = getattr(restorer, "settings", options.settings)
    options = replace(options, settings=output.applied_to(made_by))
    run(options, options.find_work(), lambda: InProcess(restorer, Provenance()), collector)
    return collector.outcomes
