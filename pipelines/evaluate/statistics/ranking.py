"""AUC, average precision and their bootstrap by patient, vectorised over classes and resamples. Pure NumPy.

What a probability or a decision is worth, rather than an order, is in `calibration`.

Shapes: N records, C classes, R resamples. A class is scorable where it has positives and negatives; callers leave the
others out and name them (`why_not_scorable`), so no function here returns a NaN in place of a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

FAR_SIDE = 10
"""A difference with so many resamples on the far side of zero is drawn no more: its p is known well enough."""

BLOCK = 1000
"""Resamples that are held at once."""

_CACHED = 250  # resamples that are counted at once


class InsufficientData(ValueError):
    """There is too little to score: not a fault of the program or of a file, but the end of this one number."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate on the data as it is, and a bootstrap percentile interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """First minus second on the same records. p_value: two-sided, from the resamples on the far side of zero."""

    value: float
    low: float
    high: float
    p_value: float


def why_not_scorable(y_N: np.ndarray, min_positives: int = 1) -> str | None:
    """Why a class cannot be scored on these targets; None where it can."""
    positives = int(y_N.sum())
    if positives < min_positives:
        return f"{positives} positives among {len(y_N)} records, fewer than {min_positives}"
    if positives == len(y_N):
        return f"no negatives among {len(y_N)} records"
    return None


def auc(y_NC: np.ndarray, score_NC: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class, (C,): the Mann-Whitney statistic from mid-ranks, so ties count half.

    Raises ValueError for scores that are not finite and for a class without positives or without negatives.
    """
    _check(y_NC, score_NC)
    positives_C = y_NC.sum(axis=0, dtype=np.float64)
    negatives_C = len(y_NC) - positives_C
    rank_sum_C = np.where(y_NC, rankdata(score_NC, axis=0), 0.0).sum(axis=0)
    return (rank_sum_C - positives_C * (positives_C + 1) / 2) / (positives_C * negatives_C)


def average_precision(y_NC: np.ndarray, score_NC: np.ndarray) -> np.ndarray:
    """Area under the precision-recall curve of each class, (C,), as the step sum of precision over recall gained."""
    _check(y_NC, score_NC)
    result_C = np.empty(y_NC.shape[1])
    for c in range(y_NC.shape[1]):
        found, called = _cumulated(y_NC[:, c], score_NC[:, c])
        gained = np.diff(found, prepend=0)
        result_C[c] = (gained * found / called).sum() / found[-1]
    return result_C


def roc_points(y_N: np.ndarray, score_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates of one class from (0, 0) to (1, 1), without the points inside straight runs."""
    _check(y_N[:, None], score_N[:, None])
    found, called = _cumulated(y_N, score_N)
    true = np.concatenate([[0], found])
    false = np.concatenate([[0], called - found])
    d_true, d_false = np.diff(true), np.diff(false)
    corner = d_true[:-1] * d_false[1:] != d_true[1:] * d_false[:-1]
    keep = np.concatenate([[True], corner, [True]])
    return false[keep] / false[-1], true[keep] / true[-1]


def resample_patients(patient_N: Sequence[str], *, resamples: int, seed: int) -> np.ndarray:
    """How often each record is drawn when patients are drawn with replacement, int64 (R, N).

    Records of one patient are not independent, so they are drawn together.
    """
    names, patient_of_N = np.unique(np.asarray(patient_N, dtype=str), return_inverse=True)
    drawn = np.random.default_rng(seed).integers(0, len(names), size=(resamples, len(names)))
    flat = drawn + len(names) * np.arange(resamples)[:, None]
    times = np.bincount(flat.ravel(), minlength=resamples * len(names)).reshape(resamples, len(names))
    return times[:, patient_of_N]


def resampled_auc(y_NC: np.ndarray, score_NC: np.ndarray, times_RN: np.ndarray) -> np.ma.MaskedArray:
    """AUC of each class in each resample, (R, C), masked where a resample holds no positive or no negative of a class.

    The scores are sorted once a class; a resample only changes how often each record counts. In the sorted order,
    AUC = sum over groups of tied scores of  positives * (negatives below + negatives tied / 2)  / (P * N).
    All counts are whole numbers, which float32 holds exactly up to 16 million drawn records, and sums of their products
    are in float64. Resamples are taken some at a time, so that what is counted stays in the processor's cache.
    """
    _check(y_NC, score_NC)
    blocks = [slice(begin, begin + _CACHED) for begin in range(0, len(times_RN), _CACHED)]
    times_KNB = [np.ascontiguousarray(times_RN[block].T, dtype=np.float32) for block in blocks]
    value_RC = np.zeros((times_RN.shape[0], y_NC.shape[1]))
    defined_RC = np.zeros(value_RC.shape, dtype=bool)
    for c in range(y_NC.shape[1]):
        positive_N, score_N = y_NC[:, c].astype(bool), score_NC[:, c]
        # One row of `below` a distinct score of a negative: how many negatives are at or under it, with 0 in front.
        order = np.flatnonzero(~positive_N)
        order = order[np.argsort(score_N[order], kind="stable")]
        under_P = np.searchsorted(score_N[order], score_N[positive_N], side="left")
        upto_P = np.searchsorted(score_N[order], score_N[positive_N], side="right")
        for block, times_NB in zip(blocks, times_KNB, strict=True):
            below_MB = np.zeros((len(order) + 1, times_NB.shape[1]), dtype=np.float32)
            np.cumsum(times_NB[order], axis=0, out=below_MB[1:])
            times_PB = times_NB[positive_N]
            wins_B = np.einsum("pb,pb->b", times_PB, below_MB[under_P] + below_MB[upto_P], dtype=np.float64)
            pairs_B = times_PB.sum(axis=0, dtype=np.float64) * below_MB[-1]
            defined_RC[block, c] = pairs_B > 0
            np.divide(wins_B, 2 * pairs_B, out=value_RC[block, c], where=defined_RC[block, c])
    return np.ma.MaskedArray(value_RC, mask=~defined_RC)


def resampled_average_precision(y_NC: np.ndarray, score_NC: np.ndarray, times_RN: np.ndarray) -> np.ma.MaskedArray:
    """Average precision of each class in each resample, (R, C), masked where a resample holds no positive of a class.

    The scores are sorted once a class. Only scores that a positive has add to the sum, so a resample is summed up
    between these and no finer.
    """
    _check(y_NC, score_NC)
    times_NR = np.ascontiguousarray(times_RN.T, dtype=np.float64)
    value_RC = np.zeros((times_RN.shape[0], y_NC.shape[1]))
    defined_RC = np.zeros(value_RC.shape, dtype=bool)
    for c in range(y_NC.shape[1]):
        order = np.argsort(-score_NC[:, c], kind="stable")
        positive_N, score_N = y_NC[order, c].astype(bool), score_NC[order, c]
        # The G distinct scores of positives from high to low: where the records that tie with each end, and where its
        # positives begin among the positives.
        score_P = score_N[positive_N]
        first_G = np.concatenate([[0], np.flatnonzero(np.diff(score_P)) + 1])
        end_G = np.searchsorted(-score_N, -score_P[first_G], side="right")
        start_G = np.concatenate([[0], end_G[:-1]])
        called_GR = np.cumsum(np.add.reduceat(times_NR[order[: end_G[-1]]], start_G, axis=0), axis=0)
        gained_GR = np.add.reduceat(times_NR[order[positive_N]], first_G, axis=0)
        found_GR = np.cumsum(gained_GR, axis=0)
        precision_GR = np.divide(found_GR, called_GR, out=np.zeros_like(found_GR), where=called_GR > 0)
        defined_RC[:, c] = found_GR[-1] > 0
        summed_R = np.einsum("gr,gr->r", gained_GR, precision_GR)
        np.divide(summed_R, found_GR[-1], out=value_RC[:, c], where=defined_RC[:, c])
    return np.ma.MaskedArray(value_RC, mask=~defined_RC)


def interval(value: float, resampled_R: np.ndarray, confidence: float) -> Interval:
    """The percentile interval of the resampled values around the estimate; masked resamples do not take part."""
    low, high = _percentiles(resampled_R, confidence)
    return Interval(value=float(value), low=low, high=high)


def paired_difference(
    y_NC: np.ndarray, first_NC: np.ndarray, second_NC: np.ndarray, times_RN: np.ndarray, confidence: float
) -> PairedDifference:
    """Macro AUC of the first scores minus that of the second, both on the same records and the same resamples."""
    value = float(auc(y_NC, first_NC).mean() - auc(y_NC, second_NC).mean())
    first_R = resampled_auc(y_NC, first_NC, times_RN).mean(axis=1)
    second_R = resampled_auc(y_NC, second_NC, times_RN).mean(axis=1)
    return resampled_difference(value, first_R - second_R, confidence)


def paired_differences(
    y_NC: np.ndarray,
    first_NC: np.ndarray,
    second_NC: np.ndarray,
    patient_N: Sequence[str],
    *,
    resamples: int,
    seed: int,
    confidence: float,
    most: int = 0,
    most_by_class: int = 0,
) -> tuple[PairedDifference, tuple[PairedDifference, ...]]:
    """`paired_difference`, and the same of each class; p-values are not adjusted for being many (`holm` does that).

    A difference that fewer than FAR_SIDE of its resamples contradict is resampled on, up to `most` times for the macro
    AUC and `most_by_class` times for a class: the smaller a p is, the more it takes to tell (Besag and Clifford,
    Biometrika 78, 1991, 301-304). Resamples are drawn a thousand at a time, from `seed` and the numbers after it; of
    each, one number a class is kept.
    """
    value_C = auc(y_NC, first_NC) - auc(y_NC, second_NC)
    most_C = np.append(np.full(len(value_C), most_by_class), most)  # the last one is of the mean over classes
    difference_RC = np.ma.masked_all((0, len(most_C)))
    open_C = np.ones(len(most_C), dtype=bool)
    while open_C.any():
        drawn = len(difference_RC)
        size = min(BLOCK, (resamples if drawn < resamples else int(most_C[open_C].max())) - drawn)
        times_RN = resample_patients(patient_N, resamples=size, seed=seed)
        column = np.flatnonzero(open_C[:-1] | open_C[-1])
        first_RC, second_RC = (
            resampled_auc(y_NC[:, column], score_NC[:, column], times_RN) for score_NC in (first_NC, second_NC)
        )
        apart_RC = np.ma.masked_all((size, len(most_C)))
        apart_RC[:, column] = first_RC - second_RC
        if open_C[-1]:
            apart_RC[:, -1] = apart_RC[:, :-1].mean(axis=1)
        difference_RC = np.ma.concatenate([difference_RC, apart_RC])
        drawn, seed = drawn + size, seed + 1
        open_C = (drawn < resamples) | (open_C & (drawn < most_C) & (far_side(difference_RC) < FAR_SIDE))
    value_C = np.append(value_C, value_C.mean())
    *by_class, macro = (
        resampled_difference(float(value), difference_RC[:, c], confidence) for c, value in enumerate(value_C)
    )
    return macro, tuple(by_class)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for being many, in the order given (Holm 1979): the smallest of K times K, the next times
    K - 1 and so on, none below the one before it and none above 1. Raises ValueError for a p-value outside 0 to 1."""
    p_K = np.asarray(p_values, dtype=np.float64)
    if not ((p_K >= 0) & (p_K <= 1)).all():
        raise ValueError(f"p-values {list(p_values)}: give numbers from 0 to 1")
    order = np.argsort(p_K, kind="stable")
    adjusted_K = np.empty_like(p_K)
    adjusted_K[order] = np.minimum(np.maximum.accumulate(p_K[order] * np.arange(len(p_K), 0, -1)), 1.0)
    return adjusted_K.tolist()


def resampled_difference(value: float, resampled_R: np.ndarray, confidence: float) -> PairedDifference:
    """A difference with its interval and p, from the differences of the same two in each resample."""
    difference_R = np.ma.compressed(resampled_R)
    low, high = _percentiles(difference_R, confidence)
    # Plus one in numerator and denominator: a bootstrap of R resamples cannot show a p below 1 / (R + 1).
    p_value = min(1.0, 2 * (int(far_side(difference_R)) + 1) / (len(difference_R) + 1))
    return PairedDifference(value=value, low=low, high=high, p_value=p_value)


def far_side(difference_R: np.ndarray) -> np.ndarray:
    """(R, ...) -> (...): how many resamples lie on the side of zero that has fewer; zero itself is on both."""
    return np.minimum(*(np.ma.filled(side, False).sum(axis=0) for side in (difference_R <= 0, difference_R >= 0)))


def _percentiles(resampled_R: np.ndarray, confidence: float) -> tuple[float, float]:
    values = np.ma.compressed(resampled_R)
    if not len(values):
        raise InsufficientData("no resample holds both positives and negatives of any class")
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _cumulated(y_N: np.ndarray, score_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each distinct score from high to low: true positives so far, and records called positive so far."""
    order = np.argsort(-score_N, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score_N[order])), len(order) - 1)
    return np.cumsum(y_N[order], dtype=np.int64)[last], last + 1


def _check(y_NC: np.ndarray, score_NC: np.ndarray) -> None:
    if y_NC.shape != score_NC.shape or y_NC.ndim != 2:
        raise ValueError(f"targets {y_NC.shape} and scores {score_NC.shape}: give two arrays (records, classes)")
    if not np.isfinite(score_NC).all():
        raise ValueError("scores with NaN or infinity cannot be ranked: look at the features of these records")
    bad = [c for c in range(y_NC.shape[1]) if why_not_scorable(y_NC[:, c]) is not None]
    if bad:
        raise ValueError(f"classes {bad} have no positives or no negatives: leave them out (`why_not_scorable`)")
