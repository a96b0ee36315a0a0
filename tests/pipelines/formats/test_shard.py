"""The store on a real disk: what is written comes back, in other hands too, and the same input gives the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

from ecg_model import signal
from pipelines.cache import digest_of_tree
from pipelines.formats import shard as store
from pipelines.formats.shard import SHARD, ShardWriter, open_shard, read_rows
from pipelines.harmonize import quality
from pipelines.records import DroppedRecord, DropReason
from tests.support.paths import ROOT


def ecgs(count: int, seed: int = 0) -> np.ndarray:
    """Random walks: int16 (count, 8, 2500)."""
    steps = np.random.default_rng(seed).integers(-9, 10, (count, 8, 2500), dtype=np.int16)
    return np.cumsum(steps, axis=-1, dtype=np.int16)


def row(at: int) -> dict[str, object]:
    return {
        "source": "test",
        "record_id": f"r{at}",
        "rate": 500.0,
        "samples": 5000,
        "labels": ["426783006"] if at % 2 else [],
        "notes": [],
        "content_hash": f"{at:064x}",
        "signature": bytes(128),
        "age": 41.0 if at % 3 else None,
    }


def write(folder: Path, signals_NLT: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    writer = ShardWriter(folder)
    for at, signal_LT in enumerate(signals_NLT):
        writer.append(signal_LT, row(at))
    writer.add_dropped(DroppedRecord("bad", DropReason.TOO_SHORT, "7.3 s"), "test")
    writer.close()
    return folder


def test_the_layout_is_the_models() -> None:
    assert store.LEADS == signal.LEADS
    assert (store.RATE, store.SAMPLES) == (signal.RATE, signal.SAMPLES)
    assert list(store.QUALITY) == ["missing_share", *quality.Figures.__dataclass_fields__]


@pytest.mark.parametrize("count", [0, 1, 63, 65, SHARD, SHARD + 1])
def test_what_is_written_comes_back(tmp_path: Path, count: int) -> None:
    signals_NLT = ecgs(count)
    shard = open_shard(write(tmp_path / "shard", signals_NLT))
    assert len(shard) == count
    np.testing.assert_array_equal(shard.signals(), signals_NLT)
    records = shard.records()
    assert records["row"].to_pylist() == list(range(count))
    assert records["record_id"].to_pylist() == [f"r{at}" for at in range(count)]
    assert records.schema.equals(store.RECORDS)
    assert shard.drops().to_pylist() == [
        {"source": "test", "record_id": "bad", "reason": "too short", "detail": "7.3 s"}
    ]


def test_xarray_opens_it_in_millivolt_with_named_axes(tmp_path: Path) -> None:
    signals_NLT = ecgs(70)
    folder = write(tmp_path / "shard", signals_NLT)
    data = xarray.open_zarr(folder / "ecgs.zarr", consolidated=False)
    assert data["signal"].dims == ("record", "lead", "time")
    assert data["signal"].attrs["units"] == "mV"
    assert data["signal"].attrs["leads"] == list(signal.LEADS)
    np.testing.assert_allclose(data["signal"].to_numpy(), signals_NLT * 0.001)
    np.testing.assert_allclose(data["signal"].sel(lead="V2").isel(record=3), signals_NLT[3, 3] * 0.001)
    assert float(data["time"][-1]) == pytest.approx(9.996)


def test_the_same_input_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    write(tmp_path / "one", ecgs(200))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
        "from tests.pipelines.formats import test_shard as t;"
        "t.write(Path(sys.argv[2]), t.ecgs(200))"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT), str(tmp_path / "two")], check=True)
    assert digest_of_tree(tmp_path / "one") == digest_of_tree(tmp_path / "two")
    write(tmp_path / "other", ecgs(200, seed=1))
    assert digest_of_tree(tmp_path / "one") != digest_of_tree(tmp_path / "other")


def test_the_array_is_sharded_as_measured_best(tmp_path: Path) -> None:
    folder = write(tmp_path / "shard", ecgs(SHARD + 1))
    array = zarr.open_array(folder / "ecgs.zarr" / "signal", mode="r")
    assert (array.chunks, array.shards) == ((64, 8, 2500), (1024, 8, 2500))
    files = [
        path for path in (folder / "ecgs.zarr" / "signal").rglob("*") if path.is_file() and path.name != "zarr.json"
    ]
    assert len(files) == 2
    assert sum(path.stat().st_size for path in files) < 0.7 * (SHARD + 1) * 40000


def test_rows_of_several_shards_are_gathered_in_order(tmp_path: Path) -> None:
    one_NLT, two_NLT = ecgs(SHARD + 40), ecgs(90, seed=1)
    one, two = write(tmp_path / "one", one_NLT), write(tmp_path / "two", two_NLT)
    rows = np.array([0, 5, SHARD - 1, SHARD, SHARD + 39])
    gathered = read_rows([(one, rows), (two, np.arange(90)), (one, np.array([], int))])
    np.testing.assert_array_equal(gathered, np.concatenate([one_NLT[rows], two_NLT]))
    for wrong in ([3, 2], [90], [-1], [4, 4]):
        with pytest.raises(ValueError, match="rows must be ascending and below 90"):
            read_rows([(two, np.array(wrong))])


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "shard", ecgs(3))
    described = folder / "ecgs.zarr" / "zarr.json"
    group = json.loads(described.read_text())
    group["attributes"]["schema"] = 99
    described.write_text(json.dumps(group))
    with pytest.raises(ValueError, match="has schema 99, this version reads 2: harmonize it again"):
        open_shard(folder)


def test_a_store_is_never_appended_to(tmp_path: Path) -> None:
    folder = write(tmp_path / "shard", ecgs(3))
    before = digest_of_tree(folder)
    with pytest.raises(ValueError, match="never appended to"):
        ShardWriter(folder)
    assert digest_of_tree(folder) == before


def test_an_array_and_a_table_that_disagree_are_refused(tmp_path: Path) -> None:
    three, four = write(tmp_path / "three", ecgs(3)), write(tmp_path / "four", ecgs(4))
    (four / "records.parquet").replace(three / "records.parquet")
    with pytest.raises(ValueError, match="3 signals but 4 rows"):
        open_shard(three)


def test_a_folder_without_a_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no harmonized shard"):
        open_shard(tmp_path)


def test_the_read_side_needs_zarr_and_pyarrow_alone() -> None:
    heavy = ["scipy", "torch", "wfdb", "h5py", "pandas", "httpx", "mlflow", "dagster"]
    modules = "pipelines.corpus.step, pipelines.formats.shard"
    code = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
