"""`ecg check-drop`: what harmonization will make of a drop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ecg_model.leads import LEADS_12
from pipelines.formats.shard import open_shard
from pipelines.harmonize.step import materialize_ecgs
from pipelines.home import Home
from pipelines.incoming import INCOMING
from pipelines.incoming.check import check_drop
from pipelines.incoming.step import materialize_drop
from tests.support.commands import ecg
from tests.support.drops import (
    LIMITS,
    MARKED,
    array_fields,
    complete,
    describe,
    ecgs,
    write_npy,
)


def test_check_drop_tells_what_would_be_read(drop: Path) -> None:
    write_npy(drop / "a.npy", ecgs(3), **array_fields())
    write_npy(drop / "b.npy", ecgs(2, rate=250) * 20, **array_fields(rate=250))
    np.savetxt(drop / "c.csv", ecgs(1, 3, seed=9)[0].T, delimiter=",", header="I,II,V1", comments="")
    np.savetxt(drop / "d.csv", ecgs(1, 3, seconds=4)[0].T, delimiter=",", header="I,II,V1", comments="")
    describe(drop / "drop", rate=500, units="mV")
    result = ecg("check-drop", drop)
    assert result.exit_code == 0, result.output
    assert "marker _COMPLETE: is not there yet" in result.output
    assert "is mV the unit?" in result.output
    assert "1 of the kept records lack leads" in result.output
    assert f"dropped {drop / 'd.csv'}: too short: 2000 samples at 500 Hz" in result.output
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
    assert [(one["where"], one["file"], one["record"]) for one in told["dropped"]] == [("*.csv", "d.csv", "d")]


def test_check_drop_counts_patients_of_kept_records(drop: Path) -> None:
    x_NLT = ecgs(5)
    x_NLT[4, :, 100] = np.nan
    write_npy(drop / "a.npy", x_NLT, **array_fields(patient_ids=[17.0, 17, "p2", None, "p3"]))
    result = ecg("check-drop", drop)
    assert "3 of 4 kept records name a patient: 2 patients, at most 2 ECGs of one; each of the other 1" in result.output
    told = json.loads(ecg("check-drop", drop, "--json").stdout)
    assert told["patients"] == {"records": 3, "patients": 2, "most": 2}
    describe(drop / "a.npy", **array_fields(ids=["a", "b", "c", "d", "e"], patient_ids=["p", "p", "p", "q", "q"]))
    told = ecg("check-drop", drop).output
    assert "4 of 4 kept records name a patient: 2 patients, at most 3 ECGs of one" in told
    assert "of its own" not in told


def test_check_drop_says_what_harmonization_then_does(home: Home, drop: Path) -> None:
    x_NLT = ecgs(70)
    x_NLT[5, 7, 4000] = np.nan
    write_npy(drop / "a.npy", x_NLT, **array_fields(ids=[*range(69), 0]))
    write_npy(drop / "b.npy", ecgs(2, 1), **array_fields(("V1",)))
    complete(drop)
    report = check_drop(drop)
    materialize_drop(home, "ward-7")
    product = materialize_ecgs(home.workspace(), INCOMING, "ward-7", limits=LIMITS, incomplete=MARKED)
    assert (report.records, report.kept) == (product.facts["entered"], product.facts["kept"])
    assert [found.record.record_id for found in report.drops] == ["5", "0"]
    shard = open_shard(product.path)
    assert [row["detail"] for row in shard.drops().to_pylist()] == [found.record.detail for found in report.drops]


def test_check_drop_fails_if_nothing_is_kept_or_something_is_refused(drop: Path, tmp_path: Path) -> None:
    assert ecg("check-drop", drop).exit_code == 1, "it is empty"
    write_npy(drop / "a.npy", ecgs(1) * 1e6, **array_fields())
    assert ecg("check-drop", drop).exit_code == 1
    write_npy(drop / "a.npy", ecgs(1), **array_fields())
    assert ecg("check-drop", drop).exit_code == 0
    (drop / "link").symlink_to(tmp_path)
    result = ecg("check-drop", drop)
    assert result.exit_code == 1
    assert "refused link: a link" in result.output
    result = ecg("check-drop", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "no such folder" in result.output


def test_a_drop_of_many_folders_is_shown_by_kind(drop: Path) -> None:
    describe(drop / "drop", rate=500, units="V")  # of numbers in millivolt: each folder has a doubt
    for at in range(40):
        (drop / f"p{at:02}").mkdir()
        x_LT = ecgs(1, seconds=1, seed=at)[0]
        np.savetxt(drop / f"p{at:02}" / "ecg.csv", x_LT.T, delimiter=",", header=",".join(LEADS_12), comments="")
    write_npy(drop / "a.npy", ecgs(2), **array_fields())
    lines = ecg("check-drop", drop).output.splitlines()
    (csv,) = [line.split() for line in lines if line.startswith(" csv")]
    assert csv[:7] == ["csv", "40", "folders", "or", "files", "40", "0"]
    assert [line for line in lines if "NumPy" in line]
    assert len([line for line in lines if "from peak to peak, and" in line]) == 20
    assert "and 20 more have such amplitudes: --json names all" in lines
    assert "and 20 more are dropped: --json names all" in lines
    assert len(lines) < 60
    assert len(json.loads(ecg("check-drop", drop, "--json").stdout)["parts"]) == 41
