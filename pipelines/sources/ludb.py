"""LUDB: 200 ECGs of 10 s at 500 Hz with hand-drawn wave boundaries, PhysioNet `ludb` 1.0.1. One partition.

Each lead has a gain of its own that brings it to about the same height: its amplitudes are not physical, and what one
lead is to another is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.records import Drop, Record
from pipelines.sources.base import RemoteFile, Role, Source
from pipelines.sources.patient import age_of, sex_of
from pipelines.sources.physionet import listed_by_sums, partition_by, project_root, read_records
from pipelines.wfdb_files import WfdbRecord

_ROOT = project_root("ludb", "1.0.1")
_ALL = "all"
_IN_DATA = partition_by(_ROOT, r"(data)/\d+\.(?:hea|dat|i|ii|iii|av[rlf]|v[1-6])")

NOT_PHYSICAL = "amplitudes are not physical: each lead's gain is a normalisation"


def ludb_record(raw: WfdbRecord) -> Record:
    """A record; its labels are the free text below `<diagnoses>:`, without the full stop at the end."""
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


def _read(root: Path, partition: str, files: Sequence[RemoteFile]) -> Iterator[Record | Drop]:
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
    root=_ROOT,
    partitions=(_ALL,),
    list_files=listed_by_sums(_ROOT),
    partition_of=lambda path: _ALL if _IN_DATA(path) else None,
    read=_read,
)
