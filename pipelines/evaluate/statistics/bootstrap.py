"""Intervals round figures other than AUCs: the bootstrap by patient. Pure NumPy. N records, R resamples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluate.statistics import ranking as statistics
from pipelines.evaluate.statistics.ranking import Interval


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
        return statistics.resample_patients(patient_N.tolist(), resamples=self.resamples, seed=self.seed)

    def interval(self, value: float, resampled_R: NDArray[Any]) -> Interval:
        return statistics.interval(value, resampled_R, self.confidence)

    def mean(self, value_N: NDArray[np.float64], patient_N: NDArray[np.str_]) -> Interval:
        """The mean over records, at least one."""
        times_RN = self.times(patient_N)
        return self.interval(float(value_N.mean()), times_RN @ value_N / times_RN.sum(axis=1))
