"""Check that a corpus holds no evaluation data, no duplicate, and no patient in two splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.cache import Product, Workspace
from pipelines.corpus.copies import copies_of
from pipelines.corpus.index import CorpusIndex
from pipelines.finding import Finding
from pipelines.formats.shard import open_shard, signatures_of
from pipelines.formats.simhash import BYTES
from pipelines.formats.single_records import read_single
from pipelines.harmonize.shards import HarmonizedFacts, all_shards
from pipelines.sources.base import Role


def corpus_is_apart(workspace: Workspace, corpus: Product) -> Finding:
    """Check that a corpus has no record or patient of an evaluation shard, no ECG twice, no patient in both splits.

    Patients are compared within a source only; between sources the ECG decides, by its bytes or its signal.
    """
    description = CorpusIndex(corpus.path)
    index = description.table()
    evaluated = {
        product.path: _without_folds(open_shard(product.path).records(), description.unlabelled_folds)
        for product in all_shards(workspace).values()
        if HarmonizedFacts.of(product).role == Role.EVALUATION
    }
    folders = description.shard_folders(workspace.root)
    leaks, repeated = _copies(index, folders, evaluated)
    evaluated_patients = {patient for records in evaluated.values() for patient in _patients(records)}
    leaked_patients = len(_patients(index) & evaluated_patients)
    split = {name: _patients(index.filter(pc.field("split") == name)) for name in ("train", "validation")}
    shared = len(split["train"] & split["validation"])
    seen = (
        f"{index.num_rows} ECGs: {leaks} are also in an evaluation shard, {leaked_patients} patients are evaluated on, "
        f"{repeated} ECGs repeat another, {shared} patients are in both splits"
    )
    if unknown := Counter(index.filter(pc.field("patient_id").is_null())["source"].to_pylist()):
        sources = ", ".join(f"{source} {count:,}" for source, count in sorted(unknown.items()))
        seen += f"; {unknown.total():,} ECGs are of unknown patients, each counted as one ({sources})"
    return Finding(not (leaks or leaked_patients or repeated or shared), seen)


def _copies(index: pa.Table, folders: Mapping[str, Path], evaluated: Mapping[Path, pa.Table]) -> tuple[int, int]:
    """Count the rows of the index that are also in the evaluated tables, and those that repeat an earlier row of it.

    folders: of the index's shards, by name.
    evaluated: tables of records by the folder of their shard.
    """
    places = [(folder, row) for folder, records in evaluated.items() for row in records.column("row").to_pylist()]
    offset = len(places)
    shards = index.column("shard").to_pylist()
    places += [(folders[shard], row) for shard, row in zip(shards, index.column("row").to_pylist(), strict=True)]
    contents = [value for table in (*evaluated.values(), index) for value in table.column("content_hash").to_pylist()]
    signatures_NB = np.concatenate([*map(signatures_of, evaluated.values()), _signatures(index, folders)])
    # The evaluated records stand first: an original below the offset is one of them.
    copies = copies_of(signatures_NB, contents, offset, lambda numbers: read_single([places[at] for at in numbers]))
    leaks = sum(originals[0] < offset for originals in copies[offset:])
    repeated = sum(offset <= originals[0] != number for number, originals in enumerate(copies[offset:], offset))
    return leaks, repeated


def _signatures(index: pa.Table, folders: Mapping[str, Path]) -> NDArray[np.uint8]:
    """Return uint8 (N, BYTES): the signatures of the index's rows, from the tables of the shards that it names."""
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
