"""The band-pass of ECGs that an encoder is fine-tuned on; apart, since scipy.signal takes half a second to import."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from ecg_model.signal import RATE

BAND_HZ = (0.67, 40.0)

_ORDER = 5  # of each Butterworth filter


def band_passed(x_LT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Band-pass ECGs (..., T) in millivolt as fine-tuning does: the store holds them in whole microvolts."""
    return band_pass(np.rint(x_LT * 1000).astype(np.float64) * 1e-3)


def band_pass(x_LT: NDArray[Any]) -> NDArray[np.float32]:
    """Band-pass ECGs (..., T) of 250 Hz to 0.67-40 Hz: a Butterworth high-pass and low-pass of order 5.

    They are applied forwards and backwards, so that no wave is shifted.
    """
    return sosfiltfilt(_band(), x_LT, axis=-1).astype(np.float32)


@cache
def _band() -> NDArray[np.float64]:
    """Return the second-order sections of both filters, concatenated."""
    high = butter(_ORDER, BAND_HZ[0], "highpass", fs=RATE, output="sos")
    low = butter(_ORDER, BAND_HZ[1], "lowpass", fs=RATE, output="sos")
    return np.concatenate([np.asarray(high), np.asarray(low)])
