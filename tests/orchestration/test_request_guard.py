"""Requests that a page of another site makes a browser send are refused; those of the UI and of programs are not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from orchestration.request_guard import LOOPBACK, RequestGuard

JSON = {"content-type": "application/json"}
SAME = {"host": "127.0.0.1:3000", "origin": "http://127.0.0.1:3000", "sec-fetch-site": "same-origin"}
MUTATION = "/graphql?query=mutation{launchRun}"


async def answer(request: Request) -> JSONResponse:
    return JSONResponse({"method": request.method})


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Host and port of a guarded server on loopback."""
    routes = [
        Route("/graphql", answer, methods=["GET", "POST", "PUT"]),
        WebSocketRoute("/graphql", talk),
        Route("/report_asset_materialization/{key:path}", answer, methods=["POST"]),
        Route("/{path:path}", answer),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(RequestGuard, hosts=(*LOOPBACK, "ecg.example"))])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def at(address: str, headers: dict[str, str]) -> dict[str, str]:
    """Headers with the server's port in place of 3000."""
    port = address.partition(":")[2]
    return {name: value.replace(":3000", f":{port}") for name, value in headers.items()}


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/graphql", JSON | SAME),
        ("POST", "/graphql", JSON),  # a program
        ("POST", "/graphql", {"content-type": "application/json; charset=utf-8"}),
        ("POST", "/graphql", JSON | {"host": "localhost:3000"}),
        ("POST", "/graphql", JSON | {"host": "[::1]:3000"}),
        ("POST", "/graphql", JSON | {"host": "ecg.example", "origin": "https://ecg.example"}),
        ("GET", "/graphql", {}),  # the page with an editor
        ("GET", "/", {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}),
        # a link in MLflow's UI, or in a chat
        ("GET", "/runs/1", {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}),
        ("GET", "/runs", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}),
        ("POST", "/report_asset_materialization/raw", JSON),
    ],
)
def test_the_ui_and_programs_are_served(address: str, method: str, path: str, headers: dict[str, str]) -> None:
    assert httpx.request(method, f"http://{address}{path}", headers=at(address, headers)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "reason"),
    [
        ("GET", MUTATION, {}, "by POST"),
        ("GET", MUTATION, {"sec-fetch-site": "cross-site"}, "Sec-Fetch-Site"),
        ("GET", MUTATION, {"origin": "https://evil.example"}, "origin"),
        ("POST", MUTATION, {"content-type": "text/plain"}, "JSON"),
        ("POST", "/graphql", {}, "JSON"),
        ("POST", "/graphql", {"content-type": "application/x-www-form-urlencoded"}, "JSON"),
        ("POST", "/graphql", JSON | {"origin": "https://evil.example"}, "origin"),
        ("POST", "/graphql", JSON | {"origin": "null"}, "origin"),
        ("POST", "/graphql", JSON | {"origin": "http://127.0.0.1:8888"}, "origin"),
        ("POST", "/graphql", JSON | {"origin": "http://127.0.0.1:3000.evil.example"}, "origin"),
        ("POST", "/graphql", JSON | {"sec-fetch-site": "same-site"}, "Sec-Fetch-Site"),
        ("POST", "/graphql", JSON | {"host": "rebound.evil.example:3000"}, "host"),
        ("POST", "/graphql", JSON | {"host": "127.0.0.1.evil.example"}, "host"),
        ("POST", "/graphql", JSON | {"host": "evil.example@127.0.0.1:3000x"}, "host"),
        ("GET", "/", {"host": "rebound.evil.example"}, "host"),
        ("GET", "/logs/a/b.out", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, "Sec-Fetch-Site"),
        (
            "GET",
            "/download_debug/1",
            {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
            "Sec-Fetch-Site",
        ),
        ("GET", "/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, "Sec"),
        ("POST", "/report_asset_materialization/raw", {"content-type": "text/plain"}, "JSON"),
        ("PUT", "/graphql", JSON, "method PUT"),
    ],
)
def test_requests_of_other_sites_are_refused(
    address: str, method: str, path: str, headers: dict[str, str], reason: str
) -> None:
    answered = httpx.request(method, f"http://{address}{path}", headers=at(address, headers))
    assert answered.status_code == 403
    assert reason in answered.text


@pytest.mark.parametrize("headers", [{}, SAME, {"host": "ecg.example", "origin": "https://ecg.example"}])
def test_websockets_of_the_ui_are_opened(address: str, headers: dict[str, str]) -> None:
    with upgraded(address, headers) as answered:
        assert answered.startswith("HTTP/1.1 101 ")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"host": "rebound.evil.example"},
    ],
)
def test_websockets_of_other_sites_are_refused(address: str, headers: dict[str, str]) -> None:
    with upgraded(address, headers) as answered:
        assert answered.startswith("HTTP/1.1 403 ")


@contextmanager
def upgraded(address: str, headers: dict[str, str]) -> Iterator[str]:
    """The answer to a request for a websocket; by hand, since clients write Host and Origin themselves."""
    host, port = address.split(":")
    asked = {"host": address, "connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    asked |= {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="} | at(address, headers)
    lines = ["GET /graphql HTTP/1.1", *(f"{name}: {value}" for name, value in asked.items()), "", ""]
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode())
        yield connection.recv(65536).decode(errors="replace")
