"""Fixtures of releases: small encoders, and a registered model for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
import mlflow


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("encoders")
    config = EncoderConfig(dim=32, depth=1, heads=2)
    paths = [root / str(seed) / "encoder.safetensors" for seed in range(3)]
    for seed, path in enumerate(paths):
        path.parent.mkdir()
        save_encoder(path, random_encoder(config, seed))
    return paths


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A registered model of the test's own in the store that the module shares."""
    return request.node.name.translate(str.maketrans("[]", "--"))


@pytest.fixture
def nothing_is_left_outside_the_store(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Neither MLflow's process-wide settings nor the working directory are touched."""
    here = tmp_path_factory.mktemp("cwd")
    monkeypatch.chdir(here)
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    before = [mlflow.is_tracking_uri_set(), *map(os.environ.get, names)]
    yield
    assert [mlflow.is_tracking_uri_set(), *map(os.environ.get, names)] == before
    assert list(here.iterdir()) == []
