"""The index of a training set over a data home's harmonized shards: selected, without duplicates, split by patient.

`index.parquet` names rows of shards and copies no signal; `corpus.json` says which shards, where, and how many records;
`exclusions.parquet` names each record that is left out, and why.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines import versions
from pipelines.cache import Product, Workspace, digest_of, write_atomically
from pipelines.formats.shard import FINDINGS, RECORDS_FILE, open_shard, read_rows, signatures_of, write_table
from pipelines.formats.simhash import BYTES, first_copies
from pipelines.records import absent_leads

PRODUCT = "corpus"

Split = Literal["train", "validation"]
_Person = tuple[str, str, str]

INDEX = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
    ]
)

EXCLUSIONS = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("shard", "source", "record_id", "reason", "detail")]
)

_COLUMNS = ("row", "source", "record_id", "patient_id", "content_hash", "notes", "fold")


class Exclusion(StrEnum):
    """Why a harmonized record is not in the corpus. The list is closed."""

    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near duplicate"
    EVALUATION_RECORD = "evaluation record"
    EVALUATION_COPY = "copy of an evaluation record"
    EVALUATION_PATIENT = "evaluation patient"
    LEADS_ABSENT = "leads not recorded"


UNLABELLED = tuple(range(1, 9))
"""Folds of evaluation sources that may be pretrained on: of PTB-XL's ten, all but those that are scored on."""


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """validation_share: of the patients. seed: of their draw. sources: these alone; None: all for pretraining.

    unlabelled_folds: of the evaluation sources, ECGs of these folds are pretrained on too, without their labels; the
    other folds are held out as ever. PTB-XL's folds are split by patient.
    """

    validation_share: float = 0.05
    seed: int = 0
    sources: tuple[str, ...] | None = None
    unlabelled_folds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share {self.validation_share}: use a share between 0 and 1, such as 0.05")
        unknown = [fold for fold in self.unlabelled_folds if fold not in UNLABELLED]
        if unknown:
            raise ValueError(
                f"unlabelled_folds {self.unlabelled_folds}: use folds of {UNLABELLED[0]} to {UNLABELLED[-1]}; "
                "9 and 10 are scored on"
            )
        if self.sources is not None and not self.sources:
            raise ValueError("sources (): name at least one source, or use None for all")


@dataclass(frozen=True)
class _Row:
    """A harmonized record as the corpus sees it."""

    shard: str
    row: int
    source: str
    record_id: str
    patient_id: str | None
    content_hash: str
    notes: tuple[str, ...] = ()
    fold: int | None = None

    @property
    def person(self) -> _Person:
        """Who it is of: the source's patient, or the record alone where no patient is known."""
        if self.patient_id is None:
            return (self.source, "record", self.record_id)
        return (self.source, "patient", self.patient_id)


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
        splits = split(kept, config)
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


def load_signals(workspace_root: Path | str, corpus_dir: Path | str, split: Split) -> NDArray[np.int16]:
    """int16 (N, 8, 2500), microvolt: the records of a split in the index's order, read in parallel into one array.

    Needs the products of the corpus and of its shards below `workspace_root`, numpy, zarr and pyarrow, nothing else.
    Raises ValueError for a split without records, and where a shard has gone.
    """
    root, folder = Path(workspace_root), Path(corpus_dir)
    shards: Mapping[str, Mapping[str, str]] = json.loads((folder / "corpus.json").read_text())["shards"]
    index = pq.read_table(folder / "index.parquet", columns=["shard", "row"], filters=[("split", "==", split)])
    if index.num_rows == 0:
        raise ValueError(f"split {split!r} of {folder} has no records: use 'train' or 'validation'")
    names = np.asarray(index["shard"].to_pylist())
    rows = index["row"].to_numpy()
    # The index is ordered by shard: each shard's rows are one run.
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    requests = [
        (root / shards[str(names[start])]["path"], rows[start:end])
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True)
    ]
    return read_rows(requests)


def select(
    rows: Sequence[_Row], held_out: Sequence[_Row], copy_of: Sequence[int]
) -> tuple[list[_Row], list[dict[str, str]]]:
    """What stays, and what is excluded as rows of EXCLUSIONS. Evaluation wins over pretraining; of equals, the first.

    copy_of: for each of held_out and then of rows, the number of the first that is the same recording, as
    `pipelines.formats.simhash.first_copies` gives it. Records are equal where the harmonized bytes are, and nearly so
    where the first copy is one. A patient with an ECG that is evaluated on is an evaluated patient, in whatever source.
    Only ECGs with all eight leads stay.
    """
    copies = copy_of[len(held_out) :]
    held_hashes = {row.content_hash: row for row in held_out}
    held_patients = {row.person for row in held_out}
    patients, groups = _evaluated(rows, copies, held_patients, set(copy_of[: len(held_out)]))
    first: dict[str, _Row] = {}
    first_near: dict[int, _Row] = {}
    kept: list[_Row] = []
    excluded: list[dict[str, str]] = []
    for row, copy in zip(rows, copies, strict=True):
        if row.content_hash in held_hashes:
            reason, detail = Exclusion.EVALUATION_RECORD, _same("", held_hashes[row.content_hash])
        elif row.person in held_patients:
            reason, detail = Exclusion.EVALUATION_PATIENT, f"{row.person[1]} {row.person[2]} is evaluated on"
        elif copy < len(held_out):
            reason, detail = Exclusion.EVALUATION_COPY, _same("nearly ", held_out[copy])
        elif row.person in patients or copy in groups:
            reason = Exclusion.EVALUATION_PATIENT
            detail = f"{row.person[1]} {row.person[2]} has an ECG of a patient who is evaluated on"
        elif absent := absent_leads(row.notes):
            # The network has no mask for a lead: it would learn the zeros as an ECG.
            reason, detail = Exclusion.LEADS_ABSENT, ", ".join(absent)
        elif row.content_hash in first:
            reason, detail = Exclusion.DUPLICATE, _same("", first[row.content_hash])
        elif copy in first_near:
            reason, detail = Exclusion.NEAR_DUPLICATE, _same("nearly ", first_near[copy])
        else:
            first[row.content_hash] = first_near[copy] = row
            kept.append(row)
            continue
        excluded.append(
            {
                "shard": row.shard,
                "source": row.source,
                "record_id": row.record_id,
                "reason": reason.value,
                "detail": detail,
            }
        )
    return kept, excluded


def _same(how: str, other: _Row) -> str:
    return f"{how}the same signal as {other.record_id} of {other.shard}"


def _evaluated(
    rows: Sequence[_Row], copies: Sequence[int], patients: Collection[_Person], groups: Collection[int]
) -> tuple[set[_Person], set[int]]:
    """The persons and the groups of copies that evaluation reaches: from one to the other until there are no more."""
    persons, reached = set(patients), set(groups)
    while True:
        found = [(row.person, copy) for row, copy in zip(rows, copies, strict=True)]
        found = [(person, copy) for person, copy in found if (person in persons) != (copy in reached)]
        if not found:
            return persons, reached
        persons.update(person for person, _ in found)
        reached.update(copy for _, copy in found)


def split(rows: Sequence[_Row], config: CorpusConfig) -> list[Split]:
    """The split of each row, by person: validation where a hash of (seed, person) falls below the share.

    A person's draw does not depend on who else is there, so added data moves nobody. One exception keeps small corpora
    usable: where nobody falls below the share, the person with the lowest draw validates; nobody above, the highest
    trains. Raises ValueError with fewer than two persons.
    """
    draws = {person: _draw(config.seed, person) for person in {row.person for row in rows}}
    if len(draws) < 2:
        raise ValueError(
            f"the corpus has {len(rows)} records of {len(draws)} patients: harmonize more, to train and to validate on"
        )
    validating = {person for person, draw in draws.items() if draw < config.validation_share}
    if not validating:
        validating = {min(draws, key=lambda person: (draws[person], person))}
    if len(validating) == len(draws):
        validating.remove(max(draws, key=lambda person: (draws[person], person)))
    return ["validation" if row.person in validating else "train" for row in rows]


def _draw(seed: int, person: _Person) -> float:
    """A uniform number in [0, 1) that belongs to (seed, person)."""
    text = json.dumps([seed, *person])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


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
    shards: Mapping[str, Product], wanted: Callable[[_Row], bool] = lambda row: True
) -> tuple[list[_Row], NDArray[np.uint8]]:
    """The wanted records of the shards, and their signatures (N, 128)."""
    rows: list[_Row] = []
    signatures: list[NDArray[np.uint8]] = [np.empty((0, BYTES), np.uint8)]
    for shard, product in shards.items():
        table = open_shard(product.path).records()
        columns = (table[name].to_pylist() for name in _COLUMNS)
        found = [_Row(shard, *values) for values in zip(*columns, strict=True)]
        takes = np.array([wanted(row) for row in found], dtype=bool)
        rows += [row for row, take in zip(found, takes, strict=True) if take]
        signatures.append(signatures_of(table)[takes])
    return rows, np.concatenate(signatures)


def _index(rows: Sequence[_Row], splits: Sequence[Split]) -> pa.Table:
    columns = {name: splits if name == "split" else [getattr(row, name) for row in rows] for name in INDEX.names}
    return pa.table(columns, schema=INDEX)


def _counts(
    rows: Sequence[_Row], kept: Sequence[_Row], excluded: Sequence[Mapping[str, str]], splits: Sequence[Split]
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
