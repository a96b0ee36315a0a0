"""The simulated mirror, read by the libraries that read the real one."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from ecg_model.leads import LEADS_12
from pipelines.simulate import Defect, MirrorSizes, ensure_mirror, simulate, write_mirror
from pipelines.simulate.wfdb_writer import annotation_bytes, checksum
from pipelines.tasks.catalogue import CPSC2018_CLASSES
from tests.support.paths import SHARED

with warnings.catch_warnings():
    # wfdb 4.3 under pandas 3.1, at its import and where it reads annotations.
    warnings.filterwarnings("ignore", "The inplace keyword")
    import wfdb

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")
SIZES = MirrorSizes(
    chapman=(18, 3), code15=(7, 3), ptbxl=(12, 4), cpsc2018=(3, 1, 1, 1, 1, 1, 1), georgia=(2, 2), ludb=3
)
FILES = "physionet.org/files"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return write_mirror(tmp_path_factory.mktemp("simulated") / "mirror", seed=4, sizes=SIZES)


def headers(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.hea"))


def real(path: str) -> Path:
    file = SHARED / "real" / "mirror" / path
    if not file.exists():
        pytest.skip(f"the real {path} is not here")
    return file


def test_two_mirrors_of_one_seed_are_the_same_bytes(mirror, tmp_path):
    again = write_mirror(tmp_path / "again", seed=4, sizes=SIZES)
    files = sorted(p.relative_to(mirror.path) for p in mirror.path.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again.path) for p in again.path.rglob("*") if p.is_file())
    assert all((mirror.path / p).read_bytes() == (again.path / p).read_bytes() for p in files)
    assert (again.records, again.defects, again.bytes) == (mirror.records, mirror.defects, mirror.bytes)


def test_sums_are_those_of_the_files_and_name_every_one(mirror):
    for project in ("ecg-arrhythmia/1.0.0", "challenge-2020/1.0.2", "ptb-xl/1.0.3", "ludb/1.0.1"):
        root = mirror.path / FILES / project
        lines = (root / "SHA256SUMS.txt").read_text().splitlines()
        sums = dict(reversed(line.split(" ", 1)) for line in lines)
        assert all(hashlib.sha256((root / path).read_bytes()).hexdigest() == total for path, total in sums.items())
        there = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()} - {"SHA256SUMS.txt"}
        assert set(sums) == there


def test_records_lists_name_every_header(mirror):
    for project in ("ecg-arrhythmia/1.0.0", "challenge-2020/1.0.2", "ptb-xl/1.0.3", "ludb/1.0.1"):
        root = mirror.path / FILES / project
        listed = []
        for line in (root / "RECORDS").read_text().splitlines():
            nested = (root / line / "RECORDS").read_text().splitlines() if line.endswith("/") else [""]
            listed += [f"{line}{name}" for name in nested]
        assert sorted(listed) == sorted(p.relative_to(root).with_suffix("").as_posix() for p in headers(root))


@pytest.mark.parametrize("project", ["ecg-arrhythmia", "challenge-2020", "ptb-xl", "ludb"])
def test_wfdb_reads_each_record_and_its_header_tells_the_truth(mirror, project):
    planted = {record for kinds in mirror.defects.values() for ids in kinds.values() for record in ids}
    seen = 0
    for path in headers(mirror.path / FILES / project):
        if path.stem in planted:
            continue
        record = wfdb.rdrecord(str(path.with_suffix("")), physical=False)
        assert record.d_signal is not None
        assert record.sig_name is not None
        assert record.init_value == record.d_signal[0].tolist()
        totals = [checksum(x_T) for x_T in record.d_signal.T]
        assert [int(np.int16(np.uint16(c & 0xFFFF))) for c in record.checksum] == totals
        assert [name.upper() for name in record.sig_name] == [name.upper() for name in LEADS_12]
        seen += 1
    assert seen >= 3


def physical(mirror, path: str) -> tuple[np.ndarray, wfdb.Record]:
    record = wfdb.rdrecord(str(mirror.path / FILES / path))
    assert isinstance(record, wfdb.Record)
    assert record.p_signal is not None
    return record.p_signal.T, record


def test_signals_come_back_within_half_a_step(mirror):
    got, record = physical(mirror, "ecg-arrhythmia/1.0.0/WFDBRecords/01/010/JS00001")
    assert (record.fs, record.sig_len) == (500, 5000)
    np.testing.assert_allclose(got, simulate((4, 0, 0)).signal_LT, atol=0.00051)
    got, record = physical(mirror, "challenge-2020/1.0.2/training/georgia/g8/E07501")
    np.testing.assert_allclose(got, simulate((4, 2, 3)).signal_LT, atol=0.00051)
    got, record = physical(mirror, "ludb/1.0.1/data/1")
    steps = np.array(record.adc_gain)[:, None] / 1000
    np.testing.assert_allclose(got * steps, simulate((4, 3, 0)).signal_LT, atol=0.00051)
    assert np.ptp(got, axis=1) == pytest.approx(0.8, abs=0.01)


def test_ptbxl_at_100_hz_is_the_500_hz_record_resampled(mirror):
    low, record = physical(mirror, "ptb-xl/1.0.3/records100/00000/00001_lr")
    high, _ = physical(mirror, "ptb-xl/1.0.3/records500/00000/00001_hr")
    assert record.fs == 100
    assert low.shape == (12, 1000)
    smooth = np.apply_along_axis(lambda x: np.convolve(x, np.ones(5) / 5, mode="same"), 1, high)[:, ::5]
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(low, smooth, strict=True)]
    assert min(correlation) > 0.9


def test_ptbxl_table_and_statements(mirror):
    root = mirror.path / FILES / "ptb-xl/1.0.3"
    table = pd.read_csv(root / "ptbxl_database.csv", index_col="ecg_id")
    statements = pd.read_csv(root / "scp_statements.csv", index_col=0)
    assert table.index.tolist() == [*range(1, 13), *range(1001, 1005)]
    for name in [*table.filename_lr, *table.filename_hr]:
        assert (root / f"{name}.hea").is_file()
    assert set(table.strat_fold) <= set(range(1, 11))
    assert (table.groupby("patient_id").strat_fold.nunique() == 1).all()
    for text in table.scp_codes:
        codes = ast.literal_eval(text)
        assert codes
        assert set(codes) <= set(statements.index)


def test_ptbxl_statements_are_rows_of_the_real_ones(mirror):
    real_rows = real(f"{FILES}/ptb-xl/1.0.3/scp_statements.csv").read_text().splitlines()
    ours = (mirror.path / FILES / "ptb-xl/1.0.3/scp_statements.csv").read_text().splitlines()
    assert ours[0] == real_rows[0]
    assert set(ours) <= set(real_rows)


def test_chapman_condition_names_are_of_the_real_form(mirror):
    name = f"{FILES}/ecg-arrhythmia/1.0.0/ConditionNames_SNOMED-CT.csv"
    ours = (mirror.path / name).read_bytes()
    real_file = real(name).read_bytes()
    assert ours.split(b"\n")[0] == real_file.split(b"\n")[0]
    codes = {line.rsplit(b",")[-1] for line in real_file.split(b"\n")}
    assert {line.rsplit(b",")[-1] for line in ours.split(b"\n")} <= codes


@pytest.mark.parametrize(
    ("ours", "real_file"),
    [
        ("ecg-arrhythmia/1.0.0/WFDBRecords/01/010/JS00001.hea", "ecg-arrhythmia/1.0.0/WFDBRecords/01/010/JS00001.hea"),
        (
            "challenge-2020/1.0.2/training/cpsc_2018/g1/A0001.hea",
            "challenge-2020/1.0.2/training/cpsc_2018/g1/A0003.hea",
        ),
        ("challenge-2020/1.0.2/training/georgia/g1/E00001.hea", "challenge-2020/1.0.2/training/georgia/g1/E00004.hea"),
        ("challenge-2020/1.0.2/training/georgia/g8/E07500.hea", "challenge-2020/1.0.2/training/georgia/g8/E07503.hea"),
        ("ptb-xl/1.0.3/records500/00000/00001_hr.hea", "ptb-xl/1.0.3/records500/00000/00003_hr.hea"),
    ],
)
def test_headers_differ_from_real_ones_in_names_and_numbers_alone(mirror, ours, real_file):
    def form(path: Path) -> list[str]:
        name = path.stem
        lines = path.read_bytes().decode().replace(name, "NAME").split("\n")
        signals = [" ".join(["#" if k in (5, 6) else f for k, f in enumerate(line.split(" "))]) for line in lines[1:13]]
        return [lines[0].replace("8500", "5000"), *signals, *(line.split(":")[0] for line in lines[13:])]

    got, expected = form(mirror.path / FILES / ours), form(real(f"{FILES}/{real_file}"))
    if "cpsc" in ours:
        # Lengths vary there.
        got[0], expected[0] = (line.split(" ", 4)[4] for line in (got[0], expected[0]))
    assert got == expected


def test_ludb_header_table_and_annotations(mirror):
    root = mirror.path / FILES / "ludb/1.0.1"
    table = pd.read_csv(root / "ludb.csv")
    assert table["Age"].between(18, 89).all()
    assert set(table["Sex"].str.strip()) <= {"F", "M"}
    real_file = real(f"{FILES}/ludb/1.0.1/ludb.csv").read_text().splitlines()[0]
    assert (root / "ludb.csv").read_text().splitlines()[0] == real_file
    assert not (root / "data/1.hea").read_bytes().endswith(b"\n")


@pytest.mark.parametrize("lead", ["i", "ii", "avr", "v6"])
def test_annotations_are_the_truth(mirror, lead):
    for index in range(SIZES.ludb):
        ecg = simulate((4, 3, index))
        marks = wfdb.rdann(str(mirror.path / FILES / f"ludb/1.0.1/data/{index + 1}"), lead)
        assert (np.diff(marks.sample) > 0).all()
        symbols = np.array(marks.symbol)
        peaks = marks.sample[symbols == "N"] / 500
        np.testing.assert_allclose(peaks, ecg.r_times_B[1:-1], atol=0.0011)
        at = np.flatnonzero(symbols == "N")
        onsets, offsets = marks.sample[at - 1] / 500, marks.sample[at + 1] / 500
        np.testing.assert_allclose(np.stack([onsets, offsets], 1), ecg.qrs_B3[1:-1][:, [0, 2]], atol=0.003)
        assert set(symbols[at - 1]) == {"("}
        assert set(symbols[at + 1]) == {")"}


def test_annotation_bytes_are_those_that_wfdb_writes(tmp_path):
    samples = np.array([641, 664, 690, 773, 840, 887, 3000, 3040, 3100])
    symbols = list("(N)(t)(p)")
    wfdb.wrann("x", "i", samples, symbols, write_dir=str(tmp_path))
    assert annotation_bytes(list(zip(samples.tolist(), symbols, strict=True))) == (tmp_path / "x.i").read_bytes()


def test_code15_parts_table_and_api(mirror):
    root = mirror.path / "zenodo.org/records/4916206/files"
    table = pd.read_csv(root / "exams.csv", index_col="exam_id")
    api = json.loads((mirror.path / "zenodo.org/api/records/4916206.json").read_text())
    assert [f["key"] for f in api["files"]] == ["exams.csv", "exams_part0.zip", "exams_part1.zip"]
    for entry in api["files"]:
        content = (root / entry["key"]).read_bytes()
        assert entry["size"] == len(content)
        assert entry["checksum"] == f"md5:{hashlib.md5(content).hexdigest()}"
    real_file = real("zenodo.org/records/4916206/files/exams.csv").read_text().splitlines()[0]
    assert (root / "exams.csv").read_text().splitlines()[0] == real_file
    short = set(mirror.defects["code15"][Defect.TOO_SHORT])
    for part, size in enumerate(SIZES.code15):
        with zipfile.ZipFile(root / f"exams_part{part}.zip") as archive:
            assert archive.namelist() == [f"exams_part{part}.hdf5"]
            content = archive.read(f"exams_part{part}.hdf5")
        with h5py.File(io.BytesIO(content)) as file:
            exams, tracings = file["exam_id"][:], file["tracings"][:]
        assert tracings.dtype == np.float32
        assert tracings.shape == (size + 1, 4096, 12)
        assert exams[-1] == 0
        assert not tracings[-1].any()
        assert (table.loc[exams[:-1], "trace_file"] == f"exams_part{part}.hdf5").all()
        for exam, x_TL in zip(exams[:-1], tracings[:-1], strict=True):
            zero = not x_TL[:581].any() and not x_TL[-581:].any()
            assert zero == (str(exam) in short or str(exam) in mirror.defects["code15"].get(Defect.ZERO_TRACE, ()))
    assert table.loc[table.normal_ecg, ["1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"]].to_numpy().sum() == 0


def test_cpsc2018_folders_lengths_and_codes(mirror):
    root = mirror.path / FILES / "challenge-2020/1.0.2/training/cpsc_2018"
    codes = {code for c in CPSC2018_CLASSES for code in c.codes}
    for path in headers(root):
        header = wfdb.rdheader(str(path.with_suffix("")))
        assert path.parent.name == f"g{int(path.stem[1:]) // 1000 + 1}"
        assert 3000 <= header.sig_len <= 30000
        label = next(c for c in header.comments if c.startswith("Dx:"))
        assert set(label.removeprefix("Dx: ").split(",")) <= codes
    assert {p.name for p in root.iterdir()} == {f"g{g}" for g in range(1, 8)}


def test_planted_defects_are_what_the_summary_says(mirror):
    root = mirror.path / FILES / "ecg-arrhythmia/1.0.0"
    path = {p.stem: p for p in headers(root)}
    defects = mirror.defects["chapman"]
    assert {kind: len(ids) for kind, ids in defects.items()} == {
        "flat lead": 2,
        "missing samples": 2,
        "too short": 1,
        "checksum wrong": 1,
        "merged record line": 1,
        "exact duplicate": 2,
    }

    def read(name: str) -> wfdb.Record:
        record = wfdb.rdrecord(str(path[name].with_suffix("")))
        assert isinstance(record, wfdb.Record)
        return record

    for name in defects["flat lead"]:
        assert (np.ptp(read(name).p_signal, axis=0) == 0).sum() == 1
    for name in defects["missing samples"]:
        assert np.isnan(read(name).p_signal).any()
    assert read(defects["too short"][0]).sig_len < 5000
    for name in defects["exact duplicate"]:
        assert path[name].with_suffix(".mat").read_bytes() == path["JS00001"].with_suffix(".mat").read_bytes()
    wrong = wfdb.rdrecord(str(path[defects["checksum wrong"][0]].with_suffix("")), physical=False)
    assert sum(checksum(x_T) != c for x_T, c in zip(wrong.d_signal.T, wrong.checksum, strict=True)) == 1
    merged = defects["merged record line"][0]
    first = path[merged].read_text().splitlines()[0]
    assert first.startswith(f"{merged} 12 500 500000/mV 16 0 ")
    assert len(path[merged].read_text().splitlines()) == 18
    assert mirror.count("code15", Defect.DUMMY_ROW) == 2
    assert mirror.count("ludb", Defect.FLAT_LEAD) == 0


def test_records_counts_and_the_mark_agree_with_the_files(mirror):
    mark = json.loads((mirror.path / "SIMULATED.json").read_text())
    assert mark["records"] == mirror.records
    assert mark["defects"] == mirror.defects
    assert mark["seed"] == 4
    assert "synthetic" in mark["what"]
    assert mirror.records == {
        "chapman": 21,
        "code15": 12,
        "ptbxl": 16,
        "ptbxl100": 16,
        "cpsc2018": 9,
        "georgia": 4,
        "ludb": 3,
    }
    for source, folder in (("chapman", "ecg-arrhythmia"), ("ludb", "ludb")):
        assert len(headers(mirror.path / FILES / folder)) == mirror.records[source]
    sized = sum(p.stat().st_size for p in mirror.path.rglob("*") if p.is_file() and p.name != "SIMULATED.json")
    assert mark["bytes"] == sized


def test_ensure_writes_once_and_again_only_for_another_mirror(tmp_path):
    sizes = MirrorSizes(chapman=(2,), code15=(), ptbxl=(), cpsc2018=(), georgia=(), ludb=0)
    calls: list[tuple[str, int, int]] = []
    first = ensure_mirror(tmp_path / "m", sizes=sizes, progress=lambda *call: calls.append(call))
    assert calls == [("chapman", 1, 2), ("chapman", 2, 2)]
    again = ensure_mirror(tmp_path / "m", sizes=sizes, progress=lambda *call: calls.append(call))
    assert len(calls) == 2
    assert again == first
    other = ensure_mirror(tmp_path / "m", seed=1, sizes=sizes)
    assert other.seed == 1
    assert not (tmp_path / "m" / "zenodo.org").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]


def test_of_two_processes_that_write_one_mirror_one_waits(tmp_path):
    code = (
        "import sys; from pathlib import Path; from pipelines.simulate import MirrorSizes, ensure_mirror;"
        "sizes = MirrorSizes(chapman=(6,), code15=(), ptbxl=(), cpsc2018=(), georgia=(4,), ludb=1);"
        "print(ensure_mirror(Path(sys.argv[1]), seed=3, sizes=sizes).records)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "mirror")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(said) == 1
    listed = [
        sums.parent / line.split(maxsplit=1)[1]
        for sums in (tmp_path / "mirror").rglob("SHA256SUMS.txt")
        for line in sums.read_text().splitlines()
    ]
    assert len(listed) > 20
    assert [path for path in listed if not path.is_file()] == []


def test_a_folder_that_is_no_simulated_mirror_is_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").write_text("x")
    with pytest.raises(ValueError, match="no simulated mirror"):
        write_mirror(tmp_path / "data")
    assert (tmp_path / "data" / "precious").read_text() == "x"


def test_an_interrupted_mirror_leaves_nothing(tmp_path):
    def stop(_source: str, done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_mirror(tmp_path / "m", sizes=SIZES, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "sizes", [{"chapman": (0,)}, {"chapman": (1001,)}, {"code15": (1,) * 19}, {"cpsc2018": (1,) * 8}, {"ludb": 201}]
)
def test_sizes_that_a_source_cannot_have_are_refused(sizes):
    with pytest.raises(ValueError, match=next(iter(sizes))):
        MirrorSizes(**sizes)
