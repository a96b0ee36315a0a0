"""The counts of `benchmarks.faults`, its table and its exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import faults
from tests.support.kills import Trial


def series(*trials: Trial) -> faults.Series:
    def tried(work: Path, seed: int, count: int) -> Iterator[Trial]:
        assert work.is_dir()
        yield from trials

    return faults.Series(tried, 3, "kills of nothing")


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    well = series(Trial(2, outcomes={"read": 1, "refused": 1}), Trial(1, outcomes={"read": 1}))
    monkeypatch.setattr(faults, "SERIES", {"download": well, "train": series(Trial(3, ("a file is lost",)))})
    return tmp_path / "figures.json"


def test_what_was_tried_is_counted_and_shown(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert faults.main(["download", "--seed", "7", "--json", str(written)]) == 0
    figures = json.loads(written.read_text())
    assert figures["seed"] == 7
    assert {"machine", "commit"} <= set(figures)
    assert {name: figures["download"][name] for name in ("tried", "rounds", "outcomes", "surprises")} == {
        "tried": 3,
        "rounds": 2,
        "outcomes": {"read": 2, "refused": 1},
        "surprises": [],
    }
    shown = capsys.readouterr()
    assert "| kills of nothing | 3 | 2 | 0 |" in shown.out
    assert "no surprises" in shown.out
    assert "3 of 3, 0 surprises, 0:00 left" in shown.err


def test_a_surprise_is_named_and_is_the_exit_code(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert faults.main(["download", "train", "--json", str(written)]) == 1
    assert "a file is lost" in capsys.readouterr().out
    assert json.loads(written.read_text())["train"]["surprises"] == ["a file is lost"]


def test_a_count_below_one_is_refused(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        faults.main(["download", "--count", "0"])
    assert "--count 0: give at least 1" in capsys.readouterr().err
