"""Every source against its real files, independent readers of them, and what can be wrong with them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_model.leads import LEADS_12, known_leads
from pipelines.records import DroppedRecord, DropReason, Record
from pipelines.sources import SOURCES, get
from pipelines.sources.base import ADDRESSES, RemoteFile, Role, addresses, read_table
from pipelines.sources.challenge import codes_of
from pipelines.sources.demographics import age_of, sex_of
from pipelines.sources.physionet import parse_sums
from tests.support.paths import SHARED

with warnings.catch_warnings(action="ignore"):  # wfdb 4.3.1 uses what pandas 3.1 deprecates
    import wfdb

REAL = SHARED / "real"
MIRROR = REAL / "mirror"

real = pytest.mark.skipif(not MIRROR.is_dir(), reason=f"no real records at {MIRROR}")

# Entered records of the mirror, and what is not kept of them.
HELD = {
    "chapman": (42, {}),
    "code15": (66, {DropReason.NOT_LISTED: 2}),  # 64 exams, and a filler row at the end of each part
    "ptbxl": (40, {}),
    "ptbxl100": (0, {}),
    "cpsc2018": (9, {}),
    "georgia": (23, {}),
    "ludb": (50, {}),
}
SHA = f"sha256:{'0' * 64}"


def listing(name: str, mirror: Path = MIRROR) -> list[RemoteFile]:
    return SOURCES[name].list_files(lambda path: (mirror / path).read_bytes())


def items(name: str, mirror: Path = MIRROR) -> list[Record | DroppedRecord]:
    source, files = SOURCES[name], listing(name, mirror)
    return [
        item
        for partition in source.available(files)
        for item in source.read(mirror, partition, source.files_of(files, partition))
    ]


@cache
def records(name: str) -> dict[str, Record]:
    return {item.record_id: item for item in items(name) if isinstance(item, Record)}


def test_the_catalogue():
    assert list(SOURCES) == list(HELD)
    counts = {name: len(source.partitions) for name, source in SOURCES.items()}
    assert counts == {
        "chapman": 46,
        "code15": 18,
        "ptbxl": 22,
        "ptbxl100": 22,
        "cpsc2018": 7,
        "georgia": 11,
        "ludb": 1,
    }
    assert SOURCES["chapman"].partitions[::45] == ("01", "46")
    assert SOURCES["ptbxl"].partitions[::21] == ("00000", "21000")
    pretraining = [name for name, source in SOURCES.items() if source.role is Role.PRETRAINING]
    assert pretraining == ["chapman", "code15"]
    for name, source in SOURCES.items():
        assert get(name) is source
        assert len(set(source.partitions)) == len(source.partitions)
        assert re.fullmatch(r"10\.\d{4,5}/\S+", source.doi)
        assert "doi:10." in source.citation
        assert source.root.startswith(tuple(prefix for prefix, _ in ADDRESSES))
    with pytest.raises(ValueError, match=r"'mimic'.*chapman"):
        get("mimic")


@real
@pytest.mark.parametrize("name", HELD)
def test_every_record_of_the_mirror_is_accounted_for(name):
    entries = items(name)
    drops = Counter(item.reason for item in entries if isinstance(item, DroppedRecord))
    assert (len(entries), dict(drops)) == HELD[name]
    for item in entries:
        if isinstance(item, Record):
            assert item.signal_LT.dtype == np.float32
            assert item.signal_LT.shape[0] == len(item.leads) == 12
            assert known_leads(item.leads) == LEADS_12
            assert item.rate == (400 if name == "code15" else 500)
            assert item.labels or name == "code15"


@real
@pytest.mark.parametrize("name", ["chapman", "cpsc2018", "georgia"])
def test_challenge_records_carry_what_their_headers_say(name):
    for record_id, record in records(name).items():
        (path,) = MIRROR.glob(f"{SOURCES[name].root}/**/{record_id}.hea")
        comments = dict(
            re.split(r"\s*:\s*", line.strip(), maxsplit=1) for line in wfdb.rdheader(str(path)[:-4]).comments
        )
        assert (record.age is None) == (comments["Age"] == "NaN")
        assert record.age is None or record.age == float(comments["Age"])
        assert record.sex == comments["Sex"].lower()
        assert ",".join(record.labels) == comments["Dx"]


@real
def test_ptbxl_records_carry_their_rows():
    table = pd.read_csv(MIRROR / SOURCES["ptbxl"].root / "ptbxl_database.csv", index_col="ecg_id")
    by_id = records("ptbxl")
    assert sorted(map(int, by_id)) == sorted(table.index)
    for ecg_id, row in table.iterrows():
        record = by_id[str(ecg_id)]
        assert record.patient_id == str(int(row.patient_id))
        assert record.sex == ("male", "female")[row.sex]
        assert record.fold == row.strat_fold
        assert set(record.labels) == set(re.findall(r"'([^']+)'", row.scp_codes))
        assert record.age == (90 if row.age == 300 else row.age)


def ptbxl_with(tmp_path: Path, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """A mirror of two PTB-XL records whose table is edited."""
    root = SOURCES["ptbxl"].root
    folder = tmp_path / root / "records500" / "00000"
    folder.mkdir(parents=True)
    for path in sorted((MIRROR / root / "records500" / "00000").glob("0000[34]_hr.*")):
        shutil.copy(path, folder)
    table = pd.read_csv(MIRROR / root / "ptbxl_database.csv", dtype=str, keep_default_na=False)
    edit(table[table.ecg_id.isin(["3", "4"])].copy()).to_csv(tmp_path / root / "ptbxl_database.csv", index=False)
    return tmp_path


def read_ptbxl(mirror: Path) -> list[Record | DroppedRecord]:
    root = SOURCES["ptbxl"].root
    files = [RemoteFile(path.relative_to(mirror).as_posix(), SHA) for path in sorted((mirror / root).rglob("*_hr.*"))]
    return list(SOURCES["ptbxl"].read(mirror, "00000", files))


@real
def test_ptbxl_age_300_is_above_89(tmp_path):
    first, second = read_ptbxl(ptbxl_with(tmp_path, lambda t: t.assign(age=["300.0", ""])))
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert (first.age, second.age) == (90.0, None)
    assert "above 89" in first.notes[0]


@real
@pytest.mark.parametrize("sexes", [["0", "1"], ["0.0", "1.0"], ["male", "female"], ["M", "F"]])
def test_ptbxl_sexes_may_be_saved_again_as_numbers_or_words(tmp_path, sexes):
    first, second = read_ptbxl(ptbxl_with(tmp_path, lambda t: t.assign(sex=sexes)))
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert (first.sex, second.sex) == ("male", "female")
    assert first.notes == second.notes == ()


@real
def test_ptbxl_sex_that_is_none_is_noted(tmp_path):
    first, second = read_ptbxl(ptbxl_with(tmp_path, lambda t: t.assign(sex=["7", ""])))
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert (first.sex, second.sex) == (None, None)
    assert first.notes == ("sex '7' left out: 0 is male and 1 is female",)
    assert second.notes == ()


@real
def test_ptbxl_row_that_is_there_twice(tmp_path):
    records = read_ptbxl(ptbxl_with(tmp_path / "same", lambda t: pd.concat([t, t])))
    assert [item.record_id for item in records] == ["3", "4"]
    with pytest.raises(ValueError, match=r"ecg_id 3: two rows, with strat_fold '\d+' and '9': take the table of"):
        read_ptbxl(ptbxl_with(tmp_path / "other", lambda t: pd.concat([t, t.assign(strat_fold="9")])))


@real
def test_ptbxl_record_without_a_row_is_dropped(tmp_path):
    first, second = read_ptbxl(ptbxl_with(tmp_path, lambda t: t[t.ecg_id == "4"]))
    assert isinstance(first, DroppedRecord)
    assert (first.record_id, first.reason) == ("3", DropReason.NOT_LISTED)
    assert isinstance(second, Record)


@real
@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.drop(columns="strat_fold"), "ptbxl_database.csv: no column 'strat_fold'"),
        (lambda t: t.assign(scp_codes="__import__('os').getcwd()"), 'ecg_id 3: scp_codes is "__import__'),
        (lambda t: t.assign(scp_codes="NORM"), "a dictionary of codes"),
        (lambda t: t.assign(patient_id="x"), "patient_id is 'x', a whole number"),
        (lambda t: t.assign(ecg_id="one"), "ecg_id is 'one'"),
    ],
)
def test_ptbxl_table_that_is_not_its_own_stops_the_step(tmp_path, edit, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        read_ptbxl(ptbxl_with(tmp_path, edit))


@real
def test_ptbxl_without_its_table(tmp_path):
    mirror = ptbxl_with(tmp_path, lambda t: t)
    (mirror / SOURCES["ptbxl"].root / "ptbxl_database.csv").unlink()
    with pytest.raises(ValueError, match=r"ptbxl_database\.csv: the label table is missing"):
        read_ptbxl(mirror)


@real
def test_ludb_labels_are_the_table_s_and_amplitudes_are_flagged():
    table = pd.read_csv(MIRROR / SOURCES["ludb"].root / "ludb.csv", dtype=str, keep_default_na=False).set_index("ID")
    by_id = records("ludb")
    assert len(by_id) == 50
    for name, record in by_id.items():
        row = table.loc[name]
        assert record.labels[0].removeprefix("Rhythm: ") == row.Rhythms.strip()
        assert record.age == float(row.Age)
        assert record.sex == {"M": "male", "F": "female"}[row.Sex.strip()]
        assert any("not physical" in note for note in record.notes)


@real
def test_a_record_that_lacks_a_file_is_a_drop_and_the_others_go_on(tmp_path):
    files = [file for file in listing("chapman") if "/20/206/" in file.path]
    for file in files:
        (tmp_path / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(MIRROR / file.path, tmp_path / file.path)
    (tmp_path / files[0].path).unlink()
    (tmp_path / files[3].path).unlink()
    own = [file for file in files if SOURCES["chapman"].partition_of(file.path) == "20"]
    entries = list(SOURCES["chapman"].read(tmp_path, "20", own))
    assert len(entries) == 14
    drops = [item for item in entries if isinstance(item, DroppedRecord)]
    assert [drop.reason for drop in drops] == [DropReason.FILE_MISSING] * 2
    assert Path(files[0].path).name in drops[0].detail
    assert Path(files[3].path).name in drops[1].detail


@pytest.mark.parametrize("n", [10647, 23074, 29999, 45551])
def test_chapman_partitions_are_the_first_folder(n):
    leaf = 10 + (10247 + n - 10647) // 100
    path = f"{SOURCES['chapman'].root}/WFDBRecords/{leaf // 10:02d}/{leaf:03d}/JS{n:05d}.mat"
    assert SOURCES["chapman"].partition_of(path) == f"{leaf // 10:02d}"
    assert SOURCES["chapman"].partition_of(path.replace(".mat", ".txt")) is None


def test_the_challenge_s_ptbxl_belongs_to_no_partition():
    path = "physionet.org/files/challenge-2020/1.0.2/training/ptb-xl/g1/HR00001.mat"
    assert [source.name for source in SOURCES.values() if source.partition_of(path)] == []


@pytest.mark.parametrize(
    ("text", "codes", "notes"),
    [
        (" 164889003,59118001", ("164889003", "59118001"), 0),
        ("426783006,", ("426783006",), 0),
        ("426783006,,164889003, ", ("426783006", "164889003"), 0),
        ("426783006,426783006", ("426783006",), 0),
        ("Unknown", (), 0),
        ("", (), 0),
        ("426783006,AFIB", ("426783006",), 1),
    ],
)
def test_diagnosis_codes(text, codes, notes):
    parsed = codes_of(text)
    assert parsed[0] == codes
    assert len(parsed[1]) == notes


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("85", 85.0),
        (" 56.0", 56.0),
        ("300", 90.0),
        (">89", 90.0),
        ("NaN", None),
        ("Unknown", None),
        ("", None),
        ("-3", None),
        ("250", None),
        ("٣", None),
    ],
)
def test_ages(text, age):
    assert age_of(text)[0] == age


def test_sexes():
    assert [sex_of(text) for text in ("Male", "F", " female", "Unknown", "")] == [
        "male",
        "female",
        "female",
        None,
        None,
    ]


def test_addresses_of_paths():
    assert addresses("physionet.org/files/ludb/1.0.1/data/1.dat") == (
        "https://physionet-open.s3.amazonaws.com/ludb/1.0.1/data/1.dat",
        "https://physionet.org/files/ludb/1.0.1/data/1.dat",
    )
    assert addresses("zenodo.org/records/4916206/files/exams.csv") == (
        "https://zenodo.org/records/4916206/files/exams.csv",
    )
    with pytest.raises(ValueError, match="no host is known"):
        addresses("example.org/x")


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "a/.ssh", "C:/x", "a\\b", "a\nb", "", "a/", "\x00", "a/ä"],
)
def test_a_listed_path_that_leads_elsewhere_is_refused(path):
    with pytest.raises(ValueError, match="listed path"):
        RemoteFile(path, SHA)


@settings(deadline=None, max_examples=300)
@given(path=st.text(st.sampled_from("ab./\\~ %\x00"), max_size=12))
def test_no_accepted_path_leaves_its_folder(path):
    try:
        file = RemoteFile(path, SHA)
    except ValueError:
        return
    root = Path("/data/raw")
    assert (root / file.path).resolve().is_relative_to(root)
    assert (root / file.path).resolve() != root


def test_sums_in_both_forms():
    text = f"{'0' * 64} data/1.dat\n{'1' * 64}  data/2.dat\n{'2' * 64} *RECORDS\n"
    assert [file.path for file in parse_sums(text, "r")] == ["r/data/1.dat", "r/data/2.dat", "r/RECORDS"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "line 2: 'nonsense'"),
        (f"{'0' * 63} x", "line 2"),
        (f"{'0' * 64} ../../x", "listed path"),
        (f"{'0' * 64} /x", "listed path"),
        (f"{'0' * 64} a", "two checksums"),
    ],
)
def test_sums_that_cannot_be_trusted(line, words):
    with pytest.raises(ValueError, match=words):
        parse_sums(f"{'1' * 64} a\n{line}\n", "r")


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "ptbxl100.py").is_file(), reason=f"no packed PTB-XL at {REAL}")
def test_all_of_ptbxl_at_100_hz(tmp_path):
    source = SOURCES["ptbxl100"]
    folder = tmp_path / source.root
    subprocess.run([sys.executable, REAL / "ptbxl100.py", folder.parents[1]], check=True, capture_output=True)
    entries = items("ptbxl100", tmp_path)
    assert len(entries) == 19_601
    assert all(isinstance(item, Record) and item.signal_LT.shape == (12, 1000) for item in entries)
    assert {item.fold for item in entries if isinstance(item, Record)} == set(range(1, 10))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'id,age\n1,"2"x\n', r"table\.csv, line 2: not a readable csv"),
        ("id,age\n1,jünger\n".encode("latin-1"), r"table\.csv, line \d: not a readable csv .*fetch it again"),
        (b"id,age\n1\n", r"line 2: 1 fields, the header has 2"),
    ],
)
def test_a_table_that_is_no_csv_is_refused_with_its_file_and_line(tmp_path, text, words):
    (tmp_path / "table.csv").write_bytes(text)
    with pytest.raises(ValueError, match=words):
        list(read_table(tmp_path / "table.csv", ["id", "age"]))
