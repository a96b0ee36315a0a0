"""Pseudo-labels: waves that neurokit2 finds, for ECGs without annotated waves. Light to import, for worker processes.

R peaks and cleaning: neurokit2's own method; boundaries: discrete wavelets (Martinez et al., IEEE Trans Biomed Eng 51,
2004, 570-581). They contain the mistakes of that program, and are called pseudo-labels wherever they are shown.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluate.waves.annotations import Wave
from pipelines.formats.shard import RATE

LEAST_BEATS = 3
# The name of each wave in neurokit2's results: `ECG_<name>_Onsets`.
_NAMES = {Wave.P: "P", Wave.QRS: "R", Wave.T: "T"}

Row = tuple[int, float, float, float]
"""Class of a wave, and its onset, peak and offset in samples; NaN for a boundary that was not found."""


class Failure(StrEnum):
    """Why a lead has no pseudo-labels. The list is closed."""

    FEW_BEATS = "fewer than three beats found"
    DELINEATOR = "the delineator failed"


def delineate(x_T: NDArray[Any]) -> list[Row] | Failure:
    """Return the waves of one lead, float (T,) millivolt at 250 Hz, or why there are none."""
    import neurokit2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as the mean of an empty slice, if a wave is not found
        # neurokit2 raises errors of any kind (IndexError, ZeroDivisionError, ...) in ECGs that it cannot delineate.
        try:
            clean_T = neurokit2.ecg_clean(x_T, sampling_rate=RATE)
            _, peaks = neurokit2.ecg_peaks(clean_T, sampling_rate=RATE)
            beats_B = np.asarray(peaks["ECG_R_Peaks"])
            if len(beats_B) < LEAST_BEATS:
                return Failure.FEW_BEATS
            _, marks_by_name = neurokit2.ecg_delineate(clean_T, beats_B, sampling_rate=RATE, method="dwt")
        except Exception:
            return Failure.DELINEATOR
    peaks_of = {Wave.P: marks_by_name["ECG_P_Peaks"], Wave.QRS: beats_B, Wave.T: marks_by_name["ECG_T_Peaks"]}
    rows = []
    for wave, name in _NAMES.items():
        onsets, offsets = marks_by_name[f"ECG_{name}_Onsets"], marks_by_name[f"ECG_{name}_Offsets"]
        for marks in zip(onsets, peaks_of[wave], offsets, strict=True):
            onset, peak, offset = (float(mark) for mark in marks)
            # Drop a boundary on the wrong side of the peak. Comparisons with NaN are false and change nothing.
            onset, offset = (math.nan if onset >= peak else onset), (math.nan if offset <= peak else offset)
            if not math.isnan(peak):
                rows.append((int(wave), onset, peak, offset))
    return rows


def delineate_many(x_MT: Sequence[NDArray[Any]]) -> list[list[Row] | Failure]:
    """Delineate several leads: the batch of one task of a worker process."""
    return [delineate(x_T) for x_T in x_MT]
