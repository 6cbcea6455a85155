"""The options of a run: plain data, the same for all its workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from restormer_cli.batch.discovery import find_work
from restormer_cli.batch.items import Work
from restormer_cli.batch.journal import known_origins
from restormer_cli.batch.shards import WHOLE, Shard
from restormer_cli.images.reading import MAX_PIXELS
from restormer_cli.images.writing import OutputOptions
from restormer_cli.settings import Settings


@dataclass(frozen=True)
class RunOptions:
    """The options of a run, as on the command line."""

    sources: str | tuple[str, ...]
    result_dir: Path
    recursive: bool = False
    sides: tuple[str, ...] = ()
    null: bool = False
    overwrite: bool = False
    checksum: bool = False
    wait: bool = False
    output: OutputOptions = OutputOptions()  # noqa: RUF009 - frozen
    dry_run: bool = False
    fail_fast: bool = False
    max_pixels: int = MAX_PIXELS
    shard: Shard | None = None
    settings: Settings = field(default_factory=Settings)

    @property
    def named(self) -> tuple[str, ...]:
        """All sources."""
        return (self.sources,) if isinstance(self.sources, str) else self.sources

    @property
    def journal_name(self) -> str:
        """Name of the journal and the lock of this run in the result folder."""
        return WHOLE if self.shard is None else self.shard.name

    def find_work(self, *, watched: bool = False) -> Work:
        """Find the images of the run; raises as :func:`restormer_cli.batch.discovery.find_work`."""
        return find_work(
            self.sources,
            self.result_dir,
            recursive=self.recursive,
            sides=self.sides,
            null=self.null,
            suffix=self.output.format.suffix,
            shard=self.shard,
            origins=known_origins,
            watched=watched,
        )
