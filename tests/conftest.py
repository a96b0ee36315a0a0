"""Fixtures of all tests: a data home and its workspace, MLflow stores, and simulated ECGs that are made once a run."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.cache import Workspace
from pipelines.home import HOSTS, Home
from pipelines.tracking import Tracking
from tests.support.shared import home_with_ptbxl, made_once

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
    """An empty data home, which the environment names; its ECGs come from the hosts."""
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    home = Home.default()
    home.set_mirror(HOSTS)
    return home


@pytest.fixture
def workspace(home: Home) -> Workspace:
    """The home's workspace, empty."""
    return home.workspace()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all processes of this test run share."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(scope="session")
def new_store(run_folder: Path) -> Callable[[Path], Tracking]:
    """A function that makes an empty MLflow store in a folder, by a copy: to create one takes a second of a processor.

    The store of a data home is in its folder `mlflow`.
    """

    def create(folder: Path) -> None:
        Tracking(uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_root=folder / "artifacts").upgrade()

    template = made_once(run_folder / "mlflow-template", create)

    def copy(folder: Path) -> Tracking:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(template / "mlflow.db", folder / "mlflow.db")
        return Tracking(uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_root=folder / "artifacts")

    return copy


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, new_store: Callable[[Path], Tracking]) -> Tracking:
    """One MLflow store for many tests, each with models of its own."""
    return new_store(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture(scope="session")
def ptbxl_home(run_folder: Path) -> Path:
    """A folder with a simulated mirror of PTB-XL, `mirror`, and a data home of it, `home`: to be read or copied."""
    return made_once(run_folder / "ptbxl", home_with_ptbxl)


@pytest.fixture
def tracking(home: Home, store: Tracking, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracking]:
    """The store of the home, without a model."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    yield store
    for model in store.client().search_registered_models():
        store.client().delete_registered_model(model.name)
