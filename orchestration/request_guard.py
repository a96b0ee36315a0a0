"""Refuse requests that another site's page made a browser send: cross-site request forgery and DNS rebinding.

Dagster's webserver answers any page that reaches it: a browser on this machine reaches loopback. The guard stands in
front of it, for HTTP and websockets alike, and lets through what the UI's own pages, a command line and a reverse proxy
that keeps the Host header send.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

_HOST = re.compile(r"(?P<name>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")

LOOPBACK = ("127.0.0.1", "localhost", "::1")

PROGRAMS = ("/graphql", "/report_asset_", "/logs/", "/download_debug/", "/notebook", "/dagit/")
"""Paths that act or give out data. Any other path is a page or a file of the UI, which a link may lead to."""


def refusal(
    kind: str, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], hosts: Collection[str]
) -> str | None:
    """Return why a request is refused, or None.

    kind: `http` or `websocket`.
    headers: by name in lower case.
    hosts: names that this server is called by, without ports.
    """
    host = headers.get("host", "")
    if _name(host) not in hosts:
        return f"host {host!r} is not a name of this server: it answers to {', '.join(hosts)}"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return f"origin {origin!r} is another site than {host!r}"
    site = headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none") and not _is_link(method, path, headers):
        return f"a page of another site asked for it (Sec-Fetch-Site {site!r})"
    if kind == "websocket":
        return None
    if method == "GET" and path.startswith("/graphql") and "query" in query:
        return "queries are sent by POST"
    if method == "POST" and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return "send JSON, with Content-Type application/json"
    if method not in ("GET", "HEAD", "POST"):
        return f"method {method} is not used here"
    return None


def _name(host: str) -> str:
    """Return the name in a Host header in lower case, without its port; empty if the header is malformed."""
    match = _HOST.fullmatch(host.lower())
    return "" if match is None else match["name"].strip("[]")


def _is_link(method: str, path: str, headers: Mapping[str, str]) -> bool:
    """Whether somebody followed a link to a page of the UI."""
    opened = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return method == "GET" and opened and not path.startswith(PROGRAMS)


class RequestGuard:
    """ASGI middleware that answers a refused request with 403 and the reason, and closes a refused websocket."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = tuple(dict.fromkeys(host.lower() for host in hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        reason = refusal(
            scope["type"],
            scope.get("method", "GET"),
            scope["path"],
            QueryParams(scope["query_string"]),
            Headers(scope=scope),
            self._hosts,
        )
        if reason is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose(code=1008, reason=reason[:120])(scope, receive, send)
        else:
            await PlainTextResponse(f"Refused: {reason}\n", status_code=403)(scope, receive, send)
