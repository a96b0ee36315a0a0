"""HTTP done patiently: ranges resumed, hashes checked, failures retried, files renamed only when they are whole."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.nap import sleep_using_event

from pipelines.stage import write_atomically

NOT_THERE = frozenset({401, 403, 404, 410})  # a bucket says 403 of what it does not hold
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
LONGEST_ASKED = 600.0  # seconds; a host that asks for more patience gets this much at a time

T = TypeVar("T")
Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Retries:
    """When to try again. attempts: failures in a row that brought no new byte; then it is given up.

    The n-th wait is first * 2**(n - 1) seconds, at most longest, less a random half of it so that many connections do
    not come back together; where the host says Retry-After, that is the wait.
    """

    attempts: int = 6
    first: float = 1.0
    longest: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts={self.attempts}: at least 1 is needed")
        if not 0 <= self.first <= self.longest:
            raise ValueError(f"first={self.first}, longest={self.longest}: 0 <= first <= longest is needed")

    def wait(self, failures: int, asked: float | None) -> float:
        """Seconds to wait after this many failures in a row; asked: what the host said, if it did."""
        if asked is not None:
            return min(max(asked, 0.0), LONGEST_ASKED)
        return min(self.longest, self.first * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)


class _Again(Exception):
    """A failure that may pass. asked: the host's Retry-After; reached: how far a file had come."""

    def __init__(self, reason: str, *, asked: float | None = None, reached: int = 0) -> None:
        super().__init__(reason)
        self.asked = asked
        self.reached = reached


class Stopped(Exception):
    """Another transfer of the same batch failed, or the person stopped it."""


class Transfer:
    """Persistent connections to one or more hosts, to be shared by threads. Use as a context manager."""

    def __init__(self, *, connections: int = 16, retries: Retries | None = None) -> None:
        if connections < 1:
            raise ValueError(f"connections={connections}: at least 1 is needed")
        self._retries = retries or Retries()
        self._stop = threading.Event()
        self._client = httpx.Client(
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            timeout=httpx.Timeout(60.0, connect=30.0, pool=None),
            follow_redirects=True,
            # A body in transit encoding could not be resumed by its offset.
            headers={"Accept-Encoding": "identity", "User-Agent": "ecg-foundry"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def stop(self) -> None:
        """Make every transfer under way end soon; partial files stay for the next time."""
        self._stop.set()

    def get(self, urls: Sequence[str], kept: Path | None = None) -> bytes:
        """A small file, from the first address that has it; FileNotFoundError where none has, ConnectionError at last.

        kept: where a copy stays; with it the host is asked only whether there is a newer one.
        """

        def once(url: str) -> bytes:
            headers = {}
            if kept is not None and kept.is_file():
                headers["If-Modified-Since"] = formatdate(kept.stat().st_mtime, usegmt=True)
            response = self._client.get(url, headers=headers)
            if kept is not None and response.status_code == httpx.codes.NOT_MODIFIED:
                return kept.read_bytes()
            _check(response)
            if kept is not None:
                write_atomically(kept, response.content)
                # Without a date of the host's the copy is never newer than the original.
                modified = _seconds_of(response.headers.get("Last-Modified", "")) or 0.0
                os.utime(kept, (modified, modified))
            return response.content

        return self._first(urls, once, lambda: 0)

    def fetch(self, urls: Sequence[str], path: Path, checksum: str, advance: Advance) -> None:
        """Bring a file to `path`, resuming `<path>.part`; whole and with this checksum, or not at all.

        advance is told bytes gained, or lost again. Raises FileNotFoundError where no address has it, ConnectionError
        where retries were in vain, ValueError where what came twice has another checksum.
        """
        part = path.with_name(f"{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        advance(_size(part))
        found = ""
        for _ in range(2):  # once as it was left, once from nothing
            self._first(urls, lambda url: self._append(url, part, advance), lambda: _size(part))
            found = checksum_of(part, checksum)
            if found == checksum:
                with part.open("rb") as stream:
                    os.fsync(stream.fileno())
                part.replace(path)
                return
            advance(-_size(part))
            part.unlink()
        raise ValueError(f"{urls[0]}: {found} came, {checksum} is listed: the host has another file than its list says")

    def _append(self, url: str, part: Path, advance: Advance) -> None:
        """One request for what is missing of `part`."""
        have = _size(part)
        with self._client.stream("GET", url, headers={"Range": f"bytes={have}-"} if have else {}) as response:
            if have and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # there is no more: the checksum tells whether it is too much
            _check(response)
            begin = f"bytes {have}-"
            resumed = response.status_code == httpx.codes.PARTIAL_CONTENT and response.headers.get(
                "Content-Range", ""
            ).startswith(begin)
            if response.status_code == httpx.codes.PARTIAL_CONTENT and not resumed:
                raise ConnectionError(f"{url}: asked for {begin}, got {response.headers.get('Content-Range')}")
            if not resumed:
                advance(-have)
            with part.open("ab" if resumed else "wb") as stream:
                for chunk in response.iter_bytes():
                    stream.write(chunk)
                    advance(len(chunk))
                    if self._stop.is_set():
                        raise Stopped

    def _first(self, urls: Sequence[str], once: Callable[[str], T], reached: Callable[[], int]) -> T:
        """once(url) of the first address that has the file, tried again while failures may pass."""
        for url in urls:
            try:
                return self._patiently(url, once, reached)
            except FileNotFoundError:
                continue
        raise FileNotFoundError(f"not at {' nor at '.join(urls)}")

    def _patiently(self, url: str, once: Callable[[str], T], reached: Callable[[], int]) -> T:
        failures = 0
        furthest = reached()

        def attempt() -> T:
            if self._stop.is_set():
                raise Stopped
            try:
                return once(url)
            except httpx.TransportError as error:
                raise _Again(f"{type(error).__name__}: {error}", reached=reached()) from error
            except httpx.HTTPError as error:
                raise ConnectionError(f"{url}: {error}") from error

        def count(state: RetryCallState) -> None:
            nonlocal failures, furthest
            again = _failure(state)
            failures = 1 if again.reached > furthest else failures + 1
            furthest = max(furthest, again.reached)

        retrying = Retrying(
            retry=retry_if_exception_type(_Again),
            after=count,
            stop=lambda state: failures >= self._retries.attempts,
            wait=lambda state: self._retries.wait(failures, _failure(state).asked),
            sleep=sleep_using_event(self._stop),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except _Again as error:
            raise ConnectionError(
                f"{url}: {error} ({failures} failures in a row): run it again later, it goes on where it stopped"
            ) from error


def checksum_of(path: Path, like: str) -> str:
    """The checksum of a file in the form and algorithm of `like`: `sha256:<hex>` or `md5:<hex>`."""
    algorithm = like.partition(":")[0]
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{digest.hexdigest()}"


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status in NOT_THERE:
        raise FileNotFoundError(f"{response.url}: {status}")
    if status in TRANSIENT:
        raise _Again(f"HTTP {status} {response.reason_phrase}", asked=_asked(response.headers.get("Retry-After")))
    if not response.is_success:
        raise ConnectionError(f"{response.url}: HTTP {status} {response.reason_phrase}")


def _asked(retry_after: str | None) -> float | None:
    """Seconds of a Retry-After header, which gives seconds or a date."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    date = _seconds_of(retry_after)
    return None if date is None else date - time.time()


def _seconds_of(date: str) -> float | None:
    """An HTTP date as seconds since the epoch; None where it is none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


def _failure(state: RetryCallState) -> _Again:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, _Again)
    return error


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
