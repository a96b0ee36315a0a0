"""The line of progress of a program: one that is rewritten on a terminal, and some of them in a log."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from pipelines.program import ProgressLine

LOG = logging.getLogger("pipelines.test_program")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_is_rewritten_and_ended_before_other_text(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    line = ProgressLine(LOG)
    line.end()
    for step in (1, 2, 3):
        line.show(step, 3, f"step {step}/3")
    line.end()
    line.end()
    first, second, third = screen.getvalue().split("\r\x1b[K")[1:]
    assert first == "step 1/3"
    assert second.startswith("step 2/3  0:0")
    assert second.endswith(" left")
    assert third == "step 3/3  0:00 left\n"


def test_in_a_log_the_first_and_the_last_line_come_and_few_between(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    line = ProgressLine(LOG)
    for step in range(1, 101):
        line.show(step, 100, f"step {step}/100")
    line.end()
    assert caplog.messages == ["step 1/100", "step 100/100  0:00 left"]
