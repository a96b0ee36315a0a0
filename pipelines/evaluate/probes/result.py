"""A probe's result, in memory and on disk.

    scores.json          task, encoder, ECGs and protocol, and the scores or the reason why there are none
    predictions.parquet  record_id, patient, split, y (one bool a class), score (one number a class)
    roc.parquet          class, false_positive_rate, true_positive_rate on the test split

Shapes: N records, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.durable import write_atomically
from pipelines.evaluate.statistics.bootstrap import Interval
from pipelines.evaluate.statistics.ranking import roc_points
from pipelines.formats.shard import write_table
from pipelines.tasks.splits import Split, unnamed

SCORES_FILE = "scores.json"
PREDICTIONS_FILE = "predictions.parquet"
ROC_FILE = "roc.parquet"


def labels_scored(scored: int, left_out: int) -> str:
    """Return over how many of a task's labels a macro figure is: `3 of 9`."""
    return f"{scored} of {scored + left_out}"


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """Scores of one class on one split."""

    name: str
    positives: int
    negatives: int
    auc: Interval
    average_precision: float


@dataclass(frozen=True, kw_only=True)
class SplitScores:
    """Scores on one split."""

    records: int
    patients: int
    """A record of no known patient counts as one patient (`Predictions.unnamed` counts those)."""
    macro_auc: Interval
    macro_average_precision: float
    classes: tuple[ClassScore, ...]
    omitted: dict[str, str]
    """Classes that are not in the macro means, each with the reason."""
    accuracy: Interval | None = None
    """Share of records whose most probable class is the true one; a class that was not in training counts as missed.
    None if classes do not exclude each other."""

    @property
    def labels(self) -> str:
        """Over how many of the task's labels the macro figures are."""
        return labels_scored(len(self.classes), len(self.omitted))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting that was tried, and its validation score: a penalty, or an optimiser's settings and an epoch."""

    validation_macro_auc: float
    penalty: float | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    epoch: int | None = None
    """Passes over the training records, from 1; 0 is the start of a fine-tuning."""


@dataclass(frozen=True, kw_only=True)
class ProbeScores:
    """A probe's scores, and the settings that were tried."""

    penalty: float | None
    """The chosen one; None for a head without a penalty."""
    trials: tuple[Trial, ...]
    validation: SplitScores | None
    """None if the protocol has no validation split."""
    test: SplitScores


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The probe's probabilities on validation and test, (N, C), with their records and targets."""

    classes: tuple[str, ...]
    """Classes with positives and negatives in the training split, so C may be less than the task's number."""
    record_id: tuple[str, ...]
    patient: tuple[str, ...]
    split_N: np.ndarray
    y_NC: np.ndarray
    score_NC: np.ndarray

    @property
    def unnamed(self) -> int:
        """The number of records of no known patient."""
        return unnamed(self.patient)

    def of(self, split: Split) -> Predictions:
        """Return the predictions on one split."""
        return self.rows(np.flatnonzero(self.split_N == split))

    def rows(self, rows: np.ndarray) -> Predictions:
        """Return the predictions of these records, by their numbers from 0."""
        return replace(
            self,
            record_id=tuple(self.record_id[i] for i in rows),
            patient=tuple(self.patient[i] for i in rows),
            split_N=self.split_N[rows],
            y_NC=self.y_NC[rows],
            score_NC=self.score_NC[rows],
        )


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """A probe's result: either `scores` and `predictions` are there, or `reason` says why not."""

    task: str
    classes: tuple[str, ...]
    """All of the task's."""
    counts: dict[str, int]
    """Records by split, `unused` (in no split of the protocol) and `unlabelled` (none of the task's classes, or several
    in a multi-class task); they add up to all records."""
    scores: ProbeScores | None = None
    predictions: Predictions | None = None
    reason: str | None = None


def write_result(folder: Path, result: ProbeResult, about: Mapping[str, Any]) -> None:
    """Write the result's files. about: what was probed and how, as JSON values."""
    predictions = result.predictions
    stored = {
        "task": result.task,
        "class_names": list(result.classes),
        "counts": result.counts,
        "reason": result.reason,
        "scores": None if result.scores is None else asdict(result.scores),
        "predicted_classes": [] if predictions is None else list(predictions.classes),
        "about": dict(about),
    }
    write_atomically(folder / SCORES_FILE, json.dumps(stored, indent=1, allow_nan=False).encode())
    if predictions is None:
        return
    columns = {
        "record_id": pa.array(predictions.record_id, pa.string()),
        "patient": pa.array(predictions.patient, pa.string()),
        "split": pa.array(predictions.split_N.tolist(), pa.string()),
        "y": pa.array(list(predictions.y_NC), pa.list_(pa.bool_())),
        "score": pa.array(list(predictions.score_NC), pa.list_(pa.float64())),
    }
    write_table(folder / PREDICTIONS_FILE, pa.table(columns))
    write_table(folder / ROC_FILE, roc_table(result))


def load_result(folder: Path) -> ProbeResult:
    """Read the result in a probe product's directory."""
    stored = json.loads((folder / SCORES_FILE).read_text())
    if stored["scores"] is None:
        return _result(stored, None, None)
    table = pq.read_table(folder / PREDICTIONS_FILE)
    classes = tuple(stored["predicted_classes"])
    predictions = Predictions(
        classes=classes,
        record_id=tuple(table.column("record_id").to_pylist()),
        patient=tuple(table.column("patient").to_pylist()),
        split_N=np.asarray(table.column("split").to_pylist(), dtype="<U10"),
        y_NC=np.asarray(table.column("y").to_pylist(), dtype=bool),
        score_NC=np.asarray(table.column("score").to_pylist(), dtype=np.float64),
    )
    return _result(stored, _scores(stored["scores"]), predictions)


def load_scores(folder: Path) -> ProbeScores | None:
    """Read the scores alone, without the predictions; None if the task was not scored."""
    stored = json.loads((folder / SCORES_FILE).read_text())["scores"]
    return None if stored is None else _scores(stored)


def roc_table(result: ProbeResult) -> pa.Table:
    """Return the test split's ROC curves: class, false_positive_rate, true_positive_rate, a row a corner of a curve."""
    assert result.scores is not None
    assert result.predictions is not None
    part = result.predictions.of(Split.TEST)
    names, false, true = [], [], []
    for scored in result.scores.test.classes:
        c = part.classes.index(scored.name)
        false_rate, true_rate = roc_points(part.y_NC[:, c], part.score_NC[:, c])
        names += [scored.name] * len(false_rate)
        false += false_rate.tolist()
        true += true_rate.tolist()
    return pa.table({"class": names, "false_positive_rate": false, "true_positive_rate": true})


def load_roc(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the test split's ROC curves in a probe product's directory: false and true positive rates by class."""
    table = pq.read_table(folder / ROC_FILE)
    names = np.asarray(table["class"].to_pylist())
    false, true = (table[name].to_numpy() for name in ("false_positive_rate", "true_positive_rate"))
    return {name: (false[names == name], true[names == name]) for name in dict.fromkeys(names.tolist())}


def _result(stored: Mapping[str, Any], scores: ProbeScores | None, predictions: Predictions | None) -> ProbeResult:
    return ProbeResult(
        task=stored["task"],
        classes=tuple(stored["class_names"]),
        counts=stored["counts"],
        scores=scores,
        predictions=predictions,
        reason=stored["reason"],
    )


def _scores(stored: Mapping[str, Any]) -> ProbeScores:
    return ProbeScores(
        penalty=stored["penalty"],
        trials=tuple(Trial(**t) for t in stored["trials"]),
        validation=None if stored["validation"] is None else _split_scores(stored["validation"]),
        test=_split_scores(stored["test"]),
    )


def _split_scores(stored: Mapping[str, Any]) -> SplitScores:
    classes = tuple(ClassScore(**{**c, "auc": Interval(**c["auc"])}) for c in stored["classes"])
    accuracy = None if stored.get("accuracy") is None else Interval(**stored["accuracy"])
    macro_auc = Interval(**stored["macro_auc"])
    return SplitScores(**{**stored, "macro_auc": macro_auc, "classes": classes, "accuracy": accuracy})
