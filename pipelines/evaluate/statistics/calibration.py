"""Calibration: scores to probabilities by a logistic curve, and F1, Brier score and reliability of probabilities.

Platt (Advances in Large Margin Classifiers, 1999), with his smoothed targets; solved as Lin, Lin and Weng (Machine
Learning 68, 2007) write the problem. The curve is fitted on held-out records. It has two numbers a label, so few
validation records do not overfit it; the order of records, so every AUC, stays the same if the slope is above 0.
Classes that exclude each other have one number for all, the temperature of their softmax.

Shapes: N records, C classes, R resamples, M records of a bin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax

from pipelines.evaluate.statistics.bootstrap import InsufficientData, Interval, interval


def fit_platt(logit_N: np.ndarray, y_N: np.ndarray) -> tuple[float, float]:
    """Fit slope and intercept to logits (N,) and targets (N,): probability = sigmoid(slope * logit + intercept).

    The slope is 0 if logits are no higher for positives than for negatives. Raises ValueError if y_N has no positive
    or no negative.
    """
    positives = int(y_N.sum())
    negatives = len(y_N) - positives
    if not positives or not negatives:
        raise ValueError(f"{positives} positives and {negatives} negatives: calibration needs both")
    target_N = np.where(y_N, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, intercept = parameters
        z_N = slope * logit_N + intercept
        error_N = expit(z_N) - target_N
        value = np.logaddexp(0.0, z_N) - target_N * z_N
        return float(value.mean()), np.array([(error_N * logit_N).mean(), error_N.mean()])

    solution = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)])
    return float(solution.x[0]), float(solution.x[1])


SLOPES = (0.05, 20.0)
"""Range of a softmax's slope. Beyond it validation says no more than that all records were right, or none."""


def fit_temperature(logit_NC: np.ndarray, y_NC: np.ndarray) -> float:
    """Fit the temperature of a softmax (Guo et al., ICML 2017), and return its inverse: softmax(slope * logit).

    It minimises the log loss of the true classes, one a record, and changes no record's most probable class. Raises
    ValueError if no record has a class.
    """
    true_N = y_NC.any(axis=1)
    if not true_N.any():
        raise ValueError("no record of any class: calibration needs some")
    logit_NC, y_NC = logit_NC[true_N], y_NC[true_N]
    right_N = logit_NC[y_NC]

    def loss(slope_1: np.ndarray) -> tuple[float, np.ndarray]:
        scaled_NC = slope_1[0] * logit_NC
        value = np.mean(logsumexp(scaled_NC, axis=1)) - slope_1[0] * right_N.mean()
        gradient = (softmax(scaled_NC, axis=1) * logit_NC).sum(axis=1).mean() - right_N.mean()
        return float(value), np.array([gradient])

    return float(minimize(loss, np.array([1.0]), jac=True, method="L-BFGS-B", bounds=[SLOPES]).x[0])


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The records with a probability from `low` to below `high` (1 is in the last bin)."""

    low: float
    high: float
    records: int
    predicted: float
    """The mean of their probabilities."""
    observed: float
    """The share of them that are positive."""
    interval: Interval | None
    """Of `observed`; None if no resample has a record of the bin."""


def best_threshold(y_N: np.ndarray, score_N: np.ndarray) -> float:
    """Return the threshold with the highest F1, of equals the highest; scores from it on are called positive.

    It is chosen on validation and used on test. Raises ValueError if there is no positive.
    """
    if not y_N.any():
        raise ValueError("no positives to choose a threshold on: choose it on a split that has some")
    order = np.argsort(-score_N, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score_N[order])), len(order) - 1)
    true_positives = np.cumsum(y_N[order], dtype=np.int64)[last]
    # 2 TP / (called + positives), as in `f1`; argmax takes the first, which is the highest score.
    return float(score_N[order][last[np.argmax(2 * true_positives / (last + 1 + true_positives[-1]))]])


def f1(y_NC: np.ndarray, score_NC: np.ndarray, threshold_C: np.ndarray) -> np.ndarray:
    """Return the F1 of each class at its threshold, (C,): 2 TP / (called + positives).

    Every class needs a positive.
    """
    return np.ma.getdata(resampled_f1(y_NC, score_NC, threshold_C, np.ones((1, len(y_NC)), np.int64)))[0]


def resampled_f1(
    y_NC: np.ndarray, score_NC: np.ndarray, threshold_C: np.ndarray, times_RN: np.ndarray
) -> np.ma.MaskedArray:
    """Return the F1 of each class in each resample, (R, C), masked if the resample has no positive of the class."""
    called_NC = score_NC >= threshold_C
    times_RN = times_RN.astype(np.float64)  # BLAS has no integers; counts are exact in float64
    true_positives_RC = times_RN @ (called_NC & y_NC)
    called_RC, positives_RC = times_RN @ called_NC, times_RN @ y_NC
    value_RC = np.zeros_like(true_positives_RC)
    np.divide(2 * true_positives_RC, called_RC + positives_RC, out=value_RC, where=positives_RC > 0)
    return np.ma.MaskedArray(value_RC, mask=positives_RC == 0)


def brier(y_NC: np.ndarray, probability_NC: np.ndarray) -> np.ndarray:
    """Return the mean squared distance of probability and outcome of each class, (C,).

    0 is perfect. The same probability p for all records, p being the class's share of them, scores p (1 - p).
    """
    return ((probability_NC - y_NC) ** 2).mean(axis=0)


def resampled_brier(y_NC: np.ndarray, probability_NC: np.ndarray, times_RN: np.ndarray) -> np.ndarray:
    """Return the Brier score of each class in each resample, (R, C); it is defined in all of them."""
    times_RN = times_RN.astype(np.float64)
    return times_RN @ (probability_NC - y_NC) ** 2 / times_RN.sum(axis=1, keepdims=True)


def reliability(
    y_N: np.ndarray, probability_N: np.ndarray, times_RN: np.ndarray, *, bins: int = 10, confidence: float = 0.95
) -> tuple[ReliabilityBin, ...]:
    """Compare predicted probabilities with observed shares in equal bins from 0 to 1; empty bins are left out.

    times_RN: how often each record is drawn in each resample.
    Raises ValueError if a probability is not between 0 and 1.
    """
    if not ((probability_N >= 0) & (probability_N <= 1)).all():
        raise ValueError("reliability needs probabilities from 0 to 1: give those, not logits or ranks")
    bin_N = np.minimum((probability_N * bins).astype(int), bins - 1)
    filled = []
    for b in np.unique(bin_N):
        inside_N = bin_N == b
        # The resamples' records of this bin; a resample without any has no share.
        times_RM = times_RN[:, inside_N].astype(np.float64)
        drawn_R, positives_R = times_RM.sum(axis=1), times_RM @ y_N[inside_N]
        share_R = np.ma.MaskedArray(np.divide(positives_R, drawn_R, where=drawn_R > 0, out=np.zeros_like(drawn_R)))
        share_R.mask = drawn_R == 0
        observed = float(y_N[inside_N].mean())
        filled.append(
            ReliabilityBin(
                low=float(b / bins),
                high=float((b + 1) / bins),
                records=int(inside_N.sum()),
                predicted=float(probability_N[inside_N].mean()),
                observed=observed,
                interval=_interval(observed, share_R, confidence),
            )
        )
    return tuple(filled)


def _interval(value: float, resampled_R: np.ndarray, confidence: float) -> Interval | None:
    """Return the interval, or None if all resamples are masked."""
    try:
        return interval(value, resampled_R, confidence)
    except InsufficientData:
        return None
