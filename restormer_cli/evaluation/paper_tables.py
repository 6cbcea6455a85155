"""The paper's tables: data sets, the networks that restore them, and the published figures.

A table is data: ``papers/<table>.yml``, with these keys, of which a set may override the table's.

``network``
    The variant that restores, by its name in :mod:`restormer_cli.tasks`.
``folder``, ``layout``
    Where the images lie below the authors' ``Datasets/test``, by default in a folder of the set's
    name, and how: ``pairs`` (``input`` and ``target``), ``clean`` (targets alone, to which noise is
    added), ``single`` (DPDD's ``inputC`` and ``target``), ``dual`` (its ``inputL``, ``inputR`` and
    ``target``), ``blocks`` (SIDD's two MATLAB files) or ``none`` (not to be measured here).
``read``
    ``color8`` (the default; of 16 bit the upper 8 count, as in OpenCV), ``color16`` or ``gray8``.
``sigma``
    Standard deviation of the noise to add, in units of 1/255.
``protocol``, ``rounded``
    How to compare; and true if the result is rounded to 8 bit first, as it is when it is saved.
``paper`` or ``parts``
    The published figures, of the whole set or of parts of it.
``windows``
    Those published for local windows of attention, by the pixels of a window; where they come from
    is the table's ``windows_source``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from restormer_cli.errors import UsageError
from restormer_cli.tasks import VARIANTS, Variant

PAPERS = Path(__file__).resolve().parent / "papers"
AVERAGE = "Average"


@dataclass(frozen=True)
class DataSet:
    """One line of a table: a data set and the network that restores it."""

    name: str
    network: str
    protocol: str
    layout: str
    folder: str = ""
    """Below the authors' ``Datasets/test``; the name if empty."""
    read: str = "color8"
    sigma: int | None = None
    rounded: bool = True
    group: str | None = None
    """The part of the table, such as ``blind``."""
    note: str | None = None
    paper: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    windows: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    @property
    def variant(self) -> Variant:
        return next(v for v in VARIANTS if v.name == self.network)

    def for_window(self, window: int | None) -> DataSet:
        """The same with the figures that were published for windows of so many pixels."""
        if window is None:
            return self
        nothing: Mapping[str, float] = {}
        parts = dict.fromkeys(self.parts, nothing)
        return replace(self, paper=self.windows.get(window, nothing), parts=parts)


@dataclass(frozen=True)
class Table:
    """A table of the paper."""

    name: str
    title: str
    number: int
    source: str
    sets: tuple[DataSet, ...]
    average: Mapping[str, float] | None = None
    """Published mean over all sets; None where the table has none."""
    windows_source: str = ""
    """Where figures for local windows were published; empty if none were."""

    def for_windows(self, windows: Mapping[str, int | None]) -> Table:
        """The table with the figures that were published for local windows of attention.

        Parameters
        ----------
        windows
            Pixels of a window, by the name of the network; None, or nothing, for whole images, of
            which the paper's own figures are. Where none were published, ours stand alone.
        """
        if not any(windows.get(dataset.network) for dataset in self.sets):
            return self
        sets = tuple(dataset.for_window(windows.get(dataset.network)) for dataset in self.sets)
        average: Mapping[str, float] | None = None if self.average is None else {}
        source = "; ".join(filter(None, (self.source.strip(), self.windows_source.strip())))
        return replace(self, sets=sets, average=average, source=source)


@dataclass(frozen=True)
class Row:
    """Our figures beside the paper's."""

    dataset: str
    part: str | None
    group: str | None
    sigma: int | None
    variant: str | None
    images: int
    ours: Mapping[str, float]
    """By the names of metrics; empty if not measured."""
    paper: Mapping[str, float]
    """Those that the paper reports, and for DPDD ``lpips``, which is not measured here."""
    note: str | None = None

    @property
    def label(self) -> str:
        """The beginning of a line of a table, such as ``Set12 σ 15 blind``."""
        noise = None if self.sigma is None else f"σ {self.sigma}"
        return " ".join(filter(None, (self.dataset, self.part, noise, self.group)))


def tables() -> list[Table]:
    """All tables, in the paper's order."""
    return sorted(map(_read_table, PAPERS.glob("*.yml")), key=lambda table: table.number)


def find_table(name: str) -> Table:
    """A table by its name, such as ``deraining``, or its number in the paper.

    Raises
    ------
    UsageError
        If there is none.
    """
    for table in tables():
        if name in (table.name, str(table.number)):
            return table
    known = ", ".join(f"{table.name} ({table.number})" for table in tables())
    raise UsageError(f"no table {name!r}; there are {known}")


_OF_SET = ("protocol", "layout", "read", "rounded")


def _read_table(path: Path) -> Table:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    shared = {key: document[key] for key in _OF_SET if key in document}
    return Table(
        path.stem,
        document["title"],
        document["table"],
        document["source"],
        tuple(DataSet(**(shared | row)) for row in document["sets"]),
        document.get("average"),
        document.get("windows_source", ""),
    )


def choose_sets(table: Table, only: Sequence[str], sigmas: Sequence[int]) -> list[DataSet]:
    """The data sets of a table that a person asks for; by default all.

    Raises
    ------
    UsageError
        If ``only`` names a set that the table lacks, or no set is left.
    """
    names = {name.casefold() for name in only}
    known = {dataset.name.casefold(): dataset.name for dataset in table.sets}
    unknown = [name for name in only if name.casefold() not in known]
    if unknown:
        raise UsageError(
            f"{table.name} has no data set {unknown[0]!r}; there are {', '.join(known.values())}"
        )
    chosen = [
        dataset
        for dataset in table.sets
        if (not names or dataset.name.casefold() in names)
        and (not sigmas or dataset.sigma in sigmas)
    ]
    if not chosen:
        raise UsageError(f"{table.name} has no noise of σ {' or '.join(map(str, sigmas))}")
    return chosen
