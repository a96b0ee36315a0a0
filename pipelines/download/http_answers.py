"""What an HTTP answer means: its status, its range, its length and its dates."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import httpx

NOT_THERE = frozenset({401, 403, 404, 410})  # a bucket answers 403 for a key that it does not hold
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


class TransientError(Exception):
    """A failure that may pass.

    retry_after: seconds of the host's Retry-After header. reached: bytes of the file that are here.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, reached: int = 0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.reached = reached


def check_status(response: httpx.Response) -> None:
    """Raise what an answer's status means: FileNotFoundError, TransientError or ConnectionError."""
    status = response.status_code
    if status in NOT_THERE:
        raise FileNotFoundError(f"{response.url}: {status}")
    if status in TRANSIENT:
        raise TransientError(
            f"HTTP {status} {response.reason_phrase}", retry_after=seconds_to_wait(response.headers.get("Retry-After"))
        )
    if not response.is_success:
        raise ConnectionError(f"{response.url}: HTTP {status} {response.reason_phrase}")


def check_encoding(response: httpx.Response) -> None:
    """Raise ConnectionError if a body is compressed, which was not asked for and hides its size."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise ConnectionError(f"{response.url}: the host compresses its answer ({encoding}), which was not asked for")


def is_range(response: httpx.Response, start: int) -> bool:
    """Whether an answer with a body is the requested range from `start`; otherwise it is the whole file.

    Raises ConnectionError if it is another range.
    """
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        return False
    content_range = response.headers.get("Content-Range", "")
    if not content_range.startswith(f"bytes {start}-"):
        raise ConnectionError(f"{response.url}: asked for bytes {start}-, got {content_range or 'no Content-Range'}")
    return True


def check_length(length: int, expected: int | None) -> None:
    """Raise TransientError if a body ended early: not every host sends its length."""
    if expected is not None and length < expected:
        raise TransientError(f"the body ended {expected - length} bytes early", reached=length)


def check_ended(response: httpx.Response) -> None:
    """Raise TransientError if a body has neither a length nor chunks: it may be truncated, and httpx cannot tell."""
    if "Content-Length" not in response.headers and "chunked" not in response.headers.get("Transfer-Encoding", ""):
        raise TransientError(f"{response.url} does not say how long it is, so that it may have been cut")


def seconds_to_wait(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or a date."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    date = seconds_of(retry_after)
    return None if date is None else date - time.time()


def seconds_of(date: str) -> float | None:
    """Return an HTTP date as seconds since the epoch, or None if it is not a date."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
