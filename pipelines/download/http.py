"""HTTP done patiently: ranges resumed, hashes checked, failures retried, files renamed only when they are whole."""

from __future__ import annotations

import hashlib
import logging
import netrc
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.nap import sleep_using_event

from pipelines.download.list_cache import load, store

NOT_THERE = frozenset({401, 403, 404, 410})  # a bucket says 403 of what it does not hold
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
LONGEST_ASKED = 600.0  # seconds; a host that asks for more patience gets this much at a time

T = TypeVar("T")
# Told the bytes that came, or, below zero, that were lost again.
Advance = Callable[[int], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Retries:
    """When to try again. attempts: failures in a row that brought no new byte; then it is given up.

    The n-th wait is first * 2**(n - 1) seconds, at most longest, less a random half of it so that many connections do
    not come back together; where the host says Retry-After, that is the wait, and a random part of `first` more.
    silence: seconds without a byte that end a connection, as a failure.
    """

    attempts: int = 6
    first: float = 1.0
    longest: float = 60.0
    silence: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts={self.attempts}: at least 1 is needed")
        if not 0 <= self.first <= self.longest:
            raise ValueError(f"first={self.first}, longest={self.longest}: 0 <= first <= longest is needed")
        if not self.silence > 0:
            raise ValueError(f"silence={self.silence}: more than 0 seconds are needed")

    def wait(self, failures: int, asked: float | None) -> float:
        """Seconds to wait after this many failures in a row; asked: what the host said, if it did."""
        if asked is not None:
            return min(max(asked, 0.0), LONGEST_ASKED) + random.uniform(0.0, self.first)
        return min(self.longest, self.first * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)


class TransientError(Exception):
    """A failure that may pass. asked: the host's Retry-After; reached: how far a file had come."""

    def __init__(self, reason: str, *, asked: float | None = None, reached: int = 0) -> None:
        super().__init__(reason)
        self.asked = asked
        self.reached = reached


class NoRanges(Exception):
    """The host sends whole files alone."""


class TransferStopped(Exception):
    """Another transfer of the same batch failed, or the person stopped it."""


class Transfer:
    """Persistent connections to one or more hosts, to be shared by threads. Use as a context manager.

    A host that asks for a password is given what the file has that NETRC names.
    """

    def __init__(self, *, connections: int = 16, retries: Retries | None = None) -> None:
        if connections < 1:
            raise ValueError(f"connections={connections}: at least 1 is needed")
        self._retries = retries or Retries()
        self._stop = threading.Event()
        self._gave: set[str] = set()  # hosts that had a file
        self._refused: set[str] = set()  # hosts that had none so far
        self._client = httpx.Client(
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            timeout=httpx.Timeout(self._retries.silence, connect=min(30.0, self._retries.silence), pool=None),
            follow_redirects=True,
            auth=_passwords(),
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

    def get(self, urls: Sequence[str], copy: Path | None = None) -> bytes:
        """A small file, from the first address that has it and does not send it empty.

        copy: where one is kept; with it the host is asked only whether there is a newer one, and where the host cannot
        be reached it is the answer. An answer that ends with the connection may have been cut, and no checksum would
        tell: it counts as a failure. Raises FileNotFoundError where no address has the file, ConnectionError at last.
        """
        known = None if copy is None else load(copy)

        def once(url: str) -> bytes:
            headers = {}
            if copy is not None and known is not None:
                headers["If-Modified-Since"] = formatdate(copy.stat().st_mtime, usegmt=True)
            response = self._client.get(url, headers=headers)
            if known is not None and response.status_code == httpx.codes.NOT_MODIFIED:
                return known
            _check(response)
            if not response.content.strip():
                raise FileNotFoundError(f"{url}: it is empty there")
            _check_ended(response)
            if copy is not None:
                # Without a date of the host's the copy is never newer than the original.
                store(copy, response.content, _seconds_of(response.headers.get("Last-Modified", "")) or 0.0)
            return response.content

        try:
            return self._try_addresses(urls, once, lambda: 0)
        except ConnectionError as error:
            if known is None:
                raise
            log.warning("%s; going on with the copy of before", error)
            return known

    def fetch(self, urls: Sequence[str], path: Path, checksum: str, advance: Advance, size: int | None = None) -> None:
        """Bring a file to `path`, resuming `<path>.part`; whole and with this checksum, or not at all.

        size: its bytes, where they are known. A host that sends another checksum twice is left for the next one. Raises
        FileNotFoundError where no address has it, ConnectionError where retries were in vain, ValueError where every
        address that has it sends another file.
        """
        part = path.with_name(f"{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)

        def append(url: str) -> str:
            self._append(url, part, advance, size)
            return url

        left, giver, wrong = list(urls), urls[0], ""
        while left:
            for _ in range(2):  # once as it was left, once from nothing
                if not part.is_file() or size is None or size_of(part) < size:
                    try:
                        giver = self._try_addresses(left, append, lambda: size_of(part))
                    except FileNotFoundError as error:
                        if wrong:
                            raise ValueError(wrong) from error
                        raise
                found = checksum_of(part, checksum)
                if found == checksum:
                    with part.open("rb") as stream:
                        os.fsync(stream.fileno())
                    part.replace(path)
                    return
                advance(-size_of(part))
                part.unlink()
                wrong = f"{giver}: {found} came, {checksum} is listed: the host has another file than its list says"
            left.remove(giver)
            log.warning("%s", wrong)
        raise ValueError(wrong)

    def fetch_span(self, urls: Sequence[str], part: Path, span: tuple[int, int], advance: Advance) -> None:
        """Bring the bytes from span[0] to before span[1] of a file to `part`, resuming it.

        Raises NoRanges where a host sends whole files alone; FileNotFoundError and ConnectionError as `fetch` does.
        """
        part.parent.mkdir(parents=True, exist_ok=True)
        if size_of(part) < span[1] - span[0]:
            self._try_addresses(urls, lambda url: self._append_span(url, part, span, advance), lambda: size_of(part))

    def _append(self, url: str, part: Path, advance: Advance, size: int | None) -> None:
        """One request for what is missing of a file."""
        have = size_of(part)
        with self._client.stream("GET", url, headers={"Range": f"bytes={have}-"} if have else {}) as response:
            if have and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # there is no more: the checksum tells whether it is too much
            _check(response)
            if have and not _is_range(response, have):
                self._write_over(response, part, advance)
            else:
                self._write(response, part, advance)
        _check_length(size_of(part), size)

    def _append_span(self, url: str, part: Path, span: tuple[int, int], advance: Advance) -> None:
        """One request for what is missing of a span."""
        first, end = span
        start = first + size_of(part)
        with self._client.stream("GET", url, headers={"Range": f"bytes={start}-{end - 1}"}) as response:
            _check(response)
            if not _is_range(response, start):
                raise NoRanges(url)
            self._write(response, part, advance)
        _check_length(size_of(part), end - first)

    def _write(self, response: httpx.Response, part: Path, advance: Advance) -> None:
        with part.open("ab") as stream:
            for chunk in self._chunks(response):
                stream.write(chunk)
                advance(len(chunk))

    def _write_over(self, response: httpx.Response, part: Path, advance: Advance) -> None:
        """The whole file came although only its rest was asked for: what is there stays as far as it is the same."""
        with part.open("r+b") as stream:
            for chunk in self._chunks(response):
                at = stream.tell()
                known = stream.read(len(chunk))
                if not chunk.startswith(known):  # another file than before
                    advance(at - size_of(part))
                    stream.seek(at)
                    stream.truncate()
                    known = b""
                stream.write(chunk[len(known) :])
                advance(len(chunk) - len(known))

    def _chunks(self, response: httpx.Response) -> Iterator[bytes]:
        for chunk in response.iter_bytes():
            yield chunk
            if self._stop.is_set():
                raise TransferStopped

    def _try_addresses(self, urls: Sequence[str], once: Callable[[str], T], reached: Callable[[], int]) -> T:
        """once(url) of the first address that has the file and can be reached, each tried again while it may pass.

        A host that never gave anything is asked last: not every project is in PhysioNet's bucket.
        """
        unreachable: ConnectionError | None = None
        for url in sorted(urls, key=self._is_barren):
            try:
                found = self._with_retries(url, once, reached)
            except FileNotFoundError:
                self._refused.add(urlsplit(url).netloc)
            except ConnectionError as error:
                self._refused.add(urlsplit(url).netloc)
                unreachable = error
            else:
                self._gave.add(urlsplit(url).netloc)
                return found
        raise unreachable or FileNotFoundError(f"not at {' nor at '.join(urls)}")

    def _is_barren(self, url: str) -> bool:
        host = urlsplit(url).netloc
        return host in self._refused and host not in self._gave

    def _with_retries(self, url: str, once: Callable[[str], T], reached: Callable[[], int]) -> T:
        failures = 0
        furthest = reached()

        def attempt() -> T:
            if self._stop.is_set():
                raise TransferStopped
            try:
                return once(url)
            except httpx.TransportError as error:
                raise TransientError(f"{type(error).__name__}: {error}", reached=reached()) from error
            except httpx.HTTPError as error:
                raise ConnectionError(f"{url}: {error}") from error

        def count(state: RetryCallState) -> None:
            nonlocal failures, furthest
            again = _failure(state)
            failures = 1 if again.reached > furthest else failures + 1
            furthest = max(furthest, again.reached)

        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            after=count,
            stop=lambda state: failures >= self._retries.attempts,
            wait=lambda state: self._retries.wait(failures, _failure(state).asked),
            sleep=sleep_using_event(self._stop),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except TransientError as error:
            raise ConnectionError(
                f"{url}: {error} ({failures} failures in a row): run it again later, it goes on where it stopped"
            ) from error


def _passwords() -> httpx.NetRCAuth | None:
    """What the file that NETRC names says, host by host; ValueError where it cannot be read."""
    file = os.environ.get("NETRC")
    if not file:
        return None
    try:
        return httpx.NetRCAuth(file)
    except (OSError, netrc.NetrcParseError):
        raise ValueError(  # the error's own message may show a password
            f"NETRC {file}: no such file, or lines that are not machine HOST login NAME password WORD"
        ) from None


def checksum_of(path: Path, like: str) -> str:
    """The checksum of a file in the form and algorithm of `like`: `sha256:<hex>` or `md5:<hex>`."""
    algorithm = like.partition(":")[0]
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{digest.hexdigest()}"


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status in NOT_THERE:
        raise FileNotFoundError(f"{response.url}: {status}")
    if status in TRANSIENT:
        raise TransientError(
            f"HTTP {status} {response.reason_phrase}", asked=_asked(response.headers.get("Retry-After"))
        )
    if not response.is_success:
        raise ConnectionError(f"{response.url}: HTTP {status} {response.reason_phrase}")


def _is_range(response: httpx.Response, start: int) -> bool:
    """Whether an answer with a body is the range from `start` that was asked for; False: it is the whole file."""
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        return False
    said = response.headers.get("Content-Range", "")
    if not said.startswith(f"bytes {start}-"):
        raise ConnectionError(f"{response.url}: asked for bytes {start}-, got {said or 'no Content-Range'}")
    return True


def _check_length(found: int, expected: int | None) -> None:
    """Not every host says how long its body is: one that ends early looks whole."""
    if expected is not None and found < expected:
        raise TransientError(f"the body ended {expected - found} bytes early", reached=found)


def _check_ended(response: httpx.Response) -> None:
    """A body of a stated length, or in chunks, is whole or httpx raises; of one that just ends nobody can tell."""
    if "Content-Length" not in response.headers and "chunked" not in response.headers.get("Transfer-Encoding", ""):
        raise TransientError(f"{response.url} does not say how long it is, so that it may have been cut")


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


def _failure(state: RetryCallState) -> TransientError:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, TransientError)
    return error
