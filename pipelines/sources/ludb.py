"""LUDB: 200 ECGs of 10 s at 500 Hz with hand-drawn wave boundaries, PhysioNet `ludb` 1.0.1. One partition.

Each lead has its own gain, which scales all leads to about the same height: amplitudes are not physical, and the ratios
between leads are lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ecg_model.leads import LEADS_12
from pipelines.formats.limits import HEADER_BYTES, require_size
from pipelines.formats.wfdb import WfdbRecord
from pipelines.formats.wfdb_annotations import AnnotationMark, parse_marks
from pipelines.records import DroppedRecord, Record
from pipelines.sources.base import RemoteFile, Role, Source
from pipelines.sources.demographics import age_of, sex_of
from pipelines.sources.physionet import listed_by_sums, partition_by, project_root, read_records

_ROOT = project_root("ludb", "1.0.1")
_ALL = "all"
_IN_DATA = partition_by(_ROOT, r"(data)/\d+\.(?:hea|dat|i|ii|iii|av[rlf]|v[1-6])")

_PEAKS = ("p", "N", "t")

NOT_PHYSICAL = "amplitudes are not physical: each lead's gain is a normalisation"


def ludb_record(raw: WfdbRecord) -> Record:
    """Return the record; its labels are the lines of text below `<diagnoses>:`, without the full stop at the end."""
    fields: dict[str, str] = {}
    diagnoses: list[str] = []
    for line in raw.header.comments:
        if field := re.fullmatch(r"<(\w+)>:(.*)", line):
            fields[field[1]] = field[2]
        elif "diagnoses" in fields and (text := line.strip().rstrip(".")):
            diagnoses.append(text)
    age, notes = age_of(fields.get("age", ""))
    return Record(
        record_id=raw.header.record,
        signal_LT=raw.signal_LT,
        leads=raw.leads,
        rate=raw.header.rate,
        patient_id=raw.header.record,  # 200 records of 200 people
        age=age,
        sex=sex_of(fields.get("sex", "")),
        labels=tuple(dict.fromkeys(diagnoses)),
        notes=(*raw.header.notes, *notes, NOT_PHYSICAL),
    )


@dataclass(frozen=True, slots=True)
class MarkedWave:
    """A wave of one lead, in samples of the recording."""

    lead: str
    symbol: str  # `p`, `t`, or `N` for a QRS
    onset: int | None  # None if not marked, as is the offset
    peak: int
    offset: int | None

    @property
    def marks(self) -> tuple[int | None, int, int | None]:
        """Onset, peak and offset."""
        return self.onset, self.peak, self.offset


def waves_of_marks(marks: Sequence[AnnotationMark], lead: str) -> list[MarkedWave]:
    """Return the waves of one lead: each peak with the `(` just before it and the `)` just after it.

    Some QRS have their `(` a sample or two after the peak; the wave then begins at the peak (`N ( )`). Some have none.
    """
    waves = []
    for at, mark in enumerate(marks):
        if mark.symbol not in _PEAKS:
            continue
        before = marks[at - 1] if at else None
        after = marks[at + 1 : at + 3]
        onset = before.sample if before is not None and before.symbol == "(" else None
        if onset is None and [item.symbol for item in after] == ["(", ")"]:
            onset, after = mark.sample, after[1:]
        offset = after[0].sample if after and after[0].symbol == ")" else None
        waves.append(MarkedWave(lead, mark.symbol, onset, mark.sample, offset))
    return waves


def read_waves(root: Path, files: Sequence[RemoteFile]) -> dict[str, list[MarkedWave]]:
    """Return the hand-drawn waves of each record, in all twelve leads, by record id.

    Raises ValueError, with the file, if annotations cannot be read.
    """
    leads = {lead.lower(): lead for lead in LEADS_12}
    waves: dict[str, list[MarkedWave]] = {}
    for path in sorted(PurePosixPath(file.path) for file in files):
        lead = leads.get(path.suffix.removeprefix("."))
        if lead is not None:
            require_size(root / path, HEADER_BYTES, "the annotations of a lead", "fetch the file again")
            marks = parse_marks((root / path).read_bytes(), str(path))
            waves.setdefault(path.stem, []).extend(waves_of_marks(marks, lead))
    return waves


def _read(root: Path, partition: str, files: Sequence[RemoteFile]) -> Iterator[Record | DroppedRecord]:
    return read_records(root, files, ludb_record)


LUDB = Source(
    name="ludb",
    title="Lobachevsky University Electrocardiography Database",
    version="1.0.1",
    doi="10.13026/eegm-h675",
    homepage="https://physionet.org/content/ludb/1.0.1/",
    licence="ODC-BY 1.0",
    citation=(
        "Kalyakulina AI, Yusipov II, Moskalenko VA, et al. LUDB: a new open-access validation tool for "
        "electrocardiogram delineation algorithms. IEEE Access 2020;8:186181-186190. doi:10.1109/ACCESS.2020.3029211"
    ),
    role=Role.EVALUATION,
    bytes=24_800_000,
    root=_ROOT,
    archive="lobachevsky-university-electrocardiography-database",
    partitions=(_ALL,),
    list_files=listed_by_sums(_ROOT),
    partition_of=lambda path: _ALL if _IN_DATA(path) else None,
    read=_read,
)
