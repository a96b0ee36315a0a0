"""Files of a corpus, and the signals that its index names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.corpus.split import Split
from pipelines.formats.shard import read_rows

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
