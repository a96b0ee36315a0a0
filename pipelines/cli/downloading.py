"""Raw files from the command line, with what is here, the rate and the time left while they come."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from pipelines.download.mirror import Mirror, list_source
from pipelines.download.progress import DownloadProgress, OnProgress, ThroughputMeter, throttled
from pipelines.home import Home
from pipelines.sources import SOURCES
from pipelines.sources.base import Source

REDRAWN = 0.1  # seconds between two drawings of the bar


def wanted(home: Home, name: str, partitions: Sequence[str]) -> tuple[Source, list[str]]:
    """The source, and the named partitions of it, or all that the mirror has; ValueError where there is none."""
    if name not in SOURCES:
        raise ValueError(f"source {name!r}: use one of {', '.join(SOURCES)}")
    source, mirror = SOURCES[name], Mirror.parse(home.mirror)
    found = list(partitions) or source.available(list_source(source, mirror, raw_root=home.raw_root))
    if not found:
        raise ValueError(f"{name}: {mirror} has no partition of it: use another with `ecg mirror`")
    return source, found


@contextmanager
def shown(title: str) -> Iterator[OnProgress]:
    """A bar in a shell; where nobody looks, a line now and then."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield throttled(lambda line: console.print(f"{title}: {line}", markup=False, soft_wrap=True))
        return
    pace, drawn = ThroughputMeter(), 0.0
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[line]}", markup=False))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, line="reading the list")

        def on_progress(here: DownloadProgress) -> None:
            nonlocal drawn
            pace.see(here)
            now = time.monotonic()
            if now - drawn < REDRAWN and here.files < here.of_files:
                return
            drawn = now
            done, total = (here.bytes, here.of_bytes) if here.of_bytes else (here.files, here.of_files)
            bar.update(task, completed=done, total=total, line=pace.line())

        yield on_progress
