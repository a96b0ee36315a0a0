"""Paired differences of two scores on the same records, and Holm's adjustment for many comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.evaluate.statistics.bootstrap import PairedDifference, far_side, resample_patients, resampled_difference
from pipelines.evaluate.statistics.ranking import auc, resampled_auc

FAR_SIDE = 10
"""A difference with so many resamples on the far side of zero is drawn no more: its p is known well enough."""

BLOCK = 1000
"""Resamples that are held at once."""


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
