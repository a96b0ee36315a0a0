"""List the current harmonized shards of a workspace, and read their records."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from pipelines.cache import Product, Workspace
from pipelines.formats.shard import RECORDS, open_shard


def shards_of(workspace: Workspace, source: str) -> dict[str, Product]:
    """The harmonized shards of a source that the workspace holds, by partition."""
    folder = workspace.folder(f"ecgs/{source}")
    partitions = sorted(pointer.parent.name for pointer in folder.glob("*/current"))
    products = {partition: workspace.current(f"ecgs/{source}/{partition}") for partition in partitions}
    return {partition: product for partition, product in products.items() if product is not None}


def read_records(shards: Mapping[str, Product]) -> pa.Table:
    """The records of several shards, one after another in the mapping's order, with the column `partition`."""
    if not shards:
        return RECORDS.append(pa.field("partition", pa.string())).empty_table()
    tables = []
    for partition, product in shards.items():
        records = open_shard(product.path).records()
        tables.append(records.append_column("partition", pa.array([partition] * records.num_rows, pa.string())))
    return pa.concat_tables(tables)
