"""Paired differences of two scores on the same records, and Holm's adjustment for many comparisons.

Shapes: N records, C classes, R resamples, B resamples of a block, K p-values or pairs of scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.evaluate.statistics.bootstrap import PairedDifference, far_side, resample_patients, resampled_difference
from pipelines.evaluate.statistics.ranking import auc, resampled_auc

FAR_SIDE = 10
"""A difference with so many resamples on the far side of zero is resampled no further: its p is known well enough."""

BLOCK = 1000
"""Resamples that are in memory at once."""

Resampled = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Differences (B, C) of B resamples, given how often each record is drawn (B, N) and which columns are needed (C,)."""


def paired_difference(
    y_NC: np.ndarray, first_NC: np.ndarray, second_NC: np.ndarray, times_RN: np.ndarray, confidence: float
) -> PairedDifference:
    """Return the macro AUC of the first scores minus that of the second, on the same records and resamples."""
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
    """Return the difference of the macro AUCs, and that of each class's AUC; p-values are not adjusted (see `holm`).

    y_NC: the targets; first_NC, second_NC: the scores that are compared.
    resamples, seed, confidence: of the bootstrap by patient.
    most, most_by_class: how often the macro AUC and a class are resampled at most, see `resampled_until_clear`.
    """
    value_C = auc(y_NC, first_NC) - auc(y_NC, second_NC)

    def resampled(times_BN: np.ndarray, open_C: np.ndarray) -> np.ndarray:
        # The last column is the mean over classes, which needs all of them.
        column = np.flatnonzero(open_C[:-1] | open_C[-1])
        first_BC, second_BC = (
            resampled_auc(y_NC[:, column], score_NC[:, column], times_BN) for score_NC in (first_NC, second_NC)
        )
        difference_BC = np.ma.masked_all((len(times_BN), len(open_C)))
        difference_BC[:, column] = first_BC - second_BC
        if open_C[-1]:
            difference_BC[:, -1] = difference_BC[:, :-1].mean(axis=1)
        return difference_BC

    most_C = np.append(np.full(len(value_C), most_by_class), most)
    difference_RC = resampled_until_clear(resampled, patient_N, most_C, resamples=resamples, seed=seed)
    value_C = np.append(value_C, value_C.mean())
    *by_class, macro = (
        resampled_difference(float(value), difference_RC[:, c], confidence) for c, value in enumerate(value_C)
    )
    return macro, tuple(by_class)


@dataclass(frozen=True, kw_only=True)
class WeightedDifferences:
    """Differences of several pairs of scores, and their weighted mean, all on the same records and resamples."""

    pairs: tuple[PairedDifference, ...]
    """Of the macro AUCs of each pair."""
    macro: PairedDifference
    """The weighted mean of the pairs' macro AUCs' differences."""
    classes: tuple[PairedDifference, ...]
    """The same of each class's AUC."""


def weighted_differences(
    y_NC: np.ndarray,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    weights: Sequence[float],
    patient_N: Sequence[str],
    *,
    resamples: int,
    seed: int,
    confidence: float,
) -> WeightedDifferences:
    """Return the differences of several pairs of scores, and their weighted mean; p-values are not adjusted.

    The patients are drawn once, and each resample is of all pairs, so that the interval of the mean is as wide as the
    pairs' errors make it together. For one pair this is what `paired_differences` returns.

    y_NC: the targets
    pairs: the first and the second scores of each pair, (N, C)
    weights: one a pair, none below zero and not all zero; only their ratios matter
    """
    share_K = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    value_KC = np.stack([auc(y_NC, first_NC) - auc(y_NC, second_NC) for first_NC, second_NC in pairs])

    def resampled(times_BN: np.ndarray, _: np.ndarray) -> np.ndarray:
        first_KBC, second_KBC = (
            np.ma.stack([resampled_auc(y_NC, pair[side], times_BN) for pair in pairs]) for side in (0, 1)
        )
        difference_KBC = first_KBC - second_KBC
        return np.ma.concatenate(list(_columns(difference_KBC, share_K)), axis=1)

    once = np.zeros(len(pairs) + 1 + y_NC.shape[1])
    difference_RJ = resampled_until_clear(resampled, patient_N, once, resamples=resamples, seed=seed)
    value_J = np.concatenate(list(_columns(value_KC[:, None], share_K)), axis=1)[0]
    differences = tuple(
        resampled_difference(float(value), difference_RJ[:, j], confidence) for j, value in enumerate(value_J)
    )
    return WeightedDifferences(
        pairs=differences[: len(pairs)], macro=differences[len(pairs)], classes=differences[len(pairs) + 1 :]
    )


def _columns(difference_KBC: np.ndarray, share_K: np.ndarray) -> Iterator[np.ndarray]:
    """Yield each pair's mean over classes, (B, K), that of the weighted mean of the pairs, (B, 1), and this, (B, C)."""
    mean_BC = share_K[0] * difference_KBC[0]
    for share, difference_BC in zip(share_K[1:], difference_KBC[1:], strict=True):
        mean_BC = mean_BC + share * difference_BC
    yield difference_KBC.mean(axis=2).T
    yield mean_BC.mean(axis=1)[:, None]
    yield mean_BC


def resampled_until_clear(
    resampled: Resampled, patient_N: Sequence[str], most_C: np.ndarray, *, resamples: int, seed: int
) -> np.ma.MaskedArray:
    """Resample differences until each column's p-value is clear, (R, C); masked if a column was not needed any more.

    A column that fewer than FAR_SIDE of its resamples contradict is resampled again, up to most_C times: the smaller a
    p is, the more resamples it takes to see it (Besag and Clifford, Biometrika 78, 1991, 301-304). Resamples are drawn
    a thousand at a time, from `seed` and the numbers after it, and one number a column is stored of each.

    most_C: the most resamples of each column; every column has at least `resamples`.
    """
    difference_RC = np.ma.masked_all((0, len(most_C)))
    open_C = np.ones(len(most_C), dtype=bool)
    while open_C.any():
        drawn = len(difference_RC)
        size = min(BLOCK, (resamples if drawn < resamples else int(most_C[open_C].max())) - drawn)
        times_BN = resample_patients(patient_N, resamples=size, seed=seed)
        difference_RC = np.ma.concatenate([difference_RC, resampled(times_BN, open_C)])
        drawn, seed = drawn + size, seed + 1
        # A column that was closed stays closed: its later rows are masked.
        open_C = (drawn < resamples) | (open_C & (drawn < most_C) & (far_side(difference_RC) < FAR_SIDE))
    return difference_RC


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, in the order given (Holm 1979).

    The smallest of K is multiplied by K, the next by K - 1 and so on; none is below the one before it or above 1.
    Raises ValueError if a p-value is not between 0 and 1.
    """
    p_K = np.asarray(p_values, dtype=np.float64)
    if not ((p_K >= 0) & (p_K <= 1)).all():
        raise ValueError(f"p-values {list(p_values)}: give numbers from 0 to 1")
    order = np.argsort(p_K, kind="stable")
    adjusted_K = np.empty_like(p_K)
    adjusted_K[order] = np.minimum(np.maximum.accumulate(p_K[order] * np.arange(len(p_K), 0, -1)), 1.0)
    return adjusted_K.tolist()
