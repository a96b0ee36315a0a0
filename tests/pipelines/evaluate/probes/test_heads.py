"""Heads against independent implementations, and a head of one's own in the probe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score
from sklearn.neighbors import NearestCentroid

from pipelines.evaluate.features import Rows
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.fit import run_probe
from pipelines.evaluate.probes.heads import Fit, FitProblem, Logistic, NearestMean, PaperLoop, Takes
from pipelines.tasks.catalogue import LabelClass, LabelTask
from pipelines.tasks.splits import PAPER_FOLDS, FoldProtocol, Split

CLASSES = tuple(LabelClass(name=name, title=name, codes=(name,)) for name in ("A", "B", "C"))
TASK = LabelTask(
    name="three", title="Three", source="none", classes=CLASSES, protocol=FoldProtocol(), kind="multi-class"
)
QUICK = ProbeConfig(resamples=100)


def example(n: int = 900, d: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray, pa.Table]:
    """Three overlapping clusters far from zero, one class a record."""
    rng = np.random.default_rng(seed)
    kind_N = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    x_ND = (5 + 1.2 * rng.normal(size=(3, d))[kind_N] + rng.normal(size=(n, d))).astype(np.float32)
    columns = {
        "record_id": pa.array([f"r{i}" for i in range(n)]),
        "patient_id": pa.array([str(i) for i in range(n)]),
        "labels": pa.array([["ABC"[kind]] for kind in kind_N], pa.list_(pa.string())),
        "fold": pa.array([i % 10 + 1 for i in range(n)], pa.int8()),
    }
    return x_ND, kind_N, pa.table(columns)


def problem(x: Rows, kind_N: np.ndarray) -> FitProblem:
    fold_N = np.arange(len(kind_N)) % 10 + 1
    train, validation = np.flatnonzero(fold_N <= 8), np.flatnonzero(fold_N == 9)
    y_NC = np.eye(3, dtype=bool)[kind_N]
    return FitProblem(x=x, y_NC=y_NC, train=train, validation=validation, multi_class=True, seed=0)


@pytest.mark.parametrize("distance", ["euclid", "cosine"])
def test_the_nearest_mean_is_scikit_learns_nearest_centroid(distance):
    x_ND, kind_N, records = example()
    unit_ND = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True) if distance == "cosine" else x_ND
    posed = problem(x_ND, kind_N)
    oracle = NearestCentroid().fit(unit_ND[posed.train], kind_N[posed.train])
    rows = np.arange(len(x_ND))
    probability_NC = NearestMean(distance=distance).fit(posed).model.probabilities(x_ND, rows)
    assert probability_NC.sum(axis=1) == pytest.approx(1)
    if distance == "euclid":
        assert np.array_equal(probability_NC.argmax(axis=1), oracle.predict(unit_ND))
    else:
        mean_CD = oracle.centroids_ / np.linalg.norm(oracle.centroids_, axis=1, keepdims=True)
        assert np.array_equal(probability_NC.argmax(axis=1), (unit_ND @ mean_CD.T).argmax(axis=1))
    result = run_probe(TASK, x_ND, records, QUICK, head=NearestMean(distance=distance))
    assert result.scores is not None
    assert result.predictions is not None
    accuracy = result.scores.test.accuracy
    assert accuracy is not None
    part = result.predictions.of(Split.TEST)
    assert accuracy.value == accuracy_score(part.y_NC.argmax(axis=1), part.score_NC.argmax(axis=1))
    assert accuracy.low < accuracy.value < accuracy.high
    assert result.scores.trials == ()


def test_features_that_do_not_differ_give_even_chances_not_nan():
    _, kind_N, _ = example()
    same_ND = np.full((900, 6), 0.731, np.float32)
    probability_NC = NearestMean().fit(problem(same_ND, kind_N)).model.probabilities(same_ND, np.arange(900))
    assert probability_NC == pytest.approx(1 / 3, abs=1e-3)


def test_a_class_that_was_not_taught_counts_as_missed_in_the_accuracy():
    x_ND, kind_N, records = example()
    fold_N = np.asarray(records.column("fold"))
    keep_N = (kind_N != 2) | (fold_N > 8)
    thin = records.filter(pa.array(keep_N))
    result = run_probe(TASK, x_ND[keep_N], thin, QUICK, head=NearestMean())
    assert result.scores is not None
    assert result.predictions is not None
    assert result.predictions.classes == ("A", "B")
    assert result.scores.test.accuracy is not None
    test_N = fold_N == 10
    assert result.scores.test.accuracy.value <= (kind_N[test_N] != 2).mean()
    assert "C" in result.scores.test.omitted


def test_nearest_means_are_for_classes_that_exclude_each_other():
    x_ND, kind_N, _ = example()
    posed = problem(x_ND, kind_N)
    with pytest.raises(ValueError, match="multi-class"):
        NearestMean().fit(replace(posed, multi_class=False))
    with pytest.raises(ValueError, match="distance='manhattan'"):
        NearestMean(distance="manhattan")  # pyright: ignore[reportArgumentType]


def test_the_linear_heads_are_what_the_probe_does_by_itself():
    x_ND, _, records = example()
    plain = run_probe(TASK, x_ND, records, QUICK)
    assert plain.scores == run_probe(TASK, x_ND, records, QUICK, head=Logistic(penalties=QUICK.penalties)).scores
    paper, few = replace(TASK, protocol=PAPER_FOLDS), ProbeConfig(resamples=20, min_positives=1, solver="adamw")
    loop = run_probe(paper, x_ND[:300], records.slice(0, 300), few)
    assert loop.scores == run_probe(paper, x_ND[:300], records.slice(0, 300), few, head=PaperLoop()).scores
    assert loop.scores is not None
    assert loop.scores.validation is None


@dataclass(frozen=True)
class Sums:
    """A head on whole arrays of any shape that reads rows as it is told: the first channel's sum is class A's score."""

    takes: ClassVar[Takes] = "tokens"

    @property
    def chooses(self) -> bool:
        return False

    def to_dict(self) -> dict[str, Any]:
        return {"head": "sums"}

    def fit(self, problem: FitProblem) -> Fit:
        assert problem.x[problem.train].ndim == 3
        return Fit(model=self)

    def probabilities(self, x: Rows, rows: np.ndarray) -> np.ndarray:
        score_N = 1 / (1 + np.exp(-x[rows].sum(axis=(1, 2), dtype=np.float64)))
        return np.stack([score_N, (1 - score_N) / 2, (1 - score_N) / 2], axis=1)


def test_any_head_on_any_array_is_scored_alike(tmp_path):
    _, kind_N, records = example()
    noise = np.random.default_rng(1).normal(size=(900, 4, 2))
    np.save(tmp_path / "tokens.npy", ((kind_N == 0)[:, None, None] - 0.5 + noise).astype(np.float16))
    result = run_probe(TASK, np.load(tmp_path / "tokens.npy", mmap_mode="r"), records, QUICK, head=Sums())
    assert result.scores is not None
    auc = {scored.name: scored.auc.value for scored in result.scores.test.classes}
    assert auc["A"] > 0.85
    assert auc["A"] > auc["B"] > 0.5
