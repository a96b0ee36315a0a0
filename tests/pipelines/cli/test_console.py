"""An error of the input is said before any bar is drawn."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import BarColumn, TextColumn

from pipelines.cli.console import LateProgress
from pipelines.home import Home
from tests.support.commands import ecg

pytestmark = pytest.mark.usefixtures("home")


def drawn(*, updates: int) -> str:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=60)
    with LateProgress(TextColumn("{task.description}"), BarColumn(), console=console, waiting="reading [it]") as bar:
        task = bar.add_task("records", total=3)
        for done in range(updates):
            bar.update(task, completed=done + 1)
    return screen.getvalue()


def test_a_bar_is_drawn_from_its_first_update_on() -> None:
    assert "records" not in drawn(updates=0)
    assert "━" not in drawn(updates=0)
    assert "reading [it]" in drawn(updates=0), "a terminal is told what is waited for"
    assert "records" in drawn(updates=3)


def test_without_a_terminal_nothing_is_drawn_before_an_error(home: Home, mirror: Path, tmp_path: Path) -> None:
    home.set_mirror(str(mirror))
    for words in (
        ("check-drop", tmp_path / "nowhere"),
        ("compare", "pretrained", "random", "--task", "nope"),
        ("evaluate", "nope"),
        ("verify", "nope"),
        ("download", "chapman", "45"),
    ):
        refused = ecg(*words)
        assert refused.exit_code == 1
        assert refused.stderr.startswith("Error: "), words
        assert refused.stderr.count("\n") == 1


def test_a_partition_that_is_none_is_refused_before_the_first_is_downloaded(home: Home, mirror: Path) -> None:
    home.set_mirror(str(mirror))
    refused = ecg("download", "chapman", "01", "99")
    assert refused.exit_code == 1
    assert "partition '99' of chapman: use one of 01, 02" in refused.stderr
    assert home.workspace().current("raw/chapman/01") is None
