"""`ecg inspect`: what is read from one record, and whether harmonization keeps it."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipelines.incoming.drop import RecordOrigin
    from pipelines.records import DroppedRecord, Record

UNITS = {
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
"""Units of the quality figures."""


@click.command("inspect")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--record", "record_id", metavar="ID", help="Which record of a file that holds several.")
@click.option(
    "--png", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Draw it on ECG paper into this file."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def command(file: Path, record_id: str | None, png: Path | None, as_json: bool) -> None:
    """Show what is read from an ECG FILE, and whether harmonization keeps it.

    FILE is of any format that a drop takes (docs/own-data.md): WFDB, csv, NumPy, HDF5, DICOM, SCP-ECG, aECG, MUSE and
    others, with what describes it beside it; or a part of CODE-15% (.zip, with exams.csv). Exit code 1 if the record is
    refused; the last line gives the reason.

    \b
    ecg inspect JS00001.hea
    ecg inspect ecg.dcm
    ecg inspect 00001_hr.dat --png 00001.png
    ecg inspect exams_part0.zip --record 102780
    """
    from pipelines.formatting import format_name

    inspection = inspect_file(file, record_id)
    if as_json:
        click.echo(json.dumps(inspection.to_dict(), indent=1))
    else:
        for name, text in inspection.lines():
            click.echo(f"{name:<18}{format_name(text)}")
    if png is not None and inspection.record is not None:
        _draw(inspection.record, png)
        click.echo(f"drawn in {png}", err=True)
    if inspection.refused is not None:
        sys.exit(1)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A record as it was read and judged."""

    file: Path
    reading: RecordOrigin
    refused: DroppedRecord | None
    """Why harmonization drops the record. None if it keeps it."""
    quality: dict[str, float | None]
    """The quality figures of a record that is kept."""
    notes: tuple[str, ...] = ()
    """What was repaired or left out, in words."""
    range: tuple[float, float] | None = None
    """Least and largest sample, millivolt. None if there is no sample."""

    @property
    def record(self) -> Record | None:
        """The record. Returns None if it could not be read."""
        from pipelines.records import Record

        return self.reading.item if isinstance(self.reading.item, Record) else None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        values: dict[str, Any] = {
            "file": str(self.file),
            "form": self.reading.form,
            "record": self.reading.item.record_id,
        }
        record = self.record
        if record is not None:
            values |= {
                "leads": list(record.leads),
                "rate": record.rate,
                "samples": record.signal_LT.shape[1],
                "units": self.reading.units,
                "range_millivolt": self.range,
                "patient": record.patient_id,
                "age": record.age,
                "sex": record.sex,
                "labels": list(record.labels),
                "details": dict(self.reading.details),
                "notes": list(self.notes),
                "quality": self.quality,
            }
        refused = self.refused
        return values | {
            "kept": refused is None,
            "reason": None if refused is None else refused.reason.value,
            "detail": None if refused is None else refused.detail,
        }

    def lines(self) -> list[tuple[str, str]]:
        """Return the same for people, as (name, text)."""
        lines = [("file", str(self.file)), ("form", self.reading.form), ("record", self.reading.item.record_id)]
        record = self.record
        if record is not None:
            samples = record.signal_LT.shape[1]
            lines += [
                ("leads", " ".join(record.leads)),
                ("rate", f"{record.rate:g} Hz"),
                ("length", f"{samples:,} samples, {samples / record.rate:.2f} s"),
                ("units", self.reading.units),
                ("range", "no sample" if self.range is None else "{:.3f} to {:.3f} mV".format(*self.range)),
                ("age", "not known" if record.age is None else f"{record.age:g} years"),
                ("sex", record.sex or "not known"),
                ("labels", ", ".join(record.labels) or "none in the file"),
                *self.reading.details,
                *(("note", note) for note in self.notes),
                *((name.replace("_", " "), _figure(value, UNITS[name])) for name, value in self.quality.items()),
            ]
        if self.refused is None:
            return [*lines, ("verdict", "kept")]
        return [*lines, ("verdict", f"refused: {self.refused.reason}"), ("because", self.refused.detail)]


def inspect_file(path: Path, record_id: str | None = None) -> Inspection:
    """Read a file's record, the one called `record_id` if it holds several, and judge it as harmonization does.

    Raises ValueError as `read_file` does, and if there is no such record, or if the file holds several and none is
    named.
    """
    import numpy as np

    from pipelines.records import DroppedRecord

    reading = _single_record(path, record_id)
    if isinstance(reading.item, DroppedRecord):
        return Inspection(file=path, reading=reading, refused=reading.item, quality={})
    refused, quality, notes = _judged(reading.item)
    finite = reading.item.signal_LT[np.isfinite(reading.item.signal_LT)]
    extremes = (float(finite.min()), float(finite.max())) if finite.size else None
    return Inspection(file=path, reading=reading, refused=refused, quality=quality, notes=notes, range=extremes)


def _single_record(path: Path, record_id: str | None) -> RecordOrigin:
    from pipelines.cli.ecg_files import read_file

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


def _judged(record: Record) -> tuple[DroppedRecord | None, dict[str, float | None], tuple[str, ...]]:
    """Return the verdict, figures and notes, from a shard of this record alone: so there is only one way to judge."""
    from pipelines.formats.shard import QUALITY, open_shard
    from pipelines.harmonize.convert import harmonize
    from pipelines.harmonize.quality import QualityLimits
    from pipelines.records import DroppedRecord, DropReason

    with tempfile.TemporaryDirectory(prefix="ecg-inspect-") as folder:
        harmonize([record], Path(folder), source="file", limits=QualityLimits())
        shard = open_shard(folder)
        for row in shard.drops().to_pylist():
            return DroppedRecord(record.record_id, DropReason(row["reason"]), row["detail"]), {}, record.notes
        row = shard.records().to_pylist()[0]
        return None, {name: row[f"quality_{name}"] for name in QUALITY}, tuple(row["notes"])


def _figure(value: float | None, unit: str) -> str:
    return "does not apply" if value is None else f"{value:.4g} {unit}".strip()


def _draw(record: Record, png: Path) -> None:
    """Draw a record on ECG paper."""
    from pipelines.durable import write_atomically
    from pipelines.plots.ecg_paper import ecg_paper

    age = f"{record.age:g} years" if record.age is not None else ""
    caption = "   ".join(part for part in (age, record.sex or "", ", ".join(record.labels)) if part)
    write_atomically(png, ecg_paper(record.signal_LT, record.leads, record.rate, record.record_id, caption=caption))
