"""The calibration of a classifier: its probe's scores to the probabilities that are served.

Labels that go together have a curve each (Platt). Labels that exclude each other share one temperature, so that a
record's probabilities still sum to 1 and no record's most probable label changes. Both are fitted on validation.
Shapes: N records, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, softmax

from pipelines.evaluate.probes.result import Predictions, ProbeScores
from pipelines.evaluate.statistics.calibration import fit_platt, fit_temperature
from pipelines.tasks.splits import Split


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """probability_C = sigmoid(slope_C * logit_C + intercept_C), or the softmax of the same over the labels."""

    labels: tuple[str, ...]
    slope_C: np.ndarray
    intercept_C: np.ndarray
    exclusive: bool = False
    """Whether the labels exclude each other."""

    def apply(self, score_NC: np.ndarray) -> np.ndarray:
        """Return the classifier's probabilities, (N, C), for these of its probe, (N, C)."""
        calibrated_NC = self.slope_C * _logits(score_NC, exclusive=self.exclusive) + self.intercept_C
        return softmax(calibrated_NC, axis=1) if self.exclusive else expit(calibrated_NC)


def fit_calibration(
    predictions: Predictions, scores: ProbeScores, *, exclusive: bool
) -> tuple[Calibration, tuple[str, ...]]:
    """Fit the calibration of a probe on validation. Also returns the labels whose probabilities stay the probe's.

    A label is calibrated if it has enough ECGs on validation to be scored.
    exclusive: whether the labels exclude each other; then all are calibrated, or none if none is scored
    """
    validation = predictions.of(Split.VALIDATION)
    scored = set() if scores.validation is None else {score.name for score in scores.validation.classes}
    labels = validation.classes
    if exclusive:
        slope = fit_temperature(_logits(validation.score_NC, exclusive=True), validation.y_NC) if scored else 1.0
        slope_C, intercept_C = np.full(len(labels), slope), np.zeros(len(labels))
        fitted = Calibration(labels=labels, slope_C=slope_C, intercept_C=intercept_C, exclusive=True)
        return fitted, () if scored else labels
    logit_NC = _logits(validation.score_NC, exclusive=False)
    curves, uncalibrated = [], []
    for column, label in enumerate(labels):
        curve = fit_platt(logit_NC[:, column], validation.y_NC[:, column]) if label in scored else (0.0, 0.0)
        # A slope that does not rise would turn the label's ranking round.
        if curve[0] <= 0:
            curve = (1.0, 0.0)
            uncalibrated.append(label)
        curves.append(curve)
    slope_C, intercept_C = np.array(curves).T
    return Calibration(labels=labels, slope_C=slope_C, intercept_C=intercept_C), tuple(uncalibrated)


def _logits(probability: np.ndarray, *, exclusive: bool) -> np.ndarray:
    """Recover a network's output, of any shape; of labels that exclude each other up to a constant of the record.

    A probability that is 0 or 1 in float64 counts as nearly so.
    """
    clipped = np.clip(probability, 1e-15, 1 - 1e-15)
    return np.log(clipped) if exclusive else logit(clipped)
