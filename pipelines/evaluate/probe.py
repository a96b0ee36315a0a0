"""A frozen encoder's linear probe: fitted on the training split, chosen on validation, tested once.

`run_probe` is a function of arrays; `materialize_probe` puts it on the harmonized shards of a workspace. A task that
has too few records is not an error: its result says `scores` None and the reason.
Shapes: N records, D features, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipelines import versions
from pipelines.evaluate import linear, statistics
from pipelines.evaluate.features import (
    EncoderSource,
    FeatureConfig,
    Progress,
    materialize_features,
    read_features,
    shards_of,
)
from pipelines.evaluate.result import (
    ClassScore,
    Predictions,
    ProbeResult,
    ProbeScores,
    SplitScores,
    Trial,
    write_result,
)
from pipelines.evaluate.statistics import InsufficientData, PairedDifference
from pipelines.labels import LabelTask, Split, patients
from pipelines.stage import Product, Workspace, digest_of
from pipelines.store import RECORDS, open_shard


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """The probe's protocol.

    solver: `logistic` solves the L2-penalised problem for each penalty and keeps the one with the best validation
    macro AUC; `adamw` is the paper's loop, which chooses nothing. penalties: see `linear.fit_path`; embeddings of small
    encoders lie near a few axes and want the weak ones, wide embeddings of few records the strong ones; two in a row
    that are no better than the best end the search, since the weakest cost most. min_patients: a
    split with fewer is not scored. min_positives: a class with fewer in a split is left out of that split, by name.
    resamples, confidence: of the bootstrap by patient.
    """

    solver: Literal["logistic", "adamw"] = "logistic"
    penalties: tuple[float, ...] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    min_patients: int = 20
    min_positives: int = 1
    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.solver not in ("logistic", "adamw"):
            raise ValueError(f"solver={self.solver!r}: use 'logistic' or 'adamw'")
        falling = all(a > b for a, b in zip(self.penalties, self.penalties[1:], strict=False))
        if not self.penalties or not falling or self.penalties[-1] <= 0:
            raise ValueError(f"penalties={self.penalties}: give positive numbers, strongest first")
        for name, least in (("min_patients", 2), ("min_positives", 1), ("resamples", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: use at least {least}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence={self.confidence}: use a share between 0 and 1, such as 0.95")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Test macro AUC of a first encoder minus that of a second, on the same records."""

    task: str
    classes: tuple[str, ...]
    records: int
    difference: PairedDifference


def run_probe(
    task: LabelTask, feature_ND: np.ndarray, records: pa.Table, config: ProbeConfig | None = None
) -> ProbeResult:
    """Fit, choose and score a probe. records: the columns of records.parquet and `partition`, row i for feature row i.

    Raises ValueError for a protocol that cannot choose, for a patient in two splits and for tables that do not fit.
    """
    config = config or ProbeConfig()
    _check_choice(task, config)
    if len(feature_ND) != records.num_rows:
        raise ValueError(f"{len(feature_ND)} rows of features for {records.num_rows} records: compute them again")
    y_NC, names = task.targets(records)
    split_N = task.protocol.split(records)
    patient_N = np.asarray(patients(records), dtype=str)
    _check_patients(patient_N, split_N, task)
    labelled_N = task.takes_part(y_NC)
    counts = {str(split): int((labelled_N & (split_N == split)).sum()) for split in Split}
    counts["unlabelled"] = int((~labelled_N).sum())
    split_N[~labelled_N] = Split.UNUSED
    unscored = ProbeResult(task=task.name, classes=names, counts=counts)
    try:
        _check_size(patient_N, split_N, task, config)
        taught_C = _taught_classes(y_NC[split_N == Split.TRAIN])
        model, trials, penalty = _fit(feature_ND, y_NC[:, taught_C], split_N, task, config)
        held_out_N = np.isin(split_N, (Split.VALIDATION, Split.TEST))
        record_id = np.asarray(records.column("record_id").to_pylist(), dtype=object)
        predictions = Predictions(
            classes=tuple(np.asarray(names)[taught_C].tolist()),
            record_id=tuple(record_id[held_out_N].tolist()),
            patient=tuple(patient_N[held_out_N].tolist()),
            split_N=split_N[held_out_N],
            y_NC=y_NC[held_out_N][:, taught_C],
            score_NC=model.probabilities(feature_ND[held_out_N]),
        )
        scores = ProbeScores(
            penalty=penalty,
            trials=trials,
            validation=_score(predictions, Split.VALIDATION, names, config) if task.protocol.has_validation else None,
            test=_score(predictions, Split.TEST, names, config),
        )
    except InsufficientData as too_few:
        return replace(unscored, reason=str(too_few))
    return replace(unscored, scores=scores, predictions=predictions)


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
    times_RN = statistics.resample_patients(a.patient, resamples=config.resamples, seed=config.seed)
    difference = statistics.paired_difference(
        a.y_NC[:, column], a.score_NC[:, column], b.score_NC[:, column], times_RN, config.confidence
    )
    return Comparison(task=first.task, classes=scored, records=len(a.record_id), difference=difference)


def materialize_probe(
    workspace: Workspace,
    task: LabelTask,
    encoder: EncoderSource,
    config: ProbeConfig | None = None,
    features: FeatureConfig | None = None,
    progress: Progress | None = None,
) -> Product:
    """The product `probe/<task>/<encoder>`: the probe over all harmonized shards of the task's source.

    Features that are not there yet are computed first. Facts: `scored`, `reason`, the macro AUCs with intervals, and
    `data_digest`, of the ECGs, labels and protocol: scores of two encoders compare where it is the same.
    """
    config = config or ProbeConfig()
    features = features or FeatureConfig()
    _check_choice(task, config)
    shards = shards_of(workspace, task.source)
    ecgs = {product.name: product.digest for product in shards.values()}
    question = {"task": task.to_dict(), "probe": asdict(config), "precision": features.precision}
    data_digest = digest_of({"ecgs": ecgs, **question})
    embedded = materialize_features(workspace, encoder, task.source, features, progress)

    def make(folder: Path) -> dict[str, Any]:
        result = run_probe(task, read_features(embedded), read_records(shards), config)
        about = {
            "title": task.title,
            "encoder": {"name": encoder.name, "digest": encoder.digest},
            "data_digest": data_digest,
            "ecgs": ecgs,
            **question,
        }
        write_result(folder, result, about)
        return {"data_digest": data_digest, **_facts(result)}

    return workspace.build(
        f"probe/{task.name}/{encoder.name}",
        version=versions.PROBE,
        config={"encoder": encoder.digest, **question},
        inputs=ecgs | {product.name: product.digest for product in embedded.values()},
        make=make,
    )


def read_records(shards: Mapping[str, Product]) -> pa.Table:
    """The records of several shards, one after another in the mapping's order, with the column `partition`."""
    if not shards:
        return RECORDS.append(pa.field("partition", pa.string())).empty_table()
    tables = []
    for partition, product in shards.items():
        records = open_shard(product.path).records()
        tables.append(records.append_column("partition", pa.array([partition] * records.num_rows, pa.string())))
    return pa.concat_tables(tables)


def _check_choice(task: LabelTask, config: ProbeConfig) -> None:
    if config.solver == "logistic" and not task.protocol.has_validation and len(config.penalties) > 1:
        raise ValueError(
            f"penalties={config.penalties}: task {task.name} has no validation split to choose one on; "
            "give a single penalty, or solver='adamw'"
        )


def _check_patients(patient_N: np.ndarray, split_N: np.ndarray, task: LabelTask) -> None:
    """No patient on both sides: a probe that has seen the patient is not tested."""
    used_N = split_N != Split.UNUSED
    pairs = set(zip(patient_N[used_N].tolist(), split_N[used_N].tolist(), strict=True))
    torn = sorted(patient for patient, splits in Counter(patient for patient, _ in pairs).items() if splits > 1)
    if torn:
        raise ValueError(
            f"task {task.name}: {len(torn)} patients are in more than one split, such as {torn[0]}: "
            "use folds or partitions that keep a patient's records together"
        )


def _check_size(patient_N: np.ndarray, split_N: np.ndarray, task: LabelTask, config: ProbeConfig) -> None:
    needed = [Split.TRAIN, Split.VALIDATION, Split.TEST] if task.protocol.has_validation else [Split.TRAIN, Split.TEST]
    have = {str(split): len(np.unique(patient_N[split_N == split])) for split in needed}
    if min(have.values()) < config.min_patients:
        listed = ", ".join(f"{split} {count}" for split, count in have.items())
        raise InsufficientData(f"labelled patients by split: {listed}; each needs {config.min_patients}")


def _taught_classes(y_NC: np.ndarray) -> np.ndarray:
    """The columns with something to learn from, at least one."""
    taught_C = [c for c in range(y_NC.shape[1]) if statistics.why_not_scorable(y_NC[:, c]) is None]
    if not taught_C:
        raise InsufficientData("no class has both positives and negatives in the training split")
    return np.asarray(taught_C)


def _fit(
    feature_ND: np.ndarray, y_NC: np.ndarray, split_N: np.ndarray, task: LabelTask, config: ProbeConfig
) -> tuple[linear.LinearModel, tuple[Trial, ...], float | None]:
    """The chosen probe, what was tried, and the chosen penalty; the stronger of two penalties that score the same."""
    x_ND, y_train_NC = feature_ND[split_N == Split.TRAIN], y_NC[split_N == Split.TRAIN]
    multi_class = task.kind == "multi-class"
    if config.solver == "adamw":
        return linear.fit_adamw(x_ND, y_train_NC, multi_class=multi_class, seed=config.seed), (), None
    path = linear.fit_path(x_ND, y_train_NC, config.penalties, multi_class=multi_class)
    if not task.protocol.has_validation:
        return next(path), (), config.penalties[0]
    held_ND, y_held_NC = feature_ND[split_N == Split.VALIDATION], y_NC[split_N == Split.VALIDATION]
    scorable_C, _ = _scorable(y_held_NC, config, Split.VALIDATION)
    models: list[linear.LinearModel] = []
    auc_by_trial: list[float] = []
    for model in path:
        score_NC = model.probabilities(held_ND)[:, scorable_C]
        models.append(model)
        auc_by_trial.append(float(statistics.auc(y_held_NC[:, scorable_C], score_NC).mean()))
        if len(models) - int(np.argmax(auc_by_trial)) > 2:
            break
    trials = tuple(
        Trial(penalty=penalty, validation_macro_auc=value)
        for penalty, value in zip(config.penalties, auc_by_trial, strict=False)
    )
    best = int(np.argmax(auc_by_trial))
    return models[best], trials, trials[best].penalty


def _scorable(y_NC: np.ndarray, config: ProbeConfig, split: Split) -> tuple[list[int], dict[int, str]]:
    """The columns that a split can score, at least one, and why not the others."""
    why = {c: statistics.why_not_scorable(y_NC[:, c], config.min_positives) for c in range(y_NC.shape[1])}
    scorable_C = [c for c, reason in why.items() if reason is None]
    if not scorable_C:
        raise InsufficientData(f"no class can be scored on the {split} split of {len(y_NC)} records")
    return scorable_C, {c: reason for c, reason in why.items() if reason is not None}


def _score(predictions: Predictions, split: Split, names: tuple[str, ...], config: ProbeConfig) -> SplitScores:
    part = predictions.of(split)
    scorable_C, unscorable = _scorable(part.y_NC, config, split)
    y_NC, score_NC = part.y_NC[:, scorable_C], part.score_NC[:, scorable_C]
    auc_C = statistics.auc(y_NC, score_NC)
    precision_C = statistics.average_precision(y_NC, score_NC)
    times_RN = statistics.resample_patients(part.patient, resamples=config.resamples, seed=config.seed)
    resampled_RC = statistics.resampled_auc(y_NC, score_NC, times_RN)
    classes = tuple(
        ClassScore(
            name=part.classes[c],
            positives=int(y_NC[:, i].sum()),
            negatives=int((~y_NC[:, i]).sum()),
            auc=statistics.interval(auc_C[i], resampled_RC[:, i], config.confidence),
            average_precision=float(precision_C[i]),
        )
        for i, c in enumerate(scorable_C)
    )
    untaught = {name: "no positives, or no negatives, to train on" for name in names if name not in part.classes}
    return SplitScores(
        records=len(part.record_id),
        patients=len(set(part.patient)),
        macro_auc=statistics.interval(auc_C.mean(), resampled_RC.mean(axis=1), config.confidence),
        macro_average_precision=float(precision_C.mean()),
        classes=classes,
        omitted=untaught | {part.classes[c]: reason for c, reason in unscorable.items()},
    )


def _facts(result: ProbeResult) -> dict[str, Any]:
    facts: dict[str, Any] = {"scored": result.scores is not None, "reason": result.reason, "counts": result.counts}
    if result.scores is not None:
        facts["test_macro_auc"] = asdict(result.scores.test.macro_auc)
        facts["omitted"] = result.scores.test.omitted
        if result.scores.validation is not None:
            facts["validation_macro_auc"] = asdict(result.scores.validation.macro_auc)
    return facts
