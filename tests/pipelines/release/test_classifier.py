"""The classifier: what it computes, that it says what comes true, and how it is released and served."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import _SigmoidCalibration

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder
from ecg_model.serving.classify import CalibratedHead, classify
from pipelines.cache import Workspace
from pipelines.encoders.names import HEAD_FILE
from pipelines.evaluate.features import EncoderSource
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import SCORES_FILE, load_result, write_result
from pipelines.evaluate.statistics.calibration import fit_platt
from pipelines.evaluate.suite.baselines import probe_pair
from pipelines.finding import Finding
from pipelines.formats.shard import open_shard
from pipelines.home import HOSTS, Home
from pipelines.release.aliases import find_alias, promote
from pipelines.release.classifier import ClassifierFacts, materialize_classifier
from pipelines.release.gate import GateConfig, GateVerdict
from pipelines.release.model import CLASSIFIER_NAME, Scores
from pipelines.release.packaging import example_ecg, expected_of, packaged_classifier
from pipelines.release.registry import record, release_packaged
from pipelines.release.steps import GATE_TASK, current_release, judge_classifier, release_classifier, release_current
from pipelines.release.tags import CHAMPION
from pipelines.tasks.catalogue import TASKS
from pipelines.tracking import Tracking
from tests.support.mlflow_server import free_port
from tests.support.products import reseal
from tests.support.releases import edit_code

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
import mlflow.pyfunc

PASSED = GateVerdict(against=None, rules={"not_worse": Finding.passed("there was no champion")})
NETWORK = EncoderConfig(dim=32, depth=1, heads=2, input_scale=5.0, patch_init_scale=25.0)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, ptbxl_home: Path) -> Workspace:
    """PTB-XL simulated, an encoder as if it were pretrained, and its probes."""
    root = tmp_path_factory.mktemp("classifier")
    shutil.copytree(ptbxl_home / "home", root / "home", symlinks=True)
    made = Home(root / "home", HOSTS).workspace()

    def make(work: Path) -> dict:
        save_encoder(work / "encoder.safetensors", random_encoder(NETWORK, 5))
        last = {"loss": 0.5, "embedding_std": 0.1, "effective_rank": 9.0}
        return {"recipe": {"seed": 4}, "corpus_digest": "c" * 64, "first": {"loss": 0.9}, "last": last}

    made.build("encoder", version="test", config={}, inputs={}, make=make)
    for task in TASKS.values():
        probe_pair(made, task, ProbeConfig(resamples=20, penalties=(1e-2, 1e-4), min_positives=1))
    return made


@pytest.fixture
def tracking(tmp_path: Path, new_store: Callable[[Path], Tracking]) -> Tracking:
    return new_store(tmp_path)


def files(workspace: Workspace) -> tuple[Path, Path]:
    head = materialize_classifier(workspace, GATE_TASK)
    return workspace.require("encoder").path / "encoder.safetensors", head.path / HEAD_FILE


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_curve_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    logit_N = rng.normal(size=300) * 3
    y_N = rng.random(300) < expit(0.4 * logit_N - 1)
    slope, intercept = fit_platt(logit_N, y_N)
    oracle = _SigmoidCalibration().fit(logit_N, y_N)
    assert slope == pytest.approx(-oracle.a_, rel=1e-3)
    assert intercept == pytest.approx(-oracle.b_, rel=1e-3, abs=1e-3)
    assert fit_platt(-np.abs(logit_N), logit_N < 0)[0] >= 0, "the order of records is never turned round"
    with pytest.raises(ValueError, match="0 positives and 5 negatives"):
        fit_platt(np.zeros(5), np.zeros(5, bool))


def test_it_is_the_probe_calibrated(workspace):
    encoder, head = files(workspace)
    probe = workspace.require(f"probe/{GATE_TASK}/pretrained")
    predictions = load_result(probe.path).predictions
    assert predictions is not None
    calibrated = CalibratedHead.load(head)
    assert calibrated.labels == predictions.classes
    plain = replace(calibrated, slope_C=np.ones_like(calibrated.slope_C), intercept_C=np.zeros_like(calibrated.slope_C))
    shard = open_shard(workspace.require("ecgs/ptbxl/00000").path)
    row_of = {name: row for row, name in enumerate(shard.records().column("record_id").to_pylist())}
    rows = [row_of[name] for name in predictions.record_id[:20]]
    x_BLT = shard.signals()[rows] / 1000.0
    network = EncoderSource.of_file("ours", encoder).loaded()
    np.testing.assert_allclose(
        classify(network, plain, x_BLT, sampling_rate=250.0), predictions.score_NC[:20], atol=1e-5
    )
    product = materialize_classifier(workspace, GATE_TASK)
    facts = ClassifierFacts.of(product)
    assert facts.labels == ("NORM", "MI", "STTC", "CD", "HYP")
    assert facts.brier is not None
    assert 0 < facts.brier < 0.25
    assert "nan" not in json.dumps(product.facts).lower()


def put_probe(workspace: Workspace, folder: Path, label: str, change: str) -> Workspace:
    """A copy of the workspace whose probe has another column of validation scores for a label."""
    copied = Workspace(shutil.copytree(workspace.root, folder))
    probe = copied.require(f"probe/{GATE_TASK}/pretrained")
    result = load_result(probe.path)
    predictions, scores = result.predictions, result.scores
    assert predictions is not None
    assert scores is not None
    assert scores.validation is not None
    column = predictions.classes.index(label)
    score_NC = predictions.score_NC.copy()
    if change == "turned":
        score_NC[:, column] = 1 - score_NC[:, column]
    else:
        remaining = tuple(score for score in scores.validation.classes if score.name != label)
        scores = replace(scores, validation=replace(scores.validation, classes=remaining))
    about = json.loads((probe.path / SCORES_FILE).read_text())["about"]
    write_result(probe.path, replace(result, scores=scores, predictions=replace(predictions, score_NC=score_NC)), about)
    reseal(probe)
    return copied


@pytest.mark.parametrize("change", ["turned", "few"])
def test_a_label_that_validation_cannot_vouch_for_keeps_the_probes_probability(workspace, tmp_path, change):
    """Turned round, a calibration could only say the same of everybody."""
    copied = put_probe(workspace, tmp_path / "home", "MI", change)
    shutil.rmtree(copied.folder("classifier"), ignore_errors=True)
    made = materialize_classifier(copied, GATE_TASK)
    head = CalibratedHead.load(made.path / HEAD_FILE)
    assert made.facts["uncalibrated"] == ["MI"]
    place = head.labels.index("MI")
    assert (head.slope_C[place], head.intercept_C[place]) == (1.0, 0.0)
    assert (np.delete(head.slope_C, place) > 0).all()


def test_a_task_that_is_none_is_named(workspace):
    with pytest.raises(ValueError, match="task 'ptbxl_supercalss': use ptbxl_superclass"):
        materialize_classifier(workspace, "ptbxl_supercalss")


def test_a_head_that_is_none_and_one_that_does_not_fit_are_refused(workspace, tmp_path):
    encoder, head = files(workspace)
    with pytest.raises(ValueError, match="is no calibrated head"):
        CalibratedHead.load(encoder)
    wide = tmp_path / "encoder.safetensors"
    save_encoder(wide, random_encoder(replace(NETWORK, dim=64), 1))
    with pytest.raises(ValueError, match="is for embeddings of 32, the encoder's have 64"):
        packaged_classifier(wide, head)


@pytest.mark.slow
def test_it_goes_through_the_same_gate_to_a_champion_of_its_own(workspace, tracking):
    release_current(workspace, tracking, simulated=True)
    judged = judge_classifier(workspace, tracking, config=GateConfig())
    assert judged is not None
    release, verdict, _ = judged
    assert verdict.reason == "kept as challenger: on_champion: ecg-encoder has no champion"
    encoder = record(current_release(workspace, tracking), PASSED, tracking=tracking)
    promote(encoder, tracking=tracking)
    judged = judge_classifier(workspace, tracking, config=GateConfig())
    assert judged is not None
    release, verdict, _ = judged
    assert verdict.promote, verdict.reason
    assert set(verdict.rules) == {"not_worse", "no_label_lost", "not_collapsed", "serves", "on_champion"}
    assert verdict.rules["on_champion"].seen == "its encoder is that of models:/ecg-encoder/1, the champion"
    promote(release, tracking=tracking)
    champion = find_alias(CHAMPION, name=CLASSIFIER_NAME, tracking=tracking)
    assert champion is not None
    assert (champion.name, champion.version) == (CLASSIFIER_NAME, 1)
    again = release_classifier(workspace, tracking)
    assert again is not None
    assert (again.version, again.created) == (1, False)
    mlflow.set_tracking_uri(tracking.uri)
    try:
        model = mlflow.pyfunc.load_model(f"models:/{CLASSIFIER_NAME}@{CHAMPION}")
    finally:
        mlflow.set_tracking_uri(None)  # pyright: ignore[reportArgumentType]  # unsets it
    (row,) = model.predict(example_ecg(), params={"sampling_rate": 100.0})
    assert list(row) == ["NORM", "MI", "STTC", "CD", "HYP"]
    np.testing.assert_allclose(list(row.values()), expected_of(packaged_classifier(*files(workspace)))[0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("own_code", [False, True])
def test_the_champion_is_contested_as_it_is_served(workspace, tracking, tmp_path, own_code):
    """Another head on the same encoder: a champion that tells MI the wrong way round, and has a label more.

    own_code: it was registered with other code, which tells every label the other way round.
    """
    encoder, head = files(workspace)
    own_head = CalibratedHead.load(head)
    turned = np.where(np.array(own_head.labels) == "MI", -1.0, 1.0)
    champion = CalibratedHead(
        labels=(*own_head.labels, "PACE"),
        weight_CD=np.vstack([own_head.weight_CD * turned[:, None], own_head.weight_CD[:1]]),
        bias_C=np.append(own_head.bias_C * turned, 0.0),
        slope_C=np.append(own_head.slope_C, 1.0),
        intercept_C=np.append(own_head.intercept_C, 0.0),
    )
    (tmp_path / HEAD_FILE).write_bytes(champion.to_bytes())
    packaged = packaged_classifier(encoder, tmp_path / HEAD_FILE)
    about = {"provenance": {"ecgs": "simulated"}, "recipe": {}, "git_commit": "g", "registered_name": CLASSIFIER_NAME}
    first = release_packaged(packaged, Scores(), tracking=tracking, **about)
    promote(record(first, PASSED, tracking=tracking), tracking=tracking)
    if own_code:
        edit_code(first, tracking, "serving/classify.py", "else expit(", "else 1 - expit(")
    release_current(workspace, tracking, simulated=True)
    judged = judge_classifier(workspace, tracking, config=GateConfig(margin=0.99, label_margin=0.99))
    assert judged is not None
    _, verdict, contest = judged
    assert contest is not None
    scores = load_result(workspace.require(f"probe/{GATE_TASK}/pretrained").path).scores
    assert scores is not None
    assert scores.validation is not None
    auc = {score.name: score.auc.value for score in scores.validation.classes}
    for label, difference in contest.labels.items():
        turned_round = (label == "MI") != own_code
        assert difference.value == pytest.approx(2 * auc[label] - 1 if turned_round else 0.0, abs=1e-6), label
    assert contest.lost == ("PACE",)
    assert verdict.rules["no_label_lost"].seen == "it no longer has PACE"
    assert not verdict.promote


def test_without_a_scored_task_there_is_none(workspace, tracking):
    facts = ClassifierFacts.of(materialize_classifier(workspace, "cpsc2018"))
    assert not facts.scored
    assert facts.reason
    release_current(workspace, tracking, gate_task="cpsc2018", simulated=True)
    assert judge_classifier(workspace, tracking, config=GateConfig()) is None


@pytest.mark.slow
def test_it_is_served(workspace, tracking, tmp_path):
    release_current(workspace, tracking, simulated=True)
    release = release_classifier(workspace, tracking)
    assert release is not None
    port = free_port()
    serve = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", release.model_uri, "--port", str(port)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # it starts uvicorn by its name
    environment = {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": tracking.uri, "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [*serve, "--env-manager", "local"], stdout=log, stderr=log, env=environment, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while True:
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            try:
                if httpx.get(f"{address}/ping", timeout=1).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        ecgs = np.repeat(example_ecg(), 3, axis=0)
        expected = expected_of(packaged_classifier(*files(workspace)))[0]

        def ask(body: dict) -> httpx.Response:
            return httpx.post(f"{address}/invocations", json=body, timeout=60)

        for form in ("inputs", "instances"):
            answer = ask({form: ecgs.tolist(), "params": {"sampling_rate": 100.0}})
            assert answer.status_code == 200, answer.text
            rows = answer.json()["predictions"]
            assert len(rows) == 3
            np.testing.assert_allclose(list(rows[2].values()), expected, atol=1e-6)
        for body, message in (
            ({"inputs": ecgs.tolist()}, "sampling_rate 0.0: give the samples a second"),
            (
                {"inputs": (ecgs * 1000).tolist(), "params": {"sampling_rate": 100.0, "on_bad": "refuse"}},
                "divide microvolt by 1000",
            ),
            ({"inputs": ecgs[:, :5].tolist(), "params": {"sampling_rate": 100.0}}, "5 rows: give 12 leads"),
            ({"inputs": [["x"]], "params": {"sampling_rate": 100.0}}, "give (records, leads, samples)"),
            ({"nothing": 1}, ""),
        ):
            answer = ask(body)
            assert 400 <= answer.status_code < 500, answer.text
            assert message in answer.text
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
