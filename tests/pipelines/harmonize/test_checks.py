"""Checks find what is wrong, not only what is right: each is shown a product that lies."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.cache import Product, Workspace
from pipelines.corpus.checks import corpus_is_apart
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.finding import Finding
from pipelines.formats.shard import ShardWriter
from pipelines.harmonize.checks import counts_add_up, records_listed, shard_is_whole
from pipelines.harmonize.convert import harmonize
from pipelines.harmonize.quality import QualityLimits
from pipelines.pretrain.checks import training_went_well
from pipelines.records import DroppedRecord, DropReason, Record
from pipelines.sources.base import RemoteFile

LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def record(name: str, *, seed: int, patient: str | None = None) -> Record:
    signal_LT = np.random.default_rng(seed).normal(0, 0.3, (8, 2500)).astype(np.float32)
    return Record(record_id=name, signal_LT=signal_LT, leads=LEADS, rate=250.0, patient_id=patient)


def shard(workspace: Workspace, source: str, role: str, records: list[Record | DroppedRecord]) -> Product:
    def make(out: Path) -> dict:
        return {**harmonize(records, out, source=source, limits=QualityLimits()).facts(), "role": role}

    return workspace.build(f"ecgs/{source}/a", version="1", config={"n": len(records)}, inputs={}, make=make)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


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
    found = shard_is_whole(good)
    assert not found.holds
    assert found.seen.endswith("0 of them empty, 1 other than when they were harmonized")


def test_a_corpus_with_evaluation_data_in_it_is_found(workspace):
    shard(workspace, "train", "pretraining", [record(str(i), seed=i, patient=f"p{i}") for i in range(30)])
    shard(workspace, "test", "evaluation", [record("e", seed=100, patient="q")])
    corpus = materialize_corpus(workspace, CorpusConfig(validation_share=0.2))
    finding = corpus_is_apart(workspace, corpus)
    assert finding.holds, finding.seen
    # The evaluation shard grows after the corpus was built: one ECG of the corpus is evaluated on from now.
    shard(workspace, "test", "evaluation", [record("e", seed=100, patient="q"), record("f", seed=3, patient="r")])
    leaked = corpus_is_apart(workspace, corpus)
    assert not leaked.holds
    assert "1 are also in an evaluation shard" in leaked.seen


def test_a_corpus_with_a_copy_of_an_evaluation_record_is_found(workspace):
    shard(workspace, "train", "pretraining", [record(str(i), seed=i) for i in range(30)])
    corpus = materialize_corpus(workspace, CorpusConfig(validation_share=0.2))
    louder = record("f", seed=3)
    louder = dataclasses.replace(louder, signal_LT=1.3 * louder.signal_LT)
    shard(workspace, "test", "evaluation", [louder])
    leaked = corpus_is_apart(workspace, corpus)
    assert not leaked.holds
    assert "1 are also in an evaluation shard" in leaked.seen


def test_a_patient_in_two_splits_and_an_ecg_twice_are_found(workspace):
    shard(workspace, "train", "pretraining", [record(str(i), seed=i, patient=f"p{i}") for i in range(30)])
    corpus = materialize_corpus(workspace, CorpusConfig(validation_share=0.2))
    index = pq.read_table(corpus.path / "index.parquet")
    rows = index.to_pylist()
    train = next(row for row in rows if row["split"] == "train")
    twin = {**train, "split": "validation"}
    pq.write_table(index.from_pylist([*rows, twin], schema=index.schema), corpus.path / "index.parquet")
    finding = corpus_is_apart(workspace, corpus)
    assert not finding.holds
    assert "1 ECGs repeat another, 1 patients are in both splits" in finding.seen


def summary(*, first: float = 0.5, last: float = 0.3, std: float = 0.1, rank: float = 5.0) -> dict:
    return {"first": {"loss": first}, "last": {"loss": last, "embedding_std": std, "effective_rank": rank}}


@pytest.mark.parametrize(
    ("changed", "holds"),
    [
        ({}, True),
        ({"last": 0.6}, False),
        ({"last": float("nan")}, False),
        ({"first": float("inf")}, False),
        ({"std": 1e-5}, False),
        ({"rank": float("nan")}, False),
    ],
)
def test_a_training_that_collapsed_or_diverged_is_found(changed, holds):
    assert training_went_well(summary(**changed)).holds is holds
