"""Average precision, F1, Brier score and reliability of a probe's test predictions, beside AUC. Pure.

Nothing is chosen on test: the thresholds of F1 are chosen on validation, for labels with enough positives there.
Probabilities of a multi-class task are taken class by class, each against the rest. Macro figures are means over the
labels that were scored; F1 is the mean over those of them with a threshold.

Shapes: N records, C labels, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import ClassScore, ProbeResult, ProbeScores
from pipelines.evaluate.statistics import calibration
from pipelines.evaluate.statistics.bootstrap import Interval, interval, resample_patients
from pipelines.evaluate.statistics.calibration import ReliabilityBin
from pipelines.evaluate.statistics.ranking import resampled_average_precision
from pipelines.tasks.splits import Split


@dataclass(frozen=True, kw_only=True)
class LabelAssessment:
    """All test figures of one label."""

    name: str
    positives: int
    negatives: int
    auc: Interval
    average_precision: Interval
    threshold: float | None
    """Of F1; None if validation has too few positives to choose one on."""
    f1: Interval | None
    """None without a threshold."""
    brier: Interval
    reliability: tuple[ReliabilityBin, ...]
    undefined: int
    """Resamples without a positive or without a negative of the label; they take no part in its intervals."""


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Macro figures of a probe on the test split, and each label's."""

    auc: Interval
    average_precision: Interval
    f1: Interval | None
    """None if no label has a threshold."""
    brier: Interval
    validation_auc: Interval | None
    """None if the protocol has no validation split."""
    without_f1: dict[str, str]
    """Labels that are scored but not in the mean of F1, each with the reason."""
    not_validated: tuple[str, ...]
    """Labels in the test AUC that are not in the validation AUC."""
    validated_alone: tuple[str, ...]
    """Labels in the validation AUC that are not in the test AUC."""
    labels: tuple[LabelAssessment, ...]
    resamples: int
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Points:
    """Macro figures of an assessment without their intervals, which take long to compute."""

    average_precision: float
    f1: float | None
    brier: float


def points(result: ProbeResult, config: ProbeConfig) -> Points:
    """Compute the macro figures of a result that was scored.

    config: its `min_positives`, which a label needs on validation for a threshold.
    """
    assert result.scores is not None
    y_NC, score_NC, column = _scored(result)
    threshold_C, _ = _thresholds(result, column, config.min_positives)
    chosen_C = np.flatnonzero(np.isfinite(threshold_C))
    f1_C = calibration.f1(y_NC[:, chosen_C], score_NC[:, chosen_C], threshold_C[chosen_C])
    return Points(
        average_precision=result.scores.test.macro_average_precision,
        f1=float(f1_C.mean()) if len(f1_C) else None,
        brier=float(calibration.brier(y_NC, score_NC).mean()),
    )


def assess(result: ProbeResult, config: ProbeConfig) -> Assessment:
    """Assess a result that was scored. AUCs and their intervals are taken from the result.

    config: its bootstrap, and its `min_positives`, which a label needs on validation for a threshold.
    """
    assert result.scores is not None
    assert result.predictions is not None
    y_NC, score_NC, column = _scored(result)
    patient_N = result.predictions.of(Split.TEST).patient
    times_RN = resample_patients(patient_N, resamples=config.resamples, seed=config.seed)
    precision_RC = resampled_average_precision(y_NC, score_NC, times_RN)
    brier_RC = calibration.resampled_brier(y_NC, score_NC, times_RN)
    threshold_C, without_f1 = _thresholds(result, column, config.min_positives)
    chosen_C = np.flatnonzero(np.isfinite(threshold_C))  # the labels with a threshold
    f1_RC = calibration.resampled_f1(y_NC[:, chosen_C], score_NC[:, chosen_C], threshold_C[chosen_C], times_RN)
    f1_C = calibration.f1(y_NC[:, chosen_C], score_NC[:, chosen_C], threshold_C[chosen_C])
    f1_of = {int(c): interval(f1_C[i], f1_RC[:, i], config.confidence) for i, c in enumerate(chosen_C.tolist())}
    brier_C = calibration.brier(y_NC, score_NC)

    def label(c: int, score: ClassScore) -> LabelAssessment:
        return LabelAssessment(
            name=score.name,
            positives=score.positives,
            negatives=score.negatives,
            auc=score.auc,
            average_precision=interval(score.average_precision, precision_RC[:, c], config.confidence),
            threshold=float(threshold_C[c]) if c in f1_of else None,
            f1=f1_of.get(c),
            brier=interval(brier_C[c], brier_RC[:, c], config.confidence),
            reliability=calibration.reliability(y_NC[:, c], score_NC[:, c], times_RN, confidence=config.confidence),
            undefined=_undefined(y_NC[:, c], times_RN),
        )

    validation = result.scores.validation
    not_validated, validated_alone = _unpaired(result.scores)
    return Assessment(
        auc=result.scores.test.macro_auc,
        average_precision=interval(
            result.scores.test.macro_average_precision, precision_RC.mean(axis=1), config.confidence
        ),
        f1=interval(f1_C.mean(), f1_RC.mean(axis=1), config.confidence) if f1_of else None,
        brier=interval(brier_C.mean(), brier_RC.mean(axis=1), config.confidence),
        validation_auc=None if validation is None else validation.macro_auc,
        without_f1=without_f1,
        not_validated=not_validated,
        validated_alone=validated_alone,
        labels=tuple(label(c, score) for c, score in enumerate(result.scores.test.classes)),
        resamples=config.resamples,
        confidence=config.confidence,
    )


def _unpaired(scores: ProbeScores) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels that are scored on test alone, if there is a validation split, and on validation alone."""
    tested = [score.name for score in scores.test.classes]
    validated = [] if scores.validation is None else [score.name for score in scores.validation.classes]
    return (
        tuple(name for name in tested if validated and name not in validated),
        tuple(name for name in validated if name not in tested),
    )


def _scored(result: ProbeResult) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return test targets and scores of the labels that were scored there, (N, C) each, and their columns."""
    assert result.scores is not None
    assert result.predictions is not None
    test = result.predictions.of(Split.TEST)
    column = [test.classes.index(score.name) for score in result.scores.test.classes]
    return test.y_NC[:, column], test.score_NC[:, column], column


def _thresholds(result: ProbeResult, column: list[int], min_positives: int) -> tuple[np.ndarray, dict[str, str]]:
    """Return the threshold of the best F1 on validation of each column, (C,), and the reasons of labels without one.

    A label with too few positives there has the threshold NaN and a reason, by its name.
    """
    assert result.predictions is not None
    validation = result.predictions.of(Split.VALIDATION)
    threshold_C, without = np.full(len(column), np.nan), {}
    for i, c in enumerate(column):
        positives = int(validation.y_NC[:, c].sum())
        if positives >= min_positives:
            threshold_C[i] = calibration.best_threshold(validation.y_NC[:, c], validation.score_NC[:, c])
        else:
            few = f"{positives} positives on validation, fewer than {min_positives}"
            without[validation.classes[c]] = few if len(validation.record_id) else "no validation split"
    return threshold_C, without


def _undefined(y_N: np.ndarray, times_RN: np.ndarray) -> int:
    """Count the resamples without a positive or without a negative."""
    times_RN = times_RN.astype(np.float64)
    return int(((times_RN @ y_N == 0) | (times_RN @ ~y_N == 0)).sum())
