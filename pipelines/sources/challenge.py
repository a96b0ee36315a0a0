"""Records in the format of the PhysioNet/CinC Challenges: age, sex and SNOMED CT codes as comments of the header.

The collections of the Challenge 2020 have it, and ecg-arrhythmia, which was published in this format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.formats.wfdb import WfdbRecord
from pipelines.records import DroppedRecord, Record
from pipelines.sources.base import RemoteFile, Role, Source
from pipelines.sources.demographics import age_of, sex_of
from pipelines.sources.physionet import listed_by_sums, partition_by, project_root, read_records

# All headers in this format give 1000 units per millivolt. Georgia's headers from before August 2020, which still
# circulate, give 4880, which is wrong for the same samples: any other gain is another edition's header.
GAIN = (1000.0, 1000.0)

_FIELD = re.compile(r"(Age|Sex|Dx)\s*:(.*)", re.IGNORECASE)
_CODE = re.compile(r"\d{6,18}", re.ASCII)  # a SNOMED CT identifier

CHALLENGE = (
    "Perez Alday EA, Gu A, Shah AJ, et al. Classification of 12-lead ECGs: the PhysioNet/Computing in Cardiology "
    "Challenge 2020. Physiol Meas 2020;41(12):124003. doi:10.1088/1361-6579/abc960"
)

_ROOT_2020 = project_root("challenge-2020", "1.0.2")


def read_challenge(root: Path, partition: str, files: Sequence[RemoteFile]) -> Iterator[Record | DroppedRecord]:
    """Yield the records of a partition; the `read` of a `Source`."""
    return read_records(root, files, challenge_record, gains=GAIN)


def challenge_record(raw: WfdbRecord) -> Record:
    """Return the record with age, sex and codes from the header's comments."""
    header = raw.header
    fields = {field[1].lower(): field[2] for line in header.comments if (field := _FIELD.fullmatch(line))}
    age, age_notes = age_of(fields.get("age", ""))
    codes, code_notes = codes_of(fields.get("dx", ""))
    return Record(
        record_id=header.record,
        signal_LT=raw.signal_LT,
        leads=raw.leads,
        rate=header.rate,
        age=age,
        sex=sex_of(fields.get("sex", "")),
        labels=codes,
        notes=header.notes + age_notes + code_notes,
    )


def codes_of(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the SNOMED CT codes of a `#Dx` line in its order, each once, and notes on entries that are not codes.

    Trailing commas, double commas and repeated codes occur; other writers put `;` or `|` between them.
    """
    entries = dict.fromkeys(entry for part in re.split("[,;|]", text) if (entry := part.strip()))
    codes = tuple(entry for entry in entries if _CODE.fullmatch(entry))
    others = [entry for entry in entries if not _CODE.fullmatch(entry) and entry.lower() not in ("unknown", "nan")]
    return codes, tuple(f"diagnosis {entry[:40]!r} left out: not a SNOMED CT code" for entry in others)


def challenge_2020(*, name: str, title: str, folder: str, groups: int, size: int, citation: str = CHALLENGE) -> Source:
    """Return a collection below `training/` of challenge-2020 1.0.2, with a partition for each of its folders g1...

    size: of its files, in bytes.
    """
    return Source(
        name=name,
        title=title,
        version="1.0.2",
        doi="10.13026/dvyd-kd57",
        homepage="https://physionet.org/content/challenge-2020/1.0.2/",
        licence="CC BY 4.0",
        citation=citation,
        role=Role.EVALUATION,
        bytes=size,
        root=_ROOT_2020,
        archive="classification-of-12-lead-ecgs-the-physionetcomputing-in-cardiology-challenge-2020",
        partitions=tuple(f"g{n}" for n in range(1, groups + 1)),
        list_files=listed_by_sums(_ROOT_2020),
        partition_of=partition_by(_ROOT_2020, rf"training/{folder}/(g\d+)/[\w-]+\.(?:hea|mat)"),
        read=read_challenge,
    )
