"""Pseudo-labels: waves as neurokit2 finds them, where nobody has drawn any. Light to import, for worker processes.

R peaks and cleaning: its own method; boundaries: discrete wavelets (Martinez et al., IEEE Trans Biomed Eng 51, 2004,
570-581). They are another program's opinion, with its mistakes, and are called pseudo-labels wherever they are shown.
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
# What neurokit2 calls the boundaries of each wave: `ECG_<name>_Onsets`.
_NAMES = {Wave.P: "P", Wave.QRS: "R", Wave.T: "T"}

Row = tuple[int, float, float, float]
"""Class of a wave, its onset, peak and offset in samples; NaN where one was not found."""


class Failure(StrEnum):
    """Why a lead has no pseudo-labels. The list is closed."""

    FEW_BEATS = "fewer than three beats found"
    DELINEATOR = "the delineator failed"


def delineate(x_T: NDArray[Any]) -> list[Row] | Failure:
    """The waves of one lead, float (T,) millivolt at 250 Hz."""
    import neurokit2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of means of nothing and of the like, where a wave is not found
        # neurokit2 raises whatever comes up (IndexError, ZeroDivisionError, ...) in ECGs that it cannot delineate.
        try:
            clean_T = neurokit2.ecg_clean(x_T, sampling_rate=RATE)
            _, peaks = neurokit2.ecg_peaks(clean_T, sampling_rate=RATE)
            beats_B = np.asarray(peaks["ECG_R_Peaks"])
            if len(beats_B) < LEAST_BEATS:
                return Failure.FEW_BEATS
            _, found = neurokit2.ecg_delineate(clean_T, beats_B, sampling_rate=RATE, method="dwt")
        except Exception:
            return Failure.DELINEATOR
    peaks_of = {Wave.P: found["ECG_P_Peaks"], Wave.QRS: beats_B, Wave.T: found["ECG_T_Peaks"]}
    rows = []
    for wave, name in _NAMES.items():
        for marks in zip(found[f"ECG_{name}_Onsets"], peaks_of[wave], found[f"ECG_{name}_Offsets"], strict=True):
            onset, peak, offset = (float(mark) for mark in marks)
            # A boundary on the wrong side of the peak is none. (Comparisons with NaN are false, and keep the other.)
            onset, offset = (math.nan if onset >= peak else onset), (math.nan if offset <= peak else offset)
            if not math.isnan(peak):
                rows.append((int(wave), onset, peak, offset))
    return rows


def delineate_many(x_MT: Sequence[NDArray[Any]]) -> list[list[Row] | Failure]:
    """`delineate` of each: what a worker process is handed at once."""
    return [delineate(x_T) for x_T in x_MT]
