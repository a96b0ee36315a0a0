"""Own ECGs: drops of every format, read as the arrays that were written, and everything that can be wrong with one."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import wfdb
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecg_model.signal import LEADS, LEADS_12, prepare
from pipelines.cli import main
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.selection import Exclusion
from pipelines.corpus.step import materialize_corpus
from pipelines.download.step import recorded_files
from pipelines.formats.shard import Shard, open_shard
from pipelines.formats.wfdb import read_wfdb
from pipelines.harmonize.convert import Incomplete, harmonize
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.home import HOSTS, Home
from pipelines.incoming import INCOMING
from pipelines.incoming.arrays import Npz, read_csv
from pipelines.incoming.bucket import place_of
from pipelines.incoming.check import check_drop
from pipelines.incoming.description import FIELDS, MOST_SECONDS
from pipelines.incoming.listing import (
    MARKER,
    FolderOfDrops,
    check_name,
    complete_drops,
    list_drop,
    misnamed_drops,
)
from pipelines.incoming.readers import parts
from pipelines.incoming.step import _copy, hashed, materialize_drop
from pipelines.records import DroppedRecord, DropReason, Record, RecordError, absent_leads
from pipelines.sources.challenge import challenge_record

MIRROR = Path(__file__).resolve().parents[3] / ".." / "shared" / "real" / "mirror"
LIMITS = QualityLimits()
MARKED = Incomplete(mark_leads=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in ("ECG_INCOMING", "ECG_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home", HOSTS)


@pytest.fixture
def drop(home: Home) -> Path:
    """The folder of a drop that is being written."""
    folder = home.incoming / "ward-7"
    folder.mkdir(parents=True)
    return folder


def ecgs(n: int, leads: int = 12, *, rate: float = 500, seconds: float = 10, seed: int = 0) -> NDArray[np.float64]:
    """Millivolt (n, leads, samples)."""
    return np.random.default_rng(seed).normal(0, 0.3, (n, leads, round(rate * seconds)))


def said(leads: tuple[str, ...] = LEADS_12, **fields: Any) -> dict[str, Any]:
    return {"rate": 500, "leads": list(leads), "units": "mV", **fields}


def describe(path: Path, **fields: Any) -> None:
    path.with_suffix(".json").write_text(json.dumps(fields))


def write_npy(path: Path, x: NDArray[Any], **fields: Any) -> None:
    np.save(path, x)
    describe(path, **{"ids": [f"{path.stem}{at}" for at in range(len(x))], **fields})


def read(folder: Path) -> list[Record | DroppedRecord]:
    return [one.item for part in parts(folder, [file.path for file in list_drop(folder).files]) for one in part.read()]


def records(folder: Path) -> list[Record]:
    found = read(folder)
    assert [item for item in found if isinstance(item, DroppedRecord)] == []
    return [item for item in found if isinstance(item, Record)]


def only_drop(folder: Path) -> DroppedRecord:
    (item,) = read(folder)
    assert isinstance(item, DroppedRecord)
    return item


def shard_of(folder: Path, out: Path, incomplete: Incomplete = MARKED) -> Shard:
    harmonize(read(folder), out, source=INCOMING.name, limits=LIMITS, incomplete=incomplete)
    return open_shard(out)


def reasons(shard: Shard) -> dict[str, str]:
    return {row["record_id"]: row["reason"] for row in shard.drops().to_pylist()}


def complete(folder: Path) -> Path:
    (folder / MARKER).touch()
    return folder


def ecg(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# What is read, and what becomes of it


@pytest.mark.parametrize("rate", [100, 257.5, 500, 2000])
@pytest.mark.parametrize("form", ["npy", "npz", "h5", "csv"])
def test_every_format_at_any_rate_is_stored_as_the_model_would_see_the_same_array(
    drop: Path, tmp_path: Path, form: str, rate: float
) -> None:
    x_NLT = ecgs(2, rate=rate, seconds=11)
    if form == "npy":
        write_npy(drop / "a.npy", x_NLT, **said(rate=rate))
    elif form == "npz":
        np.savez(drop / "a.npz", a0=x_NLT[0], a1=x_NLT[1])
        describe(drop / "a.npz", **said(rate=rate))
    elif form == "h5":
        with h5py.File(drop / "a.h5", "w") as file:
            file["signals"], file["ids"] = x_NLT, ["a0", "a1"]
            file.attrs.update({"rate": rate, "units": "mV", "leads": LEADS_12})
    else:
        for at, x_LT in enumerate(x_NLT):
            np.savetxt(drop / f"a{at}.csv", x_LT.T, delimiter=",", header=",".join(LEADS_12), comments="")
        describe(drop / "drop", rate=rate, units="mV")
    shard = shard_of(drop, tmp_path / "out")
    assert shard.records()["record_id"].to_pylist() == ["a0", "a1"]
    expected = prepare(x_NLT.astype(np.float32), leads=LEADS_12, rate=rate)
    np.testing.assert_allclose(shard.signals() / 1000, expected, atol=0.00051)


@pytest.mark.parametrize(
    ("units", "factor"),
    [
        ({"units": "uV"}, 1000.0),
        ({"units": "V"}, 0.001),
        ({"units": "raw", "gain": 200, "baseline": 1024}, 200.0),
        ({"units": "raw", "gain": [200.0] * 12}, 200.0),
    ],
)
def test_units_and_gains_become_millivolt(drop: Path, units: dict[str, Any], factor: float) -> None:
    x_NLT = ecgs(1)
    numbers = x_NLT * factor + units.get("baseline", 0)
    write_npy(drop / "a.npy", np.rint(numbers).astype(">i4") if "gain" in units else numbers, **said() | units)
    (record,) = records(drop)
    np.testing.assert_allclose(record.signal_LT, x_NLT[0], atol=0.5 / 200 + 1e-6)


@pytest.mark.parametrize("form", ["npy", "h5"])
def test_axes_in_any_order_and_memory_order(drop: Path, form: str) -> None:
    x_NLT = ecgs(3)
    turned = np.asfortranarray(x_NLT.transpose(2, 0, 1))
    fields = said(axes=["time", "record", "lead"], ids=["p", "q", "r"])
    if form == "npy":
        np.save(drop / "a.npy", turned)
    else:
        with h5py.File(drop / "a.h5", "w") as file:
            file.create_dataset("ecg/data", data=turned, compression="gzip")
        fields["datasets"] = {"signals": "ecg/data"}
    describe(drop / "a", **fields)
    found = records(drop)
    assert [record.record_id for record in found] == ["p", "q", "r"]
    np.testing.assert_allclose([record.signal_LT for record in found], x_NLT, rtol=1e-5)


def test_what_is_known_of_people_comes_with_the_records(drop: Path) -> None:
    write_npy(
        drop / "a.npy",
        ecgs(3),
        **said(
            ids=["x", 17, "z"],
            patient_ids=["p1", 2, None],
            ages=[63.5, "300", float("nan")],
            sexes=["F", "male", ""],
            labels=[["AF", "PVC"], "NSR", None],
        ),
    )
    one, two, three = records(drop)
    assert (one.record_id, one.patient_id, one.age, one.sex, one.labels) == ("x", "p1", 63.5, "female", ("AF", "PVC"))
    assert (two.record_id, two.patient_id, two.age, two.sex, two.labels) == ("17", "2", 90.0, "male", ("NSR",))
    assert (three.patient_id, three.age, three.sex, three.labels) == (None, None, None, ())


def test_the_people_of_an_hdf5_file_are_in_its_datasets(drop: Path) -> None:
    with h5py.File(drop / "a.hdf5", "w") as file:
        file["tracings"] = ecgs(2).astype("f2")
        file["exam"], file["patient_ids"], file["ages"] = [5, 6], np.array([b"p", b""]), [44.0, np.nan]
        file["tracings"].attrs.update({"rate": np.int16(500), "units": b"mV", "leads": np.array(LEADS_12, "S4")})
    describe(drop / "a.hdf5", datasets={"signals": "tracings", "ids": "exam"})
    one, two = records(drop)
    assert (one.record_id, one.patient_id, one.age) == ("5", "p", 44.0)
    assert (two.record_id, two.patient_id, two.age) == ("6", None, None)


def test_wfdb_folders_of_real_ecgs_are_read_as_their_source_reads_them(drop: Path, tmp_path: Path) -> None:
    group = MIRROR / "physionet.org/files/challenge-2020/1.0.2/training/georgia"
    if not group.is_dir():
        pytest.skip("shared/real is not here")
    headers = sorted(group.rglob("*.hea"))[:4]
    for header in headers:
        (drop / "a b").mkdir(exist_ok=True)
        shutil.copy(header.with_suffix(".mat"), drop / "a b")
        text = header.read_text().rstrip("\n")
        (drop / "a b" / header.name).write_text(f"{text}\n#Patient: {header.stem[-2:]}\n")
    (drop / "a b" / "RECORDS").write_text("\n".join(header.stem for header in headers))
    shard = shard_of(drop, tmp_path / "out")
    rows = shard.records().to_pylist()
    assert [row["record_id"] for row in rows] == [header.stem for header in headers]
    assert [row["patient_id"] for row in rows] == [header.stem[-2:] for header in headers]
    known = [challenge_record(read_wfdb(header)) for header in headers]
    assert [(row["age"], row["sex"], row["labels"]) for row in rows] == [
        (record.age, record.sex, list(record.labels)) for record in known
    ]
    for header, signal_LT in zip(headers, shard.signals(), strict=True):
        oracle = wfdb.rdrecord(str(header.with_suffix("")))
        assert oracle.p_signal is not None
        expected = prepare(oracle.p_signal.T, leads=oracle.sig_name or [], rate=oracle.fs)
        np.testing.assert_allclose(signal_LT / 1000, expected, atol=0.00051)


def test_formats_lie_together_and_every_file_is_told_of(drop: Path) -> None:
    (drop / "deep" / "er").mkdir(parents=True)
    write_npy(drop / "deep" / "a.npy", ecgs(2), **said())
    np.savez(drop / "deep" / "er" / "b.npz", b=ecgs(1)[0])
    describe(drop / "deep" / "er" / "b.npz", leads=list(LEADS_12))
    describe(drop / "drop", rate=500, units="mV")
    for name in ("report.xml", "orphan.json", "lonely.hea", "lonely.json", "lonely.atr", "UPPER.HEA", "notes.txt"):
        (drop / name).write_text("{}")
    (drop / ".DS_Store").touch()
    found = {item.record_id: getattr(item, "reason", None) for item in read(drop)}
    assert found == {
        "a0": None,
        "a1": None,
        "b": None,
        "report.xml": DropReason.UNKNOWN_FORMAT,
        "UPPER.HEA": DropReason.UNKNOWN_FORMAT,
        "orphan.json": DropReason.FILE_MISSING,
        "lonely.json": DropReason.FILE_MISSING,
        "lonely": DropReason.UNREADABLE_HEADER,
    }


def test_a_file_says_more_than_the_drop_and_an_array_less_than_its_json(drop: Path) -> None:
    describe(drop / "drop", rate=250, units="uV")
    with h5py.File(drop / "a.h5", "w") as file:
        file["signals"] = ecgs(1)
        file.attrs.update({"rate": 1000, "leads": LEADS_12, "units": "mV"})
    describe(drop / "a", rate=500, ids=["a"])
    (record,) = records(drop)
    assert record.rate == 500
    assert np.abs(record.signal_LT).max() > 0.5, "mV, as its attribute says"


def test_of_a_long_recording_the_first_half_minute_is_read(drop: Path, tmp_path: Path) -> None:
    x_NLT = ecgs(1, rate=500, seconds=60)
    write_npy(drop / "a.npy", x_NLT, **said())
    wfdb.wrsamp("w", 500, ["mV"] * 12, list(LEADS_12), x_NLT[0].T, fmt=["16"] * 12, write_dir=str(drop))
    for record in records(drop):
        assert record.signal_LT.shape == (12, 500 * MOST_SECONDS)
        assert record.notes[-1] == "the first 30 s of 60 s are read"
    shard = shard_of(drop, tmp_path / "out")
    expected = prepare(x_NLT, leads=LEADS_12, rate=500)
    np.testing.assert_allclose(shard.signals()[0] / 1000, expected[0], atol=0.00051)


# What a record may lack


def test_short_records_are_dropped_or_repeated_by_configuration(drop: Path, tmp_path: Path) -> None:
    x_LT = ecgs(1, seconds=6)[0]
    np.savez(drop / "a.npz", six=x_LT, four=x_LT[:, :2000], five=x_LT[:, :2500])
    describe(drop / "a.npz", **said())
    shard = shard_of(drop, tmp_path / "dropped")
    assert set(reasons(shard).values()) == {"too short"}
    shard = shard_of(drop, tmp_path / "repeated", Incomplete(repeat_from=5))
    assert reasons(shard) == {"four": "too short"}
    rows = shard.records().to_pylist()
    assert [row["record_id"] for row in rows] == ["six", "five"]
    assert rows[0]["samples"] == 3000
    assert rows[0]["notes"] == ["repeated to fill the window: 6.00 s were recorded"]
    expected = prepare(np.concatenate([x_LT, x_LT[:, :2000]], axis=1), leads=LEADS_12, rate=500)
    np.testing.assert_allclose(shard.signals()[0] / 1000, expected, atol=0.00051)
    with pytest.raises(ValueError, match="repeat_from 4: use seconds, from 5 to 10"):
        Incomplete(repeat_from=4)


@settings(max_examples=15, deadline=None)
@given(st.sets(st.sampled_from(LEADS_12), min_size=1), st.randoms(use_true_random=False))
def test_absent_leads_are_zeros_that_are_named_and_the_others_are_what_they_are(chosen: set[str], random: Any) -> None:
    leads = sorted(chosen)
    random.shuffle(leads)
    x_LT = ecgs(1)[0].astype(np.float32)
    subset = Record(
        record_id="r", signal_LT=x_LT[[LEADS_12.index(one) for one in leads]], leads=tuple(leads), rate=500.0
    )
    whole = Record(record_id="w", signal_LT=x_LT, leads=LEADS_12, rate=500.0)
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        harmonize([whole, subset], Path(folder), source="t", limits=LIMITS, incomplete=MARKED)
        shard = open_shard(folder)
        if not chosen & set(LEADS):
            assert reasons(shard) == {"r": "lead missing"}
            return
        complete_LT, signal_LT = shard.signals()
        row = shard.records().to_pylist()[1]
    absent = tuple(lead for lead in LEADS if lead not in chosen)
    assert absent_leads(row["notes"]) == absent
    for at, lead in enumerate(LEADS):
        np.testing.assert_array_equal(signal_LT[at], 0 if lead in absent else complete_LT[at])
    assert row["quality_flat_leads"] == 0
    assert row["quality_saturation_share"] < 0.01
    derived = chosen & {"III", "aVR", "aVL", "aVF"}
    assert (row["quality_einthoven"] is None) == (not ({"I", "II"} <= chosen and derived))


def test_without_the_setting_a_lead_that_is_missing_drops_its_record(drop: Path, tmp_path: Path) -> None:
    write_npy(drop / "a.npy", ecgs(1, 2), **said(("I", "II")))
    shard = shard_of(drop, tmp_path / "out", Incomplete())
    assert reasons(shard) == {"a0": "lead missing"}


def test_the_corpus_takes_complete_records_alone(home: Home, drop: Path) -> None:
    write_npy(drop / "whole.npy", ecgs(20), **said(patient_ids=list(range(20))))
    write_npy(drop / "some.npy", ecgs(5, 7, seed=1), **said(LEADS_12[:7]))
    shutil.copytree(drop, home.incoming / "again")
    write_npy(home.incoming / "again" / "whole.npy", ecgs(20)[:, :8], **said(LEADS_12[:8]))
    for name in ("again", "ward-7"):
        complete(home.incoming / name)
        materialize_drop(home, name)
        materialize_ecgs(home.workspace(), INCOMING, name, limits=LIMITS, incomplete=MARKED)
    corpus = materialize_corpus(home.workspace(), CorpusConfig(validation_share=0.2))
    facts = corpus.facts
    assert facts["train"] + facts["validation"] == 20
    assert facts["excluded"][Exclusion.LEADS_ABSENT] == 30
    assert facts["by_source"] == {"incoming": 20}
    assert facts["patients"] == 20


# What is wrong


@pytest.mark.parametrize(
    ("fields", "reason", "detail"),
    [
        ({"units": "mmHg"}, DropReason.UNKNOWN_UNIT, '"mV", "uV", "V", or "raw" with a gain'),
        ({"units": None}, DropReason.UNKNOWN_UNIT, "units None"),
        ({"units": "raw"}, DropReason.UNREADABLE_HEADER, "gain None: a number is needed"),
        ({"units": "raw", "gain": 0}, DropReason.IMPLAUSIBLE_GAIN, "gain 0: 10 to 100000"),
        ({"units": "raw", "gain": [200, 200]}, DropReason.UNREADABLE_HEADER, "or a list of 12"),
        ({"gain": 200}, DropReason.UNREADABLE_HEADER, 'with gain or baseline, units are "raw"'),
        ({"rate": 50}, DropReason.UNREADABLE_HEADER, "rate 50: samples a second, 100 to 2000"),
        ({"rate": float("nan")}, DropReason.UNREADABLE_HEADER, "rate nan"),
        ({"rate": True}, DropReason.UNREADABLE_HEADER, "rate True"),
        ({"leads": "I,II"}, DropReason.UNREADABLE_HEADER, "name each row"),
        ({"leads": ["I", "II"]}, DropReason.UNREADABLE_SIGNAL, "12 rows for 2 leads"),
        ({"axes": ["time", "lead"]}, DropReason.UNREADABLE_HEADER, "axes ['time', 'lead']"),
        ({"ids": ["a", "b"]}, DropReason.UNREADABLE_HEADER, "ids, 2 of them: a list of 1"),
        ({"ids": [""]}, DropReason.UNREADABLE_HEADER, "text of 1 to 128"),
        ({"ids": ["a\nb"]}, DropReason.UNREADABLE_HEADER, "text of 1 to 128"),
        ({"ids": [1.5]}, DropReason.UNREADABLE_HEADER, "1.5 in ids"),
        ({"sexes": [1]}, DropReason.UNREADABLE_HEADER, "1 in sexes"),
        ({"sampling_rate": 500}, DropReason.UNREADABLE_HEADER, "field 'sampling_rate': there are"),
    ],
)
def test_a_description_that_is_wrong_names_the_field_and_the_remedy(
    drop: Path, fields: dict[str, Any], reason: DropReason, detail: str
) -> None:
    write_npy(drop / "a.npy", ecgs(1), **{**said(ids=["a"]), **fields})
    found = only_drop(drop)
    assert found.reason == reason
    assert detail in found.detail


def test_wrong_units_do_not_pass(drop: Path, tmp_path: Path) -> None:
    write_npy(drop / "large.npy", ecgs(1) * 1000, **said(units="mV"))
    write_npy(drop / "small.npy", ecgs(1) / 1000, **said(units="mV"))
    assert reasons(shard_of(drop, tmp_path / "out")) == {
        "large0": "amplitude out of range",
        "small0": "implausible gain",
    }


def test_missing_samples_flat_leads_and_odd_leads_drop_their_record(drop: Path, tmp_path: Path) -> None:
    x_NLT = ecgs(4)
    x_NLT[0, 3, 40] = np.nan
    x_NLT[1, 0, 7] = np.inf
    x_NLT[2, 1] = 1.0
    x_NLT[3] = np.nan
    write_npy(drop / "a.npy", x_NLT, **said())
    write_npy(drop / "b.npy", ecgs(1), **said(("I", *LEADS_12[:-1])))
    write_npy(drop / "c.npy", ecgs(1), **said(("X", *LEADS_12[1:])))
    assert reasons(shard_of(drop, tmp_path / "out")) == {
        "a0": "missing samples",
        "a1": "missing samples",
        "a2": "flat lead",
        "a3": "missing samples",
        "b0": "lead named twice",
        "c0": "unreadable header",
    }


def test_an_id_counts_once_in_a_drop_whatever_file_it_is_in(drop: Path, tmp_path: Path) -> None:
    write_npy(drop / "a.npy", ecgs(2), **said(ids=["x", "x"]))
    np.savez(drop / "b.npz", x=ecgs(1, seed=5)[0])
    describe(drop / "b.npz", **said())
    shard = shard_of(drop, tmp_path / "out")
    assert (len(shard), list(reasons(shard).values())) == (1, ["record id twice"])
    assert shard.drops().num_rows == 2


def test_python_objects_are_never_unpickled(drop: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "unpickled"),))

    array = np.array([Bomb()], object)
    np.save(drop / "a.npy", array, allow_pickle=True)
    np.savez(drop / "b.npz", x=array)
    describe(drop / "a.npy", **said(ids=["a"]))
    describe(drop / "b.npz", **said())
    found = read(drop)
    assert [(item.record_id, getattr(item, "reason", None)) for item in found] == [
        ("a.npy", DropReason.UNREADABLE_SIGNAL),
        ("x", DropReason.UNREADABLE_SIGNAL),
    ]
    assert all("which is a pickle" in getattr(item, "detail", "") for item in found)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("shape", [(10**9, 12, 5000), (10**18, 10**18, 10**18), (0, 12, 5000), (1, 12, 4999), ()])
@pytest.mark.parametrize("form", ["npy", "npz"])
def test_a_header_that_promises_other_than_there_is_allocates_nothing(
    drop: Path, form: str, shape: tuple[int, ...]
) -> None:
    path = drop / "a.npy"
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
        stream.write(bytes(4 * 12 * 5000))
    if form == "npz":
        with zipfile.ZipFile(drop / "a.npz", "w") as archive:
            archive.write(path, "a.npy")
        path.unlink()
    describe(drop / "a", **said(ids=["a"]))
    found = only_drop(drop)
    assert found.reason == DropReason.UNREADABLE_SIGNAL
    assert "needs" in found.detail


def test_an_hdf5_file_that_claims_more_than_it_can_hold_is_refused(drop: Path) -> None:
    with h5py.File(drop / "a.h5", "w") as file:
        file.create_dataset("signals", (100_000, 12, 5000), "f4", chunks=(1, 12, 5000))
        file.attrs.update({"rate": 500, "units": "mV", "leads": LEADS_12})
    assert "cannot be in a file of" in only_drop(drop).detail


def test_hdf5_links_do_not_lead_out_of_the_file(drop: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "elsewhere.h5", "w") as file:
        file["signals"] = ecgs(1)
    attributes = {"rate": 500, "units": "mV", "leads": LEADS_12}
    for name in ("external", "soft", "virtual", "raw", "missing", "group"):
        with h5py.File(drop / f"{name}.h5", "w") as file:
            file.attrs.update(attributes)
            file["ids"] = ["a"]
            if name == "external":
                file["signals"] = h5py.ExternalLink(str(tmp_path / "elsewhere.h5"), "signals")
            elif name == "soft":
                file["signals"] = h5py.SoftLink("/ids")
            elif name == "virtual":
                layout = h5py.VirtualLayout((1, 12, 5000), "f8")
                layout[:] = h5py.VirtualSource(tmp_path / "elsewhere.h5", "signals", (1, 12, 5000))
                file.create_virtual_dataset("signals", layout)
            elif name == "raw":
                outside = [(str(tmp_path / "elsewhere.h5"), 0, 480_000)]
                file.create_dataset("signals", (1, 12, 5000), "f8", external=outside)
            elif name == "group":
                file.create_group("signals")
    found = {item.record_id: getattr(item, "detail", "read") for item in read(drop)}
    assert len(found) == 6
    for name in ("external", "soft"):
        assert "signals is a link" in found[f"{name}.h5"]
    for name in ("virtual", "raw"):
        assert "lies in another file" in found[f"{name}.h5"]
    for name in ("missing", "group"):
        assert "no dataset 'signals'" in found[f"{name}.h5"]


def test_a_damaged_place_in_an_hdf5_file_costs_the_record_that_it_is_of(drop: Path) -> None:
    with h5py.File(drop / "a.h5", "w") as file:
        signals = file.create_dataset("signals", data=ecgs(5), chunks=(1, 12, 5000), fletcher32=True)
        file["ids"] = list(range(5))
        file.attrs.update({"rate": 500, "units": "mV", "leads": LEADS_12})
        place = signals.id.get_chunk_info(3).byte_offset
    damaged = bytearray((drop / "a.h5").read_bytes())
    damaged[place + 1000] ^= 1
    (drop / "a.h5").write_bytes(damaged)
    found = {item.record_id: getattr(item, "reason", None) for item in read(drop)}
    assert found == {"0": None, "1": None, "2": None, "3": DropReason.UNREADABLE_SIGNAL, "4": None}


@pytest.mark.parametrize("name", ["../other", "a/../../b", "", "/", "a//b", 5])
def test_names_in_a_description_are_names(drop: Path, name: Any) -> None:
    with h5py.File(drop / "a.h5", "w") as file:
        file["signals"] = ecgs(1)
    describe(drop / "a", **said(ids=["a"], datasets={"signals": name}))
    assert "is no plain name" in only_drop(drop).detail


def test_a_file_without_its_description_or_with_a_broken_one_is_a_drop(drop: Path) -> None:
    np.save(drop / "alone.npy", ecgs(1))
    np.save(drop / "broken.npy", ecgs(1))
    (drop / "broken.json").write_text('{"rate": 500')
    np.save(drop / "deep.npy", ecgs(1))
    (drop / "deep.json").write_text("[" * 100_000)
    found = {item.record_id: (getattr(item, "reason", None), getattr(item, "detail", "")) for item in read(drop)}
    assert found["alone.npy"][0] == DropReason.FILE_MISSING
    assert "alone.json is not there" in found["alone.npy"][1]
    assert found["broken.npy"][0] == found["deep.npy"][0] == DropReason.UNREADABLE_HEADER


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "not a csv of numbers"),
        ("I,II\n1,2\n3\n", "not a csv of numbers"),
        ("I,II\n1,x\n", "not a csv of numbers"),
        ("I;II\n1,5;2,5\n", "not a csv of numbers"),
        ("\x00\xff\xfe", "not a csv of numbers"),
    ],
)
def test_a_csv_that_is_none_is_a_drop(drop: Path, text: str, detail: str) -> None:
    (drop / "a.csv").write_bytes(text.encode("latin-1"))
    describe(drop / "drop", rate=500, units="mV")
    found = only_drop(drop)
    assert found.reason in (DropReason.UNREADABLE_SIGNAL, DropReason.UNREADABLE_HEADER)
    assert detail in found.detail


def test_an_empty_field_of_a_csv_is_a_missing_sample(drop: Path, tmp_path: Path) -> None:
    rows = ecgs(1)[0].T.astype(str)
    rows[17, 4] = ""
    # Whole numbers first, as a table begins that is long enough to be guessed wrong.
    rows[:100] = "0"
    text = "\n".join([" , ".join(LEADS_12), *(",".join(row) for row in rows)])
    (drop / "a.csv").write_text("﻿" + text)
    describe(drop / "drop", rate=500, units="mV")
    (record,) = records(drop)
    assert record.leads == LEADS_12
    rows_missing = np.argwhere(np.isnan(record.signal_LT))
    assert rows_missing.tolist() == []
    (drop / "a.csv").write_text(text.replace("\n0,", "\n,", 1))
    assert reasons(shard_of(drop, tmp_path / "out")) == {"a": "missing samples"}


def test_a_fault_of_what_the_whole_drop_leans_on_is_an_error(drop: Path) -> None:
    write_npy(drop / "a.npy", ecgs(1), **said())
    describe(drop / "drop", ids=["a"])
    with pytest.raises(ValueError, match=r"drop\.json: ids: what belongs to one file's records"):
        read(drop)
    (drop / "drop.json").write_text("nothing")
    with pytest.raises(ValueError, match=r"drop\.json: it: it is no JSON"):
        read(drop)


# Numpy warns where a damaged header could be one of Python 2.
@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required")
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_changed_bytes_raise_nothing_but_drops(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "mutated"
    if not folder.exists():
        folder.mkdir()
        x_NLT = ecgs(2, 3, rate=100).astype("f4")
        write_npy(folder / "a.npy", x_NLT, **said(LEADS_12[:3], rate=100))
        np.savez_compressed(folder / "b.npz", x=x_NLT[0], y=x_NLT[1])
        describe(folder / "b", **said(LEADS_12[:3], rate=100))
        with h5py.File(folder / "c.h5", "w") as file:
            file.create_dataset("signals", data=x_NLT, compression="gzip", chunks=(1, 3, 1000))
            file["ids"] = ["c0", "c1"]
            file.attrs.update({"rate": 100, "units": "mV", "leads": LEADS_12[:3]})
        np.savetxt(folder / "d.csv", x_NLT[0].T, delimiter=",", header="I,II,III", comments="", fmt="%.3f")
        describe(folder / "d", rate=100, units="mV")
    name = data.draw(st.sampled_from(sorted(path.name for path in folder.iterdir())))
    good = bytearray((folder / name).read_bytes())
    # Half of the changes go where a file describes itself.
    first = data.draw(st.booleans())
    for _ in range(data.draw(st.integers(1, 8))):
        good[data.draw(st.integers(0, min(len(good), 2048 if first else len(good)) - 1))] = data.draw(
            st.integers(0, 255)
        )
    changed = tmp_path_factory.mktemp("changed")
    for path in folder.iterdir():
        (changed / path.name).write_bytes(
            bytes(good[: data.draw(st.sampled_from([None, len(good) // 2]))])
            if path.name == name
            else path.read_bytes()
        )
    found = read(changed)
    assert {"a0", "a1", "x", "y", "c0", "c1", "d"} & {item.record_id for item in found}
    shutil.rmtree(changed)


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["mV", "raw", "record", "lead", "time", "I", "V1", "signals", "../a", "\x00", ""])
    | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.sampled_from(["signals", "ids", "x"]), inside),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(
    fields=st.dictionaries(st.sampled_from(sorted(FIELDS)), _VALUES, max_size=3),
    form=st.sampled_from(["npy", "npz", "h5"]),
)
def test_whatever_a_description_says_is_read_or_dropped(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any], form: str
) -> None:
    folder = tmp_path_factory.mktemp("described")
    x_NLT = ecgs(2, 3, rate=100)
    if form == "npy":
        np.save(folder / "a.npy", x_NLT)
    elif form == "npz":
        np.savez(folder / "a.npz", x=x_NLT[0], y=x_NLT[1])
    else:
        with h5py.File(folder / "a.h5", "w") as file:
            file["signals"] = x_NLT
    describe(folder / "a", **{**said(LEADS_12[:3], rate=100, ids=["x", "y"]), **fields})
    found = read(folder)
    assert [item.record_id for item in found] == [f"a.{form}"] or len(found) == 2
    shutil.rmtree(folder)


# Drops as a whole


def test_a_drop_is_complete_once_its_marker_is_there_and_is_seen_to_change(home: Home, drop: Path) -> None:
    assert complete_drops(FolderOfDrops(home.root / "nowhere")) == []
    write_npy(drop / "a.npy", ecgs(2), **said())
    (home.incoming / "my drop!").mkdir()
    (home.incoming / "..").joinpath("outside").mkdir()
    (home.incoming / "linked").symlink_to(home.root / "outside")
    (home.incoming / "file").touch()
    assert complete_drops(place_of(home.incoming)) == []
    complete(drop)
    (found,) = complete_drops(place_of(home.incoming))
    assert (found.name, len(found.listing.files)) == ("ward-7", 2)
    assert sum(file.bytes for file in found.listing.files) == sum(path.stat().st_size for path in drop.iterdir())
    assert complete_drops(place_of(home.incoming)) == [found]
    assert misnamed_drops(place_of(home.incoming)) == ["my drop!"]
    (drop / "b.txt").write_text("more")
    assert complete_drops(place_of(home.incoming))[0].listing.digest != found.listing.digest


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", ".hidden", "a..b", "-a", "a" * 65, "ä", "a\n", "a b"])
def test_names_that_are_no_partition_are_refused(home: Home, name: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        check_name(name)
    with pytest.raises(ValueError, match="letters, digits"):
        materialize_drop(home, name)


def test_a_drop_is_copied_once_and_a_change_is_another_product(home: Home, drop: Path) -> None:
    write_npy(drop / "deep.npy", ecgs(2), **said())
    complete(drop)
    one = materialize_drop(home, "ward-7")
    assert (one.name, one.cached, one.facts["files"]) == ("raw/incoming/ward-7", False, 2)
    root, files = recorded_files(one)
    assert [file.path for file in files] == ["deep.json", "deep.npy"]
    assert (root / "deep.npy").read_bytes() == (drop / "deep.npy").read_bytes()
    os.utime(drop / "deep.npy")
    assert materialize_drop(home, "ward-7").cached, "the bytes are the same"
    # A change of the same size.
    changed = bytearray((drop / "deep.npy").read_bytes())
    changed[-1] ^= 1
    (drop / "deep.npy").write_bytes(changed)
    two = materialize_drop(home, "ward-7")
    assert not two.cached
    assert two.digest != one.digest
    assert recorded_files(one)[0] != recorded_files(two)[0], "what was made of the first still stands"
    shutil.rmtree(drop)
    assert materialize_drop(home, "ward-7") == home.workspace().require("raw/incoming/ward-7")
    (recorded_files(two)[0] / "deep.npy").unlink()
    with pytest.raises(ValueError, match="is gone, and our copy of it is damaged"):
        materialize_drop(home, "ward-7")


def test_what_a_killed_copy_left_is_put_right(home: Home, drop: Path) -> None:
    write_npy(drop / "a.npy", ecgs(1), **said())
    complete(drop)
    root, files = recorded_files(taken := materialize_drop(home, "ward-7"))
    shutil.rmtree(taken.path)
    (root / ".a.npy.part").write_bytes(b"half")
    (root / "a.npy").write_bytes(bytes((root / "a.npy").stat().st_size))
    assert materialize_drop(home, "ward-7").digest == taken.digest
    assert (root / "a.npy").read_bytes() == (drop / "a.npy").read_bytes()
    assert sorted(path.name for path in root.iterdir()) == [file.path for file in files]


def test_a_file_that_changes_while_it_is_copied_is_not_taken(home: Home, drop: Path) -> None:
    write_npy(drop / "a.npy", ecgs(1), **said())
    complete(drop)
    before = {file.path: file for file in hashed(drop, list_drop(drop))}["a.npy"]
    write_npy(drop / "a.npy", ecgs(1, seed=1), **said())
    with pytest.raises(ValueError, match=r"a\.npy: changed while it was copied"):
        _copy(drop, home.root / "copy", before)
    assert not list((home.root / "copy").rglob("*.npy*"))


def test_what_is_not_whole_is_not_taken(home: Home, drop: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        materialize_drop(home, "other")
    with pytest.raises(ValueError, match="_COMPLETE is not there"):
        materialize_drop(home, "ward-7")
    complete(drop)
    with pytest.raises(ValueError, match="no files but _COMPLETE"):
        materialize_drop(home, "ward-7")
    secret = tmp_path / "secret.npy"
    np.save(secret, ecgs(1))
    (drop / "a.npy").symlink_to(secret)
    with pytest.raises(ValueError, match=r"1 entries are refused, first a\.npy: a link"):
        materialize_drop(home, "ward-7")
    (drop / "a.npy").unlink()
    (drop / "folder").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(drop / "pipe")
    (drop / "ecg:1.npy").touch()
    assert [one.path for one in list_drop(drop).refused] == ["ecg:1.npy", "folder", "pipe"]
    with pytest.raises(ValueError, match="3 entries are refused"):
        materialize_drop(home, "ward-7")
    assert home.workspace().current("raw/incoming/ward-7") is None


def test_a_marker_that_is_a_link_is_none(home: Home, drop: Path) -> None:
    (drop / MARKER).symlink_to("/etc/hostname")
    assert complete_drops(place_of(home.incoming)) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_named(home: Home, drop: Path) -> None:
    write_npy(drop / "a.npy", ecgs(1), **said())
    complete(drop)
    (drop / "a.npy").chmod(0)
    with pytest.raises(ValueError, match=r"a\.npy: cannot be read"):
        materialize_drop(home, "ward-7")


def test_own_ecgs_never_join_simulated_ones(home: Home, drop: Path) -> None:
    complete(drop)
    with pytest.raises(ValueError, match="own ECGs do not join simulated ones"):
        materialize_drop(Home(home.root, str(home.simulated_mirror)), "ward-7")


def test_the_incoming_folder_is_the_homes_or_the_environments(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home.incoming == home.root / "incoming"
    monkeypatch.setenv("ECG_INCOMING", "/data/dropped")
    assert home.incoming == Path("/data/dropped")


# The command


def test_check_drop_tells_what_would_be_read(drop: Path) -> None:
    write_npy(drop / "a.npy", ecgs(3), **said())
    write_npy(drop / "b.npy", ecgs(2, rate=250) * 20, **said(rate=250))
    np.savetxt(drop / "c.csv", ecgs(1, 3, seed=9)[0].T, delimiter=",", header="I,II,V1", comments="")
    np.savetxt(drop / "d.csv", ecgs(1, 3, seconds=4)[0].T, delimiter=",", header="I,II,V1", comments="")
    describe(drop / "drop", rate=500, units="mV")
    result = ecg("check-drop", drop)
    assert result.exit_code == 0, result.output
    assert "marker _COMPLETE: is not there yet" in result.output
    assert "is mV the unit?" in result.output
    assert "1 of the kept lack leads" in result.output
    assert "dropped *.csv d: too short: 2000 samples at 500 Hz" in result.output
    assert "6 of 7 records would be kept" in result.output
    complete(drop)
    told = json.loads(ecg("check-drop", drop, "--json").stdout)
    assert told["marked"]
    assert told["sound"]
    kinds = {part["where"]: part for part in told["parts"]}
    assert {where: (part["records"], part["kept"]) for where, part in kinds.items()} == {
        "a.npy": (3, 3),
        "b.npy": (2, 2),
        "*.csv": (2, 1),
    }
    assert kinds["b.npy"]["rates"] == {"250": 2}
    assert kinds["*.csv"]["seconds"] == [4.0, 10.0]
    assert [one["record"] for one in told["dropped"]] == ["d"]


def test_check_drop_says_what_harmonization_then_does(home: Home, drop: Path) -> None:
    x_NLT = ecgs(70)
    x_NLT[5, 2, 4000] = np.nan
    write_npy(drop / "a.npy", x_NLT, **said(ids=[*range(69), 0]))
    write_npy(drop / "b.npy", ecgs(2, 1), **said(("V1",)))
    complete(drop)
    report = check_drop(drop)
    materialize_drop(home, "ward-7")
    product = materialize_ecgs(home.workspace(), INCOMING, "ward-7", limits=LIMITS, incomplete=MARKED)
    assert (report.records, report.kept) == (product.facts["entered"], product.facts["kept"])
    assert [found.record_id for _, found in report.drops] == ["5", "0"]
    shard = open_shard(product.path)
    assert [row["detail"] for row in shard.drops().to_pylist()] == [found.detail for _, found in report.drops]


def test_check_drop_fails_where_nothing_is_kept_or_something_is_refused(drop: Path, tmp_path: Path) -> None:
    assert ecg("check-drop", drop).exit_code == 1, "it is empty"
    write_npy(drop / "a.npy", ecgs(1) * 1e6, **said())
    assert ecg("check-drop", drop).exit_code == 1
    write_npy(drop / "a.npy", ecgs(1), **said())
    assert ecg("check-drop", drop).exit_code == 0
    (drop / "link").symlink_to(tmp_path)
    result = ecg("check-drop", drop)
    assert result.exit_code == 1
    assert "refused link: a link" in result.output
    result = ecg("check-drop", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "no such folder" in result.output


def test_a_blank_line_of_a_csv_is_a_gap_and_never_joined_over(tmp_path: Path) -> None:
    one = tmp_path / "one.csv"
    one.write_text("II\n0.1\n\n0.3\n")
    np.testing.assert_array_equal(read_csv(one)[1], [[0.1, np.nan, 0.3]])
    two = tmp_path / "two.csv"
    two.write_text("I,II\n0.1,0.2\n\n0.3,0.4\n")
    try:
        found = read_csv(two)[1]
    except RecordError:
        return  # refused is as good: nothing is joined
    assert np.isnan(found[:, 1]).all()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_that_is_damaged_anywhere_is_a_record_error(save: Callable[..., None], tmp_path: Path) -> None:
    whole = tmp_path / "whole.npz"
    save(whole, ecg=np.random.default_rng(0).integers(-900, 900, (8, 300), dtype=np.int16))
    data, damaged = whole.read_bytes(), tmp_path / "damaged.npz"
    rng = np.random.default_rng(1)
    places = [*range(60), *range(len(data) - 160, len(data)), *rng.integers(0, len(data), 100).tolist()]
    refused = 0
    for place in places:
        damaged.write_bytes(data[:place] + bytes([data[place] ^ (1 + int(rng.integers(255)))]) + data[place + 1 :])
        try:
            with Npz(damaged) as archive:
                archive.read("ecg")
        except RecordError:
            refused += 1
    assert refused > 40
