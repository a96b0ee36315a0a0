"""A table of a drop that says whose ECGs its files hold: a row a record, in a csv that drop.json names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pipelines.formats.joined_labels import split_labels
from pipelines.records import Record, Sex
from pipelines.sources.base import read_table
from pipelines.sources.demographics import is_unknown, plain_id, stated_age, stated_sex

TABLE = "table"
FILE = "file"
COLUMNS = ("ids", "patient_ids", "ages", "sexes", "labels")

_MOST_TEXT = 128
_REMEDY = "save it as csv in UTF-8 with commas, and name its columns in drop.json as its first line does"


@dataclass(frozen=True)
class PeopleTable:
    """What a drop's table says."""

    file: str
    """Path inside the drop."""
    rows: Mapping[str, Mapping[str, str]]
    """The cells of each row by column of COLUMNS, by the row's id."""

    @classmethod
    def read(cls, root: Path, stated: Any, paths: frozenset[str]) -> Self:
        """Read the table that the field `table` of drop.json states, {"file": ..., "ids": ..., ...}.

        Raises ValueError if it cannot be used, with what to correct.
        """
        columns = _columns(stated)
        file = columns.pop(FILE)
        if file not in paths:
            raise ValueError(f"{TABLE}: {file!r} is not in the drop: give its path from the drop's folder")
        rows: dict[str, dict[str, str]] = {}
        for cells in read_table(root / file, list(columns.values()), remedy=_REMEDY):
            row = {field: cells[name].strip() for field, name in columns.items()}
            if is_unknown(record := row.pop("ids")):
                continue
            if rows.setdefault(record, row) != row:
                raise ValueError(f"{file}: two different rows have the id {record[:40]!r}: take one out")
        return cls(file, rows)

    def filled(self, record: Record, names: Sequence[str], sex_codes: Mapping[str, Sex]) -> Record:
        """Return a record with what the table says and its file does not.

        Its row is that of the first of its names: its id, its file's path inside the drop, the file's name if only one
        file has it.
        """
        row = next((self.rows[name] for name in names if name in self.rows), None)
        if row is None:
            return replace(record, notes=(*record.notes, self.no_row))
        patient, patient_notes = _patient(row.get("patient_ids", ""))
        age, age_notes = stated_age(row.get("ages", ""))
        sex, sex_notes = stated_sex(row.get("sexes", ""), sex_codes)
        labels = [label for label in split_labels(row.get("labels", "")) if _fits(label) and not is_unknown(label)]
        return replace(
            record,
            patient_id=record.patient_id or patient,
            age=age if record.age is None else record.age,
            sex=record.sex or sex,
            labels=record.labels or tuple(dict.fromkeys(labels)),
            notes=(*record.notes, *patient_notes, *age_notes, *sex_notes),
        )

    @property
    def no_row(self) -> str:
        """The note of a record without a row."""
        return f"no row in {self.file}"


def _columns(stated: Any) -> dict[str, str]:
    """Return the table's file and its columns by field."""
    known = (FILE, *COLUMNS)
    if (
        not isinstance(stated, dict)
        or not {FILE, "ids"} < set(stated) <= set(known)
        or not all(isinstance(value, str) for value in stated.values())
    ):
        raise ValueError(
            f"{TABLE}: give the file, the column of ids, and one or more of {', '.join(COLUMNS[1:])}, as in "
            '{"file": "metadata.csv", "ids": "ECG_ID", "patient_ids": "Patient_ID"}'
        )
    return dict(stated)


def _patient(text: str) -> tuple[str | None, tuple[str, ...]]:
    if is_unknown(text):
        return None, ()
    if not _fits(text):
        return None, (f"patient id left out: text of 1 to {_MOST_TEXT} characters is needed",)
    return plain_id(text), ()


def _fits(text: str) -> bool:
    return 0 < len(text) <= _MOST_TEXT and text.isprintable()
