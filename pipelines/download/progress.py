"""How a download goes, in words: what is here, how fast it comes, how long it takes still."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.formatting import format_bytes, format_duration

WINDOW = 30.0  # seconds that a rate is taken over: a stall shows, a hiccup does not


@dataclass(frozen=True, kw_only=True)
class DownloadProgress:
    """files: how many of of_files are here and verified; bytes: what is here of of_bytes (None: not all are known).

    fetched: the bytes of them that came over the network in this call.
    """

    files: int
    of_files: int
    bytes: int
    of_bytes: int | None
    fetched: int


# Called from the threads at work, by one at a time.
OnProgress = Callable[[DownloadProgress], None]


class ThroughputMeter:
    """The rate of the last half minute. clock: seconds that only grow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, DownloadProgress]] = deque()

    def see(self, progress: DownloadProgress) -> None:
        now = self._clock()
        # A second is fine enough; thousands of small files would fill the window.
        if len(self._seen) < 2 or now - self._seen[-2][0] >= 1.0:
            self._seen.append((now, progress))
        else:
            self._seen[-1] = (now, progress)
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW:
            self._seen.popleft()

    def rate(self) -> float:
        """Bytes a second over the network."""
        return self._per_second(lambda progress: progress.fetched)

    def seconds_left(self) -> float | None:
        """By bytes where all sizes are known, else by files; None where nothing has come yet."""
        if not self._seen:
            return None
        now = self._seen[-1][1]
        left, rate = now.of_files - now.files, self._per_second(lambda progress: progress.files)
        if now.of_bytes is not None:
            left, rate = now.of_bytes - now.bytes, self.rate()
        return left / rate if rate else None

    def line(self) -> str:
        """`120 of 4,000 files, 14.1 MB, 2.3 MB/s, 3 min left`."""
        if not self._seen:
            return "nothing yet"
        now, left = self._seen[-1][1], self.seconds_left()
        size = format_bytes(now.bytes) + ("" if now.of_bytes is None else f" of {format_bytes(now.of_bytes)}")
        words = [f"{now.files:,} of {now.of_files:,} files", size, f"{format_bytes(self.rate())}/s"]
        return ", ".join(words if left is None else [*words, f"{format_duration(left)} left"])

    def _per_second(self, what: Callable[[DownloadProgress], int]) -> float:
        if len(self._seen) < 2:
            return 0.0
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        return (what(last) - what(first)) / (ended - began) if ended > began else 0.0


def throttled(
    tell: Callable[[str], None],
    *,
    seconds: float = 30.0,
    share: float = 0.1,
    clock: Callable[[], float] = time.monotonic,
) -> OnProgress:
    """A progress that tells a line each time so many seconds have gone by or such a share of the work was done.

    A share is told two seconds after the last line at the earliest, so a quick download says little, and one that is
    done at once says nothing.
    """
    pace = ThroughputMeter(clock)
    told, at = clock(), 0.0

    def on_progress(progress: DownloadProgress) -> None:
        nonlocal told, at
        pace.see(progress)
        now = clock()
        done = progress.files / progress.of_files
        if progress.of_bytes:
            done = progress.bytes / progress.of_bytes
        if now - told >= seconds or (done - at >= share and now - told >= 2.0):
            told, at = now, done
            tell(pace.line())

    return on_progress
