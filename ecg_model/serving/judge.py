"""Why a served model gives no numbers for an ECG: harmonization's rules, with its default limits.

Shapes: L the eight leads of LEADS, T samples. Amplitudes are in millivolt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ecg_model.leads import LEADS
from ecg_model.quality import MOST_MILLIVOLT, constant_leads, missing_samples, out_of_range
from ecg_model.reasons import DropReason
from ecg_model.signal import SECONDS, window_samples

# A hundredth of a QRS, below which only an ECG in volt stays.
MILLIVOLT_MIN = 0.01
_UNIT = "divide microvolt by 1000, and samples of a converter by its gain"


def why_not(parts: Sequence[NDArray[Any]], rate: float) -> str | None:
    """Say why a recording is not encoded, from the parts that would be, (L, T) each; None if it is."""
    for number, x_LT in enumerate(parts):
        why = _why_not(x_LT[:, : window_samples(rate)], rate)
        if why is not None:
            return why if number == 0 else f"{why}, in the window that begins at {number * SECONDS} s"
    return None


def beyond_range(x_LT: NDArray[Any]) -> str | None:
    """Say that a prepared ECG's amplitudes are beyond what is kept; None if they are not."""
    why = out_of_range(float(x_LT.min()), float(x_LT.max()))
    return None if why is None else f"{DropReason.OUT_OF_RANGE}: {why}; {_UNIT}"


def _why_not(x_LT: NDArray[Any], rate: float) -> str | None:
    if (missing := missing_samples(x_LT, LEADS, rate)) is not None:
        return f"{DropReason.MISSING_SAMPLES}: {missing}"
    low_L, high_L = x_LT.min(axis=1), x_LT.max(axis=1)
    peak = float(max(-low_L.min(), high_L.max()))
    if peak > MOST_MILLIVOLT:
        return f"{DropReason.OUT_OF_RANGE}: it reaches {peak:.3g} mV; {_UNIT}"
    constant_L = constant_leads(low_L, high_L)
    if peak < MILLIVOLT_MIN and not constant_L.all():
        return f"{DropReason.OUT_OF_RANGE}: it stays below {peak:g} millivolt; if these are volt, multiply by 1000"
    if constant_L.any():
        names = [lead for lead, constant in zip(LEADS, constant_L, strict=True) if constant]
        return f"{DropReason.FLAT_LEAD}: {', '.join(names)} {'is' if len(names) == 1 else 'are'} constant"
    return None
