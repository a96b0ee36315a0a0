"""Tables on stdout, progress bars on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pipelines.formatting import format_text

if TYPE_CHECKING:
    from pipelines.download.progress import DownloadProgress, OnProgress

REDRAW_SECONDS = 0.1
"""Least time between two drawings of a download's bar."""


def stdout() -> Console:
    """Return the console for results. Without a terminal, lines are up to 200 characters wide, so that none is cut."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)


def print_table(headers: Iterable[str], rows: Iterable[Iterable[object]], *, title: str | None = None) -> None:
    """Print rows under headers; None is an empty cell. Names from outside are escaped, and no markup is read."""
    table = Table(*(format_text(header) for header in headers), title=title, title_justify="left", box=None)
    for row in rows:
        table.add_row(*("" if value is None else format_text(str(value)) for value in row))
    stdout().print(table)


class LateProgress(Progress):
    """A progress display whose bar is drawn from its first update on, so that an error of the input comes before it.

    Until then a terminal shows a line that vanishes.
    """

    def __init__(self, *columns: ProgressColumn, console: Console, waiting: str, transient: bool = False) -> None:
        super().__init__(*columns, console=console, transient=transient, disable=transient and not console.is_terminal)
        self._waiting = console.status(escape(waiting))

    def __enter__(self) -> Self:
        if not self.disable:
            self._waiting.start()
        return self

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a task, and draw the bar."""
        if not self.live.is_started:
            self._waiting.stop()
            self.start()
        super().update(task_id, **changes)

    def hide(self) -> None:
        """Take the bar away until its next update, since another program writes to the terminal."""
        if self.console.is_terminal:
            self.__exit__()

    def __exit__(self, *exception: object) -> None:
        self._waiting.stop()
        if self.live.is_started:
            self.stop()


class Count:
    """The count of a bar; called as (done), (done, total) or (done, total, title)."""

    def __init__(self, bar: LateProgress, title: str) -> None:
        self._bar, self._task = bar, bar.add_task(title, total=None)

    def __call__(self, done: int, total: int | None = None, title: str | None = None) -> None:
        description = None if title is None else format_text(title)
        self._bar.update(self._task, completed=done, total=total, description=description)

    def hide(self) -> None:
        """Do as `LateProgress.hide`."""
        self._bar.hide()


def progress(waiting: str = "reading", *, transient: bool = False) -> LateProgress:
    """Return a progress display with a bar, the count and the time left.

    waiting: what happens before the bar
    transient: it goes when it is done, and is not shown at all if stderr is no terminal
    """
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, markup=False)
    return LateProgress(*columns, console=console, waiting=waiting, transient=transient)


@contextmanager
def counting(title: str, *, transient: bool = False) -> Iterator[Count]:
    """Show a progress bar from the first count on. Yields what sets it, and maybe its total and title."""
    with progress(title, transient=transient) as bar:
        yield Count(bar, title)


@contextmanager
def downloading(title: str) -> Iterator[OnProgress]:
    """Show a bar with rate and time left; if stderr is no terminal, print a line from time to time."""
    from pipelines.download.progress import ThroughputMeter, throttled

    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:
        yield throttled(lambda line: console.print(f"{title}: {line}", soft_wrap=True))
        return
    meter, drawn = ThroughputMeter(), 0.0
    description, line = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[line]}"))
    with LateProgress(description, BarColumn(), line, console=console, waiting=f"{title}: reading the list") as bar:
        task = bar.add_task(title, total=None, line="")

        def on_progress(state: DownloadProgress) -> None:
            nonlocal drawn
            meter.add(state)
            now = time.monotonic()
            if now - drawn < REDRAW_SECONDS and state.files < state.of_files:
                return
            drawn = now
            done, total = (state.bytes, state.of_bytes) if state.of_bytes else (state.files, state.of_files)
            bar.update(task, completed=done, total=total, line=meter.line())

        yield on_progress
