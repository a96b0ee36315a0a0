"""Fit a probe on the training split, choose on validation, and score the test split once.

A task with too few records is not an error: its result has `scores` None and a reason.
Shapes: N records, C classes, R resamples; the rest is the head's (`heads`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from ecg_model.encoder import Encoder
from pipelines.evaluate.features import (
    Rows,
)
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.heads import FitProblem, Head, Logistic, PaperLoop, scorable
from pipelines.evaluate.probes.result import (
    ClassScore,
    Predictions,
    ProbeResult,
    ProbeScores,
    SplitScores,
)
from pipelines.evaluate.statistics.bootstrap import InsufficientData, PairedDifference, interval, resample_patients
from pipelines.evaluate.statistics.paired import paired_difference
from pipelines.evaluate.statistics.ranking import auc, average_precision, resampled_auc, why_not_scorable
from pipelines.tasks.catalogue import LabelTask
from pipelines.tasks.splits import Split, patients, require_whole_patients


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Test macro AUC of a first encoder minus that of a second, on the same records."""

    task: str
    classes: tuple[str, ...]
    records: int
    difference: PairedDifference


def run_probe(
    task: LabelTask,
    x: Rows,
    records: pa.Table,
    config: ProbeConfig | None = None,
    *,
    head: Head | None = None,
    encoder: Callable[[], Encoder] | None = None,
    folder: Path | None = None,
) -> ProbeResult:
    """Fit, choose and score a probe. records: the columns of records.parquet and `partition`, row i for row i of x.

    x: what the head takes. head: the linear one that `config` describes where it is None. encoder, folder: see
    `heads.Problem`. Raises ValueError for a protocol that cannot choose, for a patient in two splits and for tables
    that do not fit.
    """
    config = config or ProbeConfig()
    head = head or linear_head(config)
    check_choice(task, head)
    if len(x) != records.num_rows:
        raise ValueError(f"{len(x)} rows of features for {records.num_rows} records: compute them again")
    y_NC, names = task.targets(records)
    split_N = task.protocol.split(records)
    patient_N = np.asarray(patients(records), dtype=str)
    require_whole_patients(task.name, patient_N, split_N)
    labelled_N = task.takes_part(y_NC)
    counts = {str(split): int((labelled_N & (split_N == split)).sum()) for split in Split}
    counts["unlabelled"] = int((~labelled_N).sum())
    split_N[~labelled_N] = Split.UNUSED
    unscored = ProbeResult(task=task.name, classes=names, counts=counts)
    try:
        _check_size(patient_N, split_N, task, config)
        taught_C = _taught_classes(y_NC[split_N == Split.TRAIN])
        problem = FitProblem(
            x=x,
            y_NC=y_NC[:, taught_C],
            train=np.flatnonzero(split_N == Split.TRAIN),
            validation=np.flatnonzero(split_N == Split.VALIDATION),
            multi_class=task.kind == "multi-class",
            seed=config.seed,
            min_positives=config.min_positives,
            encoder=encoder,
            folder=folder,
        )
        fit = head.fit(problem)
        held_out = np.flatnonzero(np.isin(split_N, (Split.VALIDATION, Split.TEST)))
        record_id = np.asarray(records.column("record_id").to_pylist(), dtype=object)
        predictions = Predictions(
            classes=tuple(np.asarray(names)[taught_C].tolist()),
            record_id=tuple(record_id[held_out].tolist()),
            patient=tuple(patient_N[held_out].tolist()),
            split_N=split_N[held_out],
            y_NC=problem.y_NC[held_out],
            score_NC=fit.model.probabilities(x, held_out),
        )
        scores = ProbeScores(
            penalty=fit.penalty,
            trials=fit.trials,
            validation=_score(predictions, Split.VALIDATION, task, config) if task.protocol.has_validation else None,
            test=_score(predictions, Split.TEST, task, config),
        )
    except InsufficientData as too_few:
        return replace(unscored, reason=str(too_few))
    return replace(unscored, scores=scores, predictions=predictions)


def linear_head(config: ProbeConfig) -> Head:
    """The plain probe's head."""
    return PaperLoop() if config.solver == "adamw" else Logistic(penalties=config.penalties)


def compare(first: ProbeResult, second: ProbeResult, config: ProbeConfig | None = None) -> Comparison:
    """Paired bootstrap, by patient, of two encoders' test macro AUCs over the classes that were scored.

    Raises InsufficientData where one of them was not scored, and ValueError where they are not about the same records.
    """
    config = config or ProbeConfig()
    for result in (first, second):
        if result.scores is None:
            raise InsufficientData(f"task {result.task} was not scored: {result.reason}")
    assert first.scores is not None
    assert first.predictions is not None
    assert second.predictions is not None
    a, b = first.predictions.of(Split.TEST), second.predictions.of(Split.TEST)
    same = first.task == second.task and (a.classes, a.record_id, a.patient) == (b.classes, b.record_id, b.patient)
    if not same or not np.array_equal(a.y_NC, b.y_NC):
        raise ValueError(
            f"two probes on different test records ({first.task}: {len(a.record_id)}, {second.task}: "
            f"{len(b.record_id)}): probe both encoders again on the same shards and protocol"
        )
    scored = tuple(c.name for c in first.scores.test.classes)
    column = [a.classes.index(name) for name in scored]
    times_RN = resample_patients(a.patient, resamples=config.resamples, seed=config.seed)
    difference = paired_difference(
        a.y_NC[:, column], a.score_NC[:, column], b.score_NC[:, column], times_RN, config.confidence
    )
    return Comparison(task=first.task, classes=scored, records=len(a.record_id), difference=difference)


def check_choice(task: LabelTask, head: Head) -> None:
    if head.chooses and not task.protocol.has_validation:
        raise ValueError(
            f"task {task.name} has no validation split to choose on, and {head.to_dict()} chooses: give a single "
            "penalty, or solver='adamw'"
        )


def _check_size(patient_N: np.ndarray, split_N: np.ndarray, task: LabelTask, config: ProbeConfig) -> None:
    needed = [Split.TRAIN, Split.VALIDATION, Split.TEST] if task.protocol.has_validation else [Split.TRAIN, Split.TEST]
    have = {str(split): len(np.unique(patient_N[split_N == split])) for split in needed}
    if min(have.values()) < config.min_patients:
        listed = ", ".join(f"{split} {count}" for split, count in have.items())
        raise InsufficientData(f"labelled patients by split: {listed}; each needs {config.min_patients}")


def _taught_classes(y_NC: np.ndarray) -> np.ndarray:
    """The columns with something to learn from, at least one."""
    taught_C = [c for c in range(y_NC.shape[1]) if why_not_scorable(y_NC[:, c]) is None]
    if not taught_C:
        raise InsufficientData("no class has both positives and negatives in the training split")
    return np.asarray(taught_C)


def _score(predictions: Predictions, split: Split, task: LabelTask, config: ProbeConfig) -> SplitScores:
    part = predictions.of(split)
    scorable_C, unscorable = scorable(part.y_NC, config.min_positives, split)
    y_NC, score_NC = part.y_NC[:, scorable_C], part.score_NC[:, scorable_C]
    auc_C = auc(y_NC, score_NC)
    precision_C = average_precision(y_NC, score_NC)
    times_RN = resample_patients(part.patient, resamples=config.resamples, seed=config.seed)
    resampled_RC = resampled_auc(y_NC, score_NC, times_RN)
    classes = tuple(
        ClassScore(
            name=part.classes[c],
            positives=int(y_NC[:, i].sum()),
            negatives=int((~y_NC[:, i]).sum()),
            auc=interval(auc_C[i], resampled_RC[:, i], config.confidence),
            average_precision=float(precision_C[i]),
        )
        for i, c in enumerate(scorable_C)
    )
    untaught = {name: "no positives, or no negatives, to train on" for name in task.names if name not in part.classes}
    return SplitScores(
        records=len(part.record_id),
        patients=len(set(part.patient)),
        macro_auc=interval(auc_C.mean(), resampled_RC.mean(axis=1), config.confidence),
        macro_average_precision=float(precision_C.mean()),
        classes=classes,
        omitted=untaught | {part.classes[c]: reason for c, reason in unscorable.items()},
        accuracy=interval(*accuracy(part, times_RN), config.confidence) if task.kind == "multi-class" else None,
    )


def accuracy(part: Predictions, times_RN: np.ndarray) -> tuple[float, np.ndarray]:
    """Share of records whose most probable class is theirs, and that of each resample, (R,); of a class that was not
    taught, none is."""
    right_N = part.y_NC[np.arange(len(part.y_NC)), part.score_NC.argmax(axis=1)]
    return float(right_N.mean()), times_RN @ right_N / times_RN.sum(axis=1)
