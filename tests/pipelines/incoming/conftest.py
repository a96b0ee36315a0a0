"""Fixtures of own ECGs: the folder of a drop."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.home import Home


@pytest.fixture
def drop(home: Home) -> Path:
    """The folder of a drop that is being written."""
    folder = home.incoming / "ward-7"
    folder.mkdir(parents=True)
    return folder
