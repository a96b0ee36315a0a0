"""`ecg mirror`."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.home import Home
from tests.support.commands import ecg

pytestmark = pytest.mark.usefixtures("home")


def test_the_mirror_is_remembered(home: Home, tmp_path: Path) -> None:
    assert "the original hosts" in ecg("mirror").output
    place = tmp_path / "data"
    place.mkdir()
    assert str(place) in ecg("mirror", place).output
    assert home.mirror == str(place)
    assert str(place) in ecg("sources").output
    wrong = ecg("mirror", tmp_path / "nowhere")
    assert wrong.exit_code == 1
    assert "no such folder" in wrong.stderr
    assert home.mirror == str(place)
    assert "the original hosts" in ecg("mirror", "hosts").output
    assert home.mirror is None
