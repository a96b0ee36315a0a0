"""Rules on an ECG's quality that harmonization and served models share.

Shapes: N records, L leads, T samples of the window. Amplitudes are in millivolt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_model.signal import SECONDS

INT16_MILLIVOLT = 32.767
"""Largest absolute value that is kept: the largest of int16 microvolt, in which training ECGs are stored."""
MOST_MILLIVOLT = 1e6
"""A kilovolt: no recorder gives it, and squares and sums of it are exact enough. Larger numbers would overflow in the
filters."""
FLAT_MILLIVOLT = 0.0005
"""A lead whose range is at most this counts as constant. It is half the smallest step of the stored arrays, so that a
constant digital lead is flat and the quietest real one is not."""


def missing_samples(x_LT: NDArray[Any], leads: Sequence[str], rate: float) -> str | None:
    """Say which leads lack samples, (L, T), how many, and the first's time; None if none does.

    A filled gap would be taken for an ECG: one missing sample in the window is one too many.
    """
    gone_LT = ~np.isfinite(x_LT)
    if not gone_LT.any():
        return None
    counts = [f"{lead} {count:,}" for lead, count in zip(leads, gone_LT.sum(axis=1).tolist(), strict=True) if count]
    first = int(np.flatnonzero(gone_LT.any(axis=0))[0])
    return (
        f"samples are missing in the first {SECONDS} s, of {x_LT.shape[1]:,} in a lead: {', '.join(counts)}; the first "
        f"at {first / rate:.3f} s"
    )


def constant_leads(low_NL: NDArray[Any], high_NL: NDArray[Any], within: float = FLAT_MILLIVOLT) -> NDArray[np.bool_]:
    """Return which leads are constant, (N, L), from each lead's extremes (N, L): their range is at most `within`."""
    return high_NL - low_NL <= within


def out_of_range(least: float, most: float, limit: float = INT16_MILLIVOLT) -> str | None:
    """Say that extremes of the eight harmonized leads are beyond +-limit; None if they are not."""
    if max(-least, most) <= limit:
        return None
    return f"amplitudes from {least:.3f} to {most:.3f} mV; within +-{limit} mV are kept: check the gain"
