"""What a source's reader yields: a record, or a dropped record with one reason of a closed list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ecg_model.reasons import DropReason

Sex = Literal["male", "female"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One ECG as its source gives it."""

    record_id: str
    signal_LT: np.ndarray
    """float32 (leads, samples), millivolt; NaN marks a missing sample."""
    leads: tuple[str, ...]  # one name per row, as the source writes them
    rate: float  # samples per second
    patient_id: str | None = None
    age: float | None = None  # years
    sex: Sex | None = None
    labels: tuple[str, ...] = ()  # the source's own codes, in its order
    fold: int | None = None  # of the source's own split, if it has one (PTB-XL)
    notes: tuple[str, ...] = ()  # what the reader repaired, in words


@dataclass(frozen=True)
class DroppedRecord:
    """A record that was read and is not kept."""

    record_id: str
    reason: DropReason
    detail: str  # field, value and remedy, in words


class RecordError(ValueError):
    """Raised inside a reader for one record; the record is counted as dropped and reading continues."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def dropped(self, record_id: str) -> DroppedRecord:
        """Return the dropped record that this error stands for."""
        return DroppedRecord(record_id, self.reason, self.detail)
