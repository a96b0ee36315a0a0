"""AUC, average precision and their bootstrap by patient, vectorised over classes and resamples. Pure NumPy.

These figures depend on the order of scores alone; those of probabilities and of decisions are in `calibration`.

Shapes: N records, C classes, R resamples; P positives of a class, M negatives, B resamples of a block, G distinct
scores of positives. A class is scorable if it has positives and negatives; callers leave the others out and name them
(`why_not_scorable`), so no function here returns a NaN in place of a score.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

_CACHED = 250  # resamples that are counted at once


def why_not_scorable(y_N: np.ndarray, min_positives: int = 1) -> str | None:
    """Say why a class cannot be scored on these targets (N,). Returns None if it can."""
    positives = int(y_N.sum())
    if positives < min_positives:
        return f"{positives} positives among {len(y_N)} records, fewer than {min_positives}"
    if positives == len(y_N):
        return f"no negatives among {len(y_N)} records"
    return None


def auc(y_NC: np.ndarray, score_NC: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of each class, (C,).

    It is the Mann-Whitney statistic from mid-ranks, so ties count half. Raises ValueError if a score is not finite or
    a class has no positives or no negatives.
    """
    _check(y_NC, score_NC)
    positives_C = y_NC.sum(axis=0, dtype=np.float64)
    negatives_C = len(y_NC) - positives_C
    rank_sum_C = np.where(y_NC, rankdata(score_NC, axis=0), 0.0).sum(axis=0)
    return (rank_sum_C - positives_C * (positives_C + 1) / 2) / (positives_C * negatives_C)


def average_precision(y_NC: np.ndarray, score_NC: np.ndarray) -> np.ndarray:
    """Return the average precision of each class, (C,): the sum of precision over the steps of recall."""
    _check(y_NC, score_NC)
    result_C = np.empty(y_NC.shape[1])
    for c in range(y_NC.shape[1]):
        true_positives, called = _cumulated(y_NC[:, c], score_NC[:, c])
        gained = np.diff(true_positives, prepend=0)
        result_C[c] = (gained * true_positives / called).sum() / true_positives[-1]
    return result_C


def roc_points(y_N: np.ndarray, score_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true positive rates of one class from (0, 0) to (1, 1): the corners of its ROC curve."""
    _check(y_N[:, None], score_N[:, None])
    true_positives, called = _cumulated(y_N, score_N)
    true = np.concatenate([[0], true_positives])
    false = np.concatenate([[0], called - true_positives])
    # A point with the same slope before and after it is inside a straight run.
    d_true, d_false = np.diff(true), np.diff(false)
    corner = d_true[:-1] * d_false[1:] != d_true[1:] * d_false[:-1]
    keep = np.concatenate([[True], corner, [True]])
    return false[keep] / false[-1], true[keep] / true[-1]


def resampled_auc(y_NC: np.ndarray, score_NC: np.ndarray, times_RN: np.ndarray) -> np.ma.MaskedArray:
    """Return the AUC of each class in each resample, (R, C).

    It is masked if the resample has no positive or no negative of the class.

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
        # The places of each positive among the sorted negatives: those below it, and those not above it.
        order = np.flatnonzero(~positive_N)
        order = order[np.argsort(score_N[order], kind="stable")]
        under_P = np.searchsorted(score_N[order], score_N[positive_N], side="left")
        upto_P = np.searchsorted(score_N[order], score_N[positive_N], side="right")
        for block, times_NB in zip(blocks, times_KNB, strict=True):
            # Row m: how many of the m lowest negatives are drawn.
            below_MB = np.zeros((len(order) + 1, times_NB.shape[1]), dtype=np.float32)
            np.cumsum(times_NB[order], axis=0, out=below_MB[1:])
            times_PB = times_NB[positive_N]
            # The sum of both counts is twice "negatives below + negatives tied / 2".
            wins_B = np.einsum("pb,pb->b", times_PB, below_MB[under_P] + below_MB[upto_P], dtype=np.float64)
            pairs_B = times_PB.sum(axis=0, dtype=np.float64) * below_MB[-1]
            defined_RC[block, c] = pairs_B > 0
            np.divide(wins_B, 2 * pairs_B, out=value_RC[block, c], where=defined_RC[block, c])
    return np.ma.MaskedArray(value_RC, mask=~defined_RC)


def resampled_average_precision(y_NC: np.ndarray, score_NC: np.ndarray, times_RN: np.ndarray) -> np.ma.MaskedArray:
    """Return the average precision of each class in each resample, (R, C), masked if it has no positive of the class.

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
        # The G distinct scores of positives from high to low: the place at which records that tie with each end, and
        # the place at which its positives begin among the positives.
        score_P = score_N[positive_N]
        first_G = np.concatenate([[0], np.flatnonzero(np.diff(score_P)) + 1])
        end_G = np.searchsorted(-score_N, -score_P[first_G], side="right")
        start_G = np.concatenate([[0], end_G[:-1]])
        # From here on as `average_precision`, a column a resample.
        called_GR = np.cumsum(np.add.reduceat(times_NR[order[: end_G[-1]]], start_G, axis=0), axis=0)
        gained_GR = np.add.reduceat(times_NR[order[positive_N]], first_G, axis=0)
        true_positives_GR = np.cumsum(gained_GR, axis=0)
        precision_GR = np.divide(
            true_positives_GR, called_GR, out=np.zeros_like(true_positives_GR), where=called_GR > 0
        )
        defined_RC[:, c] = true_positives_GR[-1] > 0
        summed_R = np.einsum("gr,gr->r", gained_GR, precision_GR)
        np.divide(summed_R, true_positives_GR[-1], out=value_RC[:, c], where=defined_RC[:, c])
    return np.ma.MaskedArray(value_RC, mask=~defined_RC)


def _cumulated(y_N: np.ndarray, score_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count true positives and records called positive down to each distinct score, from high to low."""
    order = np.argsort(-score_N, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score_N[order])), len(order) - 1)
    return np.cumsum(y_N[order], dtype=np.int64)[last], last + 1


def _check(y_NC: np.ndarray, score_NC: np.ndarray) -> None:
    if y_NC.shape != score_NC.shape or y_NC.ndim != 2:
        raise ValueError(f"targets {y_NC.shape} and scores {score_NC.shape}: give two arrays (records, classes)")
    if not np.isfinite(score_NC).all():
        raise ValueError("scores with NaN or infinity cannot be ranked: check the features of these records")
    bad = [c for c in range(y_NC.shape[1]) if why_not_scorable(y_NC[:, c]) is not None]
    if bad:
        raise ValueError(f"classes {bad} have no positives or no negatives: leave them out (`why_not_scorable`)")
