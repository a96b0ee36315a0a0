"""All that a probe's test predictions say beside AUC: average precision, F1, Brier score, reliability. Pure.

Nothing is chosen on test: the thresholds of F1 are validation's, of labels with enough positives there. Probabilities
of a multi-class task are taken class by class, each against the rest. Macro figures are means over the labels that were
scored, F1 over those of them with a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import ClassScore, ProbeResult
from pipelines.evaluate.statistics import calibration
from pipelines.evaluate.statistics.bootstrap import Interval, interval, resample_patients
from pipelines.evaluate.statistics.calibration import ReliabilityBin
from pipelines.evaluate.statistics.ranking import resampled_average_precision
from pipelines.tasks.splits import Split


@dataclass(frozen=True, kw_only=True)
class LabelAssessment:
    """threshold, f1: None where validation holds too few positives to choose a threshold on. undefined: resamples
    without a positive or without a negative of the label; they take no part in its intervals."""

    name: str
    positives: int
    negatives: int
    auc: Interval
    average_precision: Interval
    threshold: float | None
    f1: Interval | None
    brier: Interval
    reliability: tuple[ReliabilityBin, ...]
    undefined: int


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Macro figures of a probe on the test split, and each label's. f1: None where no label has a threshold.

    without_f1: labels that are scored but not in its mean, each with why. not_validated, validated_alone: labels that
    are in the test AUC and not in that on validation, and the other way round.
    """

    auc: Interval
    average_precision: Interval
    f1: Interval | None
    brier: Interval
    validation_auc: Interval | None
    without_f1: dict[str, str]
    not_validated: tuple[str, ...]
    validated_alone: tuple[str, ...]
    labels: tuple[LabelAssessment, ...]
    resamples: int
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Points:
    """Macro figures of an assessment without their intervals, which is what takes time."""

    average_precision: float
    f1: float | None
    brier: float


def points(result: ProbeResult, config: ProbeConfig) -> Points:
    """Of a result that was scored; config: the positives that a label needs on validation for a threshold."""
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
    """Assess a result that was scored; config: its resamples, and the positives that a label needs on validation for a
    threshold. AUCs and their intervals are the result's own."""
    assert result.scores is not None
    assert result.predictions is not None
    test = result.predictions.of(Split.TEST)
    scored = result.scores.test.classes
    y_NC, score_NC, column = _scored(result)
    times_RN = resample_patients(test.patient, resamples=config.resamples, seed=config.seed)
    precision_RC = resampled_average_precision(y_NC, score_NC, times_RN)
    brier_RC = calibration.resampled_brier(y_NC, score_NC, times_RN)
    threshold_C, without_f1 = _thresholds(result, column, config.min_positives)
    chosen_C = np.flatnonzero(np.isfinite(threshold_C))
    f1_RC = calibration.resampled_f1(y_NC[:, chosen_C], score_NC[:, chosen_C], threshold_C[chosen_C], times_RN)
    f1_C = calibration.f1(y_NC[:, chosen_C], score_NC[:, chosen_C], threshold_C[chosen_C])
    f1_of = {int(c): interval(f1_C[i], f1_RC[:, i], config.confidence) for i, c in enumerate(chosen_C.tolist())}
    brier_C = calibration.brier(y_NC, score_NC)
    undefined_C = _undefined(y_NC, times_RN)
    tested = [score.name for score in scored]
    validation = result.scores.validation
    validated = [] if validation is None else [score.name for score in validation.classes]

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
            undefined=int(undefined_C[c]),
        )

    return Assessment(
        auc=result.scores.test.macro_auc,
        average_precision=interval(
            result.scores.test.macro_average_precision, precision_RC.mean(axis=1), config.confidence
        ),
        f1=interval(f1_C.mean(), f1_RC.mean(axis=1), config.confidence) if f1_of else None,
        brier=interval(brier_C.mean(), brier_RC.mean(axis=1), config.confidence),
        validation_auc=None if validation is None else validation.macro_auc,
        without_f1=without_f1,
        not_validated=tuple(name for name in tested if validated and name not in validated),
        validated_alone=tuple(name for name in validated if name not in tested),
        labels=tuple(label(c, score) for c, score in enumerate(scored)),
        resamples=config.resamples,
        confidence=config.confidence,
    )


def _scored(result: ProbeResult) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Targets and scores on the test split of the labels that were scored there, (N, C) each, and their columns."""
    assert result.scores is not None
    assert result.predictions is not None
    test = result.predictions.of(Split.TEST)
    column = [test.classes.index(score.name) for score in result.scores.test.classes]
    return test.y_NC[:, column], test.score_NC[:, column], column


def _thresholds(result: ProbeResult, column: list[int], min_positives: int) -> tuple[np.ndarray, dict[str, str]]:
    """The threshold of the best F1 on validation of each column, (C,), NaN where too few positives are there; and, by
    name, why those have none."""
    assert result.predictions is not None
    held = result.predictions.of(Split.VALIDATION)
    threshold_C, without = np.full(len(column), np.nan), {}
    for i, c in enumerate(column):
        positives = int(held.y_NC[:, c].sum())
        if positives >= min_positives:
            threshold_C[i] = calibration.best_threshold(held.y_NC[:, c], held.score_NC[:, c])
        else:
            few = f"{positives} positives on validation, fewer than {min_positives}"
            without[held.classes[c]] = few if len(held.record_id) else "no validation split"
    return threshold_C, without


def _undefined(y_NC: np.ndarray, times_RN: np.ndarray) -> np.ndarray:
    times_RN = times_RN.astype(np.float64)
    return ((times_RN @ y_NC == 0) | (times_RN @ ~y_NC == 0)).sum(axis=0)
