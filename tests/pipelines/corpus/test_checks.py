"""The corpus's checks find records, copies and patients that it must not hold."""

import dataclasses

import pyarrow.parquet as pq

from pipelines.corpus.checks import corpus_is_apart
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from tests.support.products import reseal
from tests.support.shards import record, shard


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
    reseal(corpus)
    finding = corpus_is_apart(workspace, corpus)
    assert not finding.holds
    assert "1 ECGs repeat another, 1 patients are in both splits" in finding.seen
