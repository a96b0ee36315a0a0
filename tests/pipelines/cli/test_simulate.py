"""`ecg simulate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import ecg

pytestmark = pytest.mark.usefixtures("home")


def test_simulate_writes_a_mirror_that_can_be_read(tmp_path: Path) -> None:
    result = ecg("simulate", tmp_path / "m", "--size", "small", "--seed", "3")
    assert result.exit_code == 0
    mark = json.loads((tmp_path / "m/SIMULATED.json").read_text())
    assert mark["seed"] == 3
    assert f"{sum(mark['records'].values()):,} simulated ECGs" in result.stdout
    assert "chapman" in result.stderr  # the progress bar
    again = ecg("simulate", tmp_path, "--size", "small")
    assert again.exit_code == 1
    assert "no simulated mirror" in again.stderr
