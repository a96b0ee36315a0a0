"""Records that are not trained on, each with its reason: dropped by harmonization, or left out by the corpus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count

import pyarrow.parquet as pq

from pipelines.cache import Product, Workspace
from pipelines.corpus.index import EXCLUSIONS, EXCLUSIONS_FILE
from pipelines.formats.shard import open_shard
from pipelines.harmonize.shards import all_shards, shards_of


class Step(StrEnum):
    """Which step left a record out."""

    HARMONIZE = "harmonize"
    CORPUS = "corpus"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A record that is not in the corpus, and why."""

    source: str
    partition: str
    record_id: str
    step: Step
    reason: str
    detail: str


def left_out(workspace: Workspace, source: str | None = None) -> Iterator[LeftOut]:
    """Yield the records that are left out, of one source or of all: by the current shards, then by the current corpus.

    Raises Damaged if a shard is damaged.
    """
    shards = all_shards(workspace) if source is None else shards_of(workspace, source)
    for shard in shards.values():
        yield from dropped_of(shard)
    corpus = workspace.current("corpus")
    if corpus is not None:
        yield from (record for record in excluded_of(corpus) if source in (None, record.source))


def dropped_of(shard: Product) -> list[LeftOut]:
    """Return the records of a partition that harmonization dropped, in the order in which they were read."""
    _, source, partition = shard.name.split("/")
    return [
        LeftOut(
            source=source,
            partition=partition,
            record_id=drop["record_id"],
            step=Step.HARMONIZE,
            reason=drop["reason"],
            detail=drop["detail"],
        )
        for drop in open_shard(shard.path).drops().to_pylist()
    ]


def excluded_of(corpus: Product) -> list[LeftOut]:
    """Return the harmonized records that a corpus left out: copies, and evaluated patients among others."""
    return [
        LeftOut(
            source=row["source"],
            partition=row["shard"].partition("/")[2],
            record_id=row["record_id"],
            step=Step.CORPUS,
            reason=row["reason"],
            detail=row["detail"],
        )
        for row in pq.read_table(corpus.path / EXCLUSIONS_FILE, schema=EXCLUSIONS).to_pylist()
    ]


def some_of_each_reason(records: Sequence[LeftOut], most: int) -> list[LeftOut]:
    """Return at most `most` records in their order, so that a rare reason is not behind a frequent one."""
    numbers: dict[str, Iterator[int]] = defaultdict(count)
    turns = [next(numbers[record.reason]) for record in records]
    chosen = sorted(range(len(records)), key=turns.__getitem__)[:most]
    return [records[at] for at in sorted(chosen)]
