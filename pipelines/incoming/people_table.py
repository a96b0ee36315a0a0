"""A table of a drop that says whose ECGs its files hold: a row a record, in a csv that drop.json names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from pipelines.incoming.description import PEOPLE_FIELDS, TABLE, labels_of, patient_of
from pipelines.records import Record, Sex
from pipelines.sources.base import read_table, rows_by_id
from pipelines.sources.demographics import is_unknown, stated_age, stated_sex

FILE = "file"

_REMEDY = "save it as csv in UTF-8 with commas, and name its columns in drop.json as its first line does"


@dataclass(frozen=True)
class PeopleTable:
    """What a drop's table says."""

    file: str
    """Path inside the drop."""
    rows: Mapping[str, Mapping[str, str]]
    """The cells of each row by column of PEOPLE_FIELDS, by the row's id."""

    @classmethod
    def read(cls, root: Path, stated: Any, paths: frozenset[str]) -> Self:
        """Read the table that the field `table` of drop.json states, {"file": ..., "ids": ..., ...}.

        Raises ValueError if it cannot be used, with what to correct.
        """
        columns = _columns(stated)
        file = columns.pop(FILE)
        if file not in paths:
            raise ValueError(f"{TABLE}: {file!r} is not in the drop: give its path from the drop's folder")
        return cls(file, _rows(root / file, tuple(columns.items()), (root / file).stat().st_mtime_ns))

    def filled(self, record: Record, names: Sequence[str], sex_codes: Mapping[str, Sex]) -> Record:
        """Return a record with what the table says and its file does not.

        Its row is that of the first of its names: its id, its file's path inside the drop, the file's name if only one
        file has it.
        """
        row = next((self.rows[name] for name in names if name in self.rows), None)
        if row is None:
            return replace(record, notes=(*record.notes, self.no_row))
        patient, patient_notes = patient_of(row.get("patient_ids", ""))
        age, age_notes = stated_age(row.get("ages", ""))
        sex, sex_notes = stated_sex(row.get("sexes", ""), sex_codes)
        labels, label_notes = labels_of(row.get("labels", ""))
        return replace(
            record,
            patient_id=record.patient_id or patient,
            age=age if record.age is None else record.age,
            sex=record.sex or sex,
            labels=record.labels or labels,
            notes=(*record.notes, *patient_notes, *age_notes, *sex_notes, *label_notes),
        )

    @property
    def no_row(self) -> str:
        """The note of a record without a row."""
        return f"no row in {self.file}"


@lru_cache(maxsize=1)  # files that are read one by one share a table
def _rows(path: Path, columns: tuple[tuple[str, str], ...], changed: int) -> Mapping[str, Mapping[str, str]]:
    """Return a table's cells by id and field. columns: field and name of each. changed: when the file was."""
    tables = read_table(path, [name for _, name in columns], remedy=_REMEDY)
    rows = ({field: cells[name].strip() for field, name in columns} for cells in tables)
    return rows_by_id(
        ((row.pop("ids"), row) for row in rows if not is_unknown(row["ids"])),
        lambda record, *_: ValueError(f"{path.name}: two different rows have the id {record[:40]!r}: take one out"),
    )


def _columns(stated: Any) -> dict[str, str]:
    """Return the table's file and its columns by field."""
    known = (FILE, *PEOPLE_FIELDS)
    if (
        not isinstance(stated, dict)
        or not {FILE, "ids"} < set(stated) <= set(known)
        or not all(isinstance(value, str) for value in stated.values())
    ):
        raise ValueError(
            f"{TABLE}: give the file, the column of ids, and one or more of {', '.join(PEOPLE_FIELDS[1:])}, as in "
            '{"file": "metadata.csv", "ids": "ECG_ID", "patient_ids": "Patient_ID"}'
        )
    return dict(stated)
