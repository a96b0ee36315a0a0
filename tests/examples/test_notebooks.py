"""The examples on ECGs and a registered encoder, as a user runs them: they end, print, draw and warn of nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder
from pipelines.encoders.names import ENCODER_FILE
from pipelines.home import HOSTS, Home
from pipelines.tracking import Tracking
from tests.support.paths import ROOT
from tests.support.releases import crown, scored

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, ptbxl_home: Path, new_store: Callable[[Path], Tracking]) -> Path:
    """A data home with harmonized ECGs of PTB-XL (simulated), and an encoder as champion."""
    root = tmp_path_factory.mktemp("examples") / "home"
    shutil.copytree(ptbxl_home / "home", root)
    store = new_store(root / "mlflow")
    save_encoder(root / ENCODER_FILE, random_encoder(EncoderConfig(dim=32, depth=1, heads=2), 0))
    crown(store, "ecg-encoder", root / ENCODER_FILE, scored(0.7))
    assert Home(root, HOSTS).tracking_uri == store.uri
    return root


def run(name: str, home: Path, folder: Path) -> str:
    """Run an example in a folder, and return what it prints."""
    foreign = ("MLFLOW_TRACKING_URI", "ECG_MIRROR")
    environment = {key: value for key, value in os.environ.items() if key not in foreign}
    environment |= {"ECG_HOME": str(home), "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py")]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=250)
    assert ran.returncode == 0, ran.stderr
    assert "FutureWarning" not in ran.stderr
    with Image.open(folder / f"{name}.png") as picture:
        assert min(picture.size) >= 700
    return ran.stdout


def test_the_store_is_explored(home: Path, tmp_path: Path) -> None:
    printed = run("explore_store", home, tmp_path)
    assert "<xarray.Dataset>" in printed
    assert "NORM " in printed
    assert "PTB-XL, 500 Hz 1.0.3, CC BY 4.0. Wagner P" in printed


def test_the_champion_is_pulled_and_embeds(home: Path, tmp_path: Path) -> None:
    printed = run("pull_and_embed", home, tmp_path)
    assert "embeddings (300, 32)" in printed
    assert "nearest to record" in printed


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda script: script.stem)
def test_an_editor_opens_it_as_a_notebook(script: Path) -> None:
    assert sum(line.startswith("# %%") for line in script.read_text().splitlines()) >= 5
