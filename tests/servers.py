"""A real HTTP server that serves files well or badly."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler", bytes], None]


@dataclass
class Server:
    """Files by name, and how to answer the next requests; afterwards all are answered well."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of each request, names of headers in lower case."""
    etag: str | None = '"v1"'

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("range") for _, headers in self.requests]


class Handler(BaseHTTPRequestHandler):
    server_state: Server

    def do_GET(self) -> None:
        state = self.server_state
        state.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        content = state.files.get(self.path.rsplit("/", 1)[-1])
        if content is None:
            self.send_error(404)
        elif state.answers:
            state.answers.pop(0)(self, content)
        else:
            well(self, content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def begin(self, status: int, length: int | None, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if self.server_state.etag is not None:
            self.send_header("ETag", self.server_state.etag)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()


def well(handler: Handler, content: bytes) -> None:
    """As servers do that can go on in the middle of a file."""
    wanted = handler.headers.get("Range")
    same = handler.headers.get("If-Range") in (None, handler.server_state.etag)
    if wanted is None or not same:
        handler.begin(200, len(content))
        handler.wfile.write(content)
        return
    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    if start >= len(content):
        handler.begin(416, 0, ("Content-Range", f"bytes */{len(content)}"))
        return
    place = f"bytes {start}-{len(content) - 1}/{len(content)}"
    handler.begin(206, len(content) - start, ("Content-Range", place))
    handler.wfile.write(content[start:])


def cut(after: int) -> Answer:
    """Promise everything and hang up after some bytes of it."""

    def answer(handler: Handler, content: bytes) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        place = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.begin(206 if start else 200, len(content) - start, ("Content-Range", place))
        handler.wfile.write(content[start : start + after])
        handler.close_connection = True

    return answer


def fail(status: int) -> Answer:
    return lambda handler, _: handler.send_error(status)


def whole(handler: Handler, content: bytes) -> None:
    """As servers do that know nothing of ranges."""
    handler.begin(200, len(content))
    handler.wfile.write(content)


def unmeasured(after: int | None = None) -> Answer:
    """Without saying how long it is: the end is where the connection ends."""

    def answer(handler: Handler, content: bytes) -> None:
        handler.begin(200, None)
        handler.wfile.write(content[:after])
        handler.close_connection = True

    return answer


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server on a free port of this machine."""
    state = Server()
    handler = type("Handler", (Handler,), {"server_state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        state.address = f"http://127.0.0.1:{http.server_port}/v1.0"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            http.shutdown()
            thread.join()
