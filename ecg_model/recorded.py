"""What of a recording was never recorded: padding, electrodes that were off, and samples that are missing.

A heart gives no line: recorded leads hold one value for a fraction of a second, and not together. The limits lie
between the longest runs of real ECGs and the shortest of what was not recorded; docs/decisions.md has both.
Shapes: L leads, T samples. Amplitudes are in millivolt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecg_model.signal import window_samples

ALL_ZERO = 0.05
"""Seconds for which all leads are exactly zero, at least, to count as not recorded."""
ALL_HELD = 0.5
"""Seconds for which each lead holds a value of its own, all at once."""
ONE_HELD = 2.0
"""Seconds for which one lead holds a value."""
ONE_NOTED = 1.0
"""Seconds for which one lead holds a value to be worth a note."""
FEWEST_TOGETHER = 4
"""Leads, at least, whose common hold says more than that of one: real I and II hold together for 0.4 s."""


class Hold(NamedTuple):
    """A run of samples in which a lead holds one value."""

    row: int
    start: int
    samples: int


@dataclass(frozen=True)
class Recorded:
    """A recording without what was never recorded."""

    signal_LT: NDArray[Any]
    """From the first to the last instant that any lead was recorded at; NaN where a lead was not.

    A lead that is constant throughout the window is left as it is: the quality limits on flat leads judge it.
    """
    before: int
    """Samples left out in front."""
    after: int
    """Samples left out behind."""
    held: tuple[int, ...]
    """Rows of `signal_LT` with NaN in place of a value that was held."""
    noted: tuple[Hold, ...]
    """Shorter holds of one lead, which stay in `signal_LT`."""
    complete: bool
    """Whether no sample of `signal_LT` is missing."""


def recorded(x_LT: NDArray[Any], rate: float) -> Recorded:
    """Return what was recorded of floats (L, T) at `rate`. The array is copied only if samples become NaN.

    A recording in which nothing was recorded at all is not trimmed.
    """
    first, end = _without_zeros(x_LT, rate)
    if end - first < x_LT.shape[1]:
        return _between(first, end, x_LT, rate)
    rows, may_agree = _suspects(x_LT, rate)
    together = _together(x_LT, rate) if may_agree else []
    # Padding goes first: a hold of one lead counts by what is left of it.
    first, end = _without_runs(together, x_LT.shape[1])
    if end - first < x_LT.shape[1]:
        return _between(first, end, x_LT, rate)
    holds = [Hold(row, *run) for row in rows for run in _runs(_still(x_LT[row]), _samples(ONE_NOTED, rate))]
    noted = tuple(hold for hold in holds if hold.samples < _samples(ONE_HELD, rate))
    there_LT = np.isfinite(x_LT)
    if len(noted) == len(holds) and not together and there_LT.all():
        return Recorded(x_LT, 0, 0, (), noted, complete=True)
    held_LT = np.zeros(x_LT.shape, np.bool_)
    for row, start, samples in set(holds) - set(noted):
        held_LT[row, start : start + samples] = True
    for start, samples in together:
        held_LT[:, start : start + samples] = True
    there = np.flatnonzero((there_LT & ~held_LT).any(axis=0))
    if len(there) and there[-1] + 1 - there[0] < x_LT.shape[1]:
        return _between(int(there[0]), int(there[-1]) + 1, x_LT, rate)
    window_LT = x_LT[:, : window_samples(rate)]
    held_LT &= ~(window_LT == window_LT[:, :1]).all(axis=1, keepdims=True)
    gone_LT = held_LT | np.isinf(x_LT)
    if gone_LT.any():
        x_LT = np.where(gone_LT, np.asarray(np.nan, x_LT.dtype), x_LT)
    held = tuple(np.flatnonzero(held_LT.any(axis=1)).tolist())
    noted = tuple(hold for hold in noted if not held_LT[hold.row, hold.start])
    return Recorded(x_LT, 0, 0, held, noted, complete=not held and bool(there_LT.all()))


def _between(first: int, end: int, x_LT: NDArray[Any], rate: float) -> Recorded:
    inside = recorded(x_LT[:, first:end], rate)
    return replace(inside, before=first + inside.before, after=x_LT.shape[1] - end + inside.after)


def _without_zeros(x_LT: NDArray[Any], rate: float) -> tuple[int, int]:
    """Return where the zeros of all leads in front end, and those behind begin.

    `_together` finds them too, and takes longer: two thirds of CODE-15% are padded so.
    """
    samples, least = x_LT.shape[1], _samples(ALL_ZERO, rate)
    if x_LT[:, :1].any() and x_LT[:, -1:].any():
        return 0, samples
    zero_LT = np.equal(x_LT, 0)
    there = np.flatnonzero(~zero_LT.all(axis=0))
    if np.count_nonzero(~zero_LT.all(axis=1)) < FEWEST_TOGETHER:
        return 0, samples
    first, end = int(there[0]), int(there[-1]) + 1
    return first if first >= least else 0, end if samples - end >= least else samples


def _without_runs(runs: list[tuple[int, int]], samples: int) -> tuple[int, int]:
    """Return where the runs in front end, one behind the other, and those at the end begin; if they are not all."""
    if not runs:
        return 0, samples
    there_T = np.ones(samples, np.bool_)
    for start, count in runs:
        there_T[start : start + count] = False
    there = np.flatnonzero(there_T)
    return (int(there[0]), int(there[-1]) + 1) if len(there) else (0, samples)


def _suspects(x_LT: NDArray[Any], rate: float) -> tuple[list[int], bool]:
    """Return the rows that may hold a value for ONE_NOTED, and whether all may be zero or hold values together.

    Few samples are compared, which let pass every such run, and hardly any ECG.
    """
    few_LT = np.ascontiguousarray(x_LT[:, :: _samples(ALL_ZERO, rate)])
    still_LT = _still(few_LT)
    # A run of ONE_NOTED has seven of these places or more.
    long_LT = still_LT[:, 3:] & still_LT[:, 2:-1] & still_LT[:, 1:-2] & still_LT[:, :-3]
    silent_L1 = still_LT.all(axis=1, keepdims=True) | np.isnan(few_LT[:, :1])
    may_be_still = (still_LT | silent_L1).all(axis=0).any()
    may_be_zero = (np.equal(few_LT, 0) | silent_L1).all(axis=0).any()
    return np.flatnonzero(long_LT.any(axis=1)).tolist(), bool(may_be_still or may_be_zero)


def _together(x_LT: NDArray[Any], rate: float) -> list[tuple[int, int]]:
    """Return start and samples of the runs in which all leads are zero, or all hold their values.

    Leads that are constant throughout, or missing, have no say.
    """
    still_LT = _still(x_LT)
    silent_L = still_LT.all(axis=1) | np.isnan(x_LT).all(axis=1)
    if silent_L.any():
        x_LT, still_LT = x_LT[~silent_L], still_LT[~silent_L]
    if len(x_LT) < FEWEST_TOGETHER:
        return []
    zero_T = np.all(np.equal(x_LT, 0), axis=0)
    still_T = np.all(still_LT, axis=0)
    return _runs(zero_T[1:] & zero_T[:-1], _samples(ALL_ZERO, rate)) + _runs(still_T, _samples(ALL_HELD, rate))


def _samples(seconds: float, rate: float) -> int:
    return max(2, math.ceil(seconds * rate - 1e-6))


def _still(x_LT: NDArray[Any]) -> NDArray[Any]:
    """Return which samples have the value of the one before, (..., T) -> (..., T - 1)."""
    return np.equal(x_LT[..., 1:], x_LT[..., :-1])


def _runs(still_T: NDArray[Any], least: int) -> list[tuple[int, int]]:
    """Return start and samples of the runs of at least `least`. still_T: whether each but the first continues one."""
    starts = np.concatenate(([0], np.flatnonzero(~still_T) + 1, [len(still_T) + 1]))
    samples = np.diff(starts)
    long = samples >= least
    return list(zip(starts[:-1][long].tolist(), samples[long].tolist(), strict=True))
