"""Refuse addresses that hold credentials: an address is shown in the UI, in logs and in messages, and kept on disk."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

_SECRET = re.compile(r"pass|pwd|secret|token|key|credential|sig|auth", re.IGNORECASE)


def require_no_credentials(address: str, name: str, remedy: str, *, login: bool = False) -> None:
    """Raise ValueError if an address has a user name with a password, or a query that may hold one.

    The message never shows the address.

    address: a URL of any scheme; anything without `://` passes, and so does a file's path in `sqlite:///`.
    name: what the address is of, for the message.
    remedy: where credentials belong instead.
    login: whether a user name without a password, and a query of settings, may stand in such addresses, as in those of
        databases.
    """
    scheme, separator, rest = address.partition("://")
    if not separator or scheme.lower().partition("+")[0] == "sqlite":
        return
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    query = rest.partition("#")[0].partition("?")[2]
    port = authority.rpartition(":")[2]
    reason = None
    if "@" in rest or "%40" in rest.lower():
        user = rest.replace("%40", "@").partition("@")[0]
        if not login or ":" in user:
            reason = "a user name or a password"
    elif ":" in authority and not authority.endswith("]") and not port.isdecimal():
        reason = "a port that is no number"
    if reason is None and (query or "#" in rest):
        secret = any(_SECRET.search(key) for key, _ in parse_qsl(query, keep_blank_values=True))
        if not login or secret or "#" in rest:
            reason = "a query or a fragment, which may hold a secret"
    if reason is not None:
        raise ValueError(f"{name} has {reason} in its address: {remedy}")
