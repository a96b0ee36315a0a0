"""`ecg inspect`: what is read from ECG files, and whether harmonization keeps it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipelines.harmonize.convert import Kept
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
@click.argument("file", metavar="PATH", type=click.Path(exists=True, path_type=Path))
@click.option("--record", "record_id", metavar="ID", help="Show this record alone, of several.")
@click.option(
    "--png", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Draw it on ECG paper into this file."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def command(file: Path, record_id: str | None, png: Path | None, as_json: bool) -> None:
    """Show what is read from PATH, ECG files of any format that a drop takes, and whether harmonization keeps it.

    PATH is a file (docs/own-data.md): WFDB, csv, NumPy, HDF5, DICOM, SCP-ECG, aECG, MUSE and others, with what
    describes it beside it; a part of CODE-15% (.zip, with exams.csv); or a folder of such files. Of several records,
    each is a line. Exit code 1 if a record is refused; the reason is printed.

    \b
    ecg inspect JS00001.hea
    ecg inspect 00001_hr.dat --png 00001.png
    ecg inspect export
    ecg inspect exams_part0.zip --record 102780
    """
    inspections = inspect_path(file, record_id)
    first = list(islice(inspections, 2))
    if len(first) > 1 and png is not None:
        raise ValueError(
            f"{file}: --png draws one record, and there are several: name one, as in --record "
            f"{first[0].reading.item.record_id}"
        )
    if len(first) > 1:
        refused = _print_each(chain(first, inspections), as_json=as_json, whole=file.is_dir())
    else:
        (inspection,) = first
        refused = inspection.refused is not None
        _print_one(inspection, png, as_json=as_json)
    if refused:
        sys.exit(1)


def _print_one(inspection: Inspection, png: Path | None, *, as_json: bool) -> None:
    """Print all that is known of a record, and draw it."""
    from pipelines.formatting import format_name

    if as_json:
        click.echo(json.dumps(inspection.to_dict(), indent=1))
    else:
        for name, text in inspection.lines():
            click.echo(f"{name:<18}{format_name(text)}")
    if png is not None and inspection.record is not None:
        _draw(inspection.record, png)
        click.echo(f"drawn in {png}", err=True)


def _print_each(inspections: Iterable[Inspection], *, as_json: bool, whole: bool) -> bool:
    """Print a line per record, and their number; return whether one is refused. whole: with the records' files."""
    from pipelines.cli.console import counting, print_table

    rows: list[tuple[str, ...]] = []
    values: list[dict[str, Any]] = []
    refused = 0
    with counting("reading", transient=True) as on_count:
        for number, inspection in enumerate(inspections, 1):  # without their signals, which may be many
            refused += inspection.refused is not None
            if as_json:
                values.append(inspection.to_dict())
            else:
                rows.append(inspection.row() if whole else inspection.row()[1:])
            on_count(number)
    if as_json:
        click.echo(json.dumps(values, indent=1))
        return refused > 0
    headers = ("file", "record", "form", "leads", "Hz", "seconds", "verdict")
    print_table(headers if whole else headers[1:], rows)
    click.echo(f"\n{len(rows) - refused:,} of {len(rows):,} records are kept; --record ID shows more of one")
    return refused > 0


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

    def row(self) -> tuple[str, ...]:
        """Return a line of a table: file, record, form, leads, rate, length and verdict."""
        record, refused = self.record, self.refused
        shape = ("", "", "")
        if record is not None:
            shape = (str(len(record.leads)), f"{record.rate:g}", f"{record.signal_LT.shape[1] / record.rate:.2f}")
        verdict = "kept" if refused is None else f"refused: {refused.reason}: {refused.detail}"
        return (self.reading.file, self.reading.item.record_id, self.reading.form, *shape, verdict)

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


def inspect_path(path: Path, record_id: str | None = None) -> Iterator[Inspection]:
    """Read the records of a file or of a folder, or the one called `record_id`, and judge them as harmonization does.

    Raises ValueError as `read_path` does, and if there is no such record, or none at all.
    """
    from pipelines.cli.ecg_files import read_path
    from pipelines.harmonize.convert import judge
    from pipelines.harmonize.quality import QualityLimits

    readings = read_path(path)
    if record_id is not None:
        readings = iter([_named(readings, path, record_id)])
    shown, judged = tee(readings)
    verdicts = judge((reading.item for _, reading in judged), source="file", limits=QualityLimits())
    empty = True
    for (file, reading), verdict in zip(shown, verdicts, strict=True):
        empty = False
        yield _inspection(file, reading, verdict)
    if empty:
        raise ValueError(f"{path}: it holds no record")


def _named(readings: Iterable[tuple[Path, RecordOrigin]], path: Path, record_id: str) -> tuple[Path, RecordOrigin]:
    for file, reading in readings:
        if reading.item.record_id == record_id:
            return file, reading
    raise ValueError(f"{path}: it holds no record {record_id!r}")


def _inspection(file: Path, reading: RecordOrigin, verdict: Kept | DroppedRecord) -> Inspection:
    import numpy as np

    from pipelines.formats.shard import QUALITY
    from pipelines.records import DroppedRecord

    if isinstance(reading.item, DroppedRecord):
        return Inspection(file=file, reading=reading, refused=reading.item, quality={})
    finite = reading.item.signal_LT[np.isfinite(reading.item.signal_LT)]
    extremes = (float(finite.min()), float(finite.max())) if finite.size else None
    if isinstance(verdict, DroppedRecord):
        notes = reading.item.notes
        return Inspection(file=file, reading=reading, refused=verdict, quality={}, notes=notes, range=extremes)
    quality = {name: verdict.row[f"quality_{name}"] for name in QUALITY}
    notes = tuple(verdict.row["notes"])
    return Inspection(file=file, reading=reading, refused=None, quality=quality, notes=notes, range=extremes)


def _figure(value: float | None, unit: str) -> str:
    return "does not apply" if value is None else f"{value:.4g} {unit}".strip()


def _draw(record: Record, png: Path) -> None:
    """Draw a record on ECG paper."""
    from pipelines.durable import write_atomically
    from pipelines.plots.ecg_paper import ecg_paper

    age = f"{record.age:g} years" if record.age is not None else ""
    caption = "   ".join(part for part in (age, record.sex or "", ", ".join(record.labels)) if part)
    write_atomically(png, ecg_paper(record.signal_LT, record.leads, record.rate, record.record_id, caption=caption))
