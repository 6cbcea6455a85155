"""Journals, reports of runs, lock files and options are data from outside: nothing in them stops
a run, and nothing that is not sound is believed."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import make_images, restormer, save, tiny_network
from hypothesis import example, given
from hypothesis import strategies as st

from restormer_cli.batch.items import Item
from restormer_cli.batch.journal import FOLDER, Journal, known_origins
from restormer_cli.batch.lock import folder_lock
from restormer_cli.batch.resume import DONE, decide
from restormer_cli.errors import BusyError, OptionsError, UsageError
from restormer_cli.evaluation.run_log import read_run_log
from restormer_cli.settings import Settings
from restormer_cli.system import json_lines
from restormer_cli.system.files import Stamp, digest
from restormer_cli.tasks import read_options, shipped_options

SETTINGS = Settings(task="derain", weights="w")
HEADER = b'{"settings": {"task": "derain", "weights": "w"}}\n'
DEEP = b"[" * 100_000
#: JSON values of unexpected kinds.
STRANGE = [
    *["null", "true", "1.5", "-1", "1e400", "NaN", "-Infinity", "[]", "{}", '""', '"a"'],
    *["9" * 30, "9" * 5000, '"\\ud800"', '"\\u0000"', '"/etc/passwd"', '"../a.png"', '".."'],
    *[json.dumps("x" * 5000), "[" * 5000 + "]" * 5000, '[["a"]]', '{"a": 1, "a": 2}'],
]
VALUES = st.sampled_from(STRANGE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Item, bytes]:
    """A result folder with a result, and the line that speaks of it."""
    folder = tmp_path_factory.mktemp("made")
    out = folder / "out"
    (out / FOLDER).mkdir(parents=True)
    source = folder / "a.jpg"
    source.write_bytes(b"image")
    item = Item((source,), out / "a.png")
    item.result.write_bytes(b"result")
    journal = Journal(out, SETTINGS)
    journal.open(SETTINGS)
    there = item.result.stat()
    stamp = Stamp(5, source.stat().st_mtime_ns, digest(b"image"))
    journal.add(item, [stamp], there.st_size, there.st_mtime_ns)
    journal.close()
    return out, item, journal.path.read_bytes().splitlines(keepends=True)[-1]


def judged(made: tuple[Path, Item, bytes], content: bytes) -> bool:
    """True if a journal knows the result; all readers must survive it."""
    out, item, _ = made
    journal = Journal(out, SETTINGS)
    journal.path.write_bytes(content)
    journal.load()
    decision = decide(journal, item)
    known_origins(out, [item.result])
    journal.load([item.result])
    assert decide(journal, item) == decision
    read_run_log(out)
    journal.compact()
    return decision == DONE


LINES = {
    "nothing": b"",
    "no json": b"restormer\n",
    "no utf-8": b'["\xff\xfe.png", [1, 2], [["/a", 1, 2, "d"]]]\n',
    "half a character": b'["\xed\xa0\x80", [1, 2], [["/a", 1, 2, "d"]]]\n',
    "half a character, escaped": b'["\\ud800", [1, 2], [["\\udbff", 1, 2, "d"]]]\n',
    "utf-16": '["a.png", [1, 2], [["/a", 1, 2, "d"]]]\n'.encode("utf-16"),
    "deep": DEEP + b"\n",
    "deep and closed": b"[" * 50_000 + b"]" * 50_000 + b"\n",
    "deep objects": b'{"a":' * 50_000 + b"\n",
    "gigantic": b'["' + b"x" * (3 << 20) + b'", [1, 2], [["/a", 1, 2, "d"]]]\n',
    "gigantic without an end": b'["' + b"x" * (3 << 20),
    "huge numbers": b'["a.png", [1' + b"0" * 400 + b", 2e400], []]\n",
    "more digits than Python takes": b'["a.png", [' + b"9" * 5000 + b", 2], []]\n",
    "no number": b'["a.png", [NaN, Infinity], [["/a", -Infinity, 2, "d"]]]\n',
    "absolute": b'["/etc/passwd", [1, 2], [["/a", 1, 2, "d"]]]\n',
    "outside": b'["../../a.png", [1, 2], [["/a", 1, 2, "d"]]]\n',
    "NUL": b'["a\\u0000.png", [1, 2], [["/a\\u0000", 1, 2, "d"]]]\n',
    "too long": b'["' + b"a/" * 5000 + b'a.png", [1, 2], [["/a", 1, 2, "d"]]]\n',
    "no source": b'["a.png", [6, 2], []]\n',
    "other types": b'[["a.png"], {"a": 1}, "sources"]\n',
    "text for numbers": b'["a.png", ["6", "2"], [["/a", "1", "2", 3]]]\n',
    "more fields": b'["a.png", [1, 2], [["/a", 1, 2, "d", 5]], 6]\n',
    "settings twice": b'{"settings": {}, "settings": {"task": "derain"}}\n',
    "settings of other types": b'{"settings": {"task": ["derain"]}}\n',
    "settings of a later version": b'{"settings": {"task": "derain", "colour": "red"}}\n',
    "settings are none": b'{"settings": [1]}\n',
}


@pytest.mark.parametrize("kind", LINES)
def test_what_is_not_sound_in_a_journal_is_not_known(
    made: tuple[Path, Item, bytes], kind: str
) -> None:
    line = LINES[kind]
    known = HEADER + made[2]
    assert judged(made, known)
    assert judged(made, line + b"\n" + known)
    header = line.startswith(b"{") or b"\0" in line  # what follows it is not known either
    assert judged(made, HEADER + line + b"\n" + made[2]) != header
    assert judged(made, known + line)
    out, _, _ = made
    journal = Journal(out, SETTINGS)
    journal.path.write_bytes(HEADER + line)
    journal.load()
    assert all(json_lines.is_name_inside(name) for name in journal.entries)
    assert all(entry.sources for entries in journal.entries.values() for entry in entries)


@given(st.lists(VALUES, min_size=8, max_size=8), st.integers(0, 255))
@example(STRANGE[:8], 255)
def test_any_value_anywhere_in_an_entry_is_judged(
    made: tuple[Path, Item, bytes], values: list[str], where: int
) -> None:
    """Each of the parts of a sound line may be another value."""
    name, (size, mtime), [[path, *stamp]] = json.loads(made[2])
    sound = [json.dumps(part) for part in (name, size, mtime, path, *stamp, "derain")]
    parts = [
        v if where >> n & 1 else part for n, (part, v) in enumerate(zip(sound, values, strict=True))
    ]
    name, size, mtime, path, at, time, checksum, task = parts
    header = f'{{"settings": {{"task": {task}, "weights": "w"}}}}\n'
    entry = f"[{name}, [{size}, {mtime}], [[{path}, {at}, {time}, {checksum}]]]\n"
    known = judged(made, (header + entry).encode("utf-8", "surrogatepass"))
    assert known or where


@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf" + HEADER)
@example(DEEP)
def test_any_bytes_can_be_a_journal_or_a_report(
    made: tuple[Path, Item, bytes], noise: bytes
) -> None:
    judged(made, noise)
    judged(made, HEADER + noise)
    out, _, _ = made
    report = out.parent / "report.jsonl"
    report.write_bytes(noise + b"\n" + line_of_report(out).encode())
    assert len(read_run_log(out, report).entries) == 1


def line_of_report(out: Path, **values: str) -> str:
    """A line as ``--report`` writes it, with other values, in JSON, for some of its keys."""
    sound: dict[str, Any] = {"input": "/in/a.jpg", "result": str(out / "a.png"), "status": "done"}
    sound |= {"seconds": 1.0, "width": 1, "height": 1, "weights": "w", "error": None}
    parts = {key: json.dumps(value) for key, value in sound.items()} | values
    return "{" + ", ".join(f'"{key}": {value}' for key, value in parts.items()) + "}\n"


@given(
    st.dictionaries(
        st.sampled_from(["input", "result", "status", "seconds", "width", "weights", "error"]),
        VALUES,
    )
)
@example({"seconds": "9" * 400})
@example({"status": '["done"]'})
@example({"result": '"/a/.."'})
def test_any_value_anywhere_in_a_report_is_judged(
    made: tuple[Path, Item, bytes], values: dict[str, str]
) -> None:
    out, _, _ = made
    report = out.parent / "report.jsonl"
    sound = line_of_report(out, input='"/in/b.jpg"', result=json.dumps(str(out / "b.png")))
    report.write_text(line_of_report(out, **values) + sound)
    run_log = read_run_log(out, report)
    assert [entry.name for entry in run_log.entries][-1] == "b.png"
    for entry in run_log.entries:
        assert entry.name == "" or json_lines.is_name_inside(entry.name)
        assert entry.seconds is None or 0 <= entry.seconds < 1e12
        assert isinstance(entry.input, str)
        assert entry.error is None or isinstance(entry.error, str)
    assert run_log.variants == []


def test_lines_that_have_no_end_are_read_in_bounded_parts() -> None:
    class Counted(io.BytesIO):
        largest = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            line = super().readline(size)
            self.largest = max(self.largest, len(line))
            return line

    file = Counted(b"x" * (5 << 20) + b"\nshort\n" + b"y" * (5 << 20))
    assert [line for _, line in json_lines.lines(file)] == [b"short\n"]
    assert file.largest <= json_lines.LONGEST_LINE


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "out" / FOLDER
    folder.mkdir(parents=True)
    with folder_lock(folder):
        yield folder


@pytest.mark.parametrize(
    "text",
    [
        b"",
        DEEP[:4096],
        b'{"pid": 1',
        b'{"pid": [1], "host": "h", "since": "s"}',
        b'{"pid": ' + b"9" * 100 + b', "host": "h", "since": "s"}',
        b'{"pid": 1, "host": "h\\n\\u001b[2Jerror: all is lost", "since": "s"}',
        b'{"pid": 1, "pid": 2, "host": "h", "since": "s"}',
        b'{"pid": NaN, "host": "h", "since": "s"}',
        b'["pid", "host", "since"]',
        b"\xff\xfe",
    ],
)
def test_lock_that_says_nonsense_of_its_holder_is_held_all_the_same(
    held: Path, text: bytes
) -> None:
    (held / "run.lock").write_bytes(text)
    with pytest.raises(BusyError) as busy, folder_lock(held):
        pass
    assert "(it has only just begun)" in str(busy.value)
    assert str(busy.value).isprintable()


OPTIONS = {
    "deep": "a: " + "[" * 20_000,
    "no number that Python takes": "network_g: {dim: " + "9" * 5000 + "}",
    "no date": "network_g: {dim: 2020-13-45}",
    "no utf-8": "network_g: {dim: '\udcff'}",
    "a key that is a list": "network_g: {[1]: 2}",
    "lists in lists": "a: &a [x, x]\nb: &b [*a, *a]\nnetwork_g: {type: *b, dim: *b}",
    "weights that are none": "network_g: {dim: 8}\nweights: [1]",
    "a number for a name": "network_g: {8: 8}",
    "itself": "network_g: &a {dim: *a}",
    "a tag": "network_g: !!python/object/apply:os.system [true]",
    "large": "#" * (2 << 20),
    "nothing": "",
    "null": "network_g:",
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_options_that_make_no_sense_are_refused_in_one_short_line(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "net.yml"
    path.write_bytes(OPTIONS[kind].encode("utf-8", "surrogateescape"))
    with pytest.raises(OptionsError) as refused:
        read_options(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert len(str(refused.value)) < len(str(path)) + 200
    assert shipped_options("derain").network["dim"] == 48


@pytest.mark.parametrize("address", ["h:99999", "h:²", "h:", ":1", "a..b:1", "h:0", "\udcff:1"])
def test_address_that_is_none_is_refused_in_one_line(address: str) -> None:
    from restormer_cli.executors import ray_cluster

    with pytest.raises(UsageError, match="--ray-address"):
        ray_cluster._see_that_it_answers(address)


def test_number_of_threads_that_is_none_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "x")
    weights = save(tiny_network(), tmp_path / "net.safetensors")
    source = make_images(tmp_path / "in", 1)
    words = ("derain", "--input-dir", source, "--result-dir", tmp_path / "out")
    assert restormer(*words, "--weights", weights).status == 0
    assert os.environ["OMP_NUM_THREADS"] == "x"
