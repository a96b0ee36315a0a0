"""What a file says of its rate and units in passing, against what its description says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.wfdb_header import UNITS
from pipelines.records import DropReason, RecordError

_UNIT = re.compile(r".*(?:[(\[]\s*([nuµμm]?V)\s*[)\]]|[ _-]([nuµμm]?V))\s*", re.IGNORECASE)
_TIME = re.compile(r"(?:t|time|times|timestamp|seconds?|sec|s|ms|milliseconds?)(?![a-z]).*", re.IGNORECASE)
_TOLERANCE = 0.01  # of a rate, for times that are rounded


def require_same_units(names: Sequence[str], units: Any, where: str) -> None:
    """Raise RecordError if a row's name states another unit of voltage (`I (uV)`, `II_mV`) than the description."""
    if not isinstance(units, str) or units.lower() not in UNITS:
        return  # raw numbers, whose gain is stated
    for name in names:
        stated = _UNIT.fullmatch(name)
        unit = stated and (stated[1] or stated[2])
        if unit and UNITS[unit.lower()] != UNITS[units.lower()]:
            raise RecordError(
                DropReason.UNKNOWN_UNIT,
                f"{where}: {name[:40]!r} is in {unit}, and units are {units!r}: correct the one that is wrong",
            )


def require_same_rate(names: Sequence[str], x_LT: NDArray[np.float64], rate: float, where: str) -> None:
    """Raise RecordError if a column of times has even steps that are those of another rate.

    Times are seconds or milliseconds. Steps of 1 may count the samples, and say nothing.
    """
    for name, time_T in zip(names, x_LT, strict=True):
        if not _TIME.fullmatch(name.strip()) or len(time_T) < 3:
            continue
        steps_T = np.diff(time_T)
        step = float(np.median(steps_T))
        even = step > 0 and step != 1 and np.abs(time_T - time_T[0] - step * np.arange(len(time_T))).max() < step
        rates = (1 / step, 1000 / step) if even else ()
        if rates and not any(abs(each - rate) <= _TOLERANCE * rate for each in rates):
            raise RecordError(
                DropReason.UNREADABLE_HEADER,
                f"{where}: rate {rate:g}, and the column {name[:40]!r} has steps of {step:g} ({rates[0]:g} Hz if these "
                f"are seconds, {rates[1]:g} Hz if milliseconds): correct one, or leave the column out",
            )
