"""Whose ECG it is, in the forms in which public sets, carts and tables say it."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import wfdb

from ecg_model.leads import LEADS_12
from pipelines.incoming.comments import people_fields
from pipelines.records import Record
from pipelines.sources.demographics import age_of, stated_age, stated_sex
from tests.support.drops import array_fields, ecgs, records, write_npy


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


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("63", 63),
        ("63Y", 63),
        ("063Y", 63),
        ("63 years", 63),
        ("63 y.o.", 63),
        ("63,5", 63.5),
        ("17.0", 17),
        (">89", 90),
        ("90+", 90),
        ("91+", 90),
        ("\u226590", 90),
        ("006M", 0.5),
        ("6 months", 0.5),
        ("030D", 30 / 365.25),
        ("004W", 28 / 365.25),
    ],
)
def test_ages_are_read_in_the_forms_of_carts_and_tables(text: str, years: float) -> None:
    age, _ = stated_age(text)
    assert age == pytest.approx(years)
    assert age_of(text) == stated_age(text)


@pytest.mark.parametrize("text", ["", "NaN", "unknown", "-1", "None"])
def test_an_age_that_is_not_known_needs_no_note(text: str) -> None:
    assert stated_age(text) == (None, ())
    assert stated_sex(text, {}) == (None, ())


@pytest.mark.parametrize("text", ["-5", "sixty", "60-70", "65M", "65 W", "300 years", "20+", "1990-01-01"])
def test_an_age_that_is_not_understood_is_noted(text: str) -> None:
    age, (note,) = stated_age(text)
    assert age is None
    assert text in note
    assert "left out" in note


def test_codes_of_sexes_mean_what_the_drop_says_and_nothing_else(tmp_path: Path) -> None:
    write_wfdb(tmp_path, "coded", "Sex: 1")
    (record,) = records(tmp_path)
    assert record.sex is None
    assert record.notes == (
        "sex '1' left out: write male or female, or say what codes mean with sex_codes in the drop's JSON",
    )
    (tmp_path / "drop.json").write_text(json.dumps({"sex_codes": {"1": "female", "True": "male"}}))
    write_npy(tmp_path / "table.npy", ecgs(4), **array_fields(sexes=[1.0, True, "W", 0]))
    coded, *table = sorted(records(tmp_path), key=lambda record: record.record_id)
    assert coded.sex == "female"
    assert [record.sex for record in table] == ["female", "male", "female", None]
    assert [len(record.notes) for record in table] == [0, 0, 0, 1]


def test_one_odd_entry_costs_its_field_of_its_record(tmp_path: Path) -> None:
    write_npy(
        tmp_path / "a.npy",
        ecgs(4),
        **array_fields(
            patient_ids=[17.0, "17.0", float("nan"), ["x"]],
            ages=[63.0, "063Y", None, True],
            sexes=["M", float("nan"), "nan", [1]],
            labels=[["AF", 1.5], "AF", float("nan"), [2.0]],
        ),
    )
    found = records(tmp_path)
    assert [record.patient_id for record in found] == ["17", "17", None, None]
    assert [record.age for record in found] == [63, 63, None, None]
    assert [record.sex for record in found] == ["male", None, None, None]
    assert [record.labels for record in found] == [("AF",), ("AF",), (), ("2",)]
    assert [len(record.notes) for record in found] == [1, 0, 0, 3]


def test_a_text_that_joins_labels_is_several_as_in_a_table(tmp_path: Path) -> None:
    stated = ["AF;LBBB", "AF | LBBB | nan", "['AF', 'LBBB']", ["AF;LBBB"], "block, first degree"]
    write_npy(tmp_path / "a.npy", ecgs(5), **array_fields(labels=stated))
    both = ("AF", "LBBB")
    assert [record.labels for record in records(tmp_path)] == [
        *(both, both, both),
        ("AF;LBBB",),  # a list says itself what is one
        ("block, first degree",),
    ]


def test_booleans_of_hdf5_are_sexes_by_a_stated_map(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["signals"], file["ids"] = ecgs(2), [5, 6]
        file["sexes"] = np.array([True, False])
        file["patient_ids"] = np.array([17.0, np.nan])
        file.attrs.update({"rate": 500, "units": "mV", "leads": list(LEADS_12)})
    assert [(record.patient_id, record.sex, len(record.notes)) for record in records(tmp_path)] == [
        ("17", None, 1),
        (None, None, 1),
    ]
    (tmp_path / "a.json").write_text(json.dumps({"sex_codes": {"true": "male", "false": "female"}}))
    assert [record.sex for record in records(tmp_path)] == ["male", "female"]
