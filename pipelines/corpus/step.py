"""The product `corpus`: the index of a training set over harmonized shards, without duplicates, split by patient.

index.parquet        which rows of which shards are in it, and their split; it copies no signal
corpus.json          the shards and their folders, the settings, the counts
exclusions.parquet   each record that was left out, and why
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.corpus.config import TRAINING_FOLDS, CorpusConfig
from pipelines.corpus.copies import copies_of
from pipelines.corpus.index import CORPUS_FILE, EXCLUSIONS, EXCLUSIONS_FILE, INDEX, INDEX_FILE, CorpusIndex
from pipelines.corpus.selection import Candidate, Exclusion, select
from pipelines.corpus.split import Split, split_by_patient
from pipelines.durable import write_atomically
from pipelines.facts import Facts, written_if_set
from pipelines.formats.shard import RECORDS_FILE, open_shard, signatures_of, write_table
from pipelines.formats.simhash import BYTES
from pipelines.formats.single_records import read_single
from pipelines.harmonize.shards import HarmonizedFacts, all_shards
from pipelines.hashing import digest_of, sha256_of_file

PRODUCT = "corpus"
SUBSETS = "scaling/corpus"
"""Products of parts of a corpus, `scaling/corpus/<part>` (`pipelines.corpus.subset`)."""
WITHOUT_LABELS = (
    "nothing here is for pretraining alone: the encoder is pretrained on PTB-XL's training folds, without their labels"
)

_COLUMNS = ("row", "source", "record_id", "patient_id", "content_hash", "notes", "fold")


@dataclass(frozen=True, kw_only=True)
class CorpusFacts(Facts):
    """Facts of the product `corpus`. considered == train + validation + the sum of excluded."""

    considered: int
    """Harmonized records that the selection looked at."""

    train: int
    validation: int

    excluded: dict[str, int]
    """Records left out, by reason (`pipelines.corpus.selection.Exclusion`)."""

    by_source: dict[str, int]
    """Selected records of each source."""

    patients: int
    """Patients of the selected records; a record without a known patient counts as one."""

    unknown_patients: dict[str, int] | None = written_if_set()
    """Selected records of each source that name no patient, without sources that have none. None in earlier corpora."""

    digest: str
    """Digest of the index and of the shards that it names; unlike the product's, it depends on the ECGs alone."""


def materialize_corpus(workspace: Workspace, config: CorpusConfig) -> Product:
    """Index all current shards `ecgs/<source>/<partition>` of the workspace: build the product `corpus`.

    Pretraining shards are indexed. Evaluation shards keep their records and patients out, apart from the unlabelled
    folds. Raises ValueError if there is no shard to pretrain on, if a shard did not pass its checks, or if fewer than
    two patients are left.
    """
    pretraining, evaluation = _shards(workspace, config)
    unlabelled = {
        shard: product for shard, product in evaluation.items() if config.unlabelled_folds and _is_chosen(shard, config)
    }
    if not pretraining and not unlabelled:
        wanted = "any source" if config.sources is None else ", ".join(config.sources)
        remedy = _remedy(evaluation, config)
        raise ValueError(f"no harmonized pretraining shard of {wanted} in {workspace.root}: {remedy}")
    folders = {shard: product.path for shard, product in (pretraining | evaluation).items()}

    def make(folder: Path) -> dict[str, Any]:
        held_out, held_out_signatures_NB = _rows(evaluation, lambda row: row.fold not in config.unlabelled_folds)
        rows, signatures_NB = _rows(pretraining)
        unlabelled_rows, unlabelled_signatures_NB = _rows(unlabelled, lambda row: row.fold in config.unlabelled_folds)
        rows += unlabelled_rows
        everyone = [*held_out, *rows]
        copies = copies_of(
            np.concatenate([held_out_signatures_NB, signatures_NB, unlabelled_signatures_NB]),
            [row.content_hash for row in everyone],
            len(held_out),
            lambda numbers: read_single([(folders[everyone[at].shard], everyone[at].row) for at in numbers]),
        )
        selected, excluded = select(rows, held_out, copies)
        splits = split_by_patient(selected, config)
        counts = _counts(rows, selected, excluded, splits)
        write_table(folder / INDEX_FILE, _index(selected, splits))
        write_table(folder / EXCLUSIONS_FILE, pa.Table.from_pylist(excluded, schema=EXCLUSIONS))
        shards = _described(workspace, pretraining | unlabelled)
        index_digest = sha256_of_file(folder / INDEX_FILE)
        digest = digest_of({"index": index_digest, "shards": {name: shard["digest"] for name, shard in shards.items()}})
        description = {"digest": digest, "config": asdict(config), "shards": shards, "counts": counts}
        write_atomically(folder / CORPUS_FILE, json.dumps(description, indent=1).encode())
        unknown = dict(sorted(Counter(row.source for row in selected if row.patient_id is None).items()))
        return CorpusFacts(**counts, unknown_patients=unknown, digest=digest).to_dict()

    return workspace.build(
        PRODUCT,
        version=versions.CORPUS,
        config=asdict(config),
        inputs=_digests(pretraining, evaluation),
        make=make,
        still_valid=lambda corpus: _has_its_shards(workspace, corpus),
    )


def built_corpus(workspace: Workspace, config: CorpusConfig) -> Product | None:
    """Return the corpus that `materialize_corpus` would give now, or None if it is not built."""
    return workspace.find(
        PRODUCT, version=versions.CORPUS, config=asdict(config), inputs=shard_digests(workspace, config)
    )


def shard_digests(workspace: Workspace, config: CorpusConfig) -> dict[str, str]:
    """Return the digests of the harmonized shards that a corpus would be made of now, by product."""
    return _digests(*_shards(workspace, config))


def corpus_of(workspace: Workspace, digest: str | None) -> Product | None:
    """Return the corpus of this digest, on which an encoder was pretrained, or None if it is no longer here.

    It may be a part of a corpus.
    """

    def kept() -> Iterator[Product]:
        yield from workspace.finished(PRODUCT)
        yield from workspace.listed(f"{SUBSETS}/*").values()

    return next((corpus for corpus in kept() if CorpusFacts.of(corpus).digest == digest), None)


def settings_of(workspace: Workspace, digest: str) -> CorpusConfig | None:
    """Return the settings of a built corpus by its product's digest or its facts' digest, or None if it is not here."""
    for product in workspace.finished(PRODUCT):
        if digest in (product.digest, CorpusFacts.of(product).digest):
            return config_from(product.config)
    return None


def config_from(values: Mapping[str, Any]) -> CorpusConfig:
    """Build settings from JSON values of some of their fields; an empty list of sources means all."""
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list | tuple)}
    return CorpusConfig(**{**values, **lists, "sources": lists.get("sources") or None})


def only_ptbxl(workspace: Workspace) -> bool:
    """Whether the harmonized ECGs are all for evaluation, with PTB-XL among them: see WITHOUT_LABELS."""
    from pipelines.sources.base import Role  # as in `_shards`

    shards = all_shards(workspace)
    roles = {HarmonizedFacts.of(product).role for product in shards.values()}
    return roles == {Role.EVALUATION} and any(shard.startswith("ptbxl") for shard in shards)


def _has_its_shards(workspace: Workspace, corpus: Product) -> bool:
    """Whether a finished corpus can be read, and its shards are still in their folders."""
    if not (corpus.path / CORPUS_FILE).is_file():
        return False
    folders = CorpusIndex(corpus.path).shard_folders(workspace.root).values()
    return all((folder / RECORDS_FILE).is_file() for folder in folders)


def _shards(workspace: Workspace, config: CorpusConfig) -> tuple[dict[str, Product], dict[str, Product]]:
    """Return the current harmonized shards by `<source>/<partition>`: for pretraining, and for evaluation.

    Raises ValueError with the names of those that did not pass their checks. Were they left out silently, ECGs would be
    missing from the training, and evaluated patients would enter it.
    """
    from pipelines.sources.base import Role  # here: the sources need h5py, which reading a corpus does not

    pretraining: dict[str, Product] = {}
    evaluation: dict[str, Product] = {}
    failed: list[str] = []
    for shard, product in all_shards(workspace).items():
        facts = HarmonizedFacts.of(product)
        if facts.role == Role.EVALUATION:
            evaluation[shard] = product
        elif _is_chosen(shard, config):
            pretraining[shard] = product
    for product in (*pretraining.values(), *evaluation.values()):
        findings = HarmonizedFacts.of(product).findings or {}
        failed += [f"{product.name} ({name}: {check.seen})" for name, check in findings.items() if not check.holds]
    if failed:
        raise ValueError(
            f"harmonized shards did not pass their checks: {'; '.join(failed)}: materialize these partitions again; "
            "shards for pretraining can be left out by `sources`"
        )
    return pretraining, evaluation


def _remedy(evaluation: Iterable[str], config: CorpusConfig) -> str:
    """Say what to do if there is no shard to pretrain on, but those for evaluation."""
    sources = sorted({shard.split("/")[0] for shard in evaluation if _is_chosen(shard, config)})
    if not sources:
        return "harmonize a partition first"
    remedy = "harmonize a partition of a source for pretraining, or own ECGs"
    if any(source.startswith("ptbxl") for source in sources):
        remedy += (
            f", or set unlabelled_folds, such as {list(TRAINING_FOLDS)}, to pretrain on PTB-XL's training folds "
            "without their labels"
        )
    return f"those of {', '.join(sources)} are for evaluation: {remedy}"


def _described(workspace: Workspace, shards: Mapping[str, Product]) -> dict[str, dict[str, str]]:
    """Return where each shard lies in the workspace, and its digest."""
    return {
        shard: {"path": product.path.relative_to(workspace.root).as_posix(), "digest": product.digest}
        for shard, product in shards.items()
    }


def _digests(*groups: Mapping[str, Product]) -> dict[str, str]:
    return {product.name: product.digest for shards in groups for product in shards.values()}


def _is_chosen(shard: str, config: CorpusConfig) -> bool:
    return config.sources is None or shard.split("/")[0] in config.sources


def _rows(
    shards: Mapping[str, Product], wanted: Callable[[Candidate], bool] = lambda row: True
) -> tuple[list[Candidate], NDArray[np.uint8]]:
    """Return the wanted records of the shards, and their signatures, uint8 (N, 128)."""
    rows: list[Candidate] = []
    signatures: list[NDArray[np.uint8]] = [np.empty((0, BYTES), np.uint8)]
    for shard, product in shards.items():
        table = open_shard(product.path).records()
        columns = (table[name].to_pylist() for name in _COLUMNS)
        candidates = [Candidate(shard, *values) for values in zip(*columns, strict=True)]
        is_wanted_N = np.array([wanted(row) for row in candidates], dtype=bool)
        rows += [row for row, is_wanted in zip(candidates, is_wanted_N, strict=True) if is_wanted]
        signatures.append(signatures_of(table)[is_wanted_N])
    return rows, np.concatenate(signatures)


def _index(rows: Sequence[Candidate], splits: Sequence[Split]) -> pa.Table:
    columns = {name: splits if name == "split" else [getattr(row, name) for row in rows] for name in INDEX.names}
    return pa.table(columns, schema=INDEX)


def _counts(
    rows: Sequence[Candidate],
    selected: Sequence[Candidate],
    excluded: Sequence[Mapping[str, str]],
    splits: Sequence[Split],
) -> dict[str, Any]:
    """Return the counts among the fields of `CorpusFacts`; corpus.json holds them too."""
    assert len(rows) == len(selected) + len(excluded)
    reasons = Counter(row["reason"] for row in excluded)
    return {
        "considered": len(rows),
        "train": splits.count("train"),
        "validation": splits.count("validation"),
        "excluded": {reason.value: reasons[reason.value] for reason in Exclusion},
        "by_source": dict(sorted(Counter(row.source for row in selected).items())),
        "patients": len({row.person for row in selected}),
    }
