"""The times of heart beats: sinus rhythm with heart-rate variability, atrial fibrillation, premature beats.

Shapes: B beats. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from pipelines.simulate.diagnosis import Diagnosis

# Beats start this long before the window and end this long after it, so that waves cross both its edges; seconds.
LEAD_IN = 2.5
LEAD_OUT = 1.5

# The shortest interval between beats, s: the AV node's refractory time.
_SHORTEST = 0.33
# Premature atrial beats move all later ones to the left: the time drawn is longer by this factor.
_SPARE = 1.12

# Mean rate in beats per minute: mean, standard deviation, lowest, highest.
_SINUS = (73.0, 11.0, 60.5, 99.0)
_RATE = {
    Diagnosis.SINUS_BRADYCARDIA: (53.0, 5.0, 38.0, 59.5),
    Diagnosis.SINUS_TACHYCARDIA: (114.0, 11.0, 101.0, 150.0),
    Diagnosis.ATRIAL_FIBRILLATION: (92.0, 20.0, 55.0, 150.0),
}


class Beat(IntEnum):
    """What started a beat."""

    CONDUCTED = 0
    ATRIAL_PREMATURE = 1
    VENTRICULAR_PREMATURE = 2


@dataclass(frozen=True, kw_only=True)
class Rhythm:
    """The beats of one recording."""

    times_B: np.ndarray  # R peaks in seconds from the window's start, ascending, reaching beyond both edges
    kind_B: np.ndarray  # `Beat` values
    rr_B: np.ndarray  # the interval before each beat, seconds
    breath: tuple[float, float]  # respiration: Hz, and phase in radian at time 0


def draw_rhythm(rng: np.random.Generator, diagnoses: Collection[Diagnosis], seconds: float) -> Rhythm:
    """Draw the beats of one recording."""
    kind = next((d for d in _RATE if d in diagnoses), None)
    mean, deviation, lowest, highest = _RATE[kind] if kind else _SINUS
    period = 60.0 / float(np.clip(rng.normal(mean, deviation), lowest, highest))
    breath = (float(rng.uniform(0.18, 0.35)), float(rng.uniform(0, 2 * np.pi)))
    if kind is Diagnosis.ATRIAL_FIBRILLATION:
        times_B = _fibrillating(rng, period, seconds)
    else:
        times_B = _sinus(rng, period, seconds, breath)
    kind_B = np.zeros(len(times_B), dtype=np.int8)
    for diagnosis, beat in (
        (Diagnosis.ATRIAL_PREMATURE, Beat.ATRIAL_PREMATURE),
        (Diagnosis.VENTRICULAR_PREMATURE, Beat.VENTRICULAR_PREMATURE),
    ):
        if diagnosis in diagnoses:
            times_B, kind_B = _premature(rng, times_B, kind_B, beat, seconds)
    inside_B = times_B < seconds + LEAD_OUT
    times_B, kind_B = times_B[inside_B], kind_B[inside_B]
    return Rhythm(times_B=times_B, kind_B=kind_B, rr_B=np.diff(times_B, prepend=times_B[0] - period), breath=breath)


def _sinus(rng: np.random.Generator, period: float, seconds: float, breath: tuple[float, float]) -> np.ndarray:
    """Draw beat times by integral pulse frequency modulation (Bayly 1968).

    There is a beat whenever the integral of (1 + m(t)) / period is an integer; m(t) is respiratory sinus arrhythmia at
    the breathing rate plus the Mayer wave near 0.1 Hz.
    """
    grid = np.arange(-LEAD_IN, _SPARE * seconds + LEAD_OUT, 0.01)
    phase = grid / period + rng.uniform()
    mayer = (rng.uniform(0.07, 0.13), rng.uniform(0, 2 * np.pi))
    # Slow hearts vary more: the depth is proportional to the period.
    for (frequency, shift), depth in ((breath, 0.035), (mayer, 0.025)):
        depth = depth * period * rng.lognormal(0.0, 0.5)
        phase -= depth / period * np.cos(2 * np.pi * frequency * grid + shift) / (2 * np.pi * frequency)
    whole = np.arange(np.ceil(phase[0]), np.floor(phase[-1]) + 1)
    return np.interp(whole, phase, grid) + rng.normal(0.0, 0.002, len(whole))


def _fibrillating(rng: np.random.Generator, period: float, seconds: float) -> np.ndarray:
    """Draw beat times of atrial fibrillation: independent log-normal intervals, at least the shortest."""
    count = int((seconds + LEAD_IN + LEAD_OUT) / _SHORTEST) + 2
    spread = rng.uniform(0.16, 0.28)
    rr = np.maximum(period * rng.lognormal(-(spread**2) / 2, spread, count), _SHORTEST)
    return np.cumsum(rr) - LEAD_IN - rr[0] * rng.uniform()


def _premature(
    rng: np.random.Generator, times_B: np.ndarray, kind_B: np.ndarray, beat: Beat, seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Make some beats premature; returns new times and kinds.

    After a ventricular one the next beat keeps its time (full compensatory pause); an atrial one resets the sinus node,
    so that all later beats move with it.
    """
    times_B, kind_B = times_B.copy(), kind_B.copy()
    interval_B = np.diff(times_B, prepend=times_B[0])
    can_be_early = (kind_B == Beat.CONDUCTED) & (interval_B > _SHORTEST + 0.04)
    inside = np.flatnonzero(can_be_early & (times_B > 0.8) & (times_B < seconds - 0.3))
    count = min(max(1, rng.binomial(len(inside), rng.uniform(0.05, 0.25))), len(inside))
    for index in np.sort(rng.choice(inside, count, replace=False)):
        interval = times_B[index] - times_B[index - 1]
        early = min(interval * rng.uniform(0.25, 0.42), interval - _SHORTEST)
        if beat is Beat.VENTRICULAR_PREMATURE:
            times_B[index] -= early
        else:
            times_B[index:] -= early * rng.uniform(0.85, 1.0)
        kind_B[index] = beat
    return times_B, kind_B
