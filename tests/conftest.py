"""A data home of a test's own, and one MLflow store for all: making an SQLite store takes longer than its questions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.cache import Workspace
from pipelines.home import HOSTS, Home
from pipelines.tracking import Tracking

FOREIGN = (
    "ECG_MIRROR",
    "ECG_INCOMING",
    "MLFLOW_TRACKING_URI",
    "ECG_PROCESSES",
    "ECG_RETRAIN_RECIPE",
    "ECG_RETRAIN_CHANGES",
    "ECG_RETRAIN_START",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    found = Home.default()
    found.set_mirror(HOSTS)
    return found


@pytest.fixture
def workspace(home: Home) -> Workspace:
    """The home's workspace, empty."""
    return home.workspace()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    folder = tmp_path_factory.mktemp("mlflow")
    store = Tracking(uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_root=folder)
    store.upgrade()
    return store


@pytest.fixture
def tracking(home: Home, store: Tracking, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracking]:
    """The store of the home, without a model."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    yield store
    for model in store.client().search_registered_models():
        store.client().delete_registered_model(model.name)
