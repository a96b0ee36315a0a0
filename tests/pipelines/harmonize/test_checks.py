"""Each check fails on a product that is wrong in its way, and passes on a correct one."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipelines.finding import Finding
from pipelines.formats.shard import ShardWriter
from pipelines.harmonize.checks import counts_add_up, records_listed, shard_is_whole
from pipelines.records import DroppedRecord, DropReason
from pipelines.sources.base import RemoteFile
from tests.support.products import reseal
from tests.support.shards import record, shard


def test_counts_that_add_up_and_counts_that_do_not(workspace):
    drop = DroppedRecord("gone", DropReason.FLAT_LEAD, "lead V1 is flat")
    product = shard(workspace, "one", "pretraining", [record("a", seed=1), drop])
    assert counts_add_up(product) == Finding.passed("2 entered, 1 kept, 1 dropped")
    for facts in ({"entered": 3}, {"dropped": {}}):
        assert not counts_add_up(dataclasses.replace(product, facts=product.facts | facts)).holds


def test_a_record_that_the_source_lists_and_nobody_read_is_found(workspace):
    product = shard(workspace, "one", "pretraining", [record("a", seed=1), record("b", seed=2)])
    files = [
        RemoteFile(f"physionet.org/files/x/1/{n}", "sha256:" + "0" * 64) for n in ("a.hea", "a.mat", "b.hea", "b.mat")
    ]
    assert records_listed(files) == 2
    assert counts_add_up(product, records_listed(files)).holds
    lost = counts_add_up(product, 3)
    assert not lost.holds
    assert "the source lists 3" in lost.seen
    zipped = [RemoteFile("zenodo.org/records/1/files/p.zip", "md5:" + "0" * 32)]
    assert records_listed(zipped) is None


def test_a_reason_outside_the_closed_list_is_found(workspace):
    product = shard(
        workspace, "one", "pretraining", [record("a", seed=1), DroppedRecord("b", DropReason.TOO_SHORT, "7 s")]
    )
    table = pq.read_table(product.path / "drops.parquet")
    changed = table.set_column(table.schema.get_field_index("reason"), table.schema.field("reason"), [["mood"]])
    pq.write_table(changed, product.path / "drops.parquet")
    reseal(product)
    assert "unknown reasons ['mood']" in counts_add_up(product).seen


def test_an_empty_ecg_in_a_shard_is_found(workspace):
    good = shard(workspace, "one", "pretraining", [record("a", seed=1)])
    assert shard_is_whole(good).holds

    def make(out: Path) -> dict:
        writer = ShardWriter(out)
        row = pq.read_table(good.path / "records.parquet").to_pylist()[0]
        del row["row"]
        for signal_LT in (np.ones((8, 2500), np.int16).cumsum(axis=1), np.zeros((8, 2500))):
            samples_LT = signal_LT.astype(np.int16)
            writer.append(samples_LT, row | {"content_hash": hashlib.sha256(samples_LT.tobytes()).hexdigest()})
        writer.close()
        return {}

    bad = workspace.build("ecgs/two/a", version="1", config={}, inputs={}, make=make)
    assert shard_is_whole(bad) == Finding.failed("2 ECGs of 8 leads and 2500 samples, 1 of them empty")


def test_an_ecg_that_is_other_than_when_it_was_harmonized_is_found(workspace):
    good = shard(workspace, "one", "pretraining", [record("a", seed=1), record("b", seed=2)])
    table = pq.read_table(good.path / "records.parquet")
    hashes = table.column("content_hash").to_pylist()
    at = table.schema.get_field_index("content_hash")
    pq.write_table(
        table.set_column(at, table.schema.field(at), [[hashes[0], hashes[0]]]), good.path / "records.parquet"
    )
    reseal(good)
    found = shard_is_whole(good)
    assert not found.holds
    assert found.seen.endswith("0 of them empty, 1 other than when they were harmonized")
