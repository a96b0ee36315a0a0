"""The bootstrap by patient: resamples, percentile intervals and p-values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluate.statistics import bootstrap


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


def resample_patients(patient_N: Sequence[str], *, resamples: int, seed: int) -> np.ndarray:
    """How often each record is drawn when patients are drawn with replacement, int64 (R, N).

    Records of one patient are not independent, so they are drawn together.
    """
    names, patient_of_N = np.unique(np.asarray(patient_N, dtype=str), return_inverse=True)
    drawn = np.random.default_rng(seed).integers(0, len(names), size=(resamples, len(names)))
    flat = drawn + len(names) * np.arange(resamples)[:, None]
    times = np.bincount(flat.ravel(), minlength=resamples * len(names)).reshape(resamples, len(names))
    return times[:, patient_of_N]


def interval(value: float, resampled_R: np.ndarray, confidence: float) -> Interval:
    """The percentile interval of the resampled values around the estimate; masked resamples do not take part."""
    low, high = percentiles(resampled_R, confidence)
    return Interval(value=float(value), low=low, high=high)


def resampled_difference(value: float, resampled_R: np.ndarray, confidence: float) -> PairedDifference:
    """A difference with its interval and p, from the differences of the same two in each resample."""
    difference_R = np.ma.compressed(resampled_R)
    low, high = percentiles(difference_R, confidence)
    # Plus one in numerator and denominator: a bootstrap of R resamples cannot show a p below 1 / (R + 1).
    p_value = min(1.0, 2 * (int(far_side(difference_R)) + 1) / (len(difference_R) + 1))
    return PairedDifference(value=value, low=low, high=high, p_value=p_value)


def far_side(difference_R: np.ndarray) -> np.ndarray:
    """(R, ...) -> (...): how many resamples lie on the side of zero that has fewer; zero itself is on both."""
    return np.minimum(*(np.ma.filled(side, False).sum(axis=0) for side in (difference_R <= 0, difference_R >= 0)))


def percentiles(resampled_R: np.ndarray, confidence: float) -> tuple[float, float]:
    values = np.ma.compressed(resampled_R)
    if not len(values):
        raise InsufficientData("no resample holds both positives and negatives of any class")
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How intervals are made: patients drawn with replacement, percentiles of the resampled figure."""

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ValueError(f"resamples={self.resamples}: use at least 1")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence={self.confidence}: use a share between 0 and 1, such as 0.95")

    def times(self, patient_N: NDArray[np.str_]) -> NDArray[np.int64]:
        """How often each record is drawn, (resamples, N)."""
        return bootstrap.resample_patients(patient_N.tolist(), resamples=self.resamples, seed=self.seed)

    def interval(self, value: float, resampled_R: NDArray[Any]) -> Interval:
        return bootstrap.interval(value, resampled_R, self.confidence)

    def mean(self, value_N: NDArray[np.float64], patient_N: NDArray[np.str_]) -> Interval:
        """The mean over records, at least one."""
        times_RN = self.times(patient_N)
        return self.interval(float(value_N.mean()), times_RN @ value_N / times_RN.sum(axis=1))
