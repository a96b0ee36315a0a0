"""CODE-15%: exams joined by id, padding left out, whatever is in the archive; nothing left behind."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_model.recorded import recorded
from pipelines.records import DroppedRecord, DropReason, Record
from pipelines.sources.code15 import CODE15, LABELS, parse_api, read_part
from tests.support.paths import SHARED

FILES = SHARED / "real" / "mirror" / "zenodo.org" / "records" / "4916206" / "files"

real = pytest.mark.skipif(not FILES.is_dir(), reason=f"no real exams at {FILES}")


def exam(seed: int, samples: int = 4096, before: int = 0) -> np.ndarray:
    """A tracing (4096, 12) of noise with zeros around it."""
    x_TL = np.zeros((4096, 12), np.float32)
    x_TL[before : before + samples] = np.random.default_rng(seed).normal(1, 0.1, (samples, 12))
    return x_TL


def hdf5(ids: list[int], tracings: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["exam_id"] = np.array(ids, np.int64)
        file["tracings"] = tracings
    return stream.getvalue()


def part(folder: Path, members: dict[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(folder / "exams_part0.zip", "w", compression) as container:
        for name, data in members.items():
            container.writestr(name, data)
    return folder / "exams_part0.zip"


def table(folder: Path, ids: list[int], **columns: list[str]) -> Path:
    rows = {"exam_id": [str(i) for i in ids], "age": ["50"] * len(ids), "is_male": ["True"] * len(ids)}
    rows |= {name: ["False"] * len(ids) for name in LABELS}
    rows |= {"patient_id": [f"7{i}" for i in ids], **columns}
    pd.DataFrame(rows).to_csv(folder / "exams.csv", index=False)
    return folder / "exams.csv"


def read(folder: Path, ids: list[int], tracings: np.ndarray, **columns: list[str]) -> list[Record | DroppedRecord]:
    """The exams of a part whose table lists them in reverse order."""
    archive = part(folder, {"exams_part0.hdf5": hdf5(ids, tracings)})
    return list(read_part(archive, table(folder, ids[::-1], **{k: v[::-1] for k, v in columns.items()})))


@real
@pytest.mark.parametrize("number", [0, 1])
def test_real_exams_are_joined_by_id_and_their_padding_is_found(number):
    rows = pd.read_csv(FILES / "exams.csv", index_col="exam_id", dtype={"patient_id": str})
    with zipfile.ZipFile(FILES / f"exams_part{number}.zip") as container:
        raw = h5py.File(io.BytesIO(container.read(f"exams_part{number}.hdf5")))
    exams = list(read_part(FILES / f"exams_part{number}.zip", FILES / "exams.csv"))
    assert [int(item.record_id) for item in exams] == raw["exam_id"][:].tolist()
    assert isinstance(exams[-1], DroppedRecord)
    assert exams[-1].reason is DropReason.NOT_LISTED
    lengths = set()
    for item, x_TL in zip(exams[:-1], raw["tracings"], strict=False):
        assert isinstance(item, Record)
        row = rows.loc[int(item.record_id)]
        assert (item.age, item.sex) == (row.age, "male" if row.is_male else "female")
        np.testing.assert_array_equal(item.signal_LT.T, x_TL)
        # What is left out is zero, and what is left begins and ends with a recorded sample.
        found = recorded(item.signal_LT, item.rate)
        assert not x_TL[: found.before].any()
        assert not x_TL[len(x_TL) - found.after :].any()
        assert found.signal_LT[:, 0].any()
        assert found.signal_LT[:, -1].any()
        lengths.add(found.signal_LT.shape[1])
    assert {2934, 4096} <= lengths


def test_labels_are_the_true_columns(tmp_path):
    first, second = read(
        tmp_path,
        [11, 22],
        np.stack([exam(1), exam(2)]),
        AF=["True", "False"],
        **{"1dAVb": ["True", "False"], "RBBB": ["", ""]},
        normal_ecg=["False", "True"],
        is_male=["False", "True"],
    )
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert (first.labels, first.sex, first.patient_id) == (("1dAVb", "AF"), "female", "711")
    assert (second.labels, second.sex, second.patient_id) == (("normal_ecg",), "male", "722")


def test_more_than_a_block_keeps_its_order(tmp_path):
    ids = [int(i) for i in np.random.default_rng(0).permutation(150) + 1]
    exams = read(tmp_path, ids, np.stack([exam(i, 10) for i in ids]))
    assert [int(item.record_id) for item in exams] == ids
    for item in exams:
        assert isinstance(item, Record)
        np.testing.assert_array_equal(item.signal_LT, exam(int(item.record_id), 10).T)


def test_rows_without_an_exam_and_without_a_signal_are_drops(tmp_path):
    tracings = np.stack([exam(1), exam(2), np.zeros((4096, 12), np.float32), np.zeros((4096, 12), np.float32)])
    archive = part(tmp_path, {"exams_part0.hdf5": hdf5([1, 2, 3, 0], tracings)})
    record, unlisted, empty, filler = read_part(archive, table(tmp_path, [3, 1]))
    assert isinstance(record, Record)
    assert isinstance(unlisted, DroppedRecord)
    assert isinstance(empty, DroppedRecord)
    assert isinstance(filler, DroppedRecord)
    assert (unlisted.record_id, unlisted.reason) == ("2", DropReason.NOT_LISTED)
    assert (empty.record_id, empty.reason) == ("3", DropReason.FLAT_LEAD)
    assert (filler.record_id, filler.reason) == ("0", DropReason.NOT_LISTED)
    assert "zeros" in filler.detail


def test_values_that_are_not_finite_are_missing(tmp_path):
    x_TL = exam(1)
    x_TL[100, 3], x_TL[200, 4], x_TL[0] = np.inf, -np.inf, np.nan
    (record,) = read(tmp_path, [1], x_TL[None])
    assert isinstance(record, Record)
    assert np.isnan(record.signal_LT).sum() == 14
    assert not np.isinf(record.signal_LT).any()
    assert record.signal_LT.shape == (12, 4096)


def test_a_signalling_nan_is_missing_too(tmp_path):
    x_TL = exam(1)
    x_TL.view("u4")[1000, 3] = 0x7FA00001
    (item,) = read(tmp_path, [1], x_TL[None])
    assert isinstance(item, Record)
    assert np.isnan(item.signal_LT).sum() == 1


def test_a_zip_that_is_not_a_zip(tmp_path):
    archive = tmp_path / "exams_part0.zip"
    archive.write_bytes(b"<html>Too many requests</html>")
    with pytest.raises(ValueError, match=r"exams_part0\.zip: not a readable zip .* download it again"):
        list(read_part(archive, table(tmp_path, [1])))


def test_a_zip_that_is_cut_or_changed(tmp_path):
    archive = part(tmp_path, {"exams_part0.hdf5": hdf5([1], exam(1)[None])}, compression=zipfile.ZIP_STORED)
    whole = archive.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:5000] + b"x" + whole[5001:]):
        archive.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a readable zip"):
            list(read_part(archive, table(tmp_path, [1])))


def test_a_zip_whose_compressed_bytes_are_damaged_or_encrypted(tmp_path):
    archive = part(tmp_path, {"exams_part0.hdf5": hdf5([1], exam(1)[None])}, compression=zipfile.ZIP_DEFLATED)
    whole = archive.read_bytes()
    start = whole.index(b"exams_part0.hdf5") + len("exams_part0.hdf5")
    invalid_block = whole[:start] + b"\xff" * 8 + whole[start + 8 :]  # deflate has no block type 3
    at = whole.rindex(b"PK\x01\x02") + 8
    encrypted = whole[:6] + bytes([whole[6] | 1]) + whole[7:at] + bytes([whole[at] | 1]) + whole[at + 1 :]
    for damaged in (invalid_block, encrypted):
        archive.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a readable zip"):
            list(read_part(archive, table(tmp_path, [1])))


def test_a_zip_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="the part is missing"):
        list(read_part(tmp_path / "exams_part0.zip", table(tmp_path, [1])))


@pytest.mark.parametrize(
    "names",
    [[], ["readme.txt"], ["a.hdf5", "b.hdf5"], ["../exams_part0.hdf5"], ["/exams_part0.hdf5"], ["x/exams_part0.hdf5"]],
)
def test_members_that_are_not_one_plain_hdf5(tmp_path, names):
    archive = part(tmp_path, dict.fromkeys(names, hdf5([1], exam(1)[None])))
    with pytest.raises(ValueError, match=r"exactly one `exams_part<i>\.hdf5` is needed"):
        list(read_part(archive, table(tmp_path, [1])))


def test_hdf5s_of_another_form(tmp_path):
    def refused(data: bytes, words: str) -> None:
        archive = part(tmp_path, {"exams_part0.hdf5": data})
        with pytest.raises(ValueError, match=words):
            list(read_part(archive, table(tmp_path, [1])))

    refused(b"not hdf5", "cannot be read")
    refused(hdf5([1, 2], exam(1)[None]), "tracings is float32")
    refused(hdf5([1], exam(1)[None, :, :8]), "tracings is float32")
    refused(hdf5([1], exam(1)[None, :4000]), "tracings is float32")
    refused(hdf5([1], exam(1)[None].astype(np.int16)), "tracings is int16")
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["exam_id"] = np.array([1])
        file["tracings"] = h5py.ExternalLink("/etc/hosts", "/x")
    refused(stream.getvalue(), "tracings is a link: the numbers themselves")
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["exam_id"] = np.array([1.5])
        file["tracings"] = exam(1)[None]
    refused(stream.getvalue(), "exam_id is float64")


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_damaged_hdf5_is_read_or_refused_and_nothing_else(tmp_path_factory, data):
    raw = bytearray(hdf5([1], exam(1)[None]))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 3000))] = data.draw(st.integers(0, 255))  # where its structure is
    folder = tmp_path_factory.mktemp("h")
    archive = part(folder, {"exams_part0.hdf5": bytes(raw)}, compression=zipfile.ZIP_STORED)
    with suppress(ValueError):
        assert len(list(read_part(archive, table(folder, [1])))) == 1


def test_a_table_without_its_columns(tmp_path):
    archive = part(tmp_path, {"exams_part0.hdf5": hdf5([1], exam(1)[None])})
    path = table(tmp_path, [1])
    pd.read_csv(path).drop(columns=["patient_id", "AF"]).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"exams\.csv: no column 'patient_id', 'AF'"):
        list(read_part(archive, path))
    path.write_text("exam_id,age\n")
    with pytest.raises(ValueError, match="no column"):
        list(read_part(archive, path))
    path = table(tmp_path, [1], exam_id=["one"])
    with pytest.raises(ValueError, match=r"exams\.csv: exam_id 'one'"):
        list(read_part(archive, path))


def test_nothing_is_left_beside_the_archive(tmp_path):
    archive = part(tmp_path, {"exams_part0.hdf5": hdf5([1, 2], np.stack([exam(1), exam(2)]))})
    path = table(tmp_path, [1, 2])
    reader = read_part(archive, path)
    next(reader)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["exams.csv", "exams_part0.zip"]
    reader.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["exams.csv", "exams_part0.zip"]


@pytest.mark.parametrize("extension", ["", ".json"])
def test_the_list_is_found_under_both_names_wget_gives_it(extension):
    answer = {"files": [{"key": "exams_part3.zip", "checksum": f"md5:{'a' * 32}", "size": 7}]}
    there = f"zenodo.org/api/records/4916206{extension}"

    def fetch(path: str) -> bytes:
        if path != there:
            raise FileNotFoundError(path)
        return json.dumps(answer).encode()

    (file,) = CODE15.list_files(fetch)
    assert (file.path, file.bytes) == ("zenodo.org/records/4916206/files/exams_part3.zip", 7)
    assert CODE15.available([file]) == ["3"]


@pytest.mark.parametrize(
    "answer",
    [
        "<html>",
        "[]",
        '{"files": [{"key": "a"}]}',
        '{"files": [{"key": "../a", "checksum": "md5:%s", "size": 1}]}' % ("a" * 32),
        '{"files": [{"key": "a", "checksum": "crc:1", "size": 1}]}',
    ],
)
def test_a_list_that_is_not_zenodo_s(answer):
    with pytest.raises(ValueError, match=r"Zenodo|checksum"):
        parse_api(answer.encode(), "list")


@pytest.mark.parametrize(("yes", "no"), [("TRUE", "FALSE"), ("1", "0"), ("1.0", "0.0"), ("true", "false")])
def test_a_table_that_was_saved_again_gives_the_same_exams(yes: str, no: str, tmp_path: Path) -> None:
    archive = part(tmp_path, {"exams_part0.hdf5": hdf5([11, 12], np.stack([exam(1), exam(2)]))})
    columns = {"AF": [yes, no], "is_male": [no, yes], "patient_id": ["7.0", "8.0"]}
    others = {label: [no, no] for label in LABELS if label != "AF"}
    for ids in (["11", "12"], ["11.0", "12.0"]):
        exams = list(read_part(archive, table(tmp_path, [11, 12], exam_id=ids, **columns, **others)))
        assert [(e.record_id, e.patient_id, e.sex, e.labels) for e in exams if isinstance(e, Record)] == [
            ("11", "7", "female", ("AF",)),
            ("12", "8", "male", ()),
        ]


def test_a_row_that_says_neither_true_nor_false_refuses_the_table(tmp_path: Path) -> None:
    for column in ("AF", "is_male"):
        with pytest.raises(ValueError, match=rf"exams.csv: exam_id 11: {column} is 'maybe', True or False is needed"):
            read(tmp_path, [11], exam(1)[None], **{column: ["maybe"]})


def test_an_exam_on_two_lines_is_refused_if_they_differ(tmp_path: Path) -> None:
    archive = part(tmp_path, {"exams_part0.hdf5": hdf5([11], exam(1)[None])})
    (same,) = read_part(archive, table(tmp_path, [11, 11], patient_id=["7", "7"]))
    assert isinstance(same, Record)
    twice = table(tmp_path, [11, 11], patient_id=["7", "7"], AF=["True", "False"])
    with pytest.raises(ValueError, match="exam_id 11 is on two lines that differ, AF is 'True' and 'False'"):
        list(read_part(archive, twice))
