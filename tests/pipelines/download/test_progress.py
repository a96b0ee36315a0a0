"""Progress lines of a running download."""

from __future__ import annotations

import pytest

from pipelines.download.progress import DownloadProgress, ThroughputMeter, throttled
from pipelines.formatting import format_bytes, format_duration


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def here(files: int, bytes: int, *, of_bytes: int | None = 1_000_000, fetched: int | None = None) -> DownloadProgress:
    return DownloadProgress(
        files=files, of_files=100, bytes=bytes, of_bytes=of_bytes, fetched=bytes if fetched is None else fetched
    )


def seen(clock: Clock, pace: ThroughputMeter, seconds: float, progress: DownloadProgress) -> None:
    clock.now = seconds
    pace.add(progress)


def test_rate_and_time_left_are_those_of_the_last_half_minute() -> None:
    clock = Clock()
    pace = ThroughputMeter(clock)
    for second in range(100):  # 1 kB a second, then 10
        seen(clock, pace, second, here(0, 1000 * second))
    assert pace.rate() == pytest.approx(1000, rel=0.05)
    for second in range(100, 140):
        seen(clock, pace, second, here(0, 100_000 + 10_000 * (second - 100)))
    assert pace.rate() == pytest.approx(10_000, rel=0.05)
    assert pace.seconds_left() == pytest.approx(51, rel=0.05)
    seen(clock, pace, 200, here(0, 490_000))  # a stall shows
    assert pace.rate() < 500


def test_files_that_were_here_already_are_no_speed() -> None:
    clock = Clock()
    pace = ThroughputMeter(clock)
    seen(clock, pace, 0, here(0, 0))
    seen(clock, pace, 2, here(50, 500_000, fetched=0))
    assert (pace.rate(), pace.seconds_left()) == (0.0, None)
    assert pace.line() == "50 of 100 files, 500 kB of 1 MB, 0 B/s"


def test_without_sizes_the_files_tell_the_time_left() -> None:
    clock = Clock()
    pace = ThroughputMeter(clock)
    assert pace.line() == "nothing yet"
    seen(clock, pace, 0, here(0, 0, of_bytes=None))
    seen(clock, pace, 10, here(25, 123_456, of_bytes=None))
    assert pace.seconds_left() == 30
    assert pace.line() == "25 of 100 files, 123 kB, 12.3 kB/s, 30 s left"


def test_lines_come_every_half_minute_or_tenth() -> None:
    clock, lines = Clock(), list[str]()
    tell = throttled(lines.append, clock=clock)
    for second in range(1, 101):  # a file a second: 10 % in ten seconds
        clock.now = second
        tell(here(second, 1000 * second, of_bytes=None))
    assert len(lines) in (9, 10)
    assert lines[0].startswith("10 of 100 files")
    slow, lines = Clock(), list[str]()
    tell = throttled(lines.append, clock=slow)
    for second in range(301):  # 1 % in five minutes
        slow.now = second
        tell(here(0, 33 * second))
    assert len(lines) == 10


def test_a_download_that_is_done_at_once_says_nothing() -> None:
    clock, lines = Clock(), list[str]()
    tell = throttled(lines.append, clock=clock)
    for files in range(101):
        clock.now = files / 100
        tell(here(files, 0))
    assert lines == []


@pytest.mark.parametrize(
    ("count", "told"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (14_123_000, "14.1 MB"), (46.3e9, "46.3 GB")]
)
def test_bytes_in_words(count: float, told: str) -> None:
    assert format_bytes(count) == told


@pytest.mark.parametrize(("seconds", "told"), [(0.4, "0 s"), (89, "89 s"), (180, "3 min"), (7500, "2 h 5 min")])
def test_time_in_words(seconds: float, told: str) -> None:
    assert format_duration(seconds) == told
