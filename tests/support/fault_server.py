"""A web server on loopback that serves a folder as mirrors do, and fails as they do when told to."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote


@dataclass(frozen=True)
class Seen:
    """A request: when, its path, and the Range and If-Modified-Since headers it came with."""

    at: float
    path: str
    range: str | None
    since: str | None


Fault = Callable[["Handler", bytes], bool]  # answers the request itself and says True, or says False


@dataclass
class FaultServer:
    """Serves `folder`. faults: for a path, what to do with its next requests, in order.

    rate: bytes a second on each connection; None: as fast as it goes.
    """

    folder: Path
    ranges: bool = True
    rate: float | None = None
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.owner = self  # pyright: ignore[reportAttributeAccessIssue]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def requests(self, path: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == path]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves in the middle of an answer is part of the tests."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Tests look at `seen`."""

    def do_GET(self) -> None:
        owner: FaultServer = self.server.owner  # pyright: ignore[reportAttributeAccessIssue]
        path = unquote(self.path).lstrip("/")
        wanted, since = self.headers.get("Range"), self.headers.get("If-Modified-Since")
        owner.seen.append(Seen(time.monotonic(), path, wanted, since))
        file = owner.folder / path
        if not file.is_file():
            return self.answer(404)
        data = file.read_bytes()
        pending = owner.faults.get(path, [])
        if pending and pending.pop(0)(self, data):
            return None
        modified = int(file.stat().st_mtime)
        if since and parsedate_to_datetime(since).timestamp() >= modified:
            return self.answer(304)
        headers = {"Last-Modified": formatdate(modified, usegmt=True)}
        if wanted and owner.ranges:
            start, end = self.span(data)
            if start >= len(data):
                return self.answer(416)
            return self.answer(206, data[start:end], headers | self.content_range(data))
        return self.answer(200, data, headers)

    def answer(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        owner: FaultServer = self.server.owner  # pyright: ignore[reportAttributeAccessIssue]
        if owner.rate is None:
            self.wfile.write(data)
            return
        began, step = time.monotonic(), max(1, int(owner.rate / 50))
        for sent in range(0, len(data), step):
            time.sleep(max(0.0, began + sent / owner.rate - time.monotonic()))
            self.wfile.write(data[sent : sent + step])

    def span(self, data: bytes) -> tuple[int, int]:
        """Where the body of the answer begins, and one past its end, as the request asks."""
        owner: FaultServer = self.server.owner  # pyright: ignore[reportAttributeAccessIssue]
        wanted = self.headers.get("Range")
        if not wanted or not owner.ranges:
            return 0, len(data)
        start, _, last = wanted.removeprefix("bytes=").partition("-")
        return int(start), min(int(last) + 1, len(data)) if last else len(data)

    def content_range(self, data: bytes) -> dict[str, str]:
        start, end = self.span(data)
        return {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}

    def begin(self, data: bytes, *, length: bool = True) -> bytes:
        """Send the head of a right answer, with or without the body's length; the body that would follow."""
        start, end = self.span(data)
        self.send_response(206 if start or end < len(data) else 200)
        if length:
            self.send_header("Content-Length", str(end - start))
        if start or end < len(data):
            self.send_header("Content-Range", self.content_range(data)["Content-Range"])
        self.end_headers()
        self.close_connection = True
        return data[start:end]


def status(code: int, **headers: str) -> Fault:
    def fault(handler: Handler, data: bytes) -> bool:
        handler.answer(code, b"go away", {name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return fault


def cut(after: int | None = None, seed: int = 0) -> Fault:
    """Send part of the body, and close the connection."""

    def fault(handler: Handler, data: bytes) -> bool:
        body = handler.begin(data)
        handler.wfile.write(body[: random.Random(seed).randrange(len(body)) if after is None else after])
        handler.wfile.flush()
        return True

    return fault


def truncated(after: int) -> Fault:
    """A body that ends early and looks whole, since nothing says how long it should be."""

    def fault(handler: Handler, data: bytes) -> bool:
        handler.wfile.write(handler.begin(data, length=False)[:after])
        return True

    return fault


def stalled(after: int, seconds: float) -> Fault:
    """Send part of the body, and then nothing for a while."""

    def fault(handler: Handler, data: bytes) -> bool:
        handler.wfile.write(handler.begin(data)[:after])
        handler.wfile.flush()
        time.sleep(seconds)
        return True

    return fault


def wrong(handler: Handler, data: bytes) -> bool:
    """The bytes that were asked for, one of them changed."""
    body = bytearray(handler.begin(data))
    body[len(body) // 2] ^= 1
    handler.wfile.write(body)
    return True
