"""One reader: what a drop takes, `ecg inspect` and `ecg embed` read, and with the same verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import wfdb

from ecg_model.leads import LEADS, LEADS_12
from pipelines.cli.embed import Embedded, Unreadable, embed_files
from pipelines.cli.inspect import Inspection, inspect_path
from pipelines.harmonize.convert import encodable
from pipelines.home import Home
from pipelines.incoming import own_data
from pipelines.incoming.check import check_drop
from pipelines.incoming.readers import contents, read_file
from pipelines.records import DroppedRecord, DropReason, Record
from pipelines.sources.base import RemoteFile
from tests.support.drops import array_fields, describe, ecgs, records, write_npy
from tests.support.paths import SHARED

RAW = SHARED / "vendor"
needs_vendor_files = pytest.mark.skipif(not RAW.is_dir(), reason="../shared/vendor is not there")


def write_wfdb(folder: Path, name: str, **how: object) -> Path:
    form = {"fmt": ["16"] * 12, "adc_gain": [4880.0] * 12, "baseline": [0] * 12, **how}
    wfdb.wrsamp(name, 500, ["mV"] * 12, list(LEADS_12), ecgs(1)[0].T, write_dir=str(folder), **form)
    return folder / f"{name}.hea"


def a_file_of_each_format(folder: Path) -> list[Path]:
    (folder / "drop.json").write_text(json.dumps({"rate": 500, "units": "mV"}))
    write_wfdb(folder, "w", comments=["Dx: 426783006"])
    write_npy(folder / "a.npy", ecgs(1), **array_fields())
    np.savez(folder / "z.npz", z=ecgs(1)[0])
    describe(folder / "z.npz", **array_fields())
    np.savetxt(folder / "c.csv", ecgs(1)[0].T, delimiter=",", header=",".join(LEADS_12), comments="")
    with h5py.File(folder / "h.h5", "w") as file:
        file["signals"], file["ids"] = ecgs(1), ["h"]
        file.attrs["leads"] = list(LEADS_12)
    return [folder / name for name in ("w.hea", "w.dat", "a.npy", "z.npz", "c.csv", "h.h5")]


def inspect_file(file: Path) -> Inspection:
    """The one record of a file."""
    (inspection,) = inspect_path(file)
    return inspection


def test_one_file_gets_the_verdict_of_its_drop(tmp_path: Path) -> None:
    files = a_file_of_each_format(tmp_path)
    report = check_drop(tmp_path)
    assert (report.records, report.kept, report.unread) == (5, 5, 0)
    for file in files:
        inspection = inspect_file(file)
        assert inspection.refused is None, file
        assert (inspection.record and inspection.record.leads) == LEADS_12
        (embedded,) = embed_files([file], lambda record: record.signal_LT.mean(axis=1))
        assert isinstance(embedded, Embedded)
        assert embedded.embedding_D.shape == (8,)


def test_what_a_drop_refuses_is_refused_for_the_same_reason(tmp_path: Path) -> None:
    x_NLT = ecgs(1)
    x_NLT[0, 7, 100] = np.nan
    write_npy(tmp_path / "a.npy", x_NLT, **array_fields())
    (dropped,) = (refusal.record for refusal in check_drop(tmp_path).drops)
    refused = inspect_file(tmp_path / "a.npy").refused
    assert refused == dropped
    (item,) = embed_files([tmp_path / "a.npy"], lambda record: record.signal_LT)
    assert isinstance(item, Unreadable)
    assert item.why == f"{dropped.reason}: {dropped.detail}"


def test_a_gap_behind_the_window_is_kept_and_embedded_alike(tmp_path: Path) -> None:
    x_NLT = ecgs(1, seconds=15)
    x_NLT[0, :, 6000] = np.nan
    write_npy(tmp_path / "a.npy", x_NLT, **array_fields())
    assert check_drop(tmp_path).kept == 1
    (item,) = embed_files([tmp_path / "a.npy"], lambda record: record.signal_LT[:, -1])
    assert isinstance(item, Embedded)
    np.testing.assert_array_equal(item.embedding_D, x_NLT[0][[0, 1, *range(6, 12)], 5999].astype(np.float32))


def test_a_short_recording_is_embedded_as_it_is(tmp_path: Path) -> None:
    (base,) = records_of(tmp_path)
    short = replace(base, signal_LT=base.signal_LT[:, :1500])
    found = encodable(short)
    assert isinstance(found, Record)
    assert (found.leads, found.signal_LT.shape) == (LEADS, (8, 1500))
    flat = replace(short, signal_LT=np.zeros_like(base.signal_LT))
    dropped = encodable(flat)
    assert isinstance(dropped, DroppedRecord)
    assert dropped.reason is DropReason.FLAT_LEAD


def records_of(folder: Path) -> list[Record]:
    write_npy(folder / "a.npy", ecgs(1), **array_fields())
    return records(folder)


def test_a_file_below_a_drop_is_read_with_the_drops_json(tmp_path: Path) -> None:
    (tmp_path / "drop.json").write_text(json.dumps({"rate": 500, "units": "uV"}))
    (tmp_path / "ward").mkdir()
    file = tmp_path / "ward" / "c.csv"
    np.savetxt(file, ecgs(1)[0].T * 1000, delimiter=",", header=",".join(LEADS_12), comments="")
    (origin,) = read_file(file)
    assert isinstance(origin.item, Record)
    assert (origin.units, origin.form) == ("uV", "csv")
    assert np.ptp(origin.item.signal_LT[0]) < 5


@pytest.mark.parametrize("name", ["drop.json", "a.json", "RECORDS", "notes.txt"])
def test_a_file_without_ecgs_is_named_as_such(name: str, tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy", ecgs(1), **array_fields())
    if not (tmp_path / name).exists():
        (tmp_path / name).write_text("{}" if name.endswith(".json") else "of ward 7\n")
    with pytest.raises(ValueError, match="it holds no ECG"):
        list(read_file(tmp_path / name))


def test_every_file_of_a_drop_is_read_left_out_by_a_rule_or_named(tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy", ecgs(1), **array_fields())
    for name in ("README", "RECORDS", "SHA256SUMS.txt", "Thumbs.db", "notes.txt", "paper.pdf"):
        (tmp_path / name).write_text("about this drop\n")
    (tmp_path / "samples.txt").write_text("0.1 0.2 0.3\n0.4 0.5 0.6\n0.7 0.8 0.9\n")
    (tmp_path / "blob").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    (tmp_path / "store.zarr" / "c").mkdir(parents=True)
    for name in ("zarr.json", "c/0", "c/1"):
        (tmp_path / "store.zarr" / name).write_bytes(b"\0\1")
    report = check_drop(tmp_path)
    assert dict(report.ignored) == {
        "README": "text",
        "RECORDS": "list of files or checksums",
        "SHA256SUMS.txt": "list of files or checksums",
        "Thumbs.db": "left by an operating system",
        "notes.txt": "text",
        "paper.pdf": "text",
    }
    assert (report.kept, report.records, report.unread) == (1, 5, 4)
    assert not report.sound
    lines = "\n".join(report.lines())
    assert "samples.txt: a text of numbers" in lines
    assert "a Zarr store" in lines
    assert "left out, since they hold no ECG: 3 (text), such as README" in lines


@pytest.mark.parametrize(
    "above", ["", "\ufeff", "I,II,III\n", "# exported on Monday by the ward\n# 500 Hz\n", "time;I;II\n0:00.000;"]
)
@pytest.mark.parametrize("between", ["\n", " ", "\t0:00.004\t"])
def test_a_text_of_numbers_is_named_whatever_stands_above_and_between(tmp_path: Path, above: str, between: str) -> None:
    write_npy(tmp_path / "a.npy", ecgs(1), **array_fields())
    numbers = [f"{number / 1000:.3f}" for number in range(2000)]
    (tmp_path / "ecg.txt").write_text(above + between.join(f"{one} {one}" for one in numbers), encoding="utf-8")
    (tmp_path / "notes.txt").write_text("12 ECGs of 9 patients, 500 Hz, 10 s each, 2024 to 2026, ward 7, 3 carts\n")
    report = check_drop(tmp_path)
    assert dict(report.ignored) == {"notes.txt": "text"}
    assert (report.unread, report.sound) == (1, False)


def test_a_second_drop_json_is_refused_by_drops_and_obeyed_by_a_single_file(tmp_path: Path) -> None:
    (tmp_path / "drop.json").write_text('{"rate": 500, "units": "mV"}')
    (tmp_path / "cart2").mkdir()
    np.savetxt(tmp_path / "cart2" / "a.csv", ecgs(1)[0].T, "%.3f", ",", header=",".join(LEADS_12), comments="")
    assert check_drop(tmp_path).kept == 1
    (tmp_path / "cart2" / "drop.json").write_text('{"rate": 1000, "units": "mV"}')
    with pytest.raises(ValueError, match=r"cart2/drop\.json: one drop\.json, .* make cart2 a drop"):
        check_drop(tmp_path)
    record = inspect_file(tmp_path / "cart2" / "a.csv").record
    assert record is not None
    assert record.rate == 1000


@needs_vendor_files
def test_vendors_files_are_read_judged_and_embedded_in_a_mixed_drop(tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    (drop / "IM000001").write_bytes((RAW / "dicom" / "mortara_1000hz.dcm").read_bytes())
    (drop / "muse.xml").write_bytes((RAW / "muse_xml" / "muse9_500hz.xml").read_bytes())
    (drop / "schiller.xml").write_bytes((RAW / "unknown" / "schiller.xml").read_bytes())
    write_wfdb(drop, "w")
    report = check_drop(drop)
    assert (report.kept, report.records, report.unread) == (3, 4, 1)
    assert {part.kind for part in report.parts} == {"DICOM", "GE MUSE XML", "WFDB", "unknown"}
    inspection = inspect_file(drop / "IM000001")
    assert inspection.refused is None
    assert inspection.record is not None
    assert inspection.record.patient_id is None  # without a home there is no key
    assert "DICOM" in inspection.reading.form
    (item,) = embed_files([drop / "muse.xml"], lambda record: record.signal_LT[:, 0])
    assert isinstance(item, Embedded)
    # Into a home, each patient gets one pseudonym, whatever the drop.
    home = Home(tmp_path / "home")
    paths = [RemoteFile(name, f"sha256:{'0' * 64}") for name in ("IM000001", "muse.xml")]
    first, again = ([*own_data(home).read(drop, "ward", paths)] for _ in range(2))
    assert all(item.record_id.startswith("ecg-") for item in first)  # by content: a file's name can be a patient's id
    patients = [item.patient_id for item in first if isinstance(item, Record)]
    assert patients == [item.patient_id for item in again if isinstance(item, Record)]
    elsewhere = [*own_data(Home(tmp_path / "other")).read(drop, "ward", paths)]
    for name, other in zip(patients, elsewhere, strict=True):
        assert isinstance(other, Record)
        assert (name is None) == (other.patient_id is None)
        assert name is None or name != other.patient_id


def test_what_only_claims_to_be_a_vendors_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "Doe_John.scp").write_bytes(b"no SCP-ECG")
    (part,) = contents(tmp_path, ["Doe_John.scp"]).parts
    (origin,) = part.read()
    assert isinstance(origin.item, DroppedRecord)
    assert origin.item.reason is DropReason.UNKNOWN_FORMAT


def test_one_ecg_in_an_hdf5_file_needs_no_axis_of_records_and_no_id(tmp_path: Path) -> None:
    (tmp_path / "drop.json").write_text(json.dumps({"datasets": {"signals": "ecg"}}))
    (x_LT,) = ecgs(1)
    for name, signal, axes in (("A00001", x_LT, None), ("A00002", x_LT.T, ["record", "time", "lead"])):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["ecg"] = signal.astype(np.float16)
            file.attrs.update(
                {"rate": np.array([500.0]), "units": np.array(["mV"], dtype="S2"), "leads": list(LEADS_12)}
            )
            if axes:
                file.attrs["axes"] = axes
    with h5py.File(tmp_path / "three.h5", "w") as file:
        file["ecg"] = x_LT[None]
        file.attrs.update({"rate": 500, "units": "mV", "leads": list(LEADS_12)})
    found = records(tmp_path)
    assert [record.record_id for record in found] == ["A00001", "A00002", "three"]
    np.testing.assert_array_equal(found[0].signal_LT, found[1].signal_LT)
    np.testing.assert_allclose(found[2].signal_LT, x_LT, atol=1e-6)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("named", [True, False])
def test_csv_files_are_read_as_a_spreadsheet_writes_them(
    separator: str, decimal: str, named: bool, tmp_path: Path
) -> None:
    if separator == decimal:
        return
    (x_LT,) = np.round(ecgs(1), 4)
    lines = [separator.join(f"{value:.4f}".replace(".", decimal) for value in row) for row in x_LT.T]
    text = "\r\n".join([separator.join(LEADS_12), *lines] if named else lines)
    (tmp_path / "c.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    fields = {"rate": 500, "units": "mV"} if named else {"rate": 500, "units": "mV", "leads": list(LEADS_12)}
    (tmp_path / "drop.json").write_text(json.dumps(fields))
    (record,) = records(tmp_path)
    assert record.leads == LEADS_12
    np.testing.assert_allclose(record.signal_LT, x_LT, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("I,II\n1,2\n".encode("utf-16"), "it is UTF-16 text"),
        (
            ("lead," + ",".join(map(str, range(5000))) + "\nI," + ",".join(["0.1"] * 5000)).encode(),
            "rows and columns are",
        ),
        (("V1," + ",".join(["0.1"] * 5000)).encode(), "rows and columns are swapped"),
        (b"0.1,0.2\n0.3,0.4\n", "leads None: name each row"),
    ],
)
def test_a_csv_of_another_form_is_told_what_it_is(text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(text)
    (tmp_path / "drop.json").write_text(json.dumps({"rate": 500, "units": "mV"}))
    (part,) = contents(tmp_path, ["c.csv", "drop.json"]).parts
    (origin,) = part.read()
    assert isinstance(origin.item, DroppedRecord)
    assert message in origin.item.detail


def test_a_matlab_file_without_a_header_is_named_and_its_table_left_out(tmp_path: Path) -> None:
    (tmp_path / "A0001.mat").write_bytes(b"MATLAB 5.0 MAT-file Platform: posix" + bytes(200))
    (tmp_path / "REFERENCE.csv").write_text("Recording,First_label\nA0001,5\n")
    report = check_drop(tmp_path)
    assert [found.record.reason for found in report.drops] == [DropReason.UNKNOWN_FORMAT]
    assert "a MATLAB file without a WFDB header is not read" in report.drops[0].record.detail
    assert report.ignored == (("REFERENCE.csv", "table of records"),)


@pytest.mark.parametrize("given", ["REC.HEA", "REC.DAT"])
def test_capitals_and_files_of_another_name_are_one_record(given: str, tmp_path: Path) -> None:
    header = write_wfdb(tmp_path, "REC")
    header.rename(tmp_path / "REC.HEA")
    header.with_suffix(".dat").rename(tmp_path / "REC.DAT")
    (tmp_path / "REC.HEA").write_text((tmp_path / "REC.HEA").read_text().replace("REC.dat", "REC.DAT"))
    other = write_wfdb(tmp_path, "p17")
    (tmp_path / "p17.dat").rename(tmp_path / "p17_ecg.dat")
    other.write_text(other.read_text().replace("p17.dat", "p17_ecg.dat"))
    report = check_drop(tmp_path)
    assert (report.records, report.kept, report.ignored) == (2, 2, ())
    inspection = inspect_file(tmp_path / given)
    assert (inspection.refused, inspection.reading.item.record_id) == (None, "REC")


@needs_vendor_files
def test_a_check_counts_a_patient_of_several_vendors_files_once(tmp_path: Path) -> None:
    data = (RAW / "muse_xml" / "muse9_500hz.xml").read_bytes()
    for name, ending in (("a", b""), ("b", b"\n")):  # two contents, so two records
        (tmp_path / f"{name}.xml").write_bytes(data + ending)
    patients = check_drop(tmp_path).patients
    assert (patients.named, patients.patients, patients.most) == (2, 1, 2)
