"""Shares of a corpus: nested, whole patients, the same validation, and corpora that a training can read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.cache import Workspace
from pipelines.corpus.index import CorpusIndex, load_signals
from pipelines.corpus.step import CorpusFacts, corpus_of
from pipelines.corpus.subset import LEAST_PATIENTS, Subset, find_subset, materialize_subset, percent, subsets
from tests.support.pretraining import small_home

SHARES = (0.1, 0.25, 0.5, 1.0)


def index_of(patients: Sequence[int | None], validating: int = 2) -> pa.Table:
    """A row for each ECG, given its patient's number; the first patients validate."""
    rows = [
        {
            "split": "validation" if patient is not None and patient < validating else "train",
            "source": "chapman" if number % 2 else "code15",
            "record_id": f"r{number}",
            "patient_id": None if patient is None else f"p{patient}",
        }
        for number, patient in enumerate(patients)
    ]
    return pa.Table.from_pylist(rows)


def people(index: pa.Table, subset: Subset) -> set[tuple[str, str]]:
    table = index.filter(pa.array(subset.rows_N))
    rows = table.filter(pa.compute.equal(table["split"], "train")).to_pylist()
    return {(row["source"], row["patient_id"] or row["record_id"]) for row in rows}


ECGS = st.lists(st.one_of(st.none(), st.integers(0, 60)), min_size=120, max_size=160)


@settings(max_examples=10, deadline=None)
@given(ECGS, st.integers(0, 5))
def test_shares_are_nested_and_hold_whole_patients(patients: list[int | None], seed: int) -> None:
    index = index_of(patients)
    drawn = subsets(index, SHARES, seed)
    train_N = np.asarray(index["split"].to_pylist()) == "train"
    everyone = people(index, drawn[-1])
    for subset in drawn:
        inside, outside = people(index, subset), index.filter(pa.array(train_N & ~subset.rows_N)).to_pylist()
        assert not inside & {(row["source"], row["patient_id"] or row["record_id"]) for row in outside}
        assert subset.rows_N[~train_N].all()
        assert subset.patients == len(inside) == round(subset.share * len(everyone))
        assert subset.records == int((subset.rows_N & train_N).sum())
    for smaller, larger in pairwise(drawn):
        assert (larger.rows_N | ~smaller.rows_N).all()
    assert drawn[-1].rows_N.all()
    assert [one.rows_N.tolist() for one in subsets(index, SHARES, seed)] == [one.rows_N.tolist() for one in drawn]


def test_seeds_draw_other_patients() -> None:
    index = index_of(list(range(100)))
    (first,), (second,) = (subsets(index, (0.2,), seed) for seed in (0, 1))
    assert len(people(index, first) & people(index, second)) < 10


def test_shares_of_too_few_patients_and_of_the_same_ones_are_refused() -> None:
    index = index_of(list(range(102)))
    with pytest.raises(
        ValueError, match=rf"shares=0.03: of the corpus's 100 training patients it is 3.*{LEAST_PATIENTS}"
    ):
        subsets(index, (0.03, 1.0), 0)
    with pytest.raises(ValueError, match=r"shares=0\.1 and 0\.101: both are the same 10 of 100"):
        subsets(index, (0.1, 0.101), 0)


def test_names_of_shares() -> None:
    assert [percent(share) for share in (0.01, 0.03, 0.005, 0.29, 1.0)] == ["1", "3", "0.5", "29", "100"]


def test_a_subset_is_a_corpus(tmp_path: Path) -> None:
    root, _ = small_home(tmp_path)
    workspace = Workspace(root)
    corpus = workspace.require("corpus")
    index = CorpusIndex(corpus.path).table()
    half, whole = subsets(index, (0.5, 1.0), 0)
    assert find_subset(workspace, corpus, half) is None
    assert materialize_subset(workspace, corpus, whole) == corpus
    made = materialize_subset(workspace, corpus, half)
    assert made.name == "scaling/corpus/50-seed-0"
    facts, all_facts = CorpusFacts.of(made), CorpusFacts.of(corpus)
    assert (facts.train, facts.validation) == (half.records, all_facts.validation)
    assert facts.considered == facts.train + facts.validation
    assert facts.digest == CorpusIndex(made.path).digest != all_facts.digest
    validation = [load_signals(root, folder, "validation") for folder in (made.path, corpus.path)]
    assert np.array_equal(*validation)
    signal_NLT = load_signals(root, made.path, "train")
    train_N = np.asarray(index["split"].to_pylist()) == "train"
    assert np.array_equal(signal_NLT, load_signals(root, corpus.path, "train")[half.rows_N[train_N]])
    assert workspace.require("corpus") == corpus
    assert find_subset(workspace, corpus, half) == corpus_of(workspace, facts.digest)
