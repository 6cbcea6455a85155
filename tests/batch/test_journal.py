"""The record survives a crash at any byte and says of each result where it came from."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from restormer_cli.batch.items import Item
from restormer_cli.batch.journal import FOLDER, SPARE_LINES, Journal
from restormer_cli.batch.resume import DONE, RESTORE, Decision, decide
from restormer_cli.settings import Settings
from restormer_cli.system.files import Stamp, digest

SETTINGS = Settings(task="derain", weights="w", precision="float32")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out" / FOLDER).mkdir(parents=True)
    (tmp_path / "in").mkdir()
    return tmp_path


def item(folder: Path, name: str) -> Item:
    return Item((folder / "in" / name,), folder / "out" / f"{name}.png")


def make(folder: Path, journal: Journal, name: str, content: bytes = b"result") -> Item:
    """Write an input and its result, and note it as a run would."""
    made = item(folder, name)
    made.source.write_bytes(name.encode())
    stamp = Stamp(len(name), made.source.stat().st_mtime_ns, digest(name.encode()))
    made.result.write_bytes(content)
    facts = made.result.stat()
    journal.add(made, [stamp], facts.st_size, facts.st_mtime_ns)
    return made


def opened(folder: Path, settings: Settings = SETTINGS, name: str = "run") -> Journal:
    journal = Journal(folder / "out", settings, name)
    journal.load()
    journal.open(settings)
    return journal


def loaded(folder: Path, settings: Settings = SETTINGS) -> Journal:
    journal = Journal(folder / "out", settings)
    journal.load()
    return journal


def test_journal_that_is_cut_off_at_any_byte_keeps_what_is_before_and_takes_more(
    folder: Path,
) -> None:
    journal = opened(folder)
    items = [make(folder, journal, name) for name in ("a", "b", "c")]
    journal.close()
    whole = journal.path.read_bytes()
    # So many entries are whole when so many bytes are; the line feed may be missing.
    ends = [len(whole[:at]) for at in range(len(whole)) if whole[at : at + 1] == b"\n"][1:]
    for length in range(len(whole)):
        journal.path.write_bytes(whole[:length])
        known = sum(length >= end for end in ends)
        foreign = Decision("skip", "not in the record of this folder")
        expected = [DONE] * known + [foreign] * (3 - known)
        more = opened(folder)
        assert [decide(more, i) for i in items] == expected
        late = make(folder, more, "late")
        more.close()
        after = loaded(folder)
        assert [decide(after, i) for i in [late, *items]] == [DONE, *expected]


@given(st.binary(max_size=60), st.integers(0, 400))
@example(noise=b"\xed\xa0\x80", at=300)
def test_damaged_journal_is_never_a_reason_to_stop(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "out" / FOLDER).mkdir(parents=True)
    (folder / "in").mkdir()
    journal = opened(folder)
    made = make(folder, journal, "a")
    journal.close()
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:at] + noise + whole[at + len(noise) :])
    decide(loaded(folder), made)
    more = opened(folder)
    late = make(folder, more, "late")
    more.close()
    assert decide(loaded(folder), late) == DONE


def test_journals_of_several_parts_of_a_run_are_read_together(folder: Path) -> None:
    records = [opened(folder, name=f"part-{number}") for number in (1, 2)]
    items = [make(folder, records[number % 2], str(number)) for number in range(6)]
    for journal in records:
        journal.close()
    assert [decide(loaded(folder), i) for i in items] == [DONE] * 6


def test_entry_counts_only_for_the_file_that_it_speaks_of(folder: Path) -> None:
    journal = opened(folder)
    made = make(folder, journal, "a")
    # A run with other settings was killed before its result got its name.
    other = replace(SETTINGS, weights="other")
    killed = opened(folder, other)
    stamp = Stamp(1, made.source.stat().st_mtime_ns, digest(b"a"))
    killed.add(made, [stamp], 12345, made.result.stat().st_mtime_ns + 10**12)
    killed.close()
    assert decide(loaded(folder), made) == DONE
    assert decide(loaded(folder, other), made).reason == "weights changed"
    made.result.unlink()
    assert decide(loaded(folder), made) == RESTORE


def test_precision_is_compared_only_if_one_is_asked_for(folder: Path) -> None:
    journal = opened(folder)
    made = make(folder, journal, "a")
    journal.close()
    assert decide(loaded(folder, replace(SETTINGS, precision=None)), made) == DONE
    decision = decide(loaded(folder, replace(SETTINGS, precision="bfloat16")), made)
    assert (decision.action, decision.reason) == ("restore", "precision changed")


def test_journal_is_written_anew_when_most_of_it_is_out_of_date(folder: Path) -> None:
    journal = opened(folder)
    items = [make(folder, journal, name, content=name.encode() * 9) for name in ("a", "bb")]
    stamp = Stamp(1, 1, "")
    for number in range(2 * SPARE_LINES):
        journal.add(items[0], [stamp], number, number)
    facts = items[0].result.stat()
    source = Stamp(1, items[0].source.stat().st_mtime_ns, digest(b"a"))
    journal.add(items[0], [source], facts.st_size, facts.st_mtime_ns)
    journal.close()
    before = journal.path.stat().st_size
    loaded(folder).compact()
    assert journal.path.stat().st_size < before / 100
    assert [decide(loaded(folder), i) for i in items] == [DONE] * 2
    assert os.listdir(folder / "out" / FOLDER) == ["run.jsonl"]  # noqa: PTH208 - hidden ones too


@pytest.mark.parametrize("name", ["ü é", "new\nline", 'quote"', "\udcff"])
def test_any_name_can_be_recorded(folder: Path, name: str) -> None:
    journal = opened(folder)
    made = item(folder, "a")
    made.source.write_bytes(b"a")
    made.result.write_bytes(b"result")
    strange = Item((folder / "in" / name,), folder / "out" / name)
    journal.add(strange, [Stamp(1, 2, "d")], 3, 4)
    journal.close()
    assert list(loaded(folder).entries) == [name]
