"""The Python face of the commands that work on folders."""

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
from restormer_cli.images.reading import MAX_PIXELS


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
    bit_depth: int | None = None,
    png_compression: int | None = None,
    max_pixels: int = MAX_PIXELS,
    shard: Shard | None = None,
    dry_run: bool = False,
    fail_fast: bool = False,
) -> list[Outcome]:
    """Restore every image of a folder into another.

    Parameters
    ----------
    restorer
        A :class:`~restormer_cli.Restorer`, or anything that is called like one. Results of
        another network or other settings are made again, if the restorer has ``settings`` that
        tell; else whatever is there counts as done.
    input_dir
        A folder or an image file, or several of them.
    sides
        Sub-folders with one view of each image, for dual pixels ``("inputL", "inputR")``.
    recursive, overwrite, checksum, wait, bit_depth, png_compression, max_pixels, shard, dry_run
        As the options of the command line.
    fail_fast
        Stop at the first failure; what was not begun has no outcome.

    Returns
    -------
    list of Outcome
        One for each image, failed ones included.

    Raises
    ------
    UsageError
        If there is nothing to do or the folders make no sense.
    BusyError
        If another run works in the result folder.
    """
    collector = Collector()
    sources = [input_dir] if isinstance(input_dir, (Path, str)) else input_dir
    options = RunOptions(
        tuple(map(str, sources)),
        Path(result_dir),
        recursive=recursive,
        sides=sides,
        overwrite=overwrite,
        checksum=checksum,
        wait=wait,
        bit_depth=bit_depth,
        png_compression=png_compression,
        max_pixels=max_pixels,
        shard=shard,
        dry_run=dry_run,
        fail_fast=fail_fast,
    )
    made_by = getattr(restorer, "settings", options.settings)
    options = replace(options, settings=made_by.with_bit_depth(bit_depth))
    run(options, options.find_work(), lambda: InProcess(restorer, Provenance()), collector)
    return collector.outcomes
