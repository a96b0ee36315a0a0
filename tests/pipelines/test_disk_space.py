"""A full disk is one sentence, whichever library meets it; nothing half is left, and with room the same call ends."""

from __future__ import annotations

import multiprocessing
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from click.testing import CliRunner
from safetensors.torch import save_file

from assets import show
from pipelines.cache import Workspace
from pipelines.cli import main
from pipelines.cli.embed import Embedded, write_embeddings
from pipelines.corpus import export as exporting
from pipelines.corpus.export import export, select
from pipelines.disk_space import DiskFull
from pipelines.pretrain.checkpoint import Checkpoint, CheckpointFolder
from pipelines.program import REFUSED
from tests.support.disks import Disk
from tests.support.pretraining import Program, small_home
from tests.support.shards import record, shard

NUMBERS = np.random.default_rng(0).random(250_000)  # 2 MB that do not compress


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """An empty disk of 1 MB."""
    with Disk.mounted(tmp_path / "disk", "1m") as disk:
        yield disk


def sentence(place: Path) -> str:
    return rf"^no room left in {re.escape(str(place))} \(.+\): .* are free; make room, .* it resumes where it stopped$"


def by_hdf5(folder: Path) -> None:
    with h5py.File(folder / "x.h5", "w") as file:
        file["x"] = NUMBERS


def by_zarr(folder: Path) -> None:
    zarr.create_array(folder / "x", shape=NUMBERS.shape, chunks=(50_000,), dtype="f8")[:] = NUMBERS


def by_sqlite(folder: Path) -> None:
    database = sqlite3.connect(folder / "x.db")
    try:
        database.execute("CREATE TABLE x (x)")
        database.execute("INSERT INTO x VALUES (?)", (NUMBERS.tobytes(),))
        database.commit()
    finally:
        database.close()


def by_sqlite_wal(folder: Path) -> None:
    """As Dagster's and MLflow's stores: the file that readers share finds no room."""
    database = sqlite3.connect(folder / "x.db")
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE x (x)")
    finally:
        database.close()
    with suppress(OSError):
        (folder / "y").write_bytes(NUMBERS.tobytes())
    database = sqlite3.connect(folder / "x.db")
    try:
        database.execute("SELECT * FROM x")
    finally:
        database.close()


def by_copy(folder: Path) -> None:
    source = folder.parents[4] / "original"
    source.write_bytes(NUMBERS.tobytes())
    shutil.copy(source, folder / "x")


WRITERS: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda folder: (folder / "x").write_bytes(NUMBERS.tobytes()),
    "numpy": lambda folder: np.save(folder / "x.npy", NUMBERS),
    "tofile": lambda folder: NUMBERS.tofile(folder / "x"),
    "parquet": lambda folder: pq.write_table(pa.table({"x": NUMBERS}), folder / "x.parquet"),
    "csv": lambda folder: pa_csv.write_csv(pa.table({"x": NUMBERS}), folder / "x.csv"),
    "safetensors": lambda folder: save_file({"x": torch.from_numpy(NUMBERS)}, folder / "x.safetensors"),
    "hdf5": by_hdf5,
    "zarr": by_zarr,
    "sqlite": by_sqlite,
    "sqlite that readers share": by_sqlite_wal,
    "copy": by_copy,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_product_on_a_full_disk(disk, writer):
    workspace = Workspace(disk.folder / "home")

    def build() -> Any:
        return workspace.build(
            "features/x", version="1", config={}, inputs={}, make=lambda folder: {"x": str(WRITERS[writer](folder))}
        )

    with pytest.raises(DiskFull, match=sentence(disk.folder / "home/features/x").replace(r" \(", r"/\w+\.partial \(")):
        build()
    assert disk.files() == []
    disk.grow("16m")
    assert not build().cached
    assert build().cached


def test_a_checkpoint_on_a_full_disk_leaves_the_one_before_it(disk):
    folder = CheckpointFolder(disk.folder / "checkpoints")
    small, large = ({"x": torch.zeros(count)} for count in (1000, 500_000))
    folder.save(Checkpoint(step=1, facts={}, tensors=small))
    with pytest.raises(DiskFull, match=r"2 MB are needed and .* are free"):
        folder.save(Checkpoint(step=2, facts={}, tensors=large))
    assert disk.files() == [f"checkpoints/step-000000001.safetensors{ending}" for ending in ("", ".sha256")]
    newest = folder.newest()
    assert newest is not None
    assert newest.step == 1


def test_a_training_on_a_full_disk_is_refused_and_ends_with_room(disk, tmp_path):
    home = small_home(tmp_path / "home", ecgs=12)
    calm = Program(home, tmp_path / "calm")
    assert calm.here("--checkpoint-every", "2", steps=6)[0] == 0
    (checkpoint, _) = calm.checkpoints()
    disk.grow(f"{round(2.5 * checkpoint.stat().st_size / 1024)}k")
    program = Program(home, disk.folder / "run")
    code, said = program.here("--checkpoint-every", "2", steps=6)
    assert code == REFUSED  # so that no launcher tries it again
    assert re.search(r"^pretraining: no room left in .*: .* are needed and .* are free; make room", said, re.MULTILINE)
    assert "Traceback" not in said
    assert not [name for name in disk.files() if name.endswith(".tmp")]
    disk.grow("16m")
    assert program.here("--checkpoint-every", "2", steps=6)[0] == 0
    encoders = [(one.out / "encoder.safetensors").read_bytes() for one in (program, calm)]
    assert encoders[0] == encoders[1]


@pytest.mark.parametrize("form", ["numpy", "wfdb"])
def test_an_export_to_a_disk_that_fills_up(disk, tmp_path, monkeypatch, form):
    """Another program takes the room after the export has seen that there is enough."""
    workspace = Workspace(tmp_path / "home")
    shard(workspace, "ludb", "pretraining", [record(f"r{at}", seed=at) for at in range(40)])
    selected, out = select(workspace, "ecgs/ludb/a"), disk.folder / "out"
    (disk.folder / "of another").write_bytes(bytes(600_000))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(exporting.shutil, "disk_usage", lambda _: usage)
    context = multiprocessing.get_context("fork")  # a memory-mapped file that meets a full disk kills its process
    answers = context.Queue()

    def attempt() -> None:
        try:
            export(selected, out, form)
        except DiskFull as error:
            answers.put(str(error))

    process = context.Process(target=attempt)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert re.search("1.6 MB are needed and", answers.get(timeout=5))
    assert disk.files() == ["of another"]
    disk.grow("16m")
    assert export(selected, out, form) == 40


def test_commands_on_a_full_disk(disk, home, tmp_path):
    ran = CliRunner().invoke(main, ["simulate", str(disk.folder / "mirror"), "--size", "small"])
    assert ran.exit_code == 1
    assert re.search(r"^Error: no room left in \S+/mirror.partial \(", ran.output, re.MULTILINE)
    assert disk.files() == []
    embedding_D = NUMBERS[:200_000].astype(np.float32)
    rows = [Embedded(file="f", record_id="r", embedding_D=embedding_D) for _ in range(3)]
    with pytest.raises(DiskFull, match=f"no room left in {disk.folder}/e.csv .* are needed and"):
        write_embeddings(disk.folder / "e.csv", rows)
    assert disk.files() == []


def test_a_step_on_a_full_disk_is_not_tried_again(disk):
    tries = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
    def model() -> None:
        tries.append(1)
        with show.mistakes_explained():
            WRITERS["safetensors"](disk.folder)

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([model], instance=instance, raise_on_error=False)
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.user_failure_data is not None
    assert re.match("no room left in ", failure.user_failure_data.description or "")
    assert len(tries) == 1
