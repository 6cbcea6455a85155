"""Downloads from a real server: whole and right, or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
import torch
from helpers import TINY, tiny_network
from servers import Server, cut, fail, unmeasured, whole

from restormer_cli.errors import WeightsError
from restormer_cli.network.architecture import RestormerConfig
from restormer_cli.tasks import Options
from restormer_cli.weights.checksum import pin_of, read_pin
from restormer_cli.weights.download import download
from restormer_cli.weights.registry import KnownFile

NAME = "tiny.pth"


def saved(seed: int = 0, **values: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save({"params": tiny_network(seed=seed, **values).state_dict()}, buffer)
    return buffer.getvalue()


CONTENT = saved()
#: Loads as well, and is something else.
OTHER = saved(1)

#: Bytes that are written at once; a cut connection loses fewer.
PIECE = 1 << 14


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def entry(content: bytes | None = CONTENT, name: str = NAME) -> KnownFile:
    """A registry of our own: an official file, whose hash is known unless ``content`` is None."""
    weights = {
        "file": name,
        "folder": "Deraining/pretrained_models",
        "bytes": None if content is None else len(content),
        "sha256": None if content is None else sha256(content),
    }
    return KnownFile(
        "official", ("derain",), Options("tiny", RestormerConfig(**TINY).to_mapping(), weights)
    )


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.shares: list[tuple[int, int | None]] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def progress(self, name: str, done: int, total: int | None) -> None:
        self.shares.append((done, total))


@pytest.fixture
def server() -> Iterator[Server]:
    with servers.serving() as state:
        state.files[NAME] = CONTENT
        yield state


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between attempts take a hundredth of their time."""
    pause = time.sleep
    monkeypatch.setattr(
        "restormer_cli.weights.download.time.sleep", lambda seconds: pause(seconds / 100)
    )
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def left(folder: Path) -> list[str]:
    """Files of a folder, without the hidden locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


# --- that go well ------------------------------------------------------------------------


def test_file_with_the_known_hash_is_placed(server: Server, tmp_path: Path) -> None:
    heard = Heard()
    path = download(entry(), heard, folder=tmp_path / "deep" / "home", source=server.address)
    assert path == tmp_path / "deep" / "home" / NAME
    assert path.read_bytes() == CONTENT
    assert left(path.parent) == [NAME]
    assert heard.notices == []
    assert heard.shares[-1] == (len(CONTENT), len(CONTENT))
    assert server.requests[0][0] == f"/v1.0/{NAME}"


@pytest.mark.parametrize("form", ["{}", "{}/", "{}/" + NAME])
def test_address_can_be_that_of_the_folder_or_of_the_file(
    server: Server, tmp_path: Path, form: str
) -> None:
    download(entry(), Heard(), folder=tmp_path, source=form.format(server.address))
    assert [path for path, _ in server.requests] == [f"/v1.0/{NAME}"]


def test_file_that_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        download(entry(), Heard(), folder=tmp_path, source=server.address)
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [whole, unmeasured()])
def test_servers_that_know_little_serve(server: Server, tmp_path: Path, answer: Any) -> None:
    server.answers, server.etag = [answer], None
    assert download(entry(), Heard(), folder=tmp_path, source=server.address).is_file()


def test_unknown_hash_is_pinned_and_checked_from_then_on(server: Server, tmp_path: Path) -> None:
    heard = Heard()
    path = download(entry(None), heard, folder=tmp_path, source=server.address)
    assert pin_of(path).read_text() == f"{sha256(CONTENT)}  {NAME}\n"
    assert sha256(CONTENT) in heard.notices[0]
    path.unlink()  # the pin stays, and holds for the next download
    server.files[NAME] = OTHER
    with pytest.raises(WeightsError, match="not the pinned") as caught:
        download(entry(None), heard, folder=tmp_path, source=server.address)
    assert sha256(CONTENT) in str(caught.value)
    assert sha256(OTHER) in str(caught.value)
    assert not path.exists()


def test_proxy_of_the_environment_is_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.address.removesuffix("/v1.0"))
    download(entry(), Heard(), folder=tmp_path, source="http://mirror.invalid/files")
    assert server.requests[0][0] == f"http://mirror.invalid/files/{NAME}"


def test_disk_that_knows_no_flushing_takes_weights(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(descriptor: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", none)
    path = download(entry(), Heard(), folder=tmp_path, source=server.address)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("layout", ["", "Deraining/pretrained_models"])
def test_folder_without_network(tmp_path: Path, layout: str) -> None:
    source = tmp_path / "stick" / layout / NAME
    source.parent.mkdir(parents=True)
    source.write_bytes(CONTENT)
    heard = Heard()
    path = download(entry(), heard, folder=tmp_path / "home", source=str(tmp_path / "stick"))
    assert path.read_bytes() == CONTENT
    assert heard.shares[-1] == (len(CONTENT), len(CONTENT))
    assert left(path.parent) == [NAME]


def test_file_itself_can_be_the_source(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(CONTENT)
    home = tmp_path / "home"
    assert download(entry(), Heard(), folder=home, source=str(tmp_path / NAME)).is_file()


# --- that are interrupted ----------------------------------------------------------------


def test_cut_connection_is_resumed_in_the_same_run(server: Server, tmp_path: Path) -> None:
    server.answers = [cut(40_000), cut(20_000)]
    heard = Heard()
    path = download(entry(), heard, folder=tmp_path, source=server.address)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={2 * PIECE}-", f"bytes={3 * PIECE}-"]
    assert server.requests[1][1]["if-range"] == '"v1"'
    assert len(heard.notices) == 2
    assert "trying again (2 of 4)" in heard.notices[0]
    assert left(tmp_path) == [NAME]


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_cut_connection_is_resumed_by_the_next_run(
    server: Server, tmp_path: Path, known: bool
) -> None:
    file = entry(CONTENT if known else None)
    server.answers = [cut(20_000)] * 4
    with pytest.raises(WeightsError, match="4 times"):
        download(file, Heard(), folder=tmp_path, source=server.address)
    assert not (tmp_path / NAME).exists()
    assert (tmp_path / f"{NAME}.partial").stat().st_size == 4 * PIECE
    server.requests.clear()
    path = download(file, Heard(), folder=tmp_path, source=server.address)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={4 * PIECE}-"]


def test_halves_of_different_files_are_not_put_together(server: Server, tmp_path: Path) -> None:
    server.answers = [cut(20_000)] * 4
    with pytest.raises(WeightsError):
        download(entry(None), Heard(), folder=tmp_path, source=server.address)
    server.files[NAME], server.etag = OTHER, '"v2"'
    assert (
        download(entry(None), Heard(), folder=tmp_path, source=server.address).read_bytes() == OTHER
    )


def test_half_that_does_not_fit_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.etag = None  # only the hash can tell
    (tmp_path / f"{NAME}.partial").write_bytes(OTHER[:90_000])
    heard = Heard()
    path = download(entry(), heard, folder=tmp_path, source=server.address)
    assert path.read_bytes() == CONTENT
    assert server.ranges == ["bytes=90000-", None]


def test_half_that_is_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.partial").write_bytes(CONTENT + b"more")
    assert (
        download(entry(), Heard(), folder=tmp_path, source=server.address).read_bytes() == CONTENT
    )


def test_half_is_fetched_again_where_the_server_cannot_go_on(
    server: Server, tmp_path: Path
) -> None:
    server.answers = [cut(20_000), whole]
    assert (
        download(entry(), Heard(), folder=tmp_path, source=server.address).read_bytes() == CONTENT
    )


@pytest.mark.parametrize("status", [500, 503, 429])
def test_passing_failure_of_the_server_is_tried_again(
    server: Server, tmp_path: Path, status: int
) -> None:
    server.answers = [fail(status)]
    heard = Heard()
    assert download(entry(), heard, folder=tmp_path, source=server.address).is_file()
    assert str(status) in heard.notices[0]


def test_body_that_is_shorter_than_it_says_is_never_placed(server: Server, tmp_path: Path) -> None:
    server.answers = [cut(0)] * 4
    with pytest.raises(WeightsError, match="cut"):
        download(entry(), Heard(), folder=tmp_path, source=server.address)
    assert not (tmp_path / NAME).exists()


def test_body_that_ends_early_without_a_length_is_never_placed(
    server: Server, tmp_path: Path
) -> None:
    server.answers, server.etag = [unmeasured(5000)], None
    with pytest.raises(WeightsError, match="cut off"):
        download(entry(None), Heard(), folder=tmp_path, source=server.address)
    assert not (tmp_path / NAME).exists()


# --- that fail ---------------------------------------------------------------------------


def test_wrong_hash_is_refused_and_kept_aside_with_both_hashes_named(
    server: Server, tmp_path: Path
) -> None:
    server.files[NAME] = OTHER
    with pytest.raises(WeightsError) as caught:
        download(entry(), Heard(), folder=tmp_path, source=server.address)
    aside = tmp_path / f"{NAME}.wrong-{sha256(OTHER)[:12]}"
    for words in (sha256(CONTENT), sha256(OTHER), str(aside)):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == [aside.name]
    assert aside.read_bytes() == OTHER
    assert len(server.requests) == 1  # another attempt would bring the same


def test_wrong_file_that_is_there_is_kept_aside_and_replaced(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / NAME).write_bytes(OTHER)
    heard = Heard()
    path = download(entry(), heard, folder=tmp_path, source=server.address)
    assert path.read_bytes() == CONTENT
    assert (tmp_path / f"{NAME}.wrong-{sha256(OTHER)[:12]}").read_bytes() == OTHER
    assert sha256(CONTENT) in heard.notices[0]
    assert sha256(OTHER) in heard.notices[0]


@pytest.mark.parametrize(
    "content",
    [b"<html>please log in</html>" * 500, saved(dim=16), b""],
    ids=["page", "other", "empty"],
)
def test_what_is_not_the_network_is_never_pinned(
    server: Server, tmp_path: Path, content: bytes
) -> None:
    server.files[NAME] = content
    with pytest.raises(WeightsError, match="kept as"):
        download(entry(None), Heard(), folder=tmp_path, source=server.address)
    assert not (tmp_path / NAME).exists()
    assert read_pin(tmp_path / NAME) is None


@pytest.mark.parametrize("status", [404, 403])
def test_file_that_the_server_has_not_fails_at_once(
    server: Server, tmp_path: Path, status: int
) -> None:
    server.answers = [fail(status)]
    with pytest.raises(WeightsError, match=f"{status}.*--from"):
        download(entry(), Heard(), folder=tmp_path, source=server.address)
    assert len(server.requests) == 1
    assert left(tmp_path) == []


def test_server_that_always_fails_is_given_up(server: Server, tmp_path: Path) -> None:
    server.answers = [fail(500)] * 9
    with pytest.raises(WeightsError, match="500"):
        download(entry(), Heard(), folder=tmp_path, source=server.address)
    assert len(server.requests) == 4


def test_offline_is_said_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    heard = Heard()
    with pytest.raises(WeightsError, match=r"cannot be reached.*--from"):
        download(entry(), heard, folder=tmp_path, source=address)
    assert heard.notices == []
    assert left(tmp_path) == []


@pytest.mark.parametrize("source", ["ftp://example.org/x", "nowhere", "http://", "http://a b/"])
def test_source_that_is_none_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(WeightsError, match=re.escape(source)):
        download(entry(), Heard(), folder=tmp_path, source=source)


def test_embedded_file_is_not_downloaded(tmp_path: Path) -> None:
    file = entry()
    with pytest.raises(WeightsError, match="embedded"):
        download(KnownFile("compact", file.labels, file.options), Heard(), folder=tmp_path)


# --- disks, links, several processes -----------------------------------------------------

#: Downloads in a process of its own, with limits of its own: address, folder, name of the entry.
PROCESS = """
import sys
from pathlib import Path
sys.path[:0] = {tests!r}
from test_download import Heard, entry
from restormer_cli.weights.download import download
from restormer_cli.errors import WeightsError
{before}
class Speaks(Heard):
    def notice(self, text):
        print(text, flush=True)
try:
    print(download(entry(), Speaks(), folder=Path(sys.argv[2]), source=sys.argv[1]))
except WeightsError as error:
    print("refused:", error)
"""


def process(server: Server, folder: Path, before: str = "") -> subprocess.Popen[str]:
    program = PROCESS.format(
        tests=list(map(str, Path(__file__).parents[:2])), before=textwrap.dedent(before)
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, server.address, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_quota_is_said_in_a_sentence_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    limit = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    """
    out, err = process(server, tmp_path, limit).communicate(timeout=120)
    assert out.startswith("refused: "), err
    assert "no space is left" in out
    assert left(tmp_path) == []


def test_full_disk_is_said_before_anything_is_written(server: Server, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = contextlib.suppress(FileNotFoundError)
    status = 1
    with mounted:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
        status = subprocess.run(command, capture_output=True, check=False).returncode
    if status:
        pytest.skip("no file system can be mounted here")
    try:
        with pytest.raises(WeightsError, match="no space is left"):
            download(entry(), Heard(), folder=disk, source=server.address)
        assert left(disk) == []
        server.answers = [unmeasured()]  # and where the length is known only afterwards
        with pytest.raises(WeightsError, match="no space is left"):
            download(entry(), Heard(), folder=disk, source=server.address)
        assert left(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_two_processes_download_once(server: Server, tmp_path: Path) -> None:
    second: list[subprocess.Popen[str]] = []
    said: list[str] = []

    def slowly(handler: servers.Handler, content: bytes) -> None:
        """Give byte by byte until another process, begun now, says that it waits."""
        handler.begin(200, len(content))
        second.append(process(server, tmp_path))
        out = second[0].stdout
        assert out is not None
        listening = threading.Thread(target=lambda: said.append(out.readline()))
        listening.start()
        sent = 0
        while listening.is_alive():
            listening.join(0.1)
            handler.wfile.write(content[sent : sent + 1])
            sent += 1
        handler.wfile.write(content[sent:])

    server.answers = [slowly]
    path = download(entry(), Heard(), folder=tmp_path, source=server.address)
    out, err = second[0].communicate(timeout=120)
    assert "waiting" in said[0], err
    assert out.splitlines() == [str(path)]
    assert len(server.requests) == 1
    assert left(tmp_path) == [NAME]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("suffix", ["", ".partial", ".partial.json", ".sha256"])
def test_links_are_not_followed_where_downloads_go(
    server: Server, tmp_path: Path, suffix: str
) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("precious")
    home = tmp_path / "home"
    home.mkdir()
    (home / f"{NAME}{suffix}").symlink_to(precious)
    file = entry(None if suffix == ".sha256" else CONTENT)
    with contextlib.suppress(WeightsError):
        download(file, Heard(), folder=home, source=server.address)
    assert precious.read_text() == "precious"


def test_folder_that_cannot_be_made_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="RESTORMER_HOME"):
        download(entry(), Heard(), folder=tmp_path / "file", source=server.address)


def test_damaged_pin_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.sha256").write_text("nonsense")
    with pytest.raises(WeightsError, match=r"tiny\.pth\.sha256"):
        download(entry(None), Heard(), folder=tmp_path, source=server.address)


def test_note_of_an_interrupted_download_may_be_damaged(server: Server, tmp_path: Path) -> None:
    for note in ("", "[]", json.dumps({"url": 3}), "\x00"):
        (tmp_path / f"{NAME}.partial").write_bytes(CONTENT[:100])
        (tmp_path / f"{NAME}.partial.json").write_text(note)
        path = download(entry(None), Heard(), folder=tmp_path, source=server.address)
        assert path.read_bytes() == CONTENT
        path.unlink()
