"""List the current harmonized shards of a workspace, and read their facts and records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from pipelines.cache import Product, Workspace
from pipelines.facts import Facts, written_if_set
from pipelines.finding import Finding
from pipelines.formats.shard import RECORDS, open_shard


@dataclass(frozen=True, kw_only=True)
class HarmonizedFacts(Facts):
    """Facts of a product `ecgs/<source>/<partition>`. entered == kept + the sum of dropped."""

    entered: int
    """Records that were read, with those that could not be."""

    kept: int

    dropped: dict[str, int]
    """Records that were not kept, by reason (`pipelines.records.DropReason`)."""

    rates: dict[str, int] = field(default_factory=dict)
    """Kept records by their original sampling rate in Hz."""

    hours: float = 0.0
    """Duration of the kept ECGs."""

    trimmed: int = 0
    """Records with padding around them, which was left out. 0 in shards of earlier versions, as `missing` is empty."""

    missing: dict[str, float] = field(default_factory=dict)
    """Share of a lead's samples that are missing or were never recorded, mean over the records that entered. Without
    leads that lack nothing."""

    role: str
    """What the source is used for, a `pipelines.sources.base.Role`."""

    findings: dict[str, Finding] | None = written_if_set()
    """Results of the shard's checks, by name (`pipelines.harmonize.checks`). None in shards of earlier versions."""


def all_shards(workspace: Workspace) -> dict[str, Product]:
    """Return the current harmonized shards of a workspace, by `<source>/<partition>`, in that order."""
    return {name.partition("/")[2]: product for name, product in workspace.listed("ecgs/*/*").items()}


def shards_of(workspace: Workspace, source: str) -> dict[str, Product]:
    """Return the current harmonized shards of a source, by partition, in that order."""
    workspace.folder(f"ecgs/{source}")  # refuses a name that would be read as a pattern
    return {name.rpartition("/")[2]: product for name, product in workspace.listed(f"ecgs/{source}/*").items()}


def read_records(shards: Mapping[str, Product]) -> pa.Table:
    """Read the records of several shards, one after another in the mapping's order, with the column `partition`."""
    if not shards:
        return RECORDS.append(pa.field("partition", pa.string())).empty_table()
    tables = []
    for partition, product in shards.items():
        records = open_shard(product.path).records()
        tables.append(records.append_column("partition", pa.array([partition] * records.num_rows, pa.string())))
    return pa.concat_tables(tables)
