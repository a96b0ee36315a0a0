"""A probe of any head, served through MLflow, answers as the probe predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import load_encoder, random_encoder, save_encoder
from ecg_model.serving.classify import CalibratedHead, classify
from pipelines.cache import Product, Workspace
from pipelines.evaluate.features import EncoderSource
from pipelines.evaluate.probes.attention_pool import AttentionPool
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.fine_tune import FineTune
from pipelines.evaluate.probes.heads import LAYER_FILE, Head
from pipelines.evaluate.probes.result import load_result
from pipelines.evaluate.probes.step import materialize_probe
from pipelines.formats.shard import open_shard
from pipelines.release.calibration import Calibration
from pipelines.release.heads import write_head
from pipelines.release.model import Scores
from pipelines.release.packaging import expected_of, packaged_classifier, serves
from pipelines.release.registry import release_packaged
from pipelines.tasks.catalogue import TASKS
from pipelines.tracking import Tracking
from tests.support.labelled_shards import labelled_workspace

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
import mlflow.pyfunc

TINY = EncoderConfig(dim=32, depth=1, heads=2, input_scale=5.0, patch_init_scale=7.0)
TASK = TASKS["ptbxl_superclass"]
EXCLUSIVE = replace(TASK, name="ptbxl_superclass__multi_class", kind="multi-class")
SMALL = ProbeConfig(resamples=20, min_patients=5, min_positives=1, penalties=(1e-2,))
HEADS: dict[str, Head | None] = {
    "linear": None,
    "attention": AttentionPool(heads=2, rates=(1e-2,), weight_decays=(1e-2,), epochs=2, batch=16, device="cpu"),
    "fine-tuned": FineTune(epochs=1, warmup=0, rate=0.05, device="cpu"),
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = labelled_workspace(tmp_path_factory.mktemp("home"))
    save_encoder(workspace.root / "encoder.safetensors", random_encoder(TINY, 0))
    return workspace


def probe(workspace: Workspace, kind: str, *, exclusive: bool) -> Product:
    source = EncoderSource.of_file("tiny", workspace.root / "encoder.safetensors")
    return materialize_probe(workspace, EXCLUSIVE if exclusive else TASK, source, SMALL, head=HEADS[kind])


def written(workspace: Workspace, made: Product, into: Path, *, exclusive: bool) -> CalibratedHead:
    """Serve a probe without a calibration."""
    into.mkdir(exist_ok=True)
    predictions = load_result(made.path).predictions
    assert predictions is not None
    count = len(predictions.classes)
    plain = Calibration(
        labels=predictions.classes, slope_C=np.ones(count), intercept_C=np.zeros(count), exclusive=exclusive
    )
    write_head(made.path, workspace.root / "encoder.safetensors", into, plain)
    return CalibratedHead.load(into / "head.safetensors")


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("kind", HEADS)
def test_what_is_served_is_what_the_probe_predicts(
    workspace: Workspace, tmp_path: Path, kind: str, exclusive: bool
) -> None:
    made = probe(workspace, kind, exclusive=exclusive)
    head = written(workspace, made, tmp_path, exclusive=exclusive)
    assert (head.query_HD is not None, head.band_passed) == (kind == "attention", kind == "fine-tuned")
    predictions = load_result(made.path).predictions
    assert predictions is not None
    rows = [int(record) for record in predictions.record_id]
    x_BLT = open_shard(workspace.require("ecgs/ptbxl/00000").path).signals()[rows] / 1000
    served_BC = classify(load_encoder(tmp_path / "encoder.safetensors"), head, x_BLT, sampling_rate=250.0)
    np.testing.assert_allclose(served_BC, predictions.score_NC, atol=1e-5)
    assert np.ptp(served_BC, axis=0).min() > 1e-3, "ECGs differ"
    packaged = packaged_classifier(tmp_path / "encoder.safetensors", tmp_path / "head.safetensors")
    assert ("sum to 1" in packaged.output) == exclusive
    assert expected_of(packaged).shape == (1, len(head.labels))


@pytest.mark.parametrize("kind", ["attention", "fine-tuned"])
def test_through_mlflow_too(
    workspace: Workspace, tmp_path: Path, kind: str, new_store: Callable[[Path], Tracking], monkeypatch
) -> None:
    made = probe(workspace, kind, exclusive=True)
    head = written(workspace, made, tmp_path / "files", exclusive=True)
    store = new_store(tmp_path)
    packaged = packaged_classifier(*(tmp_path / "files" / f"{name}.safetensors" for name in ("encoder", "head")))
    about = {"provenance": {}, "recipe": {}, "git_commit": "g", "registered_name": "ecg-own", "tracking": store}
    release = release_packaged(packaged, Scores(), **about)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    model = mlflow.pyfunc.load_model(release.model_uri)
    x_BLT = open_shard(workspace.require("ecgs/ptbxl/00000").path).signals()[:3] / 1000
    x_BLT[1, 2] = 0.1
    rows = model.predict(x_BLT, params={"sampling_rate": 250.0, "leads": "8"})
    assert rows[1]["reason"] == "flat lead: V1 is constant"
    for row in (rows[0], rows[2]):
        assert list(row) == list(head.labels)
        assert sum(row.values()) == pytest.approx(1.0)
    with pytest.raises(mlflow.exceptions.MlflowException, match=r"record 1: flat lead: V1 is constant"):
        model.predict(x_BLT, params={"sampling_rate": 250.0, "leads": "8", "on_bad": "refuse"})


@pytest.mark.slow
def test_it_serves_from_another_process(
    workspace: Workspace, tmp_path: Path, new_store: Callable[[Path], Tracking]
) -> None:
    made = probe(workspace, "fine-tuned", exclusive=True)
    written(workspace, made, tmp_path / "files", exclusive=True)
    packaged = packaged_classifier(*(tmp_path / "files" / f"{name}.safetensors" for name in ("encoder", "head")))
    store = new_store(tmp_path)
    about = {"provenance": {}, "recipe": {}, "git_commit": "g", "registered_name": "ecg-own", "tracking": store}
    finding = serves(release_packaged(packaged, Scores(), **about), packaged, tracking=store)
    assert finding.holds, finding.seen


def test_a_probe_that_kept_no_layer_and_an_encoder_of_another_width_are_refused(
    workspace: Workspace, tmp_path: Path
) -> None:
    made = probe(workspace, "attention", exclusive=False)
    head = written(workspace, made, tmp_path, exclusive=False)
    wide = tmp_path / "wide" / "encoder.safetensors"
    wide.parent.mkdir()
    save_encoder(wide, random_encoder(replace(TINY, dim=64), 1))
    with pytest.raises(ValueError, match=r"head\.safetensors: the head is for embeddings of 32, the encoder's have 64"):
        packaged_classifier(wide, tmp_path / "head.safetensors")
    kept = Calibration(labels=head.labels, slope_C=head.slope_C, intercept_C=head.intercept_C)
    with pytest.raises(ValueError, match=f"has no {LAYER_FILE}: remove that folder and fit it again"):
        write_head(tmp_path, wide, tmp_path, kept)
