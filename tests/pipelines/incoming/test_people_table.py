"""A table of a drop that says whose ECGs its files hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.incoming import readers
from pipelines.incoming.check import check_drop
from pipelines.incoming.drop import SHARED
from pipelines.records import Record
from tests.support.drops import array_fields, ecgs, only_drop, records, write_npy

TABLE = {
    "file": "people/list.csv",
    "ids": "ECG",
    "patient_ids": "PID",
    "ages": "Age",
    "sexes": "Sex",
    "labels": "Codes",
}
ROWS = """ECG,PID,Age,Sex,Codes,Date
a,17.0,063Y,1,AF;LBBB,2020
ward/b.npy,18,,F,,2021
c.npy,,90+,2,"['SR']",2021
,99,1,M,,
"""


def write_drop(folder: Path, table: Any = TABLE, rows: str = ROWS, **shared: Any) -> None:
    (folder / "ward").mkdir(parents=True)
    (folder / "people").mkdir()
    (folder / "people" / "list.csv").write_text(rows)
    (folder / SHARED).write_text(
        json.dumps({**array_fields(), "table": table, "sex_codes": {"1": "male", "2": "female"}, **shared})
    )
    for path in ("a.npy", "ward/b.npy", "ward/c.npy"):
        np.save(folder / path, ecgs(1)[0])


def by_id(folder: Path) -> dict[str, Record]:
    return {record.record_id: record for record in records(folder)}


def test_a_row_is_found_by_the_record_s_id_its_path_or_its_file_s_name(tmp_path: Path) -> None:
    write_drop(tmp_path / "d")
    found = by_id(tmp_path / "d")
    seen = {name: (each.patient_id, each.age, each.sex, each.labels) for name, each in found.items()}
    assert seen == {
        "a": ("17", 63.0, "male", ("AF", "LBBB")),
        "b": ("18", None, "female", ()),
        "c": (None, 90.0, "female", ("SR",)),
    }
    report = check_drop(tmp_path / "d")
    assert (report.records, report.kept, report.ignored, report.without_row) == (3, 3, (), 0)
    assert report.to_dict()["labels"] == {"AF": 1, "LBBB": 1, "SR": 1}
    assert "labels of the kept records: AF 1, LBBB 1, SR 1" in report.lines()


def test_one_file_is_read_with_the_table_above_it(tmp_path: Path) -> None:
    write_drop(tmp_path / "d")
    (origin,) = readers.read_file(tmp_path / "d" / "ward" / "b.npy")
    assert isinstance(origin.item, Record)
    assert origin.item.patient_id == "18"


def test_what_a_file_says_itself_stays(tmp_path: Path) -> None:
    write_drop(tmp_path / "d", rows="ECG,PID,Age,Sex,Codes\nx0,17,63,F,AF\n")
    write_npy(tmp_path / "d" / "x.npy", ecgs(1), **array_fields(), patient_ids=["p1"], labels=["SR"])
    record = by_id(tmp_path / "d")["x0"]
    assert (record.patient_id, record.age, record.sex, record.labels) == ("p1", 63.0, "female", ("SR",))


def test_a_record_without_a_row_is_noted_and_counted(tmp_path: Path) -> None:
    write_drop(tmp_path / "d", rows="ECG,PID,Age,Sex,Codes\na,17,63,F,AF\nz,18,63,F,AF\n")
    assert by_id(tmp_path / "d")["b"].notes == ("no row in people/list.csv",)
    report = check_drop(tmp_path / "d")
    assert report.without_row == 2
    assert any("2 of the kept records have no row in the table" in line for line in report.lines())


def test_an_entry_that_is_not_understood_costs_that_field_alone(tmp_path: Path) -> None:
    write_drop(tmp_path / "d", rows="ECG,PID,Age,Sex,Codes\na,17,old,3,AF\n")
    record = by_id(tmp_path / "d")["a"]
    assert (record.patient_id, record.age, record.sex, record.labels) == ("17", None, None, ("AF",))
    assert len(record.notes) == 2


@pytest.mark.parametrize(
    ("table", "rows", "words"),
    [
        ("people/list.csv", ROWS, "give the file, the column of ids"),
        ({"file": "people/list.csv", "ids": "ECG"}, ROWS, "one or more of patient_ids, ages, sexes, labels"),
        ({**TABLE, "patients": "PID"}, ROWS, "give the file, the column of ids"),
        ({**TABLE, "ages": 3}, ROWS, "give the file, the column of ids"),
        ({**TABLE, "file": "list.csv"}, ROWS, "'list.csv' is not in the drop"),
        ({**TABLE, "file": "../list.csv"}, ROWS, "is not in the drop"),
        (
            {**TABLE, "ids": "ECG_ID"},
            ROWS,
            "no column 'ECG_ID' (it has ECG, PID, Age, Sex, Codes, Date): save it",
        ),
        (TABLE, ROWS + "a,18,63,F,,\n", "two different rows have the id 'a'"),
        (TABLE, ROWS + "d,18\n", "2 fields, the header has 6"),
        (TABLE, "", "no column"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_sentence(tmp_path: Path, table: Any, rows: str, words: str) -> None:
    write_drop(tmp_path / "d", table, rows)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        check_drop(tmp_path / "d")
    assert words in str(error.value)


def test_a_table_belongs_into_drop_json(tmp_path: Path) -> None:
    write_npy(tmp_path / "x.npy", ecgs(1), **array_fields(), table=TABLE)
    assert "write it into drop.json" in only_drop(tmp_path).detail
