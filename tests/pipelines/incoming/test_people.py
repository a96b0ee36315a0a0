"""Whose ECG it is, in the forms in which public sets, carts and tables say it."""

from __future__ import annotations

from pathlib import Path

import pytest
import wfdb

from ecg_model.leads import LEADS_12
from pipelines.incoming.comments import people_fields
from pipelines.records import Record
from tests.support.drops import ecgs, records


def write_wfdb(folder: Path, name: str, *comments: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    form = {"fmt": ["16"] * 12, "adc_gain": [1000.0] * 12, "baseline": [0] * 12}
    wfdb.wrsamp(
        name, 500, ["mV"] * 12, list(LEADS_12), ecgs(1)[0].T, comments=[*comments], write_dir=str(folder), **form
    )


def record_with(tmp_path: Path, *comments: str) -> Record:
    write_wfdb(tmp_path, "w", *comments)
    (record,) = records(tmp_path)
    return record


@pytest.mark.parametrize(
    ("comment", "patient"),
    [
        ("<subject_id>: 10000032", "10000032"),
        ("<subject_id> 10000032", "10000032"),
        ("patient 1", "1"),
        ("Patient no. 12", "12"),
        ("Subject s12", "s12"),
        ("Patient: p 17", "p 17"),
        ("Patient ID: p17", "p17"),
        ("patient_id = p17", "p17"),
        ("PatientID: p17", "p17"),
        ("Subject ID: p17", "p17"),
        ("MRN: 0017", "0017"),
        ("Patient: p17, Age: 63, Sex: F", "p17"),
        ("patient asleep", None),
        ("the patient: 1 of 3", None),
        ("inpatient: 12", None),
        ("patient 1 has a pacemaker", None),
        ("Patient:", None),
    ],
)
def test_comments_name_the_patient(comment: str, patient: str | None) -> None:
    assert people_fields([comment])["patient"] == (() if patient is None else (patient,))


@pytest.mark.parametrize(
    "comment",
    [
        "<age>: 65 <sex>: F <diagnoses> Coronary artery disease, arterial hypertension",
        "<age>: 65 <sex>: F <diagnoses>: Rhythm: Sinus rhythm.",
        "Age: 65 Sex: F",
        "Age: 65, Gender: female",
        "<sex> F <age> 65",
    ],
)
def test_one_comment_gives_age_and_sex(comment: str) -> None:
    fields = people_fields([comment, "patient 1", "PVCs, noise"])
    assert (fields["patient"], fields["age"]) == (("1",), ("65",))
    assert fields["sex"] in [("F",), ("female",)]


def test_incarts_comments_give_a_record_its_patient_age_and_sex(tmp_path: Path) -> None:
    record = record_with(tmp_path, "<age>: 65 <sex>: F <diagnoses> Coronary artery disease", "patient 1", "PVCs")
    assert (record.patient_id, record.age, record.sex, record.notes) == ("1", 65, "female", ())


def test_a_header_that_names_two_patients_is_of_the_first_with_a_note(tmp_path: Path) -> None:
    record = record_with(tmp_path, "Patient: a", "<subject_id>: b")
    assert record.patient_id == "a"
    assert record.notes == ("patient 'a' is taken: the header names 'b' too",)


def test_headers_as_ludb_writes_them_are_of_a_patient_each_unless_they_name_one(tmp_path: Path) -> None:
    write_wfdb(tmp_path, "one", "<age>: 51", "<sex>: F", "<diagnoses>:", "Rhythm: Sinus rhythm.")
    write_wfdb(tmp_path, "two", "<age>: 51", "<sex>: F", "<subject_id>: 7", "<diagnoses>:", "Rhythm: Sinus rhythm.")
    one, two = records(tmp_path)
    assert [(record.patient_id, record.age, record.sex) for record in (one, two)] == [
        ("one", 51, "female"),
        ("7", 51, "female"),
    ]
    assert one.labels == two.labels == ("Rhythm: Sinus rhythm",)
