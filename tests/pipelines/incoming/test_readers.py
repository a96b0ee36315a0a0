"""Drops of every format are read as the arrays that were written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_model.leads import LEADS_12
from ecg_model.signal import prepare
from pipelines.formats.wfdb import read_wfdb
from pipelines.incoming.description import MOST_SECONDS
from pipelines.records import DropReason
from pipelines.sources.challenge import challenge_record
from tests.support.drops import (
    array_fields,
    describe,
    ecgs,
    read,
    reasons,
    records,
    shard_of,
    write_npy,
)
from tests.support.paths import SHARED

MIRROR = SHARED / "real" / "mirror"


@pytest.mark.parametrize("rate", [100, 257.5, 500, 2000])
@pytest.mark.parametrize("form", ["npy", "npz", "h5", "csv"])
def test_every_format_at_any_rate_is_stored_as_the_model_would_see_the_same_array(
    drop: Path, tmp_path: Path, form: str, rate: float
) -> None:
    x_NLT = ecgs(2, rate=rate, seconds=11)
    if form == "npy":
        write_npy(drop / "a.npy", x_NLT, **array_fields(rate=rate))
    elif form == "npz":
        np.savez(drop / "a.npz", a0=x_NLT[0], a1=x_NLT[1])
        describe(drop / "a.npz", **array_fields(rate=rate))
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
    write_npy(drop / "a.npy", np.rint(numbers).astype(">i4") if "gain" in units else numbers, **array_fields() | units)
    (record,) = records(drop)
    np.testing.assert_allclose(record.signal_LT, x_NLT[0], atol=0.5 / 200 + 1e-6)


@pytest.mark.parametrize("form", ["npy", "h5"])
def test_axes_in_any_order_and_memory_order(drop: Path, form: str) -> None:
    x_NLT = ecgs(3)
    turned = np.asfortranarray(x_NLT.transpose(2, 0, 1))
    fields = array_fields(axes=["time", "record", "lead"], ids=["p", "q", "r"])
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
        **array_fields(
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
    write_npy(drop / "deep" / "a.npy", ecgs(2), **array_fields())
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
        "UPPER": DropReason.UNREADABLE_HEADER,
        "orphan.json": DropReason.FILE_MISSING,
        "lonely.json": DropReason.FILE_MISSING,
        "lonely": DropReason.UNREADABLE_HEADER,
    }


def test_of_a_long_recording_the_first_half_minute_is_read(drop: Path, tmp_path: Path) -> None:
    x_NLT = ecgs(1, rate=500, seconds=60)
    write_npy(drop / "a.npy", x_NLT, **array_fields())
    wfdb.wrsamp("w", 500, ["mV"] * 12, list(LEADS_12), x_NLT[0].T, fmt=["16"] * 12, write_dir=str(drop))
    for record in records(drop):
        assert record.signal_LT.shape == (12, 500 * MOST_SECONDS)
        assert record.notes[-1] == "the first 30 s of 60 s are read"
    shard = shard_of(drop, tmp_path / "out")
    expected = prepare(x_NLT, leads=LEADS_12, rate=500)
    np.testing.assert_allclose(shard.signals()[0] / 1000, expected[0], atol=0.00051)


def test_wrong_units_do_not_pass(drop: Path, tmp_path: Path) -> None:
    write_npy(drop / "large.npy", ecgs(1) * 1000, **array_fields(units="mV"))
    write_npy(drop / "small.npy", ecgs(1) / 1000, **array_fields(units="mV"))
    assert reasons(shard_of(drop, tmp_path / "out")) == {
        "large0": "amplitude out of range",
        "small0": "implausible gain",
    }


def test_missing_samples_flat_leads_and_odd_leads_drop_their_record(drop: Path, tmp_path: Path) -> None:
    x_NLT = ecgs(4)
    x_NLT[0, 7, 40] = np.nan
    x_NLT[1, 0, 7] = np.inf
    x_NLT[2, 1] = 1.0
    x_NLT[3] = np.nan
    write_npy(drop / "a.npy", x_NLT, **array_fields())
    write_npy(drop / "b.npy", ecgs(1), **array_fields(("I", *LEADS_12[:-1])))
    write_npy(drop / "c.npy", ecgs(1), **array_fields(tuple(f"X{n}" for n in range(12))))
    assert reasons(shard_of(drop, tmp_path / "out")) == {
        "a0": "missing samples",
        "a1": "missing samples",
        "a2": "flat lead",
        "a3": "missing samples",
        "b0": "lead named twice",
        "c0": "lead missing",
    }


def test_an_id_counts_once_in_a_drop_whatever_file_it_is_in(drop: Path, tmp_path: Path) -> None:
    write_npy(drop / "a.npy", ecgs(2), **array_fields(ids=["x", "x"]))
    np.savez(drop / "b.npz", x=ecgs(1, seed=5)[0])
    describe(drop / "b.npz", **array_fields())
    shard = shard_of(drop, tmp_path / "out")
    assert (len(shard), list(reasons(shard).values())) == (1, ["record id twice"])
    assert shard.drops().num_rows == 2


# Numpy warns where a damaged header could be one of Python 2.
@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required")
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_changed_bytes_raise_nothing_but_drops(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "mutated"
    if not folder.exists():
        folder.mkdir()
        x_NLT = ecgs(2, 3, rate=100).astype("f4")
        write_npy(folder / "a.npy", x_NLT, **array_fields(LEADS_12[:3], rate=100))
        np.savez_compressed(folder / "b.npz", x=x_NLT[0], y=x_NLT[1])
        describe(folder / "b", **array_fields(LEADS_12[:3], rate=100))
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


def test_names_of_leads_are_mapped_by_the_drops_json_in_every_format(drop: Path, tmp_path: Path) -> None:
    names = ("EKG 1", *LEADS_12[1:])
    write_npy(drop / "a.npy", ecgs(1), **array_fields(names))
    wfdb.wrsamp("w", 500, ["mV"] * 12, list(names), ecgs(1)[0].T, fmt=["16"] * 12, write_dir=str(drop))
    (drop / "drop.json").write_text(json.dumps({"lead_names": {"EKG 1": "I"}}))
    shard = shard_of(drop, tmp_path / "out")
    assert shard.records()["notes"].to_pylist() == [[], []]
    (drop / "drop.json").write_text(json.dumps({"lead_names": {"EKG 1": "X"}}))
    assert set(reasons(shard_of(drop, tmp_path / "refused")).values()) == {"unreadable header"}
