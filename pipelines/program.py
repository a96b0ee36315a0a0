"""What a program has that a step starts in a process of its own: how it is started, its exit codes, signals, one writer
a folder, progress, its log."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipelines.durable import make_folder

log = logging.getLogger(__name__)

REFUSED = 2
"""Exit code of a program for an error that another try would meet again; argparse's, too."""

Launch = Callable[[list[str]], object]
"""Runs a command to its end. Raises if it fails."""

PIPES = "DAGSTER_PIPES_CONTEXT"  # dagster_pipes.DAGSTER_PIPES_CONTEXT_ENV_VAR
LINE_SECONDS = 10.0  # between two lines of progress in a log
ORPHAN_SECONDS = 300.0  # to wait for another run in the folder


class Stopped(Exception):
    """The run was asked to stop. If it had begun, it has written a checkpoint."""


def usual_processes() -> int:
    """Return the number of processes of a training if none is asked for: ECG_PROCESSES, or 1."""
    return int(os.environ.get("ECG_PROCESSES") or 1)


def tied(command: list[str]) -> list[str]:
    """Return the command, wrapped so that it gets SIGTERM if its parent is killed (Linux only).

    An orphan would keep the GPU and the output folder from the run that resumes.
    """
    setpriv = shutil.which("setpriv")
    return command if setpriv is None else [setpriv, "--pdeathsig", "TERM", *command]


def stop_on_signals() -> list[int]:
    """Return a list to which SIGTERM and SIGINT are appended when they are received.

    A second SIGINT ends the process at once, for a user who does not want to wait. A second SIGTERM does not, because
    supervisor, step and torchrun each send one.
    """
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return received


def exit_code_of_stop(stop: Sequence[int]) -> int:
    """Return the exit code of a run that was stopped, 128 + signal; from here on no SIGTERM changes it.

    stop: the signals received so far; without one, another process of the run got it
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Python's end unsets handlers: a late one would be the code
    return 128 + (stop[0] if stop else signal.SIGTERM)


@contextmanager
def only_writer(out: Path, lock_file: Path, stop: Sequence[int]) -> Iterator[None]:
    """Hold the lock of a run's folder, so that no other run writes there.

    Waits for the current holder first: an orphan, whose torchrun or step was killed, still ends its step and writes a
    checkpoint. Raises ValueError if it still holds the lock after ORPHAN_SECONDS, Stopped if a signal comes first.
    """
    make_folder(lock_file.parent)
    lock, began, warned = FileLock(lock_file), time.monotonic(), False
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout as error:
            if stop:
                raise Stopped(f"stopped while another run writes to {out}") from error
            if time.monotonic() - began >= ORPHAN_SECONDS:
                raise ValueError(f"--out {out}: another run writes there; stop it, or use another folder") from error
            if not warned:
                log.warning("%s: another run writes there; waiting for its end", out)
                warned = True
    try:
        yield
    finally:
        lock.release()


class ProgressLine:
    """A line of progress: rewritten on a terminal, else one every LINE_SECONDS in a log.

    every: least seconds between two drawings on a terminal
    """

    def __init__(self, log: logging.Logger, *, every: float = 0.0) -> None:
        self._log, self._terminal = log, sys.stderr.isatty()
        self._every = every if self._terminal else LINE_SECONDS
        self._began, self._last, self._first, self._open = time.monotonic(), float("-inf"), 0, False

    def due(self, step: int, total: int) -> bool:
        """Whether a line would be shown now; that of the last step always is."""
        return step == total or time.monotonic() - self._last >= self._every

    def show(self, step: int, total: int, text: str) -> None:
        """Show a line if it is due, with the time left behind it from the second one on."""
        now, self._first = time.monotonic(), self._first or step
        if not self.due(step, total):
            return
        self._last = now
        if step > self._first:
            left = int((total - step) * (now - self._began) / (step - self._first))
            text += f"  {left // 60}:{left % 60:02d} left"
        if self._terminal:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self._open = True
        else:
            self._log.info("%s", text)

    def end(self) -> None:
        """End the line on a terminal, so that what is written next does not overwrite it."""
        if self._open:
            print(file=sys.stderr)
            self._open = False


@contextmanager
def dagster_pipes() -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """Send the log also to the asset that started this program. Yield a function that sends it a message.

    Yields None if no asset started it.
    """
    if PIPES not in os.environ:
        yield None
        return
    from dagster_pipes import open_dagster_pipes  # imported here, since it is there only under Dagster

    with open_dagster_pipes() as pipes:

        class ToDagster(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                pipes.log.log(record.levelno, "%s", self.format(record))

        handler = ToDagster()
        logging.getLogger("pipelines").addHandler(handler)
        try:
            yield pipes.report_custom_message
        finally:
            logging.getLogger("pipelines").removeHandler(handler)
