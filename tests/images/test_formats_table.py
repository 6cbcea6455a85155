"""The table of formats in ``docs/images.md`` says what the codecs say."""

from __future__ import annotations

from pathlib import Path

import pytest

from restormer_cli.images.codecs import CODECS
from restormer_cli.images.codecs.base import Codec

PAGE = Path(__file__).resolve().parents[2] / "docs" / "images.md"
HEAD = """\
| format | what is read | bits | alpha | colours kept | metadata kept | written | extra | suffixes |
|---|---|---|---|---|---|---|---|---|"""


def written(codec: Codec) -> str:
    """How results of this format are made, where they can be."""
    return "8, 16 bit" if codec.name == "PNG" else ""


def row(codec: Codec) -> str:
    least, most = codec.bits
    suffixes = f"`{codec.suffixes}`" if codec.suffixes else ""
    cells = (
        codec.name,
        codec.reads,
        str(most) if least == most else f"{least}–{most}",
        "yes" if codec.alpha else "",
        codec.colours,
        codec.metadata,
        written(codec),
        f"`{codec.extra.name}`" if codec.extra else "",
        suffixes,
    )
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def table() -> str:
    return "\n".join([HEAD, *map(row, CODECS)])


def test_the_page_has_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    start = page.index("| format |")
    assert page[start : page.index("\n\n", start)] == table()


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_no_suffix_is_of_two_formats(codec: Codec) -> None:
    others = {suffix for other in CODECS if other is not codec for suffix in other.suffixes.split()}
    assert others.isdisjoint(codec.suffixes.split())
    assert all(suffix == suffix.lower() for suffix in codec.suffixes.split())


if __name__ == "__main__":
    print(table())
