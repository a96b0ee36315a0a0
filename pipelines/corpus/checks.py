"""Check that a corpus holds no evaluation data, no duplicate, and no patient in two splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.cache import Product, Workspace
from pipelines.corpus.index import CorpusIndex
from pipelines.finding import Finding
from pipelines.formats.shard import open_shard, signatures_of
from pipelines.formats.simhash import BYTES, first_copies
from pipelines.harmonize.shards import HarmonizedFacts, all_shards
from pipelines.sources.base import Role


def corpus_is_apart(workspace: Workspace, corpus: Product) -> Finding:
    """Check that a corpus has no record or patient of an evaluation shard, no ECG twice, no patient in both splits.

    Patients are compared within a source only; between sources the ECG decides, by its bytes or its signature.
    """
    description = CorpusIndex(corpus.path)
    index = description.table()
    evaluated = [
        _without_folds(open_shard(product.path).records(), description.unlabelled_folds)
        for product in all_shards(workspace).values()
        if HarmonizedFacts.of(product).role == Role.EVALUATION
    ]
    leaks, repeated = _copies(index, _signatures(workspace, description, index), evaluated)
    leaked_patients = len(_patients(index) & {patient for records in evaluated for patient in _patients(records)})
    split = {name: _patients(index.filter(pc.field("split") == name)) for name in ("train", "validation")}
    shared = len(split["train"] & split["validation"])
    seen = (
        f"{index.num_rows} ECGs: {leaks} are also in an evaluation shard, {leaked_patients} patients are evaluated on, "
        f"{repeated} ECGs repeat another, {shared} patients are in both splits"
    )
    return Finding(not (leaks or leaked_patients or repeated or shared), seen)


def _copies(index: pa.Table, signatures_NB: NDArray[np.uint8], evaluated: Sequence[pa.Table]) -> tuple[int, int]:
    """Count the rows of the index that are also in the evaluated tables, and those that repeat an earlier row of it."""
    hashes: set[str] = {value for records in evaluated for value in records.column("content_hash").to_pylist()}
    evaluated_signatures = [signatures_of(records) for records in evaluated]
    offset = sum(map(len, evaluated_signatures))
    # The evaluated rows stand first: a copy below the offset is a copy of an evaluated ECG.
    copies = first_copies(np.concatenate([*evaluated_signatures, signatures_NB]))[offset:]
    earlier: set[str | int] = set()
    leaks = repeated = 0
    for value, copy in zip(index.column("content_hash").to_pylist(), copies.tolist(), strict=True):
        if value in hashes or copy < offset:
            leaks += 1
        elif value in earlier or copy in earlier:
            repeated += 1
        earlier |= {value, copy}
    return leaks, repeated


def _signatures(workspace: Workspace, corpus: CorpusIndex, index: pa.Table) -> NDArray[np.uint8]:
    """Return uint8 (N, BYTES): the signatures of the index's rows, from the tables of the shards that it names."""
    folders = corpus.shard_folders(workspace.root)
    names, rows = np.asarray(index.column("shard").to_pylist()), index.column("row").to_numpy()
    signatures_NB = np.empty((index.num_rows, BYTES), np.uint8)
    for name in set(names.tolist()):
        inside = names == name
        signatures_NB[inside] = signatures_of(open_shard(folders[name]).records())[rows[inside]]
    return signatures_NB


def _without_folds(records: pa.Table, folds: Sequence[int]) -> pa.Table:
    return records.filter(pa.array([fold not in folds for fold in records.column("fold").to_pylist()], pa.bool_()))


def _patients(table: pa.Table) -> set[tuple[str, str]]:
    """Return the known patients of a table as (source, patient)."""
    pairs = zip(table["source"].to_pylist(), table["patient_id"].to_pylist(), strict=True)
    return {(source, patient) for source, patient in pairs if patient is not None}
