"""Scores -> probabilities that come true as often as they say, by a logistic curve fitted on held-out records.

Platt (Advances in Large Margin Classifiers, 1999), with his smoothed targets; solved as Lin, Lin and Weng (Machine
Learning 68, 2007) write the problem. Two figures a label: few validation records do not overfit it, and the order of
records, so every AUC, stays where the slope is above 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pipelines.evaluate.statistics.bootstrap import InsufficientData, Interval, interval


def fit_platt(logit_N: np.ndarray, y_N: np.ndarray) -> tuple[float, float]:
    """Slope and intercept: probability = sigmoid(slope * logit + intercept). The slope is 0 where logits tell positives
    from negatives not at all, or the wrong way round.

    Raises ValueError where y_N holds no positive or no negative.
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

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)])
    return float(found.x[0]), float(found.x[1])


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The records whose probability lies from `low` to below `high` (1 is in the last bin).

    predicted: the mean of their probabilities. observed: the share of them that are positive; its interval is absent
    where no resample holds a record of the bin.
    """

    low: float
    high: float
    records: int
    predicted: float
    observed: float
    interval: Interval | None


def best_threshold(y_N: np.ndarray, score_N: np.ndarray) -> float:
    """The score from which on records are called positive for the highest F1; the highest of equals.

    To be chosen on validation and used on test. Raises ValueError where there is no positive.
    """
    if not y_N.any():
        raise ValueError("no positives to choose a threshold on: choose it on a split that holds some")
    order = np.argsort(-score_N, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score_N[order])), len(order) - 1)
    found = np.cumsum(y_N[order], dtype=np.int64)[last]
    # 2 TP / (called + positives), as in `f1`; argmax takes the first, which is the highest score.
    return float(score_N[order][last[np.argmax(2 * found / (last + 1 + found[-1]))]])


def f1(y_NC: np.ndarray, score_NC: np.ndarray, threshold_C: np.ndarray) -> np.ndarray:
    """F1 of each class at its threshold, (C,): 2 TP / (called + positives). Every class needs a positive."""
    return np.ma.getdata(resampled_f1(y_NC, score_NC, threshold_C, np.ones((1, len(y_NC)), np.int64)))[0]


def resampled_f1(
    y_NC: np.ndarray, score_NC: np.ndarray, threshold_C: np.ndarray, times_RN: np.ndarray
) -> np.ma.MaskedArray:
    """F1 of each class in each resample, (R, C), masked where a resample holds no positive of a class."""
    called_NC = score_NC >= threshold_C
    times_RN = times_RN.astype(np.float64)  # BLAS has no integers; counts are exact in float64
    found_RC = times_RN @ (called_NC & y_NC)
    called_RC, positives_RC = times_RN @ called_NC, times_RN @ y_NC
    value_RC = np.divide(2 * found_RC, called_RC + positives_RC, out=np.zeros_like(found_RC), where=positives_RC > 0)
    return np.ma.MaskedArray(value_RC, mask=positives_RC == 0)


def brier(y_NC: np.ndarray, probability_NC: np.ndarray) -> np.ndarray:
    """Mean squared distance of probability and outcome of each class, (C,): 0 is perfect, and a class' share p of the
    records scores p (1 - p) when said of everybody."""
    return ((probability_NC - y_NC) ** 2).mean(axis=0)


def resampled_brier(y_NC: np.ndarray, probability_NC: np.ndarray, times_RN: np.ndarray) -> np.ndarray:
    """Brier score of each class in each resample, (R, C); defined in all of them."""
    times_RN = times_RN.astype(np.float64)
    return times_RN @ (probability_NC - y_NC) ** 2 / times_RN.sum(axis=1, keepdims=True)


def reliability(
    y_N: np.ndarray, probability_N: np.ndarray, times_RN: np.ndarray, *, bins: int = 10, confidence: float = 0.95
) -> tuple[ReliabilityBin, ...]:
    """How often what was said with each probability came true, in equal bins from 0 to 1; empty bins are left out.

    Raises ValueError for probabilities outside 0 to 1.
    """
    if not ((probability_N >= 0) & (probability_N <= 1)).all():
        raise ValueError("reliability is of probabilities from 0 to 1: give those, not logits or ranks")
    bin_N = np.minimum((probability_N * bins).astype(int), bins - 1)
    found = []
    for b in np.unique(bin_N):
        inside_N = bin_N == b
        times_RM = times_RN[:, inside_N].astype(np.float64)
        drawn_R, positives_R = times_RM.sum(axis=1), times_RM @ y_N[inside_N]
        share_R = np.ma.MaskedArray(np.divide(positives_R, drawn_R, where=drawn_R > 0, out=np.zeros_like(drawn_R)))
        share_R.mask = drawn_R == 0
        observed = float(y_N[inside_N].mean())
        found.append(
            ReliabilityBin(
                low=float(b / bins),
                high=float((b + 1) / bins),
                records=int(inside_N.sum()),
                predicted=float(probability_N[inside_N].mean()),
                observed=observed,
                interval=_interval(observed, share_R, confidence),
            )
        )
    return tuple(found)


def _interval(value: float, resampled_R: np.ndarray, confidence: float) -> Interval | None:
    try:
        return interval(value, resampled_R, confidence)
    except InsufficientData:
        return None
