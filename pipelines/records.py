"""What a reader yields: a record, or a drop with one reason of a closed list. Nothing else leaves a shard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np

Sex = Literal["male", "female"]


class DropReason(StrEnum):
    """Why a record that entered a shard did not reach its array. The list is closed: a new reason is a new member."""

    UNREADABLE_HEADER = "unreadable header"
    UNREADABLE_SIGNAL = "unreadable signal"
    FILE_MISSING = "file missing"
    WRONG_FILE_SIZE = "wrong file size"
    CHECKSUM_WRONG = "checksum wrong"
    LEAD_MISSING = "lead missing"
    LEAD_REPEATED = "lead named twice"
    UNKNOWN_UNIT = "unknown unit"
    IMPLAUSIBLE_GAIN = "implausible gain"
    TOO_SHORT = "too short"
    MISSING_SAMPLES = "missing samples"
    FLAT_LEAD = "flat lead"
    OUT_OF_RANGE = "amplitude out of range"
    SATURATED = "saturated"
    LIMB_LEADS_DISAGREE = "limb leads disagree"
    BASELINE_WANDER = "baseline wander"
    MAINS = "mains interference"
    NOISE = "high-frequency noise"
    HEART_RATE = "implausible heart rate"
    NOT_LISTED = "not in the source's table"
    DUPLICATE_ID = "record id twice"
    UNKNOWN_FORMAT = "unknown format"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One ECG as its source gives it, in millivolt.

    signal_LT: float32 (leads, samples), millivolt; NaN marks a missing sample.
    leads: one name a row, as the source writes them. rate: samples a second.
    labels: the source's own codes, in its order. fold: the source's own split (PTB-XL), if it has one.
    notes: what the reader repaired, in words.
    """

    record_id: str
    signal_LT: np.ndarray
    leads: tuple[str, ...]
    rate: float
    patient_id: str | None = None
    age: float | None = None
    sex: Sex | None = None
    labels: tuple[str, ...] = ()
    fold: int | None = None
    notes: tuple[str, ...] = ()


_ABSENT = "leads not recorded: "


def absent_note(leads: Sequence[str]) -> str:
    """The note of a harmonized record that holds zeros where `leads` would be, since they were not recorded."""
    return _ABSENT + ", ".join(leads)


def absent_leads(notes: Iterable[str]) -> tuple[str, ...]:
    """The leads that a harmonized record's notes say were not recorded; none where it is complete."""
    return next((tuple(note.removeprefix(_ABSENT).split(", ")) for note in notes if note.startswith(_ABSENT)), ())


@dataclass(frozen=True)
class DroppedRecord:
    """A record that entered a shard and is not kept: its id, the reason, and the field, value and remedy in words."""

    record_id: str
    reason: DropReason
    detail: str


class RecordError(ValueError):
    """Raised inside a reader for one record; the shard goes on and counts it as a Drop."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def dropped(self, record_id: str) -> DroppedRecord:
        return DroppedRecord(record_id, self.reason, self.detail)
