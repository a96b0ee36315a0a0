"""Fit a probe on the training split, choose on validation, and score the test split once.

A task with too few records is not an error: its result has `scores` None and a reason.
Shapes: N records, C classes, R resamples; the rest is the head's (`heads`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from ecg_model.ecg_encoder import ECGEncoder
from pipelines.evaluate.features import Rows
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.heads import FitProblem, Head, Logistic, Model, PaperLoop, scorable
from pipelines.evaluate.probes.result import ClassScore, Predictions, ProbeResult, ProbeScores, SplitScores
from pipelines.evaluate.statistics.bootstrap import InsufficientData, interval, resample_patients
from pipelines.evaluate.statistics.ranking import auc, average_precision, resampled_auc, why_not_scorable
from pipelines.program import Launch
from pipelines.tasks.catalogue import LabelTask
from pipelines.tasks.splits import Split, patients, require_whole_patients


def run_probe(
    task: LabelTask,
    x: Rows,
    records: pa.Table,
    config: ProbeConfig | None = None,
    *,
    head: Head | None = None,
    encoder: Callable[[], ECGEncoder] | None = None,
    folder: Path | None = None,
    launch: Launch | None = None,
) -> ProbeResult:
    """Fit, choose and score a probe.

    x: what the head takes, row i for row i of `records`.
    records: the columns of records.parquet, and `partition`.
    head: None is the linear one that `config` describes.
    encoder, folder, launch: see `heads.FitProblem`.
    Raises ValueError if the protocol has no split to choose on, a patient is in two splits, or the tables do not fit.
    """
    config = config or ProbeConfig()
    head = head or linear_head(config)
    check_choice(task, head)
    if len(x) != records.num_rows:
        raise ValueError(f"{len(x)} rows of features for {records.num_rows} records: compute them again")
    labelled = _label(task, records)
    unscored = ProbeResult(task=task.name, classes=task.names, counts=labelled.counts)
    try:
        _check_size(labelled.patient_N, labelled.split_N, task, config)
        taught_C = _taught_classes(labelled.y_NC[labelled.split_N == Split.TRAIN])
        problem = FitProblem(
            x=x,
            y_NC=labelled.y_NC[:, taught_C],
            train=np.flatnonzero(labelled.split_N == Split.TRAIN),
            validation=np.flatnonzero(labelled.split_N == Split.VALIDATION),
            multi_class=task.kind == "multi-class",
            seed=config.seed,
            min_positives=config.min_positives,
            encoder=encoder,
            folder=folder,
            launch=launch,
        )
        fit = head.fit(problem)
        predictions = _predict(fit.model, problem, tuple(task.names[c] for c in taught_C), labelled)
        validation, test = score_splits(predictions, task, config)
        scores = ProbeScores(penalty=fit.penalty, trials=fit.trials, validation=validation, test=test)
    except InsufficientData as too_few:
        return replace(unscored, reason=str(too_few))
    return replace(unscored, scores=scores, predictions=predictions)


@dataclass(frozen=True, kw_only=True)
class _Labelled:
    """A task's records with what is known of them."""

    y_NC: np.ndarray  # bool, of all the task's classes
    record_id: np.ndarray
    patient_N: np.ndarray
    split_N: np.ndarray  # UNUSED if the record has no label of the task
    counts: dict[str, int]  # as `ProbeResult.counts`


def _label(task: LabelTask, records: pa.Table) -> _Labelled:
    """Return targets, patients and splits of a task's records. Raises ValueError if a patient is in two splits."""
    y_NC, _ = task.targets(records)
    split_N = task.protocol.split(records)
    patient_N = np.asarray(patients(records), dtype=str)
    require_whole_patients(task.name, patient_N, split_N)
    labelled_N = task.takes_part(y_NC)
    counts = {str(split): int((labelled_N & (split_N == split)).sum()) for split in Split}
    counts["unlabelled"] = int((~labelled_N).sum())
    split_N[~labelled_N] = Split.UNUSED
    record_id = np.asarray(records.column("record_id").to_pylist(), dtype=object)
    return _Labelled(y_NC=y_NC, record_id=record_id, patient_N=patient_N, split_N=split_N, counts=counts)


def _predict(model: Model, problem: FitProblem, classes: tuple[str, ...], labelled: _Labelled) -> Predictions:
    """Return the fitted model's probabilities on the records of validation and test."""
    held_out = np.flatnonzero(np.isin(labelled.split_N, (Split.VALIDATION, Split.TEST)))
    return Predictions(
        classes=classes,
        record_id=tuple(labelled.record_id[held_out].tolist()),
        patient=tuple(labelled.patient_N[held_out].tolist()),
        split_N=labelled.split_N[held_out],
        y_NC=problem.y_NC[held_out],
        score_NC=model.probabilities(problem.x, held_out),
    )


def linear_head(config: ProbeConfig) -> Head:
    """Return the head of the plain linear probe."""
    return PaperLoop() if config.solver == "adamw" else Logistic(penalties=config.penalties)


def check_choice(task: LabelTask, head: Head) -> None:
    """Raise ValueError if the head chooses something and the task has no validation split."""
    if head.chooses and not task.protocol.has_validation:
        raise ValueError(
            f"task {task.name} has no validation split to choose on, and {head.to_dict()} chooses: give a single "
            "penalty, or solver='adamw'"
        )


def _check_size(patient_N: np.ndarray, split_N: np.ndarray, task: LabelTask, config: ProbeConfig) -> None:
    """Raise InsufficientData if a split has too few patients."""
    needed = [Split.TRAIN, Split.VALIDATION, Split.TEST] if task.protocol.has_validation else [Split.TRAIN, Split.TEST]
    counts = {str(split): len(np.unique(patient_N[split_N == split])) for split in needed}
    if min(counts.values()) < config.min_patients:
        listed = ", ".join(f"{split} {count}" for split, count in counts.items())
        raise InsufficientData(f"labelled patients by split: {listed}; each needs {config.min_patients}")


def _taught_classes(y_NC: np.ndarray) -> np.ndarray:
    """Return the classes with positives and negatives to learn from. Raises InsufficientData if there is none."""
    taught_C = [c for c in range(y_NC.shape[1]) if why_not_scorable(y_NC[:, c]) is None]
    if not taught_C:
        raise InsufficientData("no class has both positives and negatives in the training split")
    return np.asarray(taught_C)


def score_splits(
    predictions: Predictions, task: LabelTask, config: ProbeConfig
) -> tuple[SplitScores | None, SplitScores]:
    """Score predictions on validation, if the protocol has it, and on test.

    Of two classes that exclude each other the rarer one is scored: the other has the same AUC, and would count twice.
    Raises InsufficientData if no class can be scored on a split.
    """
    twice = _said_twice(predictions, task)
    validation = _score(predictions, Split.VALIDATION, task, config, twice) if task.protocol.has_validation else None
    return validation, _score(predictions, Split.TEST, task, config, twice)


def _said_twice(predictions: Predictions, task: LabelTask) -> dict[str, str]:
    """Return the more frequent one of two classes that exclude each other, with the reason why it is not scored."""
    if task.kind != "multi-class" or len(task.names) != 2 or len(predictions.classes) != 2:
        return {}
    often = int(predictions.y_NC.sum(axis=0).argmax())
    other = predictions.classes[1 - often]
    return {predictions.classes[often]: f"it is what is not {other}, so its AUC is the same"}


def _score(
    predictions: Predictions, split: Split, task: LabelTask, config: ProbeConfig, left_out: Mapping[str, str]
) -> SplitScores:
    """Score one split's predictions, with intervals by patient. left_out: classes not to score, with the reasons."""
    part = predictions.of(split)
    scorable_C, unscorable = scorable(part.y_NC, config.min_positives, split)
    unscorable |= {part.classes.index(name): reason for name, reason in left_out.items()}
    scorable_C = [c for c in scorable_C if c not in unscorable]
    if not scorable_C:
        raise InsufficientData(f"no class can be scored on the {split} split: {'; '.join(unscorable.values())}")
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
    """Return the share of records whose most probable class is the true one, and that of each resample, (R,).

    A class that was not in training is never the most probable one.
    """
    right_N = part.y_NC[np.arange(len(part.y_NC)), part.score_NC.argmax(axis=1)]
    return float(right_N.mean()), times_RN @ right_N / times_RN.sum(axis=1)
