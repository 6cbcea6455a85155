"""Downloads official weights, over HTTP or from a folder: whole and right, or not at all.

requests makes the transfer. This module adds retries, resumes cut connections, and puts aside files
that are not the official ones. A file grows under the name ``NAME.partial`` and is renamed only
when it is whole and its hash is right. Proxies are those of the environment (``HTTPS_PROXY``,
``NO_PROXY``), as requests reads it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

import filelock
import requests
from urllib3.exceptions import MaxRetryError

from restormer_cli.errors import WeightsError
from restormer_cli.system import json_lines
from restormer_cli.system.atomic import sync_file
from restormer_cli.system.units import format_bytes
from restormer_cli.weights import checksum
from restormer_cli.weights.registry import RELEASE, USUAL_SIZE, KnownFile, home

ATTEMPTS = 4
#: Seconds to connect, and to wait for the next bytes.
TIMEOUTS = (10, 30)
#: Bytes of a piece; when a connection is cut, an incomplete piece is lost.
_CHUNK = 1 << 14
#: Status codes after which another attempt may succeed.
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


class Listener(Protocol):
    """Callbacks for the progress of a download."""

    def notice(self, text: str) -> None:
        """Called with a sentence for people."""

    def progress(self, name: str, done: int, total: int | None) -> None:
        """Called with the bytes of a file that are here, and all of them if that is known."""


def download(
    known: KnownFile,
    listener: Listener,
    *,
    folder: Path | None = None,
    source: str | None = None,
) -> Path:
    """Get an official file, unless it is there already.

    Of two processes that get the same file, the second waits for the first.

    Parameters
    ----------
    folder
        The folder for the file; by default :func:`restormer_cli.weights.registry.home`.
    source
        The address of a folder on a server, or a folder on this machine, flat or in the authors'
        layout; by default the authors' release.

    Returns
    -------
    Path
        The file, with the known or pinned hash; without either it is pinned now.

    Raises
    ------
    WeightsError
        If the download fails or is not the official file. The wrong file is kept under another
        name.
    """
    if known.kind != "official":
        raise WeightsError(f"{known.name} is embedded; there is nothing to download")
    target = (folder or home()) / known.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target, listener):
            if _is_there(target, known, listener):
                return target
            _fetch(target, known, source or RELEASE, listener)
            if checksum.expect(target, known.sha256)[0] is None:
                pin(target, listener)
    except OSError as error:
        raise WeightsError(
            f"{error.filename or target.parent}: {error.strerror or error}; "
            "RESTORMER_HOME names the folder that downloads go to"
        ) from error
    return target


def pin(path: Path, listener: Listener) -> None:
    """Pin the hash of a file of which none is known.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """
    digest = checksum.sha256(path)
    checksum.write_pin(path, digest)
    listener.notice(
        f"{path.name}: no official hash is known; pinned to SHA-256 {digest}, "
        "which is checked from now on"
    )


@contextlib.contextmanager
def _only_one(target: Path, listener: Listener) -> Iterator[None]:
    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        listener.notice(f"{target.name}: another process is getting it; waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_there(target: Path, known: KnownFile, listener: Listener) -> bool:
    """True if the right file is there; put a wrong one aside."""
    if not os.path.lexists(target):
        return False
    if target.is_file():
        found = checksum.check(target, known.sha256)
        if found.source == "unknown":
            if problem := _unfit(target, known):
                listener.notice(f"{problem}; kept as {_put_aside(target, found.found)}")
                return False
            pin(target, listener)
            return True
        if found.matches:
            return True
        aside = _put_aside(target, found.found)
        listener.notice(
            f"{target}: has SHA-256 {found.found}, expected {found.expected}; kept as {aside}"
        )
        return False
    raise WeightsError(f"{target}: is no file; move it away")


def _put_aside(path: Path, digest: str) -> Path:
    """Rename a wrong file."""
    aside = path.with_name(f"{path.name.removesuffix('.partial')}.wrong-{digest[:12]}")
    path.replace(aside)
    return aside


def _unfit(path: Path, known: KnownFile) -> str | None:
    """The fault of a file without a known hash, such as a server's error page; None if it fits."""
    from restormer_cli.network.architecture import RestormerConfig
    from restormer_cli.weights.checkpoint import open_checkpoint

    try:
        config = open_checkpoint(path).config()
    except WeightsError as error:
        return str(error)
    if config != RestormerConfig.from_mapping(known.options.network):
        return f"{path}: holds another network than {known.name}"
    return None


def _fetch(target: Path, known: KnownFile, source: str, listener: Listener) -> None:
    if re.match(r"https?://[^/]", source):
        # An address may also be that of the file itself.
        url = source if source.endswith(f"/{known.name}") else f"{source.rstrip('/')}/{known.name}"
    elif "://" in source:
        raise WeightsError(f"--from {source}: is neither a folder nor an http(s) address")
    else:
        url = str(_in_folder(Path(source), known))
    expected, _ = checksum.expect(target, known.sha256)
    transfer = _Transfer(target, known, expected, listener)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            transfer.run(url)
            return
        except (_TryAgain, requests.RequestException) as error:
            reason = _reason(error)
        if attempt < ATTEMPTS:
            listener.notice(f"{known.name}: {reason}; trying again ({attempt + 1} of {ATTEMPTS})")
            time.sleep(attempt)
    raise WeightsError(
        f"{url}: {reason}, {ATTEMPTS} times; the same command goes on from there, "
        "--from takes a mirror or a folder"
    )


def _in_folder(folder: Path, known: KnownFile) -> Path:
    layout = known.options.weights.get("folder", "")
    for path in (folder / known.name, folder / layout / known.name, folder):
        if path.is_file() and path.name == known.name:
            return path
    raise WeightsError(f"--from {folder}: there is no {known.name} in that folder")


class _TryAgain(Exception):
    """Raised by an attempt after which another one may succeed."""


class _Transfer:
    """Transfers a file to ``NAME.partial`` and renames it when it is right."""

    def __init__(
        self, target: Path, known: KnownFile, expected: str | None, listener: Listener
    ) -> None:
        self.known, self.expected, self.listener = known, expected, listener
        self.target = target
        self.partial = target.with_name(f"{target.name}.partial")
        self.validator = target.with_name(f"{target.name}.partial.json")

    def run(self, url: str) -> None:
        """Make one attempt, which goes on where earlier ones ended.

        Raises
        ------
        _TryAgain, requests.RequestException
            If another attempt may succeed.
        WeightsError
            If none will.
        """
        try:
            resumed = self._copy(Path(url)) if "://" not in url else self._get(url)
        except requests.RequestException:  # an OSError, too
            raise
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._discard()  # others need the space as well
            size = format_bytes(self.known.size or USUAL_SIZE)
            raise WeightsError(
                f"{self.target.parent}: no space is left for {self.known.name}, {size}; "
                "set RESTORMER_HOME to a roomier folder"
            ) from error
        self._inspect(url, resumed)
        self.validator.unlink(missing_ok=True)
        self.partial.replace(self.target)

    def _copy(self, source: Path) -> bool:
        total = source.stat().st_size
        self._discard()
        with source.open("rb") as file, self._open("wb") as partial:
            self._check_space(total)
            done = 0
            while chunk := file.read(_CHUNK):
                partial.write(chunk)
                done += len(chunk)
                self.listener.progress(self.known.name, done, total)
            _flush(partial)
        return False

    def _get(self, url: str) -> bool:
        """Get a file, or the rest of it; True if a part was there."""
        headers = {"Accept-Encoding": "identity"}
        done = self._resumable(url, headers)
        try:
            response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS)
        except requests.exceptions.SSLError as error:
            raise WeightsError(f"{url}: the server's certificate is not trusted") from error
        except (requests.exceptions.InvalidURL, requests.TooManyRedirects) as error:
            raise WeightsError(f"{url}: is no address of a file ({error})") from error
        except requests.ConnectionError as error:
            if isinstance(error.args[0], MaxRetryError):  # not even a connection
                raise WeightsError(
                    f"{url}: the server cannot be reached; "
                    "without a network, --from takes a folder that holds the file"
                ) from error
            raise
        with response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                self._discard()
                raise _TryAgain("what was there already did not fit")
            if response.status_code in _PASSING:
                raise _TryAgain(f"the server answered {response.status_code} {response.reason}")
            if not response.ok:
                raise WeightsError(
                    f"{url}: the server answered {response.status_code} {response.reason}; "
                    "--from takes a mirror or a folder"
                )
            if not (done and _goes_on_at(response, done)):
                done = 0
                self._discard()
            length = response.headers.get("Content-Length", "")
            total = done + int(length) if length.isdecimal() else None
            self._check_space((total or 0) - done)
            self._remember(url, response)
            with self._open("ab") as partial:
                resumed = bool(done)
                try:
                    for chunk in response.iter_content(_CHUNK):
                        partial.write(chunk)
                        done += len(chunk)
                        self.listener.progress(self.known.name, done, total)
                finally:
                    _flush(partial)
            if total is not None and done != total:
                raise _TryAgain(f"the connection was cut after {done} of {total} bytes")
        return resumed

    def _resumable(self, url: str, headers: dict[str, str]) -> int:
        """The bytes that are there; adds the headers that ask for the rest."""
        if self.partial.is_symlink() or not self.partial.is_file():
            self._discard()
            return 0
        done = self.partial.stat().st_size
        try:
            remembered = json_lines.parse(self.validator.read_bytes())
            validator = remembered["validator"] if remembered["url"] == url else None
        except (OSError, ValueError, KeyError, TypeError):
            validator = None
        if not (isinstance(validator, str) and validator.isascii() and validator.isprintable()):
            validator = None
        if not done or not (validator or self.expected):
            # Two halves of different files would go unnoticed.
            self._discard()
            return 0
        headers["Range"] = f"bytes={done}-"
        if validator:
            headers["If-Range"] = validator
        return done

    def _remember(self, url: str, response: requests.Response) -> None:
        """Save the validator of the file, by which the server knows whether it has changed."""
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if validator is None or validator.startswith("W/"):  # weak ones must not be used for this
            self.validator.unlink(missing_ok=True)
        else:
            if self.validator.is_symlink():
                self.validator.unlink()
            note = json.dumps({"url": url, "validator": validator})
            self.validator.write_text(note, encoding="utf-8")

    def _inspect(self, url: str, resumed: bool) -> None:
        """Raise WeightsError if the file is not the official one."""
        digest = checksum.sha256(self.partial)
        problem = None
        if self.expected is None:
            problem = _unfit(self.partial, self.known)
        elif digest != self.expected:
            if resumed:  # perhaps only the halves do not fit
                self._discard()
                raise _TryAgain("what was there already did not fit")
            problem = (
                f"{url}: is not the {self._wanted} {self.known.name}: "
                f"its SHA-256 is {digest}, expected {self.expected}"
            )
        if problem is not None:
            self.validator.unlink(missing_ok=True)
            raise WeightsError(f"{problem}; kept as {_put_aside(self.partial, digest)}")
        size = self.partial.stat().st_size
        if self.known.size not in (None, size):
            self.listener.notice(
                f"{self.known.name}: has {size} bytes, the official file {self.known.size}"
            )

    @property
    def _wanted(self) -> str:
        return "official" if self.known.sha256 else "pinned"

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.target.parent).free
        if needed > free:
            raise OSError(errno.ENOSPC, "no space")

    def _open(self, mode: str) -> IO[bytes]:
        """Open the partial file, without following a link of its name."""

        def opener(path: str, flags: int) -> int:
            return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)

        return open(self.partial, mode, opener=opener)

    def _discard(self) -> None:
        self.partial.unlink(missing_ok=True)
        self.validator.unlink(missing_ok=True)


def _goes_on_at(response: requests.Response, position: int) -> bool:
    given = response.headers.get("Content-Range", "")
    return response.status_code == 206 and given.startswith(f"bytes {position}-")


def _flush(file: IO[bytes]) -> None:
    file.flush()
    sync_file(file.fileno())


def _reason(error: Exception) -> str:
    if isinstance(error, _TryAgain):
        return str(error)
    if isinstance(error, requests.Timeout):
        return "the server did not answer in time"
    return "the connection was cut"
