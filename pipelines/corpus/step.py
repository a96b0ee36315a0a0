"""The index of a training set over a data home's harmonized shards: selected, without duplicates, split by patient.

`index.parquet` names rows of shards and copies no signal; `corpus.json` says which shards, where, and how many records;
`exclusions.parquet` names each record that is left out, and why.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines import versions
from pipelines.cache import Product, Workspace, write_atomically
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.index import EXCLUSIONS, INDEX
from pipelines.corpus.selection import Candidate, Exclusion, select
from pipelines.corpus.split import Split, split_by_patient
from pipelines.formats.shard import FINDINGS, RECORDS_FILE, open_shard, signatures_of, write_table
from pipelines.formats.simhash import BYTES, first_copies
from pipelines.hashing import digest_of

PRODUCT = "corpus"

_COLUMNS = ("row", "source", "record_id", "patient_id", "content_hash", "notes", "fold")


def materialize_corpus(workspace: Workspace, config: CorpusConfig) -> Product:
    """Index all current `ecgs/<source>/<partition>` of the data home; the product `corpus`.

    Pretraining shards are indexed; evaluation shards keep their records and patients out, but for the unlabelled
    folds. Raises ValueError where there is no shard to pretrain on, where one did not pass its checks, or where fewer
    than two patients are left.
    """
    pretraining, evaluation = _shards(workspace, config)
    wanted_too = {shard: product for shard, product in evaluation.items() if _chosen(shard, config)}
    if not pretraining and not (config.unlabelled_folds and wanted_too):
        wanted = "any source" if config.sources is None else ", ".join(config.sources)
        raise ValueError(
            f"no harmonized pretraining shard of {wanted} in {workspace.root}: harmonize a partition first"
        )

    def make(folder: Path) -> dict[str, Any]:
        held_out, held_signatures_NB = _rows(evaluation, lambda row: row.fold not in config.unlabelled_folds)
        rows, signatures_NB = _rows(pretraining)
        if config.unlabelled_folds:
            unlabelled, their_signatures_NB = _rows(wanted_too, lambda row: row.fold in config.unlabelled_folds)
            rows, signatures_NB = rows + unlabelled, np.concatenate([signatures_NB, their_signatures_NB])
        copies = first_copies(np.concatenate([held_signatures_NB, signatures_NB])).tolist()
        kept, excluded = select(rows, held_out, copies)
        splits = split_by_patient(kept, config)
        counts = _counts(rows, kept, excluded, splits)
        write_table(folder / "index.parquet", _index(kept, splits))
        write_table(folder / "exclusions.parquet", pa.Table.from_pylist(excluded, schema=EXCLUSIONS))
        shards = {
            shard: {"path": product.path.relative_to(workspace.root).as_posix(), "digest": product.digest}
            for shard, product in (pretraining | (wanted_too if config.unlabelled_folds else {})).items()
        }
        index_digest = hashlib.sha256((folder / "index.parquet").read_bytes()).hexdigest()
        digest = digest_of({"index": index_digest, "shards": {name: shard["digest"] for name, shard in shards.items()}})
        description = {"digest": digest, "config": asdict(config), "shards": shards, "counts": counts}
        write_atomically(folder / "corpus.json", json.dumps(description, indent=1).encode())
        return {**counts, "digest": digest}

    return workspace.build(
        PRODUCT,
        version=versions.CORPUS,
        config=asdict(config),
        inputs=_digests(pretraining, evaluation),
        make=make,
        still_valid=lambda corpus: _shards_are_there(workspace, corpus),
    )


def built_corpus(workspace: Workspace, config: CorpusConfig) -> Product | None:
    """The corpus that `materialize_corpus` would make now, where it is built."""
    return workspace.find(
        PRODUCT, version=versions.CORPUS, config=asdict(config), inputs=shard_digests(workspace, config)
    )


def shard_digests(workspace: Workspace, config: CorpusConfig) -> dict[str, str]:
    """The digests of the harmonized shards that a corpus is made of now, by product."""
    return _digests(*_shards(workspace, config))


def settings_of(workspace: Workspace, digest: str) -> CorpusConfig | None:
    """The settings of a corpus that is built, by its product's digest or that of its ECGs; None where it is not."""
    for product in workspace.finished(PRODUCT):
        if digest in (product.digest, product.facts["digest"]):
            return config_from(product.config)
    return None


def config_from(values: Mapping[str, Any]) -> CorpusConfig:
    """The settings that JSON values of some of their fields stand for; no source is all of them."""
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list | tuple)}
    return CorpusConfig(**{**values, **lists, "sources": lists.get("sources") or None})


def _shards_are_there(workspace: Workspace, corpus: Product) -> bool:
    """Whether the shards that a finished corpus points to still lie where it says."""
    shards = json.loads((corpus.path / "corpus.json").read_text())["shards"].values()
    return all((workspace.root / shard["path"] / RECORDS_FILE).is_file() for shard in shards)


def _shards(workspace: Workspace, config: CorpusConfig) -> tuple[dict[str, Product], dict[str, Product]]:
    """The current harmonized shards, `<source>/<partition>` to product: for pretraining, and for evaluation.

    Raises ValueError naming those of them that did not pass their checks: left out in silence, ECGs would be missing
    from the training, and patients who are evaluated on would enter it.
    """
    pretraining: dict[str, Product] = {}
    evaluation: dict[str, Product] = {}
    for pointer in sorted(workspace.root.glob("ecgs/*/*/current")):
        shard = pointer.parent.relative_to(workspace.root / "ecgs").as_posix()
        product = workspace.current(f"ecgs/{shard}")
        if product is None:
            continue
        if product.facts["role"] == "evaluation":
            evaluation[shard] = product
        elif _chosen(shard, config):
            pretraining[shard] = product
    failed = [
        f"{product.name} ({check}: {found['seen']})"
        for product in (*pretraining.values(), *evaluation.values())
        for check, found in product.facts.get(FINDINGS, {}).items()
        if not found["holds"]
    ]
    if failed:
        raise ValueError(
            f"harmonized shards did not pass their checks: {'; '.join(failed)}: materialize these partitions again; "
            "those of pretraining can be left out by `sources`"
        )
    return pretraining, evaluation


def _digests(*shards: Mapping[str, Product]) -> dict[str, str]:
    return {product.name: product.digest for some in shards for product in some.values()}


def _chosen(shard: str, config: CorpusConfig) -> bool:
    return config.sources is None or shard.split("/")[0] in config.sources


def _rows(
    shards: Mapping[str, Product], wanted: Callable[[Candidate], bool] = lambda row: True
) -> tuple[list[Candidate], NDArray[np.uint8]]:
    """The wanted records of the shards, and their signatures (N, 128)."""
    rows: list[Candidate] = []
    signatures: list[NDArray[np.uint8]] = [np.empty((0, BYTES), np.uint8)]
    for shard, product in shards.items():
        table = open_shard(product.path).records()
        columns = (table[name].to_pylist() for name in _COLUMNS)
        found = [Candidate(shard, *values) for values in zip(*columns, strict=True)]
        takes = np.array([wanted(row) for row in found], dtype=bool)
        rows += [row for row, take in zip(found, takes, strict=True) if take]
        signatures.append(signatures_of(table)[takes])
    return rows, np.concatenate(signatures)


def _index(rows: Sequence[Candidate], splits: Sequence[Split]) -> pa.Table:
    columns = {name: splits if name == "split" else [getattr(row, name) for row in rows] for name in INDEX.names}
    return pa.table(columns, schema=INDEX)


def _counts(
    rows: Sequence[Candidate], kept: Sequence[Candidate], excluded: Sequence[Mapping[str, str]], splits: Sequence[Split]
) -> dict[str, Any]:
    """Figures of the corpus. considered == train + validation + the sum of excluded."""
    assert len(rows) == len(kept) + len(excluded)
    reasons = Counter(row["reason"] for row in excluded)
    return {
        "considered": len(rows),
        "train": splits.count("train"),
        "validation": splits.count("validation"),
        "excluded": {reason.value: reasons[reason.value] for reason in Exclusion},
        "by_source": dict(sorted(Counter(row.source for row in kept).items())),
        "patients": len({row.person for row in kept}),
    }
