"""Refuse addresses that hold credentials: an address is shown in the UI, in logs and in messages, and kept on disk."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

_SECRET = re.compile(r"pass|pwd|secret|token|key|credential|sig|auth", re.IGNORECASE)
# A scheme of at least two letters, with the slashes that people and other systems write after it.
_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):(?P<slashes>[/\\]+)(?P<rest>.*)", re.IGNORECASE)
_LOGIN = re.compile(r":[^/\\]*@")


def is_address(text: str) -> bool:
    """Whether a text is meant as an address, even one that is misspelt, and not as a file's path."""
    plain = _plain(text)
    return (_ADDRESS.match(plain) or _LOGIN.search(plain)) is not None


def shown(text: str) -> str:
    """Return a text for a message: quoted, unless it may hold a secret."""
    hidden = is_address(text) or "@" in _plain(text)
    return "(not shown, since it may hold a password)" if hidden else repr(text)


def require_no_credentials(address: str, name: str, remedy: str, *, login: bool = False) -> None:
    """Raise ValueError if an address has a user name with a password, or a query that may hold one.

    The message never shows the address.

    address: a URL of any scheme, however it is spelt; a file's path passes, and so does the path in `sqlite:///PATH`.
    name: what the address is of, for the message.
    remedy: where credentials belong instead.
    login: whether a user name without a password, and a query of settings, may stand in such addresses, as in those of
        databases.
    """
    plain = _plain(address)
    found = _ADDRESS.match(plain)
    if found is None:
        reason = "a user name or a password" if _LOGIN.search(plain) else None
    elif found["scheme"].lower() == "sqlite" and found["slashes"].startswith("///"):
        reason = _fault(f"/?{found['rest'].partition('?')[2]}", login)
    else:
        reason = _fault(found["rest"], login) or (None if address.isprintable() else "characters that do not print")
    if reason is not None:
        raise ValueError(f"{name} has {reason} in its address: {remedy}")


def _fault(rest: str, login: bool) -> str | None:
    """Return what an address has behind its scheme that may be a secret, or None."""
    authority = re.split(r"[/\\?#]", rest, maxsplit=1)[0]
    port = authority.rpartition(":")[2]
    if "@" in rest:
        if not login or ":" in rest.partition("@")[0]:
            return "a user name or a password"
    elif ":" in authority and not authority.endswith("]") and not port.isdecimal():
        return "a port that is no number"
    query = rest.partition("?")[2]
    if "#" in rest or (query and (not login or _SECRET.search(query))):
        return "a query or a fragment, which may hold a secret"
    return None


def _plain(text: str) -> str:
    """Return a text without what does not print, and with percent escapes and look-alikes of ASCII replaced."""
    decoded = unicodedata.normalize("NFKC", unquote(unquote(text)))
    return "".join(character for character in decoded if character.isprintable()).strip()
