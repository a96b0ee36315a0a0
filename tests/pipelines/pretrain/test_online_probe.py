"""The online probe against scikit-learn, on a corpus in which one label is visible and another is not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge, RidgeClassifier, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ecg_model.config import AnyEncoderConfig, EncoderConfig
from ecg_model.encoder import Encoder
from ecg_model.encoder_file import random_encoder
from pipelines.cache import Product, Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.formats.shard import QUALITY, SIGNATURE_BYTES, ShardWriter
from pipelines.pretrain import online_probe
from pipelines.pretrain.online_probe import PENALTIES, OnlineProbe, auc, one_of_each, ridge
from tests.support.pretraining import TINY_RECIPES

CPU = torch.device("cpu")
FP32 = torch.autocast("cpu", enabled=False)
TINY = EncoderConfig(dim=16, depth=1, heads=2, drop_path=0.0)


# --- a corpus


@dataclass(frozen=True)
class Ecg:
    """An ECG known by its number, its first sample in microvolt. `slow`: it has a wave that others have not."""

    number: int
    patient: str | None = None
    labels: tuple[str, ...] = ()
    slow: bool = False

    def signal(self) -> np.ndarray:
        rng = np.random.default_rng(self.number)
        wave = 500 * np.sin(2 * np.pi * np.arange(2500) / 250 + rng.uniform(0, 6)) if self.slow else 0.0
        x_LT = (rng.normal(0, 200, (8, 2500)) + wave).astype(np.int16)
        x_LT[0, 0] = self.number
        return x_LT


def shard(workspace: Workspace, name: str, ecgs: Sequence[Ecg]) -> Product:
    source = name.split("/")[0]

    def make(out: Path) -> dict[str, object]:
        writer = ShardWriter(out)
        for ecg in ecgs:
            row = {
                "source": source,
                "record_id": f"r{ecg.number}",
                "patient_id": ecg.patient,
                "rate": 250.0,
                "samples": 2500,
                "labels": list(ecg.labels),
                "notes": [],
                "content_hash": str(ecg.number),
                "signature": np.random.default_rng(ecg.number).bytes(SIGNATURE_BYTES),
                **{f"quality_{figure}": None for figure in QUALITY},
            }
            writer.append(ecg.signal(), row)
        writer.close()
        return {"entered": 0, "kept": 0, "dropped": {}, "role": "pretraining"}

    return workspace.build(f"ecgs/{name}", version="1", config={}, inputs={"of": str(ecgs)}, make=make)


def ecgs_of_chapman(first: int, count: int, per_patient: int) -> list[Ecg]:
    """`visible` is a slow wave; `hidden` is of every third ECG; `rare` of two; `common` of all but two."""
    ecgs = []
    for number in range(first, first + count):
        visible = np.random.default_rng([number, 1]).random() < 0.4
        labels = [
            *(["visible"] if visible else []),
            *(["hidden"] if number % 3 == 0 else []),
            *(["rare"] if number - first < 2 else []),
            *(["common"] if number - first >= 2 else []),
        ]
        ecgs.append(Ecg(number, f"p{number // per_patient}", tuple(labels), visible))
    return ecgs


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Product]:
    """chapman with labels and patients of three ECGs, in two shards; code15 with a label of its own and one that only
    has the name of another's; a hospital without labels."""
    workspace = Workspace(tmp_path_factory.mktemp("probed"))
    chapman = ecgs_of_chapman(1000, 240, per_patient=3)
    shard(workspace, "chapman/01", chapman[:150])
    shard(workspace, "chapman/02", chapman[150:])
    code15 = [
        Ecg(n, f"p{n}", ("visible",) if n % 4 == 0 else (), slow=n % 4 != 0)  # the same name, the other way round
        for n in range(3000, 3090)
    ]
    shard(workspace, "code15/0", code15)
    shard(workspace, "hospital/2026", [Ecg(n) for n in range(5000, 5060)])
    return workspace, materialize_corpus(workspace, CorpusConfig(validation_share=0.3))


def load(home: tuple[Workspace, Product]) -> OnlineProbe:
    workspace, corpus = home
    probe = OnlineProbe.load(workspace.root, corpus.path, CPU)
    assert probe is not None
    return probe


def numbers(probe: OnlineProbe, rows: np.ndarray) -> list[int]:
    return probe.signal_NLT[torch.from_numpy(rows), 0, 0].tolist()


def test_labels_are_used_where_both_parts_have_enough_of_them(
    home: tuple[Workspace, Product], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        probe = load(home)
    fitted, scored = (sum(len(getattr(p, part)) for p in probe.problems) for part in ("fit", "scored"))
    assert f"online probe: 3 labels, fitted on {fitted} ECGs, scored on {scored}" in caplog.text
    assert probe.names == ("chapman/hidden", "chapman/visible", "code15/visible")
    for problem in probe.problems:
        for has_NC, least in ((problem.fit_NC, 10), (problem.scored_MC, 3)):
            assert has_NC.sum(dim=0).min() >= least
            assert (~has_NC).sum(dim=0).min() >= least


def test_no_validation_patient_is_fitted_and_no_patient_comes_twice(home: tuple[Workspace, Product]) -> None:
    index = {row["record_id"]: row for row in pq.read_table(home[1].path / "index.parquet").to_pylist()}
    for problem in load(home).problems:
        source = problem.names[0].split("/")[0]
        patients = {}
        for rows, split in ((problem.fit, "train"), (problem.scored, "validation")):
            records = [index[f"r{number}"] for number in numbers(load(home), rows)]
            assert {(row["source"], row["split"]) for row in records} == {(source, split)}
            patients[split] = [row["patient_id"] for row in records]
            assert len(set(patients[split])) == len(records)
            everybody = {r["patient_id"] for r in index.values() if (r["source"], r["split"]) == (source, split)}
            assert set(patients[split]) == everybody
        assert not set(patients["train"]) & set(patients["validation"])


def test_labels_and_signals_are_those_of_their_records(home: tuple[Workspace, Product]) -> None:
    probe = load(home)
    chapman = {ecg.number: ecg for ecg in ecgs_of_chapman(1000, 240, per_patient=3)}
    problem = probe.problems[0]
    for rows, has_NC in ((problem.fit, problem.fit_NC), (problem.scored, problem.scored_MC)):
        for row, number, has_C in zip(rows, numbers(probe, rows), has_NC, strict=True):
            ecg = chapman[number]
            np.testing.assert_array_equal(probe.signal_NLT[row].numpy(), ecg.signal())
            assert has_C.tolist() == ["hidden" in ecg.labels, "visible" in ecg.labels]


def test_the_sample_is_limited_and_shared_by_the_labelled_sources(
    home: tuple[Workspace, Product], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online_probe, "FIT_RECORDS", 80)
    monkeypatch.setattr(online_probe, "SCORED_RECORDS", 40)
    probe = load(home)
    assert [(len(problem.fit), len(problem.scored)) for problem in probe.problems] == [(40, 20), (40, 20)]
    assert len(probe.signal_NLT) == 120


@given(persons=st.lists(st.integers(0, 20), max_size=60), limit=st.integers(0, 30))
@settings(deadline=None, max_examples=60)
def test_one_of_each_takes_as_many_persons_as_it_may(persons: list[int], limit: int) -> None:
    person_N = np.array([f"p{person}" for person in persons], dtype=str)
    rows = one_of_each(person_N, limit)
    assert len(rows) == min(limit, len(set(persons)))
    assert len({persons[row] for row in rows}) == len(rows)
    assert list(rows) == sorted(rows)
    np.testing.assert_array_equal(rows, one_of_each(person_N, limit))


# --- scores


@pytest.mark.parametrize("config", [TINY, TINY_RECIPES["cpc"].encoder], ids=["patches", "s4"])
def test_the_score_is_scikit_learns_on_the_encoders_embeddings(
    home: tuple[Workspace, Product], config: AnyEncoderConfig
) -> None:
    probe, encoder = load(home), random_encoder(config, 0)
    with torch.no_grad():
        feature_ND = encoder.embed(probe.signal_NLT.float() / 1000).double().numpy()
    areas = []
    for problem in probe.problems:
        for column in range(len(problem.names)):
            alphas = [penalty * len(problem.fit) for penalty in PENALTIES]
            model = make_pipeline(StandardScaler(), RidgeCV(alphas=alphas))
            model.fit(feature_ND[problem.fit], problem.fit_NC[:, column].double().numpy())
            predicted = model.predict(feature_ND[problem.scored])
            areas.append(roc_auc_score(problem.scored_MC[:, column].numpy(), predicted))
    figures = probe.score(encoder, FP32)
    assert figures == {"probe_auc": pytest.approx(np.mean(areas), abs=1e-3), "probe_labels": 3.0}
    hidden, visible, reversed_ = areas
    assert min(visible, reversed_) > 0.95  # a random encoder sees the wave
    assert hidden < 0.8


def test_the_score_is_repeated_to_the_bit_and_leaves_no_trace(home: tuple[Workspace, Product]) -> None:
    encoder = random_encoder(TINY, 1)
    state = torch.get_rng_state()
    for training in (True, False):
        encoder.train(training)
        first, second = load(home).score(encoder, FP32), load(home).score(encoder, FP32)
        assert first == second
        assert encoder.training is training
        assert encoder.blocks[0].training is training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_bfloat16_changes_the_score_a_little(home: tuple[Workspace, Product]) -> None:
    probe, encoder = load(home), random_encoder(TINY, 0)
    half = probe.score(encoder, torch.autocast("cpu", torch.bfloat16))
    assert half["probe_auc"] == pytest.approx(probe.score(encoder, FP32)["probe_auc"], abs=0.05)


def _with_patch_weights(value: float) -> Encoder:
    encoder = random_encoder(TINY, 0)
    with torch.no_grad():
        encoder.patch.weight.fill_(value)
    return encoder


def test_a_collapsed_encoder_scores_one_half(home: tuple[Workspace, Product]) -> None:
    assert load(home).score(_with_patch_weights(0.0), FP32)["probe_auc"] == 0.5


def test_a_diverged_encoder_scores_not_a_number(home: tuple[Workspace, Product]) -> None:
    assert np.isnan(load(home).score(_with_patch_weights(float("nan")), FP32)["probe_auc"])


def test_there_is_no_probe_without_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = Workspace(tmp_path)
    shard(workspace, "hospital/2026", [Ecg(n) for n in range(60)])
    corpus = materialize_corpus(workspace, CorpusConfig(validation_share=0.3))
    with caplog.at_level(logging.INFO):
        assert OnlineProbe.load(tmp_path, corpus.path, CPU) is None
    assert [record.message for record in caplog.records if record.name.endswith("online_probe")] == [
        "no online probe: no label has 10 training and 3 validation ECGs with it, and as many without"
    ]


def test_there_is_no_probe_where_labels_are_too_few(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    shard(workspace, "chapman/01", [Ecg(n, labels=("AF",) if n < 9 else ("SR",)) for n in range(60)])
    corpus = materialize_corpus(workspace, CorpusConfig(validation_share=0.3))
    assert OnlineProbe.load(tmp_path, corpus.path, CPU) is None


def test_a_shard_that_has_gone_is_told(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    gone = shard(workspace, "chapman/01", [Ecg(n) for n in range(4)])
    corpus = materialize_corpus(workspace, CorpusConfig())
    gone.path.rename(gone.path.with_name("elsewhere"))
    with pytest.raises(ValueError, match="harmonize the partition first"):
        OnlineProbe.load(tmp_path, corpus.path, CPU)


# --- ridge and AUC against scikit-learn


@given(records=st.integers(8, 60), dim=st.integers(1, 70), labels=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_ridge_is_scikit_learns_with_its_leave_one_out_penalty(records: int, dim: int, labels: int, seed: int) -> None:
    """Also where there are more features than records, and where some are copies or constant."""
    rng = np.random.default_rng(seed)
    x_ND = rng.normal(3, 2, (records, dim)) * rng.uniform(0.01, 10, dim)
    x_ND[:, dim // 2] = x_ND[:, 0]
    x_ND[:, dim // 3] = 0.1 if dim > 3 else x_ND[:, dim // 3]
    x_MD = rng.normal(3, 2, (7, dim))
    y_NC = rng.random((records, labels)) < 0.5
    y_NC[0], y_NC[1] = True, False
    scaler = StandardScaler().fit(x_ND)
    if dim > 3:
        x_MD[:, dim // 3] = 0.1  # ours gives a constant channel no weight whatever it is later
    predicted_MC = ridge(torch.from_numpy(x_ND), torch.from_numpy(y_NC), torch.from_numpy(x_MD)).numpy()
    for column in range(labels):
        oracle = RidgeCV(alphas=[penalty * records for penalty in PENALTIES])
        oracle.fit(scaler.transform(x_ND), y_NC[:, column].astype(float))
        np.testing.assert_allclose(predicted_MC[:, column], oracle.predict(scaler.transform(x_MD)), atol=1e-6)


@given(penalty=st.floats(1e-4, 10), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_ridge_with_one_penalty_ranks_as_scikit_learns_classifier(penalty: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x_ND, x_MD = rng.normal(size=(40, 6)), rng.normal(size=(15, 6))
    y_N = x_ND[:, 0] + rng.normal(size=40) > 0
    scaler = StandardScaler().fit(x_ND)
    z_ND, z_MD = scaler.transform(x_ND), scaler.transform(x_MD)
    ours_M = ridge(torch.from_numpy(x_ND), torch.from_numpy(y_N[:, None]), torch.from_numpy(x_MD), (penalty,))[:, 0]
    regression = Ridge(alpha=penalty * 40).fit(z_ND, y_N.astype(float))
    np.testing.assert_allclose(ours_M.numpy(), regression.predict(z_MD), atol=1e-9)
    classifier = RidgeClassifier(alpha=penalty * 40).fit(z_ND, y_N)
    np.testing.assert_allclose(2 * ours_M.numpy() - 1, classifier.decision_function(z_MD), atol=1e-9)


@given(records=st.integers(2, 80), labels=st.integers(1, 5), levels=st.integers(1, 30), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=80)
def test_the_auc_is_scikit_learns_ties_and_all(records: int, labels: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y_NC = rng.random((records, labels)) < 0.4
    y_NC[0], y_NC[-1] = True, False
    score_NC = rng.integers(0, levels, (records, labels)) / 7  # few levels: many ties
    ours_C = auc(torch.from_numpy(y_NC), torch.from_numpy(score_NC)).numpy()
    oracle_C = [roc_auc_score(y_NC[:, c], score_NC[:, c]) for c in range(labels)]
    np.testing.assert_allclose(ours_C, oracle_C, atol=1e-12)
