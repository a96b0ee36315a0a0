"""What was read from one record, and what harmonization makes of it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.cli.files import FileReading, read_file
from pipelines.formats.shard import QUALITY, open_shard
from pipelines.harmonize.convert import harmonize
from pipelines.harmonize.quality import QualityLimits
from pipelines.records import DroppedRecord, DropReason, Record

_UNITS = {
    "missing_share": "",
    "flat_leads": "of 8",
    "saturation_share": "",
    "minimum": "mV",
    "maximum": "mV",
    "wander": "mV rms, 0.05-0.5 Hz",
    "mains": "mV rms, 50 or 60 Hz",
    "noise": "mV rms, 70-110 Hz",
    "einthoven": "mV rms, III, aVR, aVL, aVF against I and II",
    "heart_rate": "beats a minute",
}


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """refused: why the record does not reach a harmonized shard; None where it does. quality: the figures of one that
    does. range: least and largest sample, millivolt; None without any."""

    file: Path
    reading: FileReading
    refused: DroppedRecord | None
    quality: dict[str, float | None]
    range: tuple[float, float] | None = None

    @property
    def record(self) -> Record | None:
        """None where nothing could be read."""
        return self.reading.item if isinstance(self.reading.item, Record) else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        told: dict[str, Any] = {
            "file": str(self.file),
            "form": self.reading.form,
            "record": self.reading.item.record_id,
        }
        record = self.record
        if record is not None:
            told |= {
                "leads": list(record.leads),
                "rate": record.rate,
                "samples": record.signal_LT.shape[1],
                "units": self.reading.units,
                "range_millivolt": self.range,
                "patient": record.patient_id,
                "age": record.age,
                "sex": record.sex,
                "labels": list(record.labels),
                "notes": list(record.notes),
                "quality": self.quality,
            }
        refused = self.refused
        return told | {
            "kept": refused is None,
            "reason": None if refused is None else refused.reason.value,
            "detail": None if refused is None else refused.detail,
        }

    def lines(self) -> list[tuple[str, str]]:
        """The same for people: what, and what is said of it."""
        told = [("file", str(self.file)), ("form", self.reading.form), ("record", self.reading.item.record_id)]
        record = self.record
        if record is not None:
            samples = record.signal_LT.shape[1]
            told += [
                ("leads", " ".join(record.leads)),
                ("rate", f"{record.rate:g} Hz"),
                ("length", f"{samples:,} samples, {samples / record.rate:.2f} s"),
                ("units", self.reading.units),
                ("range", "no sample" if self.range is None else "{:.3f} to {:.3f} mV".format(*self.range)),
                ("age", "not known" if record.age is None else f"{record.age:g} years"),
                ("sex", record.sex or "not known"),
                ("labels", ", ".join(record.labels) or "none in the file"),
                *(("note", note) for note in record.notes),
                *((name.replace("_", " "), _figure(value, _UNITS[name])) for name, value in self.quality.items()),
            ]
        if self.refused is None:
            return [*told, ("verdict", "kept")]
        return [*told, ("verdict", f"refused: {self.refused.reason}"), ("because", self.refused.detail)]


def inspect_file(path: Path, record_id: str | None = None) -> Inspection:
    """Read a file's record, the one called `record_id` where it holds several, and judge it as harmonization does.

    Raises ValueError as `read_file` does, where there is no such record, and where the file holds several and none is
    named.
    """
    reading = _one(path, record_id)
    if isinstance(reading.item, DroppedRecord):
        return Inspection(file=path, reading=reading, refused=reading.item, quality={})
    refused, quality = _judged(reading.item)
    finite = reading.item.signal_LT[np.isfinite(reading.item.signal_LT)]
    extremes = (float(finite.min()), float(finite.max())) if finite.size else None
    return Inspection(file=path, reading=reading, refused=refused, quality=quality, range=extremes)


def _one(path: Path, record_id: str | None) -> FileReading:
    readings = read_file(path)
    if record_id is not None:
        for reading in readings:
            if reading.item.record_id == record_id:
                return reading
        raise ValueError(f"{path}: it holds no record {record_id!r}")
    first, second = next(readings, None), next(readings, None)
    if first is None:
        raise ValueError(f"{path}: it holds no record")
    if second is not None:
        raise ValueError(f"{path}: it holds several records: name one, as in --record {first.item.record_id}")
    return first


def _judged(record: Record) -> tuple[DroppedRecord | None, dict[str, float | None]]:
    """The verdict and the figures, from a shard of this record alone, so that there is no second way to judge."""
    with tempfile.TemporaryDirectory(prefix="ecg-inspect-") as folder:
        harmonize([record], Path(folder), source="file", limits=QualityLimits())
        shard = open_shard(folder)
        for row in shard.drops().to_pylist():
            return DroppedRecord(record.record_id, DropReason(row["reason"]), row["detail"]), {}
        row = shard.records().to_pylist()[0]
        return None, {name: row[f"quality_{name}"] for name in QUALITY}


def _figure(value: float | None, unit: str) -> str:
    return "does not apply" if value is None else f"{value:.4g} {unit}".strip()
