"""`ecg export`: other programs read the stored numbers, to the microvolt."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecg_model.leads import LEADS, LEADS_12
from ecg_model.signal import derived_leads
from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.corpus import export as exporting
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.export import export, select
from pipelines.corpus.step import materialize_corpus
from pipelines.formats.shard import SHARD, open_shard
from pipelines.formats.wfdb import read_wfdb
from pipelines.harmonize.convert import harmonize
from pipelines.harmonize.quality import QualityLimits
from pipelines.home import Home
from pipelines.records import Record
from tests.support.commands import ecg


def record(at: int) -> Record:
    x_LT = np.random.default_rng(at).normal(0, 0.3, (12, 5000)).astype(np.float32)
    x_LT[2:6] = derived_leads(x_LT[:2])
    return Record(
        record_id=f"JS{at:05d}",
        signal_LT=x_LT,
        leads=LEADS_12,
        rate=500.0,
        patient_id=f"p{at}" if at % 2 else None,
        age=40.0 + at if at % 3 else None,
        sex="female" if at % 2 else "male",
        labels=("164889003", "59118001")[: at % 3],
        fold=at % 10 + 1 if at % 2 else None,
        notes=("header repaired",) if at == 4 else (),
    )


def shard(workspace: Workspace, name: str, records: list[Record], role: str = "pretraining") -> Product:
    source = name.split("/")[0]

    def make(out: Path) -> dict:
        counts = harmonize(records, out, source=source, limits=QualityLimits())
        return {**counts.facts(), "role": role}

    return workspace.build(f"ecgs/{name}", version=versions.ECGS, config={}, inputs={}, make=make)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data home with two partitions of chapman, one of ludb and a corpus."""
    home = Home(tmp_path_factory.mktemp("export"))
    workspace = home.workspace()
    shard(workspace, "chapman/01", [record(at) for at in range(12)])
    shard(workspace, "chapman/02", [record(at) for at in range(20, 27)])
    odd = [replace(record(40), record_id="a/b"), replace(record(41), record_id="a b"), replace(record(42), age=None)]
    shard(workspace, "ludb/all", odd, role="evaluation")
    materialize_corpus(workspace, CorpusConfig(validation_share=0.3))
    return home.root


@pytest.fixture(autouse=True)
def workspace(root: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("ECG_HOME", str(root))
    monkeypatch.delenv("ECG_MIRROR", raising=False)
    return Home(root).workspace()


def stored(workspace: Workspace, *names: str) -> tuple[np.ndarray, list[dict]]:
    shards = [open_shard(workspace.require(f"ecgs/{name}").path) for name in names]
    signals_NLT = np.concatenate([one.signals() for one in shards])
    return signals_NLT, [row for one in shards for row in one.records().to_pylist()]


def test_wfdb_reads_what_the_store_holds(tmp_path: Path, workspace: Workspace) -> None:
    out = tmp_path / "out"
    assert ecg("export", "ecgs/chapman", out, "--format", "wfdb").stdout == f"19 ECGs in {out}\n"
    signals_NLT, rows = stored(workspace, "chapman/01", "chapman/02")
    paths = (out / "RECORDS").read_text().splitlines()
    assert paths == [f"chapman/{'01' if row['record_id'] < 'JS00020' else '02'}/{row['record_id']}" for row in rows]
    for path, x_LT, row in zip(paths, signals_NLT, rows, strict=True):
        theirs = wfdb.rdrecord(str(out / path), physical=False)
        np.testing.assert_array_equal(theirs.d_signal.T, x_LT)
        physical = wfdb.rdrecord(str(out / path))
        assert (physical.fs, physical.sig_name, set(physical.units)) == (250, list(LEADS), {"mV"})
        np.testing.assert_allclose(physical.p_signal.T, x_LT / 1000, atol=1e-9)
        assert theirs.checksum == theirs.calc_checksum()
        # Our own reader holds first values and checksums against the samples.
        np.testing.assert_allclose(read_wfdb(out / f"{path}.hea").signal_LT, x_LT / 1000, atol=1e-6)
        said = dict(line.split(": ", 1) for line in theirs.comments)
        assert said.get("Dx", "").split(",") == (row["labels"] or [""])
        assert (said["Source"], said["Record"], said["Sex"].lower()) == ("chapman", row["record_id"], row["sex"])
        assert said.get("Patient") == row["patient_id"]
        assert said.get("Age") == (None if row["age"] is None else f"{row['age']:g}")
    assert sorted(p.suffix for p in out.rglob("*") if p.is_file()) == sorted([""] + 19 * [".dat", ".hea"])


def test_ids_that_wfdb_does_not_allow_get_other_names_and_stay_apart(tmp_path: Path, workspace: Workspace) -> None:
    ecg("export", "ecgs/ludb/all", tmp_path / "out", "--format", "wfdb")
    paths = (tmp_path / "out" / "RECORDS").read_text().splitlines()
    assert paths == ["ludb/all/a_b", "ludb/all/a_b_", "ludb/all/JS00042"]
    comments = [wfdb.rdheader(str(tmp_path / "out" / path)).comments for path in paths]
    assert [line for lines in comments for line in lines if line.startswith("Record")] == [
        "Record: a/b",
        "Record: a b",
        "Record: JS00042",
    ]
    signals_NLT, _ = stored(workspace, "ludb/all")
    for path, x_LT in zip(paths, signals_NLT, strict=True):
        np.testing.assert_array_equal(wfdb.rdrecord(str(tmp_path / "out" / path), physical=False).d_signal.T, x_LT)


def test_numpy_and_csv_hold_what_the_store_holds(tmp_path: Path, workspace: Workspace) -> None:
    out = tmp_path / "deeper" / "out"
    assert ecg("export", "ecgs/chapman", out).exit_code == 0
    signals_NLT, rows = stored(workspace, "chapman/01", "chapman/02")
    found_NLT = np.load(out / "signals.npy", allow_pickle=False)
    assert found_NLT.dtype == np.int16
    np.testing.assert_array_equal(found_NLT, signals_NLT)
    with (out / "records.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["record_id"] for row in table] == [row["record_id"] for row in rows]
    assert [row["labels"] for row in table] == [";".join(row["labels"]) for row in rows]
    assert [row["partition"] for row in table] == ["01"] * 12 + ["02"] * 7
    assert {(row["rate"], row["samples"]) for row in table} == {("250", str(found_NLT.shape[2]))}
    assert [float(row["source_rate"]) for row in table] == [row["rate"] for row in rows]
    assert [float(row["age"]) if row["age"] else None for row in table] == [row["age"] for row in rows]
    about = json.loads((out / "about.json").read_text())
    assert (about["leads"], about["rate"], about["unit"]) == (list(LEADS), 250, "microvolt")
    assert about["shards"] == ["chapman/01", "chapman/02"]


def test_a_split_of_the_corpus_is_the_corpus_rows(tmp_path: Path, workspace: Workspace) -> None:
    ids = {}
    for split in ("train", "validation"):
        assert ecg("export", f"corpus/{split}", tmp_path / split).exit_code == 0
        with (tmp_path / split / "records.csv").open(newline="") as stream:
            ids[split] = [row["record_id"] for row in csv.DictReader(stream)]
        found_NLT = np.load(tmp_path / split / "signals.npy", allow_pickle=False)
        signals_NLT, rows = stored(workspace, "chapman/01", "chapman/02")
        by_id = dict(zip((row["record_id"] for row in rows), signals_NLT, strict=True))
        for record_id, x_LT in zip(ids[split], found_NLT, strict=True):
            np.testing.assert_array_equal(x_LT, by_id[record_id])
    assert len(ids["train"]) + len(ids["validation"]) == len({*ids["train"], *ids["validation"]}) == 19


def test_partitions_come_in_the_sources_order_and_own_ecgs_in_that_of_their_names(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for at, name in enumerate(("code15/10", "code15/2", "incoming/ward-b", "incoming/ward-a")):
        shard(workspace, name, [record(at)])
    assert [one.shard for one in select(workspace, "ecgs/code15")] == ["code15/2", "code15/10"]
    assert [one.shard for one in select(workspace, "ecgs/incoming")] == ["incoming/ward-a", "incoming/ward-b"]


def test_a_shard_of_several_files_is_exported_in_order(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "home")
    short = [record(at) for at in range(40)]
    many = [replace(short[at % 40], record_id=f"r{at}") for at in range(SHARD + 3)]
    product = shard(workspace, "chapman/01", many)
    done: list[tuple[int, int]] = []
    export(
        select(workspace, "ecgs/chapman/01"),
        tmp_path / "out",
        "numpy",
        on_records=lambda *counts: done.append(counts),
    )
    assert done == [(SHARD, SHARD + 3), (SHARD + 3, SHARD + 3)]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "signals.npy"), open_shard(product.path).signals())


@pytest.mark.parametrize(
    "selection",
    [
        "",
        "ecgs",
        "ecgs/nope",
        "ecgs/chapman/01/x",
        "corpus",
        "corpus/test",
        "ecgs/georgia",
        "ecgs/chapman/../ludb",
        "ecgs/..",
    ],
)
def test_a_selection_that_means_nothing_is_refused(tmp_path: Path, selection: str) -> None:
    refused = ecg("export", selection, tmp_path / "out")
    assert refused.exit_code == 1
    assert re.match("Error: (selection|product) '", refused.stderr)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    refused = ecg("export", "ecgs/ludb", tmp_path / "out")
    assert refused.exit_code == 1
    assert "exists: give a new folder" in refused.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("form", ["numpy", "wfdb"])
def test_an_export_that_breaks_leaves_nothing(tmp_path: Path, workspace: Workspace, form: exporting.Format) -> None:
    def broken(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(select(workspace, "ecgs/chapman"), tmp_path / "out", form, on_records=broken)
    assert list(tmp_path.iterdir()) == []
    assert export(select(workspace, "ecgs/chapman"), tmp_path / "out", form) == 19
