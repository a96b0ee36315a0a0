"""What a registered version is made of, and that it serves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecg_model.leads import LEADS_12
from pipelines.release.model import Scores
from pipelines.release.packaging import example_ecg, packaged_encoder, serves
from pipelines.release.registry import model_folder, version_named
from pipelines.tracking import Tracking

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
from mlflow.artifacts import download_artifacts

from tests.support.releases import put, scored

pytestmark = pytest.mark.usefixtures("nothing_is_left_outside_the_store")


def test_the_stored_model_holds_code_and_weights_and_no_pickle(
    store: Tracking, encoders: list[Path], name: str, tmp_path: Path
) -> None:
    put(store, name, encoders[0], scored(0.8))
    stored = store.client().get_model_version_download_uri(name, "1")
    folder = Path(download_artifacts(stored, dst_path=str(tmp_path), tracking_uri=store.uri))
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"encoder_model.py", "artifacts/encoder.safetensors", "code/ecg_model/signal.py", "MLmodel"} <= files
    endings = {Path(file).suffix for file in files if Path(file).name not in ("MLmodel", "registered_model_meta")}
    assert endings == {".py", ".safetensors", ".json", ".txt", ".yaml"}, "code, weights and text, nothing else"
    required = (folder / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in required] == ["mlflow", "torch", "numpy", "scipy", "safetensors"]
    assert all("==" in line and "+" not in line for line in required)
    assert (folder / "artifacts" / "encoder.safetensors").read_bytes() == encoders[0].read_bytes()


@pytest.mark.slow
def test_a_version_serves_what_its_encoder_gives_and_nothing_else(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    release = put(store, name, encoders[0], scored(0.8))
    good = serves(release, packaged_encoder(encoders[0]), tracking=store)
    assert good.holds, good.seen
    other = serves(release, packaged_encoder(encoders[1]), tracking=store)
    assert not other.holds
    assert "differs by" in other.seen
    stored = model_folder(version_named(release.model_uri, tracking=store), tracking=store)
    assert (stored / "code" / "ecg_model" / "signal.py").is_file()
    assert [*stored.rglob("__pycache__")] == [], "the store keeps what was released and nothing else"


def test_a_pull_that_fails_or_hangs_says_nothing_of_the_version(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error, so that it is tried again: a full disk is no reason to refuse a training."""
    release, packaged = put(store, name, encoders[0], scored(0.8)), packaged_encoder(encoders[0])
    with pytest.raises(RuntimeError, match=rf"models:/{name}/77 could not be pulled and run: .*not found"):
        serves(replace(release, version=77), packaged, tracking=store)
    monkeypatch.setattr("pipelines.release.packaging._PULL_SECONDS", 0.2)
    with pytest.raises(TimeoutError, match=rf"models:/{name}/1 was not pulled and run within 0.2 s"):
        serves(release, packaged, tracking=store)


def test_a_file_of_another_name_is_refused(store: Tracking, name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"encoder\.safetensors"):
        put(store, name, tmp_path / "weights.pt", Scores())


def test_the_example_obeys_einthoven_and_goldberger() -> None:
    lead = dict(zip(LEADS_12, example_ecg()[0], strict=True))
    np.testing.assert_allclose(lead["III"], lead["II"] - lead["I"], atol=2e-3)
    np.testing.assert_allclose(lead["aVR"] + lead["aVL"] + lead["aVF"], 0.0, atol=3e-3)
    assert 0.5 < np.ptp(lead["II"]) < 3
