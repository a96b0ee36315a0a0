"""Single ECG files, outside any partition, read by the readers that the sources use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.formats.wfdb import GAINS, Header, WfdbRecord, read_header, read_wfdb
from pipelines.records import DroppedRecord, Record, RecordError
from pipelines.sources import challenge, ptbxl
from pipelines.sources.challenge import challenge_record
from pipelines.sources.code15 import read_part
from pipelines.sources.ludb import ludb_record

WFDB = (".hea", ".mat", ".dat")
PART = ".zip"
EXAMS = "exams.csv"

_PTBXL = re.compile(r"\d{5}_(lr|hr)")


@dataclass(frozen=True)
class FileReading:
    """One record of a file."""

    item: Record | DroppedRecord
    form: str
    """The kind of file and header."""
    units: str = ""
    """How its numbers became millivolt."""


def read_file(path: Path) -> Iterator[FileReading]:
    """Read the record of a WFDB header or signal file, or all of a part of CODE-15%, which has exams.csv beside it.

    A record that cannot be read is a DroppedRecord with its reason. Raises ValueError for a file of another kind, and
    if a part or its table cannot be used.
    """
    suffix = path.suffix.lower()
    if suffix in WFDB:
        yield _read_wfdb(path.with_suffix(".hea"))
    elif suffix == PART:
        for item in read_part(path, path.with_name(EXAMS)):
            yield FileReading(item, "CODE-15% part", "float, millivolt according to its authors")
    else:
        raise ValueError(
            f"{path}: files of this kind are not read; give a WFDB record ({', '.join(WFDB)}) or a part of CODE-15% "
            f"(exams_part<n>{PART} with {EXAMS} beside it)"
        )


def _read_wfdb(header: Path) -> FileReading:
    """Read a record as one of the collection that its comments show. PTB-XL's patient data are in a table, not here."""
    form = "WFDB"
    try:
        if not header.is_file():
            raw = read_wfdb(header)  # raises the RecordError
        else:
            parsed = read_header(header)
            form = f"WFDB, {_collection(parsed)}"
            raw = read_wfdb(header, gains=_gains(parsed))
        return FileReading(_record(raw), form, _units(raw))
    except RecordError as error:
        return FileReading(error.dropped(header.stem), form)


def _gains(header: Header) -> tuple[float, float]:
    """Return the allowed gains: those of the collection that the comments or the name show, else all plausible ones."""
    if _is_challenge(header):
        return challenge.GAIN
    return ptbxl.GAIN if _PTBXL.fullmatch(header.record) else GAINS


def _is_challenge(header: Header) -> bool:
    return any(line.lower().startswith("dx") for line in header.comments)


def _is_ludb(header: Header) -> bool:
    return any(line.startswith("<diagnoses>") for line in header.comments)


def _collection(header: Header) -> str:
    if _is_challenge(header):
        return "Challenge header"
    return "LUDB header" if _is_ludb(header) else "header without patient data"


def _record(raw: WfdbRecord) -> Record:
    return ludb_record(raw) if _is_ludb(raw.header) else challenge_record(raw)


def _units(raw: WfdbRecord) -> str:
    """Describe the gains in ADC units per millivolt, and the baselines unless all are 0."""
    gains = sorted({signal.gain for signal in raw.header.signals})
    baselines = sorted({signal.baseline for signal in raw.header.signals})
    text = f"{_span(gains)} units a millivolt, 16 bit"
    return text if baselines == [0] else f"{text}, baseline {_span(baselines)}"


def _span(values: list[float] | list[int]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"
