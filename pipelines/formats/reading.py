"""One ECG as a format's reader gives it, before a source or a drop makes a record of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.records import Sex

MOST_SECONDS = 30
"""How much of a recording is read: ten seconds are used, and a file can claim any length."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One ECG of a file. It holds no name, no plain id, no date and no statement, whatever the file holds."""

    signal_LT: NDArray[np.float32]
    """float32 (leads, samples), millivolt; NaN marks a missing sample."""
    leads: tuple[str, ...]
    """One name per row: the twelve under their usual names, others as the file writes them."""
    rate: float
    """Samples per second, as the file states it, not rounded."""
    patient: str | None = None
    """The patient's pseudonym. None if the file names no patient, or if no key was given."""
    patient_named: bool = False
    """Whether the file names its patient."""
    age: float | None = None
    """Years; 90 if above 89."""
    sex: Sex | None = None
    notes: tuple[str, ...] = ()
    """What was repaired or left out, in words."""
    units: str = ""
    """How the stored numbers became millivolt, for people."""
    form: str = ""
    """Format and version, maker and model, for people."""
    details: tuple[tuple[str, str], ...] = ()
    """More for people, as (name, text): the waveform that was taken, what was not read."""
