"""The number by which arrays of integers say that a sample is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LOWEST = tuple(float(np.iinfo(kind).min) for kind in (np.int16, np.int32, np.int64))


def missing_number(x_LT: NDArray[Any], baseline_L1: NDArray[np.float64]) -> float | None:
    """Return the number in a record's array (L, T) that stands for a missing sample; None if there is none.

    It is the lowest of a signed type, as in WFDB: -32768 of int16. Arrays of wider integers, of floats and from a csv
    may hold integers of 16, 32 or 64 bits, so their lowest number is one if it is exactly the lowest of these. An
    unsigned type has one, 0, if its middle is 0 mV.
    """
    if not x_LT.size:
        return None
    lowest = float(np.fmin.reduce(x_LT, axis=None))
    if x_LT.dtype.kind == "u":
        middle = (int(np.iinfo(x_LT.dtype).max) + 1) // 2
        return lowest if lowest == 0 and (baseline_L1 == middle).all() else None
    own = x_LT.dtype.kind == "i" and lowest == np.iinfo(x_LT.dtype).min
    return lowest if own or lowest in LOWEST else None
