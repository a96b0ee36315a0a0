"""Check that a corpus holds no evaluation data, no duplicate, and no patient in two splits."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.cache import Product, Workspace
from pipelines.finding import Finding
from pipelines.formats.shard import Shard, open_shard, signatures_of
from pipelines.formats.simhash import BYTES, first_copies


def corpus_is_apart(workspace: Workspace, corpus: Product) -> Finding:
    """Of the corpus: no record or patient of an evaluation shard is in it, no ECG twice, no patient in two splits.

    Patients are known within a source alone: between sources the ECG decides, by its bytes or its signature.
    """
    index = pq.read_table(corpus.path / "index.parquet")
    trained_on = json.loads((corpus.path / "corpus.json").read_text())["config"]["unlabelled_folds"]
    held = [_other_folds(shard.records(), trained_on) for shard in _evaluation_shards(workspace)]
    leaks, repeated = _copies(index, _signatures(workspace, corpus, index), held)
    twins = len(_patients(index) & {patient for records in held for patient in _patients(records)})
    split = {name: _patients(index.filter(pc.field("split") == name)) for name in ("train", "validation")}
    shared = len(split["train"] & split["validation"])
    seen = (
        f"{index.num_rows} ECGs: {leaks} are also in an evaluation shard, {twins} patients are evaluated on, "
        f"{repeated} ECGs repeat another, {shared} patients are in both splits"
    )
    return Finding(not (leaks or twins or repeated or shared), seen)


def _copies(index: pa.Table, signatures_NB: NDArray[np.uint8], held: Sequence[pa.Table]) -> tuple[int, int]:
    """How many rows of the index are also in the tables held, and how many repeat an earlier row of the index."""
    known: set[str] = {value for records in held for value in records.column("content_hash").to_pylist()}
    held_signatures = [signatures_of(records) for records in held]
    evaluated = sum(map(len, held_signatures))
    copies = first_copies(np.concatenate([*held_signatures, signatures_NB]))[evaluated:]
    seen: set[str | int] = set()
    leaks = repeated = 0
    for value, copy in zip(index.column("content_hash").to_pylist(), copies.tolist(), strict=True):
        if value in known or copy < evaluated:
            leaks += 1
        elif value in seen or copy in seen:
            repeated += 1
        seen |= {value, copy}
    return leaks, repeated


def _signatures(workspace: Workspace, corpus: Product, index: pa.Table) -> NDArray[np.uint8]:
    """The signatures of the index's rows, from the tables of the shards that it names."""
    shards = json.loads((corpus.path / "corpus.json").read_text())["shards"]
    names, rows = np.asarray(index.column("shard").to_pylist()), index.column("row").to_numpy()
    found_NB = np.empty((index.num_rows, BYTES), np.uint8)
    for name in set(names.tolist()):
        inside = names == name
        found_NB[inside] = signatures_of(open_shard(workspace.root / shards[name]["path"]).records())[rows[inside]]
    return found_NB


def _evaluation_shards(workspace: Workspace) -> list[Shard]:
    pointers = sorted(workspace.root.glob("ecgs/*/*/current"))
    names = [pointer.parent.relative_to(workspace.root).as_posix() for pointer in pointers]
    products = [product for product in map(workspace.current, names) if product is not None]
    return [open_shard(product.path) for product in products if product.facts["role"] == "evaluation"]


def _other_folds(records: pa.Table, folds: Sequence[int]) -> pa.Table:
    return records.filter(pa.array([fold not in folds for fold in records.column("fold").to_pylist()], pa.bool_()))


def _patients(table: pa.Table) -> set[tuple[str, str]]:
    pairs = zip(table["source"].to_pylist(), table["patient_id"].to_pylist(), strict=True)
    return {(source, patient) for source, patient in pairs if patient is not None}
