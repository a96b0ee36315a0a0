"""Why an ECG is not used: by harmonization, and by a served model."""

from __future__ import annotations

from enum import StrEnum


class DropReason(StrEnum):
    """Why a record of a partition is not in its array. The list is closed: a new reason is a new member."""

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
    NO_WAVEFORM = "no waveform"
