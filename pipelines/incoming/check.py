"""Check what a drop of own ECGs would come to: read and judge it as harmonization does, without writing anything."""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ecg_foundry.layout import absent_leads
from pipelines.harmonize.convert import judge
from pipelines.harmonize.patients import PatientCounts
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.window import MARKED
from pipelines.incoming import INCOMING
from pipelines.incoming.description import check_count, peak_to_peak
from pipelines.incoming.drop import RecordOrigin
from pipelines.incoming.listing import MARKER, Listing, check_name, list_drop
from pipelines.incoming.readers import Part, contents
from pipelines.records import DroppedRecord, DropReason, Record

# Range of the median lead's peak-to-peak amplitude in millivolt; outside of it a unit or a gain is probably wrong.
PLAUSIBLE = (0.2, 10.0)
NAMED = 20  # dropped records, refused entries and doubts listed one by one; --json has all
ROWS = 30  # parts that are shown one by one; of more, the table has the total of each kind

OnRecords = Callable[[int], None]
"""Called with the number of records read so far."""


@dataclass(kw_only=True)
class PartReport:
    """What one part of a drop came to."""

    kind: str
    where: str
    records: int = 0
    kept: int = 0
    incomplete: int = 0
    """Kept records that lack leads, which no corpus takes."""
    rates: Counter[float] = field(default_factory=Counter)
    leads: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    units: Counter[str] = field(default_factory=Counter)
    heights: list[float] = field(default_factory=list)
    """The median lead's peak-to-peak amplitude of each record that was read, millivolt."""
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def height(self) -> float | None:
        """The median of the records' amplitudes; None if none could be read."""
        return float(np.median(self.heights)) if self.heights else None

    @property
    def doubt(self) -> str | None:
        """A warning if the amplitude contradicts the unit, else None."""
        low, high = PLAUSIBLE
        if self.height is None or low <= self.height <= high:
            return None
        return (
            f"{self.where}: the median lead has {self.height:.3g} mV from peak to peak, and {low:g} to {high:g} are "
            f"usual: is {' or '.join(self.units)} the unit?"
        )

    def count(self, origin: RecordOrigin) -> None:
        """Count one record that was read."""
        self.records += 1
        if origin.units:
            self.units[origin.units] += 1
        if isinstance(origin.item, Record):
            record = origin.item
            self.rates[record.rate] += 1
            self.leads[" ".join(record.leads)] += 1
            self.seconds.append(record.signal_LT.shape[1] / record.rate)
            self.heights.append(float(np.median(peak_to_peak(record.signal_LT))))

    def add(self, other: PartReport) -> None:
        """Add another part's counts to these."""
        self.records += other.records
        self.kept += other.kept
        self.incomplete += other.incomplete
        self.rates += other.rates
        self.leads += other.leads
        self.units += other.units
        self.dropped += other.dropped
        self.seconds += other.seconds
        self.heights += other.heights

    def row(self) -> tuple[str, ...]:
        """Return its row of the table: kind, where, records, kept, rate, leads, seconds, units and amplitude."""
        return (
            self.kind,
            self.where,
            f"{self.records:,}",
            f"{self.kept:,}",
            _some([f"{rate:g}" for rate in sorted(self.rates)]),
            _some([str(len(names.split())) for names in self.leads]),
            _span(self.seconds, "{:.4g}"),
            _some(list(self.units)),
            _span(self.heights, "{:.3g}"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "kind": self.kind,
            "where": self.where,
            "records": self.records,
            "kept": self.kept,
            "incomplete": self.incomplete,
            "rates": {f"{rate:g}": count for rate, count in sorted(self.rates.items())},
            "leads": dict(self.leads),
            "seconds": [min(self.seconds), max(self.seconds)] if self.seconds else None,
            "units": list(self.units),
            "peak_to_peak_millivolt": [min(self.heights), self.height, max(self.heights)] if self.heights else None,
            "doubt": self.doubt,
            "dropped": dict(self.dropped),
        }


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A record that is not kept."""

    where: str
    """Its part."""
    file: str
    """Path inside the drop."""
    record: DroppedRecord

    def line(self, folder: Path) -> str:
        """Return it for people: the file as `ecg inspect` takes it, and the record's id if it is not the file's."""
        name, record = PurePosixPath(self.file), self.record
        by_file = (str(name), name.stem, f"{name.parent}/{name.stem}")
        of = "" if record.record_id in by_file else f", record {record.record_id}"
        return f"dropped {folder / name}{of}: {record.reason}: {record.detail}"

    def to_dict(self) -> dict[str, str]:
        """Return JSON values."""
        record = self.record
        named = {"where": self.where, "file": self.file, "record": record.record_id}
        return {**named, "reason": record.reason.value, "detail": record.detail}


@dataclass(frozen=True, kw_only=True)
class DropReport:
    """What a whole drop came to."""

    folder: Path

    misnamed: str | None
    """Why its folder's name cannot be a partition; None if it can."""

    listing: Listing
    parts: tuple[PartReport, ...]

    ignored: tuple[tuple[str, str], ...]
    """Files without ECGs, each with the rule by which it is left out."""

    drops: tuple[Refusal, ...]
    """Records that are not kept."""

    patients: PatientCounts

    without_row: int
    """How many kept records have no row in the table that drop.json names."""

    labels: Counter[str]
    """How many kept records have each label."""

    @property
    def records(self) -> int:
        return sum(part.records for part in self.parts)

    @property
    def kept(self) -> int:
        return sum(part.kept for part in self.parts)

    @property
    def unread(self) -> int:
        """How many files are of no format that is read."""
        return sum(refusal.record.reason is DropReason.UNKNOWN_FORMAT for refusal in self.drops)

    @property
    def sound(self) -> bool:
        """Whether the drop would be taken, all of its files read, and some records kept."""
        return self.kept > 0 and not self.unread and not self.listing.refused and self.misnamed is None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "folder": str(self.folder),
            "misnamed": self.misnamed,
            "marked": self.listing.marked,
            "files": len(self.listing.files),
            "bytes": sum(file.bytes for file in self.listing.files),
            "refused": [{"path": entry.path, "why": entry.why} for entry in self.listing.refused],
            "ignored": [{"path": path, "rule": rule} for path, rule in self.ignored],
            "unread": self.unread,
            "records": self.records,
            "kept": self.kept,
            "patients": {
                "records": self.patients.named,
                "patients": self.patients.patients,
                "most": self.patients.most,
            },
            "without_row": self.without_row,
            "labels": dict(self.labels.most_common()),
            "parts": [part.to_dict() for part in self.parts],
            "dropped": [refusal.to_dict() for refusal in self.drops],
            "sound": self.sound,
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table for people: a row per part, or per kind if there are more than ROWS parts."""
        if len(self.parts) <= ROWS:
            return [part.row() for part in self.parts]
        totals: dict[str, PartReport] = {}
        for kind, count in Counter(part.kind for part in self.parts).items():
            totals[kind] = PartReport(kind=kind, where=f"{count:,} folders or files")
        for part in self.parts:
            totals[part.kind].add(part)
        return [total.row() for total in totals.values()]

    def lines(self) -> list[str]:
        """Return the lines below the table."""
        marker = "is there" if self.listing.marked else "is not there yet: write it last, the drop is taken only then"
        lines = [f"marker {MARKER}: {marker}"]
        if self.misnamed is not None:
            lines.append(f"rename the folder, or the drop is never taken: {self.misnamed}")
        lines += _first([f"refused {entry.path}: {entry.why}" for entry in self.listing.refused], "are refused")
        lines += _first([part.doubt for part in self.parts if part.doubt is not None], "have such amplitudes")
        for rule, count in Counter(rule for _, rule in self.ignored).items():
            example = next(path for path, of in self.ignored if of == rule)
            lines.append(f"left out, since they hold no ECG: {count:,} ({rule}), such as {example}")
        if self.unread:
            lines.append(f"{self.unread:,} files are of no format that is read: see below what to do")
        if incomplete := sum(part.incomplete for part in self.parts):
            lines.append(f"{incomplete:,} of the kept records lack leads: they are marked, and no corpus takes them")
        if self.without_row:
            lines.append(f"{self.without_row:,} of the kept records have no row in the table: see its column of ids")
        if self.kept:
            remedy = ": state patient_ids, a table or patient_from in drop.json, or Patient: in headers"
            lines.append(self.patients.in_words() + (remedy if self.patients.named < self.kept else ""))
            lines.append(f"labels of the kept records: {_counted(self.labels)}")
        lines += _first([refusal.line(self.folder) for refusal in self.drops], "are dropped")
        return lines


def check_drop(folder: Path, on_records: OnRecords = lambda done: None) -> DropReport:
    """Read and judge all files of a drop's folder by the default limits; nothing is written.

    Raises ValueError if there is no such folder, or if its drop.json cannot be used.
    """
    listing = list_drop(folder)
    misnamed = None
    try:
        check_name(folder.resolve().name)
    except ValueError as error:
        misnamed = str(error)
    # Patients of vendors' files are told apart here by one key for the whole call, which nothing keeps.
    key = secrets.token_bytes(32)
    found = contents(folder, [file.path for file in listing.files], lambda: key)
    drop_parts = found.parts
    reports = [PartReport(kind=part.kind, where=part.where) for part in drop_parts]
    waiting: deque[tuple[PartReport, str]] = deque()
    drops: list[Refusal] = []
    patients: list[str | None] = []
    without_row, labels = 0, Counter[str]()
    results = judge(
        _items(drop_parts, reports, waiting),
        source=INCOMING.name,
        limits=QualityLimits(),
        incomplete=MARKED,
    )
    for done, result in enumerate(results, 1):
        report, file = waiting.popleft()
        if isinstance(result, DroppedRecord):
            report.dropped[result.reason.value] += 1
            drops.append(Refusal(where=report.where, file=file, record=result))
        else:
            report.kept += 1
            patients.append(result.row["patient_id"])
            labels.update(result.row["labels"])
            without_row += found.no_row is not None and found.no_row in result.row["notes"]
            report.incomplete += bool(absent_leads(result.row["notes"]))
        on_records(done)
    return DropReport(
        folder=folder,
        misnamed=misnamed,
        listing=listing,
        parts=tuple(reports),
        ignored=found.ignored,
        drops=tuple(drops),
        patients=PatientCounts.of(patients),
        without_row=without_row,
        labels=labels,
    )


def _items(
    drop_parts: Sequence[Part], reports: list[PartReport], waiting: deque[tuple[PartReport, str]]
) -> Iterator[Record | DroppedRecord]:
    """Yield all records in turn.

    Each record's report and file join `waiting` until its verdict comes, in the same order.
    """
    number = 0
    for part, report in zip(drop_parts, reports, strict=True):
        for origin in part.read():
            number += 1
            check_count(number, "the drop")
            report.count(origin)
            waiting.append((report, origin.file))
            yield origin.item


def _first(lines: list[str], what: str) -> list[str]:
    """Return the first NAMED lines, and one that says how many more there are."""
    more = [f"and {len(lines) - NAMED:,} more {what}: --json names all"] if len(lines) > NAMED else []
    return lines[:NAMED] + more


def _counted(labels: Counter[str]) -> str:
    """Return the most frequent labels with their records, and how many labels more there are."""
    shown = ", ".join(f"{label} {count:,}" for label, count in labels.most_common(NAMED))
    more = len(labels) - NAMED
    return (shown or "none") + (f", and {more:,} labels more" if more > 0 else "")


def _some(values: list[str], most: int = 3) -> str:
    different = list(dict.fromkeys(values))
    return ", ".join(different[:most]) + (", ..." if len(different) > most else "") or "-"


def _span(values: list[float], form: str) -> str:
    if not values:
        return "-"
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"
