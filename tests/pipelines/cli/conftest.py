"""Fixtures of the commands: a small simulated mirror."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.home import Home
from pipelines.simulate import MirrorSizes, write_mirror


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = MirrorSizes(chapman=(6,), code15=(4,), ptbxl=(), cpsc2018=(), georgia=(), ludb=2)
    return write_mirror(tmp_path_factory.mktemp("cli") / "mirror", sizes=sizes).path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home that nothing was written to yet."""
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
    for name in ("ECG_MIRROR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return Home(tmp_path / "home")
