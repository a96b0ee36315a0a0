"""HTTP downloads that resume by range, retry, verify a checksum, and appear under their name only when complete."""

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
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.nap import sleep_using_event

from pipelines.download.http_answers import (
    TransientError,
    check_encoding,
    check_ended,
    check_length,
    check_status,
    is_range,
    seconds_of,
)
from pipelines.download.list_cache import load, store

MAX_RETRY_AFTER = 600.0  # seconds; of a longer Retry-After this much is waited at a time

T = TypeVar("T")
Advance = Callable[[int], None]
"""Called with the number of bytes that arrived, or, below zero, that were discarded."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Retries:
    """When a failed request is tried again.

    The n-th wait is first * 2**(n - 1) seconds, at most `longest`, times a random factor of 0.5 to 1, so that many
    connections do not return together. If the host sends Retry-After, the wait is that plus a random part of `first`.
    """

    attempts: int = 6
    """Failures in a row without a new byte after which a download is given up."""

    first: float = 1.0
    """Seconds of the first wait; each further wait is twice as long."""

    longest: float = 60.0
    """Upper limit of a wait in seconds."""

    silence: float = 60.0
    """Seconds without a byte after which a connection counts as failed."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts={self.attempts}: at least 1 is needed")
        if not 0 <= self.first <= self.longest:
            raise ValueError(f"first={self.first}, longest={self.longest}: 0 <= first <= longest is needed")
        if not self.silence > 0:
            raise ValueError(f"silence={self.silence}: more than 0 seconds are needed")

    def wait(self, failures: int, retry_after: float | None) -> float:
        """Return the seconds to wait after this many failures in a row.

        retry_after: seconds of the host's Retry-After header, if it sent one.
        """
        if retry_after is not None:
            return min(max(retry_after, 0.0), MAX_RETRY_AFTER) + random.uniform(0.0, self.first)
        return min(self.longest, self.first * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)


MOST_LIST = 256 << 20
"""Bytes of the longest list of files; the longest of a source has 7 MB."""
LEAST_RATE = 1000
"""Bytes per second, below which a try is given up..."""
LEAST_SECONDS = 300
"""...if it is slower over this many seconds."""


class NoRanges(Exception):
    """The host sends only whole files."""


class TransferStopped(Exception):
    """Another transfer of the same batch failed, or the user stopped it."""


class Transfer:
    """Persistent connections to one or more hosts, shared by threads. Use as a context manager.

    A host that needs a password is given the one in the file that the variable NETRC names.
    """

    def __init__(self, *, connections: int = 16, retries: Retries | None = None) -> None:
        if connections < 1:
            raise ValueError(f"connections={connections}: at least 1 is needed")
        self._retries = retries or Retries()
        self._stop = threading.Event()
        self._useful: set[str] = set()  # hosts that had a file
        self._useless: set[str] = set()  # hosts that had none so far
        self._client = httpx.Client(
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            timeout=httpx.Timeout(self._retries.silence, connect=min(30.0, self._retries.silence), pool=None),
            follow_redirects=True,
            auth=_passwords(),
            # A compressed body could not be resumed by its offset.
            headers={"Accept-Encoding": "identity", "User-Agent": "ecg-foundry"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def stop(self) -> None:
        """Make all running transfers end soon; partial files stay and are resumed later."""
        self._stop.set()

    def get(self, urls: Sequence[str], copy: Path | None = None) -> bytes:
        """Fetch a small file from the first address that has it and does not send it empty.

        copy: local copy of the file. If given, the host is asked only for a newer version, and the copy is returned if
        the host cannot be reached.

        A body that ends with the connection, without a length, counts as a failure: it may be truncated, and there is
        no checksum. Raises FileNotFoundError if no address has the file, ConnectionError if all retries failed.
        """
        known = None if copy is None else load(copy)

        def once(url: str) -> bytes:
            headers = {}
            if copy is not None and known is not None:
                headers["If-Modified-Since"] = formatdate(copy.stat().st_mtime, usegmt=True)
            with self._client.stream("GET", url, headers=headers) as response:
                if known is not None and response.status_code == httpx.codes.NOT_MODIFIED:
                    return known
                check_status(response)
                if response.status_code == httpx.codes.PARTIAL_CONTENT:
                    raise ConnectionError(f"{url}: the host sends a part of the file, which was not asked for")
                content = self._small(response)
            if not content.strip():
                raise FileNotFoundError(f"{url}: it is empty there")
            check_ended(response)
            if copy is not None:
                # Without a Last-Modified date the copy must never count as newer than the original.
                store(copy, content, seconds_of(response.headers.get("Last-Modified", "")) or 0.0)
            return content

        try:
            return self._try_addresses(urls, once, lambda: 0)
        except ConnectionError as error:
            if known is None:
                raise
            log.warning("%s; using the earlier copy", error)
            return known

    def fetch(self, urls: Sequence[str], path: Path, checksum: str, advance: Advance, size: int | None = None) -> None:
        """Fetch a file to `path`, resuming `<path>.part`; it appears only when complete and with this checksum.

        advance: called with the bytes that arrived, or below zero, that were discarded.
        size: bytes of the file, if known.

        A host that sends another checksum twice is given up for the next one. Raises FileNotFoundError if no address
        has the file, ConnectionError if all retries failed, ValueError if every address that has it sends another file.
        """
        part = path.with_name(f"{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)

        def append(url: str) -> str:
            self._append(url, part, advance, size)
            return url

        remaining, used, mismatch = list(urls), urls[0], ""
        while remaining:
            for _ in range(2):  # first from the partial file, then from nothing
                if not part.is_file() or size is None or size_of(part) < size:
                    try:
                        used = self._try_addresses(remaining, append, lambda: size_of(part))
                    except FileNotFoundError as error:
                        if mismatch:
                            raise ValueError(mismatch) from error
                        raise
                checksum_here = checksum_of(part, checksum)
                if checksum_here == checksum:
                    # Not on the disk yet, as all of its partition will be at once. Until then, whoever finds a file
                    # of this name compares its checksum.
                    part.replace(path)
                    return
                advance(-size_of(part))
                part.unlink()
                mismatch = (
                    f"{used}: {checksum_here} came, {checksum} is listed: the host has another file than its list says"
                )
            remaining.remove(used)
            log.warning("%s", mismatch)
        raise ValueError(mismatch)

    def fetch_span(self, urls: Sequence[str], part: Path, span: tuple[int, int], advance: Advance) -> None:
        """Fetch the bytes from span[0] to before span[1] of a file to `part`, resuming it.

        Raises NoRanges if a host sends only whole files; FileNotFoundError and ConnectionError as `fetch` does.
        """
        part.parent.mkdir(parents=True, exist_ok=True)
        if size_of(part) < span[1] - span[0]:
            self._try_addresses(urls, lambda url: self._append_span(url, part, span, advance), lambda: size_of(part))

    def _append(self, url: str, part: Path, advance: Advance, size: int | None) -> None:
        """Request once what is missing of a file."""
        have = size_of(part)
        with self._client.stream("GET", url, headers={"Range": f"bytes={have}-"} if have else {}) as response:
            if have and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # nothing is missing; the checksum decides whether there is too much
            check_status(response)
            if have and not is_range(response, have):
                self._write_over(response, part, advance, size)
            else:
                self._write(response, part, advance, None if size is None else size - have)
        check_length(size_of(part), size)

    def _append_span(self, url: str, part: Path, span: tuple[int, int], advance: Advance) -> None:
        """Request once what is missing of a span."""
        first, end = span
        start = first + size_of(part)
        with self._client.stream("GET", url, headers={"Range": f"bytes={start}-{end - 1}"}) as response:
            check_status(response)
            if not is_range(response, start):
                raise NoRanges(url)
            self._write(response, part, advance, end - start)
        check_length(size_of(part), end - first)

    def _small(self, response: httpx.Response) -> bytes:
        """Return the body of a list. Raises ConnectionError if it is larger than any."""
        content = bytearray()
        for chunk in self._chunks(response, None):
            content += chunk
            if len(content) > MOST_LIST:
                raise ConnectionError(f"{response.url}: more than {MOST_LIST >> 20} MB came, which no list has")
        return bytes(content)

    def _write(self, response: httpx.Response, part: Path, advance: Advance, most: int | None) -> None:
        with part.open("ab") as stream:
            for chunk in self._chunks(response, most):
                stream.write(chunk)
                advance(len(chunk))

    def _write_over(self, response: httpx.Response, part: Path, advance: Advance, most: int | None) -> None:
        """Write a whole file over a partial one, keeping the beginning as far as it is the same.

        A host may send the whole file although only the rest was requested.
        """
        with part.open("r+b") as stream:
            for chunk in self._chunks(response, most):
                at = stream.tell()
                known = stream.read(len(chunk))
                if not chunk.startswith(known):  # another file than before
                    advance(at - size_of(part))
                    stream.seek(at)
                    stream.truncate()
                    known = b""
                stream.write(chunk[len(known) :])
                advance(len(chunk) - len(known))

    def _chunks(self, response: httpx.Response, most: int | None) -> Iterator[bytes]:
        """Yield a body as it arrives, at most one byte more than it should have: then it is another file.

        Raises ConnectionError if the body is compressed, TransientError if it is slower than a least rate.
        """
        check_encoding(response)
        came, since, came_before = 0, time.monotonic(), 0
        for chunk in response.iter_raw():
            came += len(chunk)
            if most is not None and came > most:
                yield chunk[: len(chunk) - (came - most - 1)]
                return
            yield chunk
            if self._stop.is_set():
                raise TransferStopped
            if time.monotonic() - since > LEAST_SECONDS:
                if came - came_before < LEAST_RATE * LEAST_SECONDS:
                    raise TransientError(f"fewer than {LEAST_RATE} bytes came per second, over {LEAST_SECONDS} s")
                since, came_before = time.monotonic(), came

    def _try_addresses(self, urls: Sequence[str], once: Callable[[str], T], reached: Callable[[], int]) -> T:
        """Return once(url) of the first address that has the file and can be reached; transient failures are retried.

        A host that never had a file is tried last: not every project is in PhysioNet's bucket.
        """
        unreachable: ConnectionError | None = None
        for url in sorted(urls, key=self._is_barren):
            try:
                result = self._with_retries(url, once, reached)
            except FileNotFoundError:
                self._useless.add(urlsplit(url).netloc)
            except ConnectionError as error:
                self._useless.add(urlsplit(url).netloc)
                unreachable = error
            else:
                self._useful.add(urlsplit(url).netloc)
                return result
        raise unreachable or FileNotFoundError(f"not at {' nor at '.join(urls)}")

    def _is_barren(self, url: str) -> bool:
        """Whether a host was asked for files and had none of them."""
        host = urlsplit(url).netloc
        return host in self._useless and host not in self._useful

    def _with_retries(self, url: str, once: Callable[[str], T], reached: Callable[[], int]) -> T:
        """Return once(url), tried again after transient failures. Raises ConnectionError if all attempts fail."""
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
            error = _failure(state)
            failures = 1 if error.reached > furthest else failures + 1
            furthest = max(furthest, error.reached)

        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            after=count,
            stop=lambda state: failures >= self._retries.attempts,
            wait=lambda state: self._retries.wait(failures, _failure(state).retry_after),
            sleep=sleep_using_event(self._stop),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except TransientError as error:
            raise ConnectionError(
                f"{url}: {error} ({failures} failures in a row): run it again later, it resumes where it stopped"
            ) from error


def _passwords() -> httpx.NetRCAuth | None:
    """Read the passwords by host from the file that NETRC names. Raises ValueError if it cannot be read."""
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
    """Compute the checksum of a file in the form and algorithm of `like`: `sha256:<hex>` or `md5:<hex>`."""
    algorithm = like.partition(":")[0]
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{digest.hexdigest()}"


def size_of(path: Path) -> int:
    """Return the bytes of a file, 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def _failure(state: RetryCallState) -> TransientError:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, TransientError)
    return error
