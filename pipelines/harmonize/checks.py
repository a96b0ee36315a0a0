"""What must hold of a product, looked at anew: each check reads what was written, not what its maker remembers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.cache import Product, Workspace
from pipelines.formats.shard import FINDINGS, SAMPLES, Shard, content_hash, open_shard, signatures_of
from pipelines.formats.simhash import BYTES, first_copies
from pipelines.records import DropReason
from pipelines.sources.base import RemoteFile

COUNTS_ADD_UP = "every_record_accounted_for"
SHARD_IS_WHOLE = "leads_in_order_and_no_sample_missing"

# A pooled embedding that differs less than this between ECGs, relative to its size, says the same of all of them.
LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class Finding:
    """Whether something holds, and what was seen, in words."""

    holds: bool
    seen: str


def shard_findings(shard: Product, listed: int | None = None) -> dict[str, Finding]:
    """Of a harmonized shard: what its checks find, by their names. listed: as `counts_add_up` takes it."""
    return {COUNTS_ADD_UP: counts_add_up(shard, listed), SHARD_IS_WHOLE: shard_is_whole(shard)}


def kept_findings(shard: Product) -> dict[str, Finding]:
    """Of a harmonized shard: what its checks found as it was made, and anew for one that is from before these were
    kept."""
    kept = shard.facts.get(FINDINGS)
    return shard_findings(shard) if kept is None else {name: Finding(**found) for name, found in kept.items()}


def records_listed(files: Sequence[RemoteFile]) -> int | None:
    """How many records a partition's files hold by their names; None where a file holds many (CODE-15%)."""
    stems = {file.path.rsplit(".", 1)[0] for file in files if file.path.endswith((".hea", ".mat", ".dat"))}
    return len(stems) or None


def counts_add_up(product: Product, listed: int | None = None) -> Finding:
    """Of a harmonized shard: entered = kept + dropped, by the tables; each drop has a reason of the closed list.

    listed: the records that the source's list names, where it names each; none may be lost on the way in.
    """
    shard = open_shard(product.path)
    entered, kept, drops = product.facts["entered"], shard.records().num_rows, shard.drops()
    unknown = set(drops.column("reason").to_pylist()) - {reason.value for reason in DropReason}
    holds = entered == kept + drops.num_rows == kept + sum(product.facts["dropped"].values()) and not unknown
    holds = holds and listed in (None, entered)
    seen = f"{entered} entered, {kept} kept, {drops.num_rows} dropped"
    seen += "" if listed in (None, entered) else f"; the source lists {listed}"
    return Finding(holds, seen + (f"; unknown reasons {sorted(unknown)}" if unknown else ""))


def shard_is_whole(product: Product) -> Finding:
    """Of a harmonized shard: leads in order (opening it says so), rows numbered, no ECG empty or changed since."""
    shard = open_shard(product.path)
    records = shard.records()
    rows, hashes = records.column("row").to_numpy(), records.column("content_hash").to_pylist()
    empty = changed = 0
    for first, end in shard.spans():
        signal_NLT = shard.read(first, end)
        empty += int((signal_NLT.max(axis=(1, 2)) == signal_NLT.min(axis=(1, 2))).sum())
        changed += sum(
            content_hash(signal_LT) != known for signal_LT, known in zip(signal_NLT, hashes[first:end], strict=True)
        )
    holds = np.array_equal(rows, np.arange(len(shard))) and not empty and not changed
    seen = f"{len(shard)} ECGs of 8 leads and {SAMPLES} samples, {empty} of them empty"
    return Finding(holds, seen + (f", {changed} other than when they were harmonized" if changed else ""))


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


def training_went_well(summary: Mapping[str, Any]) -> Finding:
    """Of a pretraining's summary: its loss is finite and fell, and its embeddings still tell ECGs apart."""
    first, last = summary["first"]["loss"], summary["last"]["loss"]
    std, rank = summary["last"]["embedding_std"], summary["last"]["effective_rank"]
    if not all(map(math.isfinite, (first, last, std, rank))):
        fault = ": not finite, use a lower peak_lr"
    elif last >= first:
        fault = ": the loss did not fall, train for more steps or change peak_lr"
    elif std <= LEAST_SPREAD:
        fault = ": all ECGs look alike (collapse), use a lower peak_lr or a larger jepa.encoder.patch_init_scale"
    else:
        fault = ""
    seen = f"loss {first:.4f} -> {last:.4f}; embeddings: std {std:.4f} over ECGs, effective rank {rank:.1f}"
    return Finding(not fault, seen + fault)


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
