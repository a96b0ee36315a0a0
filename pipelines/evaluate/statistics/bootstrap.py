"""The bootstrap by patient: resamples, percentile intervals and p-values.

Shapes: N records, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class InsufficientData(ValueError):
    """Too few records to compute one score. Neither the program nor a file is at fault."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate on the data as they are, and a bootstrap percentile interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """First minus second on the same records, with a bootstrap percentile interval and a p-value."""

    value: float
    low: float
    high: float
    p_value: float
    """Two-sided, from the resamples on the far side of zero."""


def resample_patients(patient_N: Sequence[str], *, resamples: int, seed: int) -> np.ndarray:
    """Count how often each record is drawn when patients are drawn with replacement, int64 (R, N).

    Records of one patient are not independent, so they are drawn together.
    """
    names, patient_of_N = np.unique(np.asarray(patient_N, dtype=str), return_inverse=True)
    drawn = np.random.default_rng(seed).integers(0, len(names), size=(resamples, len(names)))
    # One bincount for all resamples: each gets a range of its own.
    flat = drawn + len(names) * np.arange(resamples)[:, None]
    times = np.bincount(flat.ravel(), minlength=resamples * len(names)).reshape(resamples, len(names))
    return times[:, patient_of_N]


def interval(value: float, resampled_R: np.ndarray, confidence: float) -> Interval:
    """Return an estimate with the percentile interval of its resampled values, without those that are masked.

    Raises InsufficientData if all are masked.
    """
    low, high = percentiles(resampled_R, confidence)
    return Interval(value=float(value), low=low, high=high)


def resampled_difference(value: float, resampled_R: np.ndarray, confidence: float) -> PairedDifference:
    """Return a difference with its interval and p-value, from the differences (R,) of the same two in each resample."""
    difference_R = np.ma.compressed(resampled_R)
    low, high = percentiles(difference_R, confidence)
    # Plus one in numerator and denominator: a bootstrap of R resamples cannot show a p below 1 / (R + 1).
    p_value = min(1.0, 2 * (int(far_side(difference_R)) + 1) / (len(difference_R) + 1))
    return PairedDifference(value=value, low=low, high=high, p_value=p_value)


def far_side(difference_R: np.ndarray) -> np.ndarray:
    """Count the resamples on the side of zero that has fewer, (R, ...) -> (...); zero itself is on both sides."""
    below, above = (np.ma.filled(side, False).sum(axis=0) for side in (difference_R <= 0, difference_R >= 0))
    return np.minimum(below, above)


def percentiles(resampled_R: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the bounds between which that share of the unmasked values lies.

    Raises InsufficientData if all values are masked.
    """
    values = np.ma.compressed(resampled_R)
    if not len(values):
        raise InsufficientData("no resample has both positives and negatives of any class")
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Settings of an interval: patients drawn with replacement, percentiles of the resampled figure."""

    resamples: int = 1000
    confidence: float = 0.95
    """The share of resamples that an interval covers."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ValueError(f"resamples={self.resamples}: use at least 1")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence={self.confidence}: use a share between 0 and 1, such as 0.95")

    def times(self, patient_N: NDArray[np.str_]) -> NDArray[np.int64]:
        """Count how often each record is drawn, (R, N)."""
        return resample_patients(patient_N.tolist(), resamples=self.resamples, seed=self.seed)

    def interval(self, value: float, resampled_R: NDArray[Any]) -> Interval:
        """Return an estimate with the percentile interval of its resampled values."""
        return interval(value, resampled_R, self.confidence)

    def mean(self, value_N: NDArray[np.float64], patient_N: NDArray[np.str_]) -> Interval:
        """Return the mean over at least one record, with its interval."""
        times_RN = self.times(patient_N)
        return self.interval(float(value_N.mean()), times_RN @ value_N / times_RN.sum(axis=1))
