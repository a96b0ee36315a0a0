"""What a file's place in a drop says: ids of files of one name, and patients of folders."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import wfdb

from ecg_model.leads import LEADS_12
from pipelines.incoming.check import check_drop
from pipelines.incoming.readers import read_file
from pipelines.records import Record
from tests.support.drops import array_fields, describe, ecgs, records, write_npy
from tests.support.paths import SHARED

CASE = SHARED / "cases" / "same_names_in_folders" / "drop"
NOTE = "called by its path: several files are named ecg"


def write_csv(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    x_LT = ecgs(1, seconds=1, seed=seed)[0]
    np.savetxt(path, x_LT.T, delimiter=",", header=",".join(LEADS_12), comments="")


def write_wfdb(folder: Path, name: str, *comments: str, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    form = {"fmt": ["16"] * 12, "adc_gain": [1000.0] * 12, "baseline": [0] * 12}
    x_LT = ecgs(1, seconds=1, seed=seed)[0]
    wfdb.wrsamp(name, 500, ["mV"] * 12, list(LEADS_12), x_LT.T, comments=[*comments], write_dir=str(folder), **form)


def by_id(folder: Path) -> dict[str, Record]:
    return {record.record_id: record for record in records(folder)}


@pytest.fixture(autouse=True)
def _units(tmp_path: Path) -> None:
    describe(tmp_path / "drop", rate=500, units="mV")


@pytest.mark.skipif(not CASE.is_dir(), reason="../shared/cases is not there")
def test_files_of_one_name_are_records_of_their_own() -> None:
    report = check_drop(CASE)
    assert (report.records, report.kept) == (6, 6)


def test_files_of_one_name_in_several_folders_are_called_by_their_paths(tmp_path: Path) -> None:
    write_csv(tmp_path / "p001" / "ecg.csv", seed=1)
    write_wfdb(tmp_path / "p002" / "b", "ecg", seed=2)
    write_csv(tmp_path / "ecg.csv", seed=3)
    write_csv(tmp_path / "p002" / "rest.csv")
    found = by_id(tmp_path)
    assert set(found) == {"p001/ecg", "p002/b/ecg", "./ecg", "rest"}
    assert [found[name].notes for name in ("p001/ecg", "./ecg", "rest")] == [(NOTE,), (NOTE,), ()]
    assert found["p001/ecg"].signal_LT[0, 0] == np.float32(ecgs(1, seconds=1, seed=1)[0, 0, 0])


def test_an_id_never_comes_to_mean_another_ecg(tmp_path: Path) -> None:
    write_csv(tmp_path / "p002" / "ecg.csv", seed=2)
    assert by_id(tmp_path)["ecg"].notes == ()
    write_csv(tmp_path / "p001" / "ecg.csv", seed=1)
    assert set(by_id(tmp_path)) == {"p001/ecg", "p002/ecg"}


def test_ids_that_files_state_stay_whatever_the_files_are_called(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_npy(tmp_path / folder / "ecg.npy", ecgs(2, seconds=1), **array_fields(ids=[f"{folder}1", f"{folder}2"]))
        with h5py.File(tmp_path / folder / "day.h5", "w") as file:
            file["signals"], file["ids"] = ecgs(1, seconds=1), [f"{folder}3"]
            file.attrs["leads"] = list(LEADS_12)
    write_csv(tmp_path / "c" / "ecg.csv")
    write_csv(tmp_path / "c" / "day.csv")
    assert set(by_id(tmp_path)) == {"a1", "a2", "a3", "b1", "b2", "b3", "ecg", "day"}


def test_arrays_of_one_ecg_are_called_by_their_paths_too(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "ecg.npy", ecgs(1, seconds=1)[0])
        describe(tmp_path / folder / "ecg.npy", **array_fields())
        with h5py.File(tmp_path / folder / "day.h5", "w") as file:
            file["signals"] = ecgs(1, seconds=1)[0]
            file.attrs["leads"] = list(LEADS_12)
    assert set(by_id(tmp_path)) == {"a/ecg", "b/ecg", "a/day", "b/day"}


def test_a_file_and_one_of_another_format_beside_it_are_one_record(tmp_path: Path) -> None:
    write_csv(tmp_path / "p001" / "ecg.csv")
    write_wfdb(tmp_path / "p001", "ecg")
    assert [record.record_id for record in records(tmp_path)] == ["ecg", "ecg"]


def test_a_record_that_is_dropped_is_called_by_its_path_too(tmp_path: Path) -> None:
    write_wfdb(tmp_path / "p001", "ecg")
    write_wfdb(tmp_path / "p002", "ecg")
    (tmp_path / "p002" / "ecg.dat").unlink()
    refused = [refusal.record for refusal in check_drop(tmp_path).drops]
    (dropped,) = [record for record in refused if "file missing" in record.reason]
    assert dropped.record_id == "p002/ecg"


@pytest.mark.parametrize(
    ("level", "patients"),
    [
        ("folder", {"a": "p001", "b": "p001", "c": "p002", "named": "x7", "loose": None}),
        ("folder 2", {"a": "p001/2020", "b": "p001/2021", "c": None, "named": "x7", "loose": None}),
        (None, {"a": None, "b": "b", "c": None, "named": "x7", "loose": None}),
    ],
)
def test_a_drop_can_take_folders_for_patients_where_files_name_none(
    tmp_path: Path, level: str | None, patients: dict[str, str | None]
) -> None:
    if level is not None:
        describe(tmp_path / "drop", rate=500, units="mV", patient_from=level)
    write_csv(tmp_path / "p001" / "2020" / "a.csv")
    write_wfdb(tmp_path / "p001" / "2021", "b", "<diagnoses>:", "Rhythm: Sinus rhythm.")  # LUDB's form
    write_csv(tmp_path / "p002" / "c.csv")
    write_wfdb(tmp_path / "p002", "named", "Patient: x7")
    write_csv(tmp_path / "loose.csv")
    found = by_id(tmp_path)
    assert {name: record.patient_id for name, record in found.items()} == patients
    if level == "folder":
        assert "patient taken from the folder: p001" in found["a"].notes
        (alone,) = read_file(tmp_path / "p001" / "2020" / "a.csv")
        assert isinstance(alone.item, Record)
        assert alone.item.patient_id == "p001"


@pytest.mark.parametrize("value", ["device", "folder 0", "folder 12", 2, ["folder"]])
def test_what_else_patients_are_taken_from_is_refused(tmp_path: Path, value: object) -> None:
    describe(tmp_path / "drop", patient_from=value)
    with pytest.raises(ValueError, match=r'patient_from .*: use "folder"'):
        check_drop(tmp_path)


def test_patients_of_folders_are_a_matter_of_the_whole_drop(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv")
    (tmp_path / "a.json").write_text(json.dumps({"patient_from": "folder"}))
    (dropped,) = (refusal.record for refusal in check_drop(tmp_path).drops)
    assert "a.json: patient_from: write it into drop.json" in dropped.detail


def test_a_table_tells_files_of_one_name_apart_by_their_paths(tmp_path: Path) -> None:
    for folder in ("p001", "p002", "p003"):
        write_csv(tmp_path / folder / "ecg.csv")
    write_wfdb(tmp_path, "l", "<diagnoses>:", "Rhythm: Sinus rhythm.")  # LUDB's form
    rows = ["file,who", "p001/ecg.csv,7", "p002/ecg,8", "ecg.csv,9", "l.hea,10"]
    (tmp_path / "people.csv").write_text("\n".join(rows))
    table = {"file": "people.csv", "ids": "file", "patient_ids": "who"}
    describe(tmp_path / "drop", rate=500, units="mV", table=table)
    found = by_id(tmp_path)
    assert {name: record.patient_id for name, record in found.items()} == {
        "p001/ecg": "7",
        "p002/ecg": "8",
        "p003/ecg": None,
        "l": "10",
    }
    assert "no row in people.csv" in found["p003/ecg"].notes
