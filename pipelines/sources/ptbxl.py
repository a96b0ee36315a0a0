"""PTB-XL 1.0.3: 21,799 ECGs of 10 s of 18,869 patients, as two sources: at 500 Hz and at 100 Hz.

`records500/<00000..21000>/<ecg_id>_hr.{hea,dat}` and `records100/.../<ecg_id>_lr...`, a partition per folder;
ptbxl_database.csv has the labels and demographics, by ecg_id, which is the record id in both sources.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.formats.wfdb import WfdbRecord
from pipelines.records import DroppedRecord, DropReason, Record, RecordError, Sex
from pipelines.sources.base import RemoteFile, Role, Source, read_table, rows_by_id
from pipelines.sources.demographics import age_of, is_unknown, plain_id, sex_of
from pipelines.sources.physionet import listed_by_sums, partition_by, project_root, read_records

_ROOT = project_root("ptb-xl", "1.0.3")
_TABLE = f"{_ROOT}/ptbxl_database.csv"
_COLUMNS = ("ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold")
_SEX: dict[str, Sex] = {"0": "male", "1": "female"}
GAIN = (1000.0, 1000.0)
"""ADC units per millivolt, lowest and highest accepted."""


def _read(root: Path, partition: str, files: Sequence[RemoteFile]) -> Iterator[Record | DroppedRecord]:
    rows = _rows(root / _TABLE)

    def convert(raw: WfdbRecord) -> Record:
        ecg_id = _ecg_id(raw.header.record)
        if ecg_id not in rows:
            raise RecordError(DropReason.NOT_LISTED, f"ecg_id {ecg_id} is not in {Path(_TABLE).name}")
        return _record(raw, rows[ecg_id])

    for item in read_records(root, files, convert, gains=GAIN):
        yield replace(item, record_id=str(_ecg_id(item.record_id))) if isinstance(item, DroppedRecord) else item


def _rows(table: Path) -> dict[int, dict[str, str]]:
    """Return the table's rows by ecg_id. Raises ValueError if two of one ecg_id differ in what is used."""
    return rows_by_id(
        ((_whole(row, "ecg_id"), row) for row in read_table(table, _COLUMNS)),
        lambda ecg_id, column, one, other: ValueError(
            f"{_TABLE}, ecg_id {ecg_id}: two rows, with {column} {one[:60]!r} and {other[:60]!r}: take the table of "
            "version 1.0.3"
        ),
    )


def _record(raw: WfdbRecord, row: dict[str, str]) -> Record:
    age, notes = age_of(row["age"])
    sex = _SEX.get(plain_id(row["sex"])) or sex_of(row["sex"])
    if sex is None and not is_unknown(row["sex"]):
        notes += (f"sex {row['sex'].strip()[:40]!r} left out: 0 is male and 1 is female",)
    return Record(
        record_id=str(_whole(row, "ecg_id")),
        signal_LT=raw.signal_LT,
        leads=raw.leads,
        rate=raw.header.rate,
        patient_id=str(_whole(row, "patient_id")),
        age=age,
        sex=sex,
        labels=_scp_codes(row),
        fold=_whole(row, "strat_fold"),
        notes=raw.header.notes + notes,
    )


def _scp_codes(row: dict[str, str]) -> tuple[str, ...]:
    """Return all codes of a row, whatever their likelihood (0 is "not stated"): `{'NORM': 100.0, 'SR': 0.0}`."""
    text = row["scp_codes"]
    try:
        codes = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        codes = None
    if not isinstance(codes, dict) or not all(isinstance(code, str) for code in codes):
        raise _unusable(row, "scp_codes", "a dictionary of codes")
    return tuple(codes)


def _whole(row: dict[str, str], column: str) -> int:
    """Return a cell's whole number, which the table also writes as `15709.0`. Raises ValueError if it is none."""
    text = row[column].strip()
    if not re.fullmatch(r"\d{1,9}(\.0*)?", text, re.ASCII):
        raise _unusable(row, column, "a whole number")
    return int(text.split(".")[0])


def _unusable(row: dict[str, str], column: str, needed: str) -> ValueError:
    return ValueError(
        f"{_TABLE}, ecg_id {row['ecg_id']}: {column} is {row[column][:60]!r}, {needed} is needed: "
        "take the table of version 1.0.3"
    )


def _ecg_id(stem: str) -> int:
    """Return the ecg_id in a file's name: 12 of `00012_hr`."""
    return int(stem.split("_")[0])


def _ptbxl(*, name: str, rate: int, folder: str, suffix: str, size: int) -> Source:
    return Source(
        name=name,
        title=f"PTB-XL, {rate} Hz",
        version="1.0.3",
        doi="10.13026/kfzx-aw45",
        homepage="https://physionet.org/content/ptb-xl/1.0.3/",
        licence="CC BY 4.0",
        citation=(
            "Wagner P, Strodthoff N, Bousseljot R-D, et al. PTB-XL, a large publicly available electrocardiography "
            "dataset. Sci Data 2020;7:154. doi:10.1038/s41597-020-0495-6"
        ),
        role=Role.EVALUATION,
        bytes=size,
        root=_ROOT,
        archive="ptb-xl-a-large-publicly-available-electrocardiography-dataset",
        partitions=tuple(f"{n:05d}" for n in range(0, 22_000, 1000)),
        list_files=listed_by_sums(_ROOT),
        partition_of=partition_by(_ROOT, rf"{folder}/(\d{{5}})/\d{{5}}_{suffix}\.(?:hea|dat)"),
        read=_read,
        shared=lambda path: path == _TABLE,
    )


PTBXL = _ptbxl(name="ptbxl", rate=500, folder="records500", suffix="hr", size=2_600_000_000)
PTBXL100 = _ptbxl(name="ptbxl100", rate=100, folder="records100", suffix="lr", size=540_000_000)
