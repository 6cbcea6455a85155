"""The tables of formats in ``docs/images.md`` say what codecs and formats of results say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from restormer_cli.images.codecs import CODECS
from restormer_cli.images.codecs.base import Codec
from restormer_cli.images.formats import COLUMNS, FORMATS, OutputFormat

PAGE = Path(__file__).resolve().parents[2] / "docs" / "images.md"
READ = (
    "format", "what is read", "bits", "alpha", "colours kept", "metadata kept", "written", "extra",
    "suffixes",
)  # fmt: skip
WRITTEN = {form.title: form for form in FORMATS}


def row(codec: Codec) -> tuple[str, ...]:
    least, most = codec.bits
    form = WRITTEN.get(codec.name)
    return (
        codec.name,
        codec.reads,
        str(most) if least == most else f"{least}–{most}",
        "yes" if codec.alpha else "",
        codec.colours,
        codec.metadata,
        "" if form is None else f"{', '.join(map(str, form.bits))} bit",
        f"`{codec.extra.name}`" if codec.extra else "",
        f"`{codec.suffixes}`" if codec.suffixes else "",
    )


def table(heading: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heading, *rows]
    text = ["|" + "".join(f" {cell} |" if cell else " |" for cell in line) for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(heading), *text[1:]])


#: By the heading that each stands under.
TABLES = {
    "## Read": table(READ, map(row, CODECS)),
    "## Written": table(COLUMNS, map(OutputFormat.describe, FORMATS)),
}


@pytest.mark.parametrize("heading", TABLES)
def test_the_page_has_the_table(heading: str) -> None:
    section = PAGE.read_text(encoding="utf-8").partition(f"{heading}\n")[2]
    start = section.index("| format |")
    assert section[start : section.index("\n\n", start)] == TABLES[heading]


def test_every_result_can_be_read_again() -> None:
    assert {codec.name for codec in CODECS} >= WRITTEN.keys()


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_no_suffix_is_of_two_formats(codec: Codec) -> None:
    others = {suffix for other in CODECS if other is not codec for suffix in other.suffixes.split()}
    assert others.isdisjoint(codec.suffixes.split())
    assert all(suffix == suffix.lower() for suffix in codec.suffixes.split())


if __name__ == "__main__":
    print("\n\n".join(f"{heading}\n\n{lines}" for heading, lines in TABLES.items()))
