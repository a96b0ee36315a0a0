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
from ecg_model.recorded import ALL_HELD, ONE_HELD, Recorded
from ecg_model.signal import SECONDS, window_samples

SECONDS_MIN = 2.0
"""In pretraining the student sees at least about a fifth of the columns."""
# A hundredth of a QRS, below which only an ECG in volt stays.
MILLIVOLT_MIN = 0.01
_HELD = f"; what holds one value for {ONE_HELD:g} s, or for {ALL_HELD:g} s in all leads, counts as missing"
_UNIT = "divide microvolt by 1000, and samples of a converter by its gain"


def why_not(found: Recorded, parts: Sequence[NDArray[Any]], rate: float) -> str | None:
    """Say why a recording is not encoded; None if it is. parts: what would be encoded of it, (L, T) each."""
    why = _first_reason(found, parts, rate)
    if why is not None and found.before + found.after > 0:
        why += f"; beside it are {found.before} samples of padding before and {found.after} after"
    return why


def _first_reason(found: Recorded, parts: Sequence[NDArray[Any]], rate: float) -> str | None:
    seconds = found.signal_LT.shape[1] / rate
    if seconds < SECONDS_MIN:
        return f"{DropReason.TOO_SHORT}: {seconds:.2f} s were recorded; give at least {SECONDS_MIN:g} s"
    for number, x_LT in enumerate(parts):
        window_LT = x_LT[:, : window_samples(rate)]
        if (missing := missing_samples(window_LT, LEADS, rate)) is not None:  # later parts end before a gap
            return f"{DropReason.MISSING_SAMPLES}: {missing}{_HELD if found.held else ''}"
        if (why := _unfit(window_LT)) is not None:
            return why if number == 0 else f"{why}, in the window that begins at {number * SECONDS} s"
    return None


def beyond_range(x_LT: NDArray[Any]) -> str | None:
    """Say that a prepared ECG's amplitudes are beyond what is kept; None if they are not."""
    why = out_of_range(float(x_LT.min()), float(x_LT.max()))
    return None if why is None else f"{DropReason.OUT_OF_RANGE}: {why}; {_UNIT}"


def _unfit(x_LT: NDArray[Any]) -> str | None:
    """Say why the amplitudes of a window without gaps are no ECG's; None if they may be."""
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
