"""A share of a corpus's training patients as a corpus of its own, with all of the corpus's validation ECGs.

    scaling/corpus/<percent>-seed-<seed>    corpus.json and index.parquet, as those of the product `corpus`

Patients are put in an order that depends on the seed and the patient alone, and a share takes the first of them. So of
two shares of one seed the smaller lies inside the larger, and a patient is in a share with all ECGs or with none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.corpus.index import CORPUS_FILE, INDEX_FILE, CorpusIndex
from pipelines.corpus.selection import Person, person_of
from pipelines.corpus.step import SUBSETS, CorpusFacts
from pipelines.durable import write_atomically
from pipelines.formats.shard import write_table
from pipelines.hashing import digest_of, sha256_of_file, uniform_from

LEAST_PATIENTS = 4
"""Patients that a share has at least."""


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A share of the training patients of a corpus."""

    share: float
    seed: int
    rows_N: NDArray[np.bool_]
    """Which rows of the corpus's index it has: all of validation among them."""
    records: int
    """ECGs to train on."""
    patients: int
    """Patients to train on; an ECG of no known patient counts as one."""


def percent(share: float) -> str:
    """Return a share as people and products name it: 0.03 as `3`."""
    return f"{100 * share:.10g}"


def subsets(index: pa.Table, shares: Sequence[float], seed: int) -> list[Subset]:
    """Return the subsets of a seed, one a share, in the order of the shares.

    index: of a corpus, with the columns split, source, record_id and patient_id.
    Raises ValueError if a share has fewer than LEAST_PATIENTS, or if two shares are the same patients.
    """
    split_N = np.asarray(index["split"].to_pylist())
    columns = (index[name].to_pylist() for name in ("source", "patient_id", "record_id"))
    persons = [person_of(*values) for values in zip(*columns, strict=True)]
    trained_on = {person for person, split in zip(persons, split_N, strict=True) if split == "train"}
    ordered = sorted(trained_on, key=lambda person: (_draw(seed, person), person))
    place = {person: at for at, person in enumerate(ordered)}
    place_N = np.array([place.get(person, -1) for person in persons])
    made, first_with = [], {}
    for share in shares:
        count = round(share * len(ordered))
        if count < LEAST_PATIENTS:
            raise ValueError(
                f"shares={share:g}: of the corpus's {len(ordered)} training patients it is {count}, and at least "
                f"{LEAST_PATIENTS} are needed: use shares from {LEAST_PATIENTS / max(len(ordered), 1):.2g} on, or a "
                "larger corpus"
            )
        if count in first_with:
            raise ValueError(
                f"shares={first_with[count]:g} and {share:g}: both are the same {count} of {len(ordered)} training "
                "patients: leave one of them out"
            )
        first_with[count] = share
        chosen_N = (split_N == "train") & (place_N < count)
        made.append(
            Subset(
                share=share,
                seed=seed,
                rows_N=chosen_N | (split_N == "validation"),
                records=int(chosen_N.sum()),
                patients=count,
            )
        )
    return made


def materialize_subset(workspace: Workspace, corpus: Product, subset: Subset) -> Product:
    """Build the product of a subset; the whole share is the corpus itself. Facts: `CorpusFacts`."""
    if subset.share == 1:
        return corpus

    def make(folder: Path) -> dict[str, Any]:
        table = CorpusIndex(corpus.path).table().filter(pa.array(subset.rows_N))
        write_table(folder / INDEX_FILE, table)
        parent = json.loads((corpus.path / CORPUS_FILE).read_text())
        index_digest = sha256_of_file(folder / INDEX_FILE)
        shards = {name: shard["digest"] for name, shard in parent["shards"].items()}
        digest = digest_of({"index": index_digest, "shards": shards})
        counts = _counts(table)
        part = {"of": parent["digest"], "share": subset.share, "seed": subset.seed}
        description = {**parent, "digest": digest, "counts": counts, "part": part}
        write_atomically(folder / CORPUS_FILE, json.dumps(description, indent=1).encode())
        return CorpusFacts(**counts, digest=digest).to_dict()

    return workspace.build(_name(subset), **_made_of(corpus, subset), make=make)


def find_subset(workspace: Workspace, corpus: Product, subset: Subset) -> Product | None:
    """Return the product of a subset if it is here. Builds nothing."""
    return corpus if subset.share == 1 else workspace.find(_name(subset), **_made_of(corpus, subset))


def _name(subset: Subset) -> str:
    return f"{SUBSETS}/{percent(subset.share)}-seed-{subset.seed}"


def _made_of(corpus: Product, subset: Subset) -> dict[str, Any]:
    """Return what the fingerprint of a subset is made of."""
    config = {"share": subset.share, "seed": subset.seed}
    return {"version": versions.CORPUS, "config": config, "inputs": {"corpus": corpus.digest}}


def _counts(table: pa.Table) -> dict[str, Any]:
    """Return the counts among the fields of `CorpusFacts`: of the ECGs that are in it, none left out."""
    splits, sources = table["split"].to_pylist(), table["source"].to_pylist()
    columns = (table[name].to_pylist() for name in ("source", "patient_id", "record_id"))
    return {
        "considered": table.num_rows,
        "train": splits.count("train"),
        "validation": splits.count("validation"),
        "excluded": {},
        "by_source": dict(sorted(Counter(sources).items())),
        "patients": len({person_of(*values) for values in zip(*columns, strict=True)}),
    }


def _draw(seed: int, person: Person) -> float:
    """Return a uniform number in [0, 1) that depends on (seed, person) alone, other than that of the split."""
    return uniform_from(json.dumps(["scaling", seed, *person]))
