"""What encoders saw of the ECGs that they are tested on: by data set and by ECG, and never more than is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder
from pipelines.cache import Product, Workspace
from pipelines.corpus.index import INDEX
from pipelines.corpus.step import PRODUCT, CorpusFacts
from pipelines.evaluate.exposure import Overlap, Overlaps
from pipelines.evaluate.features import EncoderSource
from pipelines.formats.shard import write_table

TINY = EncoderConfig(dim=16, depth=1, heads=2)
PATIENTS = ("1", "2", "3", "4")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def indexed(workspace: Workspace, digest: str, **records: tuple[str, ...]) -> None:
    """A corpus of these record ids by source."""
    rows = [
        {"shard": f"{source}/1", "row": row, "source": source, "record_id": name, "patient_id": None}
        | {"split": "validation" if row == 0 else "train", "content_hash": name}
        for source, names in records.items()
        for row, name in enumerate(names)
    ]

    def make(folder: Path) -> dict:
        write_table(folder / "index.parquet", pa.Table.from_pylist(rows, schema=INDEX))
        return CorpusFacts(
            considered=len(rows), train=0, validation=0, excluded={}, by_source={}, patients=0, digest=digest
        ).to_dict()

    workspace.build(PRODUCT, version="test", config={"digest": digest}, inputs={}, make=make)


def put(workspace: Workspace, product: str, seed: int, facts: dict) -> str:
    """An encoder's product; its digest."""

    def make(folder: Path) -> dict:
        save_encoder(folder / "encoder.safetensors", random_encoder(TINY, seed))
        return facts

    built: Product = workspace.build(product, version="test", config={"seed": seed}, inputs={}, make=make)
    return EncoderSource.of_product("x", built).digest


def released(published: str | None) -> dict:
    """The facts of a released encoder's import."""
    return {"file": "x.pth", "sha256": "0" * 64, "published": published, "epoch": 100, "weights": 1}


def seen(workspace: Workspace, digest: str, source: str, tested: tuple[str, ...] = PATIENTS, name: str = "x") -> str:
    return Overlaps(workspace).of(name, digest, source, tested).in_words()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("ptbxl100", "2 of 4 test ECGs"),
        ("ptbxl", "2 of 4 test ECGs"),  # the same ECGs at another rate
        ("chapman", "others, no test ECG"),
        ("georgia", "nothing"),
        ("cpsc2018", "nothing"),
        ("ludb", "nothing"),
    ],
)
def test_it_is_told_by_data_set_and_by_ecg(workspace, source, words):
    indexed(workspace, "a", ptbxl100=("1", "2", "9"), chapman=("7", "8"))
    indexed(workspace, "b", georgia=PATIENTS)
    digest = put(workspace, "encoder", 1, {"corpus_digest": "a"})
    put(workspace, "encoder", 2, {"corpus_digest": "b"})
    assert seen(workspace, digest, source) == words, "by its own corpus, whichever is the current one"


def test_what_is_not_trained_saw_nothing_and_what_is_not_known_is_not_denied(workspace):
    indexed(workspace, "a", chapman=PATIENTS)
    digest = put(workspace, "encoder", 1, {"corpus_digest": "a"})
    for name in ("random", "reference-random", "reference-cpc-random", "random-0123456789ab", "handcrafted"):
        assert seen(workspace, "0" * 64, "chapman", name=name) == "nothing"
    assert seen(workspace, "0" * 64, "chapman", name="encoder-000000000000") == "not known"
    without_corpus = put(workspace, "encoder", 3, {"corpus_digest": "gone"})
    assert seen(workspace, without_corpus, "ptbxl") == "not known"
    assert seen(workspace, digest, "chapman") == "4 of 4 test ECGs"


def test_the_released_encoder_saw_what_its_paper_says(workspace):
    digest = put(workspace, "reference", 1, released("published multi-block"))
    assert seen(workspace, digest, "chapman", name="reference") == "its data set"
    assert seen(workspace, digest, "ptbxl100", name="reference") == "nothing"
    other = put(workspace, "reference", 2, released(None))
    assert seen(workspace, other, "ptbxl", name="reference") == "not known", "a file in its form is anyone's"
    facts = {"file": "x.ckpt", "sha256": "0" * 64, "weights": 1, "tokens": 300, "legs": True, "skipped": []}
    contrastive = put(workspace, "reference_cpc", 3, facts)
    for source in ("code15", "ptbxl"):
        assert seen(workspace, contrastive, source, name="reference-cpc") == "not known", "no list was published"


def test_a_warm_start_saw_what_it_began_as_did(workspace):
    indexed(workspace, "a", ptbxl=("1", "2"))
    indexed(workspace, "b", ptbxl100=("2", "3"), code15=("1",))
    first = put(workspace, "encoder", 1, {"corpus_digest": "a"})
    second = put(workspace, "encoder", 2, {"corpus_digest": "b", "recipe": {"warm_start": first}})
    assert seen(workspace, second, "ptbxl") == "3 of 4 test ECGs"
    third = put(workspace, "encoder", 3, {"corpus_digest": "b", "recipe": {"warm_start": "f" * 64}})
    assert seen(workspace, third, "ptbxl") == "its data set", "of what it began as nothing is known"
    assert seen(workspace, third, "georgia") == "not known"
    start = put(workspace, "reference", 4, released("published multi-block"))
    fourth = put(workspace, "encoder", 5, {"corpus_digest": "a", "recipe": {"warm_start": start}})
    assert seen(workspace, fourth, "chapman") == "its data set"
    assert seen(workspace, fourth, "ptbxl") == "2 of 4 test ECGs"


def test_what_is_known_changes_with_what_is_here(workspace):
    digest = put(workspace, "encoder", 1, {"corpus_digest": "a"})
    before = Overlaps(workspace).known("pretrained", digest).to_dict()
    indexed(workspace, "a", chapman=PATIENTS)
    after = Overlaps(workspace).known("pretrained", digest).to_dict()
    assert (before, after) == (
        {"records": {}, "complete": False},
        {"records": {"chapman": 4}, "complete": True},
    )


def test_every_case_has_its_words():
    plain = Overlap(data_set=True, test=1200, tested=2198)
    assert plain.in_words() == "1,200 of 2,198 test ECGs"
    assert replace(plain, test=0).in_words() == "others, no test ECG"
    assert replace(plain, test=None).in_words() == "its data set"
    assert replace(plain, data_set=False, test=0).in_words() == "nothing"
    assert replace(plain, data_set=None, test=None).in_words() == "not known"
