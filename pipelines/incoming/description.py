"""What a drop says about its numbers, in JSON or in an HDF5 file's attributes: rate, leads, units, and people.

It never names a file. Everything wrong with it is a RecordError that names the field and the remedy.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ecg_model.leads import LEADS_12
from pipelines.formats.joined_labels import split_labels
from pipelines.formats.limits import JSON_BYTES, LEADS, RECORDS, parse_json, require_size
from pipelines.formats.wfdb_header import RECORDER_GAINS, UNITS
from pipelines.incoming.by_path import PATIENT_FROM
from pipelines.incoming.contradictions import require_same_units
from pipelines.incoming.sentinels import missing_number
from pipelines.records import DropReason, Record, RecordError, Sex
from pipelines.sources.demographics import is_unknown, plain_id, stated_age, stated_sex

SIGNAL_FIELDS = ("rate", "leads", "units", "gain", "baseline", "axes")
PEOPLE_FIELDS = ("ids", "patient_ids", "ages", "sexes", "labels")
DATASETS = "datasets"
LEAD_NAMES = "lead_names"
SEX_CODES = "sex_codes"
TABLE = "table"
FIELDS = frozenset((*SIGNAL_FIELDS, *PEOPLE_FIELDS, DATASETS, LEAD_NAMES, SEX_CODES, PATIENT_FROM, TABLE))

RATES = (100.0, 2000.0)
AXES = ("record", "lead", "time")
RAW = "raw"
# Ten seconds are used, and a file can claim any length.
MOST_SECONDS = 30
MOST_SAMPLES = math.ceil(MOST_SECONDS * RATES[1])
# Peak-to-peak amplitude. No living heart gives less than this in every lead: such numbers have the wrong unit.
LEAST_MILLIVOLT = 0.05

_MOST_TEXT = 128
_REPR = reprlib.Repr()  # of a value of any size
_REPR.maxstring = _REPR.maxother = 80
_REPR.maxlist = 20


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a file's numbers become ECGs."""

    rate: float  # Hz
    leads: tuple[str, ...]

    gain_L1: NDArray[np.float64]
    """Numbers per millivolt, (1, 1) for all leads or (L, 1)."""

    baseline_L1: NDArray[np.float64]
    """The number that is 0 mV, (1, 1) for all leads or (L, 1)."""

    axes: tuple[str, ...]
    """Order of a three-dimensional array's axes."""

    units: str
    """For people."""

    @property
    def most_samples(self) -> int:
        """Number of samples of a record that are read."""
        return math.ceil(MOST_SECONDS * self.rate)

    def check_rows(self, rows: int) -> None:
        """Raise RecordError if the number of rows is not that of the leads."""
        if rows != len(self.leads):
            raise RecordError(
                DropReason.UNREADABLE_SIGNAL, f"{rows} rows for {len(self.leads)} leads: name each row once"
            )

    def millivolt(self, x_LT: NDArray[Any]) -> NDArray[np.float32]:
        """Convert numbers of a file, (L, T), to millivolt; NaN for a missing sample.

        Raises RecordError if the number of rows is not that of the leads.
        """
        self.check_rows(x_LT.shape[0])
        missing = missing_number(x_LT, self.baseline_L1)
        with np.errstate(over="ignore", invalid="ignore"):
            y_LT = ((x_LT.astype(np.float64) - self.baseline_L1) / self.gain_L1).astype(np.float32)
        y_LT[~np.isfinite(y_LT)] = np.nan
        if missing is not None:
            y_LT[x_LT == missing] = np.nan
        return y_LT


@dataclass(frozen=True, kw_only=True)
class People:
    """What is known besides the signals, one entry per record."""

    ids: tuple[str, ...]
    patient_ids: tuple[str | None, ...]
    ages: tuple[str, ...]
    sexes: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    notes: tuple[tuple[str, ...], ...]
    """What was left out, since it is no id or label."""
    sex_codes: Mapping[str, Sex]

    def record(self, at: int, x_LT: NDArray[Any], form: Form, samples: int) -> Record:
        """Return the record number `at`.

        x_LT: its numbers as the file has them, maybe not all. samples: how many the file has.
        """
        signal_LT = form.millivolt(x_LT)
        check_plausible(signal_LT, form.units)
        age, age_notes = stated_age(self.ages[at])
        sex, sex_notes = stated_sex(self.sexes[at], self.sex_codes)
        notes = (*age_notes, *sex_notes, *self.notes[at])
        if x_LT.shape[1] < samples:
            notes += (f"the first {MOST_SECONDS} s of {samples / form.rate:g} s are read",)
        return Record(
            record_id=self.ids[at],
            signal_LT=signal_LT,
            leads=form.leads,
            rate=form.rate,
            patient_id=self.patient_ids[at],
            age=age,
            sex=sex,
            labels=self.labels[at],
            notes=notes,
        )


def check_plausible(x_LT: NDArray[np.float32], units: str) -> None:
    """Raise RecordError if every lead's amplitude, in millivolt, is so small that the unit is wrong.

    Constant leads do not count.
    """
    height = float(np.max(peak_to_peak(x_LT), initial=0.0))
    if 0 < height < LEAST_MILLIVOLT:
        raise RecordError(
            DropReason.IMPLAUSIBLE_GAIN,
            f"no lead has more than {height:.2g} mV from peak to peak, read as {units}: state the true units or gain",
        )


def peak_to_peak(x_LT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the range of each lead's samples, (L, T) -> (L,); 0 if it has none."""
    there_LT = np.isfinite(x_LT)
    high_L = np.max(x_LT, axis=1, where=there_LT, initial=-np.inf)
    low_L = np.min(x_LT, axis=1, where=there_LT, initial=np.inf)
    with np.errstate(over="ignore"):  # of numbers that are no ECG
        range_L = np.where(there_LT.any(axis=1), high_L - low_L, 0)
    return np.minimum(range_L, np.finfo(np.float32).max).astype(np.float32)


def read_description(path: Path) -> dict[str, Any]:
    """Return the fields of a JSON file. Raises RecordError if it is not JSON, too large, or has an unknown field."""
    require_size(
        path,
        JSON_BYTES,
        "a description",
        "describe fewer records in a file",
        lambda what: RecordError(DropReason.UNREADABLE_HEADER, what),
    )
    try:
        fields = parse_json(path.read_bytes())
    except ValueError as error:
        raise _wrong(path.name, "it", f"it is no JSON ({error})") from error
    if not isinstance(fields, dict):
        raise _wrong(path.name, "it", "one object {...} is needed")
    if unknown := sorted(set(fields) - FIELDS):
        raise _wrong(path.name, f"field {_short(unknown[0])}", f"there are {', '.join(sorted(FIELDS))}")
    return fields


def form_of(fields: Mapping[str, Any], where: str, leads: Sequence[str] | None = None) -> Form:
    """Return how to read numbers, from the fields of a description. Raises RecordError if they cannot be used.

    leads: given if the file itself names them.
    """
    names = leads if leads is not None else _leads(fields.get("leads"), where)
    gain, baseline, units = _units(fields, where, len(names))
    require_same_units(names, units, where)
    return Form(
        rate=rate_of(fields.get("rate"), where),
        leads=mapped_leads(names, fields, where),
        gain_L1=gain,
        baseline_L1=baseline,
        axes=_axes(fields.get("axes", list(AXES)), where),
        units=units,
    )


def check_count(count: int, where: str) -> None:
    """Raise RecordError if a file or a drop has more records than are read of one."""
    if count > RECORDS:
        raise _wrong(where, f"{count:,} records", f"at most {RECORDS:,} are read of a file or a drop: split it")


def people_of(fields: Mapping[str, Any], where: str, count: int, ids: Sequence[str] | None = None) -> People:
    """Return what is known of `count` records. Raises RecordError if the fields cannot be used.

    ids: the file's own names for the records, used if the fields give none.
    """
    check_count(count, where)
    lists = {name: _list(fields.get(name), name, where, count) for name in PEOPLE_FIELDS}
    if fields.get("ids") is None:
        if ids is None:
            raise _wrong(where, "ids", f"give one for each of its {count} records")
        lists["ids"] = list(ids)
    patients, labels, notes = [], [], []
    for patient, stated in zip(lists["patient_ids"], lists["labels"], strict=True):
        patient_id, patient_notes = patient_of(patient)
        of_record, label_notes = labels_of(stated)
        patients.append(patient_id)
        labels.append(of_record)
        notes.append((*patient_notes, *label_notes))
    return People(
        ids=tuple(_id(value, "ids", where) for value in lists["ids"]),
        patient_ids=tuple(patients),
        ages=tuple(_stated(value) for value in lists["ages"]),
        sexes=tuple(_stated(value) for value in lists["sexes"]),
        labels=tuple(labels),
        notes=tuple(notes),
        sex_codes=sex_codes_of(fields, where),
    )


def sex_codes_of(fields: Mapping[str, Any], where: str) -> dict[str, Sex]:
    """Return the sex that each code of a drop means, by code in lower case, from the field `sex_codes`.

    Raises RecordError if it is no object of codes.
    """
    meaning = fields.get(SEX_CODES, {})
    if not isinstance(meaning, dict) or any(sex not in ("male", "female") for sex in meaning.values()):
        raise _wrong(where, f"{SEX_CODES} {_short(meaning)}", 'map codes to sexes, as in {"1": "male", "0": "female"}')
    return {code.strip().lower(): sex for code, sex in meaning.items()}


def rate_of(value: Any, where: str) -> float:
    """Return a supported sampling rate. Raises RecordError for any other value."""
    low, high = RATES
    if not _is_number(value) or not low <= value <= high:
        raise _wrong(where, f"rate {_short(value)}", f"samples a second, {low:g} to {high:g}, are needed")
    return float(value)


def mapped_leads(names: Sequence[str], fields: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the names of a file's rows, with those that the field `lead_names` maps replaced by the lead they mean.

    Raises RecordError if the field is no object of names, or maps one to what is none of the twelve leads.
    """
    meaning = fields.get(LEAD_NAMES, {})
    if not isinstance(meaning, dict):
        raise _wrong(where, f"{LEAD_NAMES} {_short(meaning)}", 'map names to leads, as in {"EKG 1": "I"}')
    for name, lead in meaning.items():
        if lead not in LEADS_12:
            raise _wrong(where, f"{LEAD_NAMES}: {_short(name)} is {_short(lead)}", f"use one of {', '.join(LEADS_12)}")
    return tuple(meaning.get(name, name) for name in names)


def _leads(value: Any, where: str) -> list[str]:
    if not _is_list(value) or not 1 <= len(value) <= LEADS or not all(_is_text(name) for name in value):
        raise _wrong(where, f"leads {_short(value)}", 'name each row of a record, as in ["I", "II", "V1"]')
    return list(value)


def _units(fields: Mapping[str, Any], where: str, leads: int) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Return numbers per millivolt, the number that is 0 mV, and both as text."""
    units, gain, baseline = fields.get("units"), fields.get("gain"), fields.get("baseline")
    zero = np.zeros((1, 1))
    if units == RAW:
        gains = _numbers(gain, "gain", where, leads)
        low, high = RECORDER_GAINS
        if not ((gains >= low) & (gains <= high)).all():
            raise RecordError(
                DropReason.IMPLAUSIBLE_GAIN,
                f"{where}: gain {_short(gain)}: {low:g} to {high:g} numbers a millivolt are believed; correct it",
            )
        baselines = zero if baseline is None else _numbers(baseline, "baseline", where, leads)
        return gains, baselines, f"raw, {_span(gains)} a mV"
    if gain is not None or baseline is not None:
        raise _wrong(where, f"units {_short(units)}", f'with gain or baseline, units are "{RAW}"; else leave both out')
    if not isinstance(units, str) or units.lower() not in UNITS:
        raise RecordError(
            DropReason.UNKNOWN_UNIT, f'{where}: units {_short(units)}: "mV", "uV", "V", or "{RAW}" with a gain'
        )
    return np.full((1, 1), 1 / UNITS[units.lower()]), zero, units


def _numbers(value: Any, name: str, where: str, leads: int) -> NDArray[np.float64]:
    """Return one number for all leads, (1, 1), or one for each, (leads, 1)."""
    values = value if _is_list(value) else [value]
    if len(values) not in (1, leads) or not all(_is_number(number) for number in values):
        raise _wrong(where, f"{name} {_short(value)}", f"a number is needed, or a list of {leads}")
    return np.array(values, np.float64)[:, None]


def _axes(value: Any, where: str) -> tuple[str, ...]:
    if not _is_list(value) or sorted(map(str, value)) != sorted(AXES):
        raise _wrong(where, f"axes {_short(value)}", f'the order of "{", ".join(AXES)}" is needed, as a list')
    return tuple(value)


def _list(value: Any, name: str, where: str, count: int) -> list[Any]:
    if value is None:
        return [None] * count
    if not _is_list(value) or len(value) != count:
        given = f"{len(value)} of them" if _is_list(value) else _short(value)
        raise _wrong(where, f"{name}, {given}", f"a list of {count} is needed, one entry a record")
    return value


def _id(value: Any, name: str, where: str) -> str:
    text = _text(value)
    if not _is_text(text):
        raise _wrong(where, f"{_short(value)} in {name}", f"text of 1 to {_MOST_TEXT} characters is needed")
    return text.strip()


def patient_of(value: Any) -> tuple[str | None, tuple[str, ...]]:
    """Return a patient's id, None if it is not known, and a note on a value that cannot be one."""
    text = _text(value)
    if _is_unknown(value) or (text is not None and is_unknown(text)):
        return None, ()
    if not _is_text(text):
        return None, (f"patient id {_short(value)} left out: text of 1 to {_MOST_TEXT} characters is needed",)
    return plain_id(text), ()


def _stated(value: Any) -> str:
    """Return an age or a sex as text; a value of another kind as it is written, so that a note can name it."""
    if _is_unknown(value):
        return ""
    if isinstance(value, str):
        return value
    return f"{value:g}" if _is_number(value) else _short(value)


def labels_of(value: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return a record's labels, given as a list or as a text that may join several, and notes on what cannot be one."""
    if isinstance(value, str):
        value = [label for label in split_labels(value) if not is_unknown(label)]
    given = [label for label in (value if _is_list(value) else [value]) if not _is_unknown(label)]
    texts = [(_text(label), label) for label in given]
    labels = [text.strip() for text, _ in texts if _is_text(text)]
    notes = [f"label {_short(label)} left out: it is no text" for text, label in texts if not _is_text(text)]
    return tuple(dict.fromkeys(labels)), tuple(notes)


def _text(value: Any) -> str | None:
    """Return text, or a whole number as text (tables write 17.0 for 17); None for any other value."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if _is_number(value) and value == int(value):
        return str(int(value))
    return value if isinstance(value, str) else None


def _is_unknown(value: Any) -> bool:
    """Whether a value is null, or what tables write for it."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= _MOST_TEXT and value.isprintable()


def _span(values: NDArray[np.float64]) -> str:
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _wrong(where: str, what: str, remedy: str) -> RecordError:
    return RecordError(DropReason.UNREADABLE_HEADER, f"{where}: {what}: {remedy}")


def _short(value: Any) -> str:
    text = _REPR.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
