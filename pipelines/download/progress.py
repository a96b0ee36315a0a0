"""Progress of a download: files and bytes done, transfer rate, time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.formatting import format_bytes, format_duration

WINDOW = 30.0  # seconds that a rate is averaged over: a stall shows, a short pause does not


@dataclass(frozen=True, kw_only=True)
class DownloadProgress:
    """How far a download is."""

    files: int
    """Files that are here and verified."""

    of_files: int

    bytes: int
    """Bytes that are here, of complete and partial files."""

    of_bytes: int | None
    """Total size; None if not all sizes are known."""

    fetched: int
    """Bytes that came over the network in this call."""


OnProgress = Callable[[DownloadProgress], None]
"""Called from the downloading threads, one at a time."""


class ThroughputMeter:
    """Transfer rate over the last half minute. clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, DownloadProgress]] = deque()

    def add(self, progress: DownloadProgress) -> None:
        """Record the current progress."""
        now = self._clock()
        # At most one sample per second: thousands of small files would fill the window.
        if len(self._samples) < 2 or now - self._samples[-2][0] >= 1.0:
            self._samples.append((now, progress))
        else:
            self._samples[-1] = (now, progress)
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW:
            self._samples.popleft()

    def rate(self) -> float:
        """Return bytes per second over the network."""
        return self._per_second(lambda progress: progress.fetched)

    def seconds_left(self) -> float | None:
        """Estimate by bytes if all sizes are known, else by files. Returns None if nothing has arrived yet."""
        if not self._samples:
            return None
        now = self._samples[-1][1]
        left, rate = now.of_files - now.files, self._per_second(lambda progress: progress.files)
        if now.of_bytes is not None:
            left, rate = now.of_bytes - now.bytes, self.rate()
        return left / rate if rate else None

    def line(self) -> str:
        """Return a line such as `120 of 4,000 files, 14.1 MB, 2.3 MB/s, 3 min left`."""
        if not self._samples:
            return "nothing yet"
        now, left = self._samples[-1][1], self.seconds_left()
        size = format_bytes(now.bytes) + ("" if now.of_bytes is None else f" of {format_bytes(now.of_bytes)}")
        words = [f"{now.files:,} of {now.of_files:,} files", size, f"{format_bytes(self.rate())}/s"]
        return ", ".join(words if left is None else [*words, f"{format_duration(left)} left"])

    def _per_second(self, what: Callable[[DownloadProgress], int]) -> float:
        if len(self._samples) < 2:
            return 0.0
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return (what(last) - what(first)) / (ended - began) if ended > began else 0.0


def throttled(
    write_line: Callable[[str], None],
    *,
    seconds: float = 30.0,
    share: float = 0.1,
    clock: Callable[[], float] = time.monotonic,
) -> OnProgress:
    """Return a progress callback that writes a line when `seconds` have passed or `share` of the work was done.

    write_line: receives each line.

    After a share, a line follows two seconds after the last one at the earliest; so a quick download writes little, and
    one that is complete at once writes nothing.
    """
    meter = ThroughputMeter(clock)
    last_time, last_share = clock(), 0.0

    def on_progress(progress: DownloadProgress) -> None:
        nonlocal last_time, last_share
        meter.add(progress)
        now = clock()
        done = progress.files / progress.of_files
        if progress.of_bytes:
            done = progress.bytes / progress.of_bytes
        if now - last_time >= seconds or (done - last_share >= share and now - last_time >= 2.0):
            last_time, last_share = now, done
            write_line(meter.line())

    return on_progress
