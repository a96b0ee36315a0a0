"""Run a training from a command, and stop both by a signal."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click


class Stopped(BaseException):
    """The command got a signal. Not an Exception, as KeyboardInterrupt is none: what works is undone, not told."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class TrainingEnded(ValueError):
    """A training ended without an encoder. what: pretraining, or fine-tuning."""

    def __init__(self, code: int, what: str) -> None:
        from pipelines.program import REFUSED

        self.code = code
        super().__init__(
            f"{what} was refused: its last line says why"
            if code == REFUSED
            else f"{what} ended with exit code {code}; the same command resumes from its last checkpoint"
        )


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped in the body at the first SIGTERM or SIGINT. A second SIGINT ends the process at once.

    A signal that is ignored, such as SIGINT of a command in a script's background, stays so.
    """

    def stop(number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # several supervisors each send one
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise Stopped(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    yield  # after Stopped the process ends, so that handlers are not put back
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def signals_told() -> Iterator[None]:
    """Do as `stoppable`, and end the process with 128 + signal and a line if it, or a training alone, was stopped."""
    try:
        with stoppable():
            yield
    except TrainingEnded as ended:
        if ended.code > 128:  # something stopped the training alone
            _exit_stopped(ended.code)
        raise
    except Stopped as stopped:
        _exit_stopped(128 + stopped.number)


def _exit_stopped(code: int) -> NoReturn:
    click.echo("stopped: what is finished stays; the same command goes on from there", err=True)
    sys.exit(code)


def run_pretraining(command: list[str]) -> None:
    """Run a pretraining to its end; its messages go to stderr. Raises TrainingEnded if it fails.

    If this process is interrupted, the training writes a checkpoint first.
    """
    _run(command, "pretraining")


def run_fine_tuning(command: list[str]) -> None:
    """Run the process of a fine-tuning as `run_pretraining` does that of a pretraining."""
    _run(command, "fine-tuning")


def _run(command: list[str], what: str) -> None:
    from pipelines.program import tied

    with subprocess.Popen(tied(command), stdout=subprocess.DEVNULL) as process:
        try:
            code = process.wait()
        except BaseException:
            process.terminate()  # a terminal's Ctrl-C told it already; a second signal changes nothing
            process.wait()
            raise
    if code:
        raise TrainingEnded(code, what)
