"""The files of a corpus: how its index and description are read, and the signals that the index names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ecg_foundry.soundness import Damaged, require_sound
from pipelines.corpus.split import Split
from pipelines.formats.shard import read_rows

CORPUS_FILE = "corpus.json"
INDEX_FILE = "index.parquet"
EXCLUSIONS_FILE = "exclusions.parquet"

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


class CorpusIndex:
    """A finished corpus, opened for reading: which rows of which shards it holds. Files are read when first used.

    Needs numpy, zarr and pyarrow, nothing else, so that a training machine can use it.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)

    @cached_property
    def _description(self) -> Mapping[str, Any]:
        path = self._folder / CORPUS_FILE
        if not path.is_file():
            raise ValueError(f"{self._folder} holds no corpus ({path.name}): build the corpus first")
        require_sound(self._folder)
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise Damaged("corpus", self._folder, f"{path.name} cannot be read") from error

    @property
    def digest(self) -> str:
        """Digest of the index and of the shards that it names."""
        return self._description["digest"]

    @property
    def unlabelled_folds(self) -> tuple[int, ...]:
        """Folds of the evaluation sources whose ECGs are in the corpus, without labels."""
        return tuple(self._description["config"]["unlabelled_folds"])

    def shard_folders(self, workspace_root: Path | str) -> dict[str, Path]:
        """Return the folder of each shard of the corpus, by `<source>/<partition>`."""
        shards = self._description["shards"]
        return {name: Path(workspace_root) / shard["path"] for name, shard in shards.items()}

    def table(self, columns: Sequence[str] | None = None, *, split: str | None = None) -> pa.Table:
        """Read the index, rows ordered by shard; by default all columns of INDEX and both splits."""
        filters = None if split is None else [("split", "==", split)]
        return pq.read_table(
            self._folder / INDEX_FILE, columns=None if columns is None else [*columns], filters=filters
        )


def rows_by_shard(index: pa.Table) -> list[tuple[str, NDArray[np.int32]]]:
    """Return each shard that an index names, with its rows in that shard. The index is ordered by shard."""
    names, rows = np.asarray(index["shard"].to_pylist()), index["row"].to_numpy()
    # Each shard's rows are one run.
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    return [(str(names[start]), rows[start:end]) for start, end in zip(starts, [*starts[1:], len(rows)], strict=True)]


def load_signals(workspace_root: Path | str, corpus_dir: Path | str, split: Split) -> NDArray[np.int16]:
    """Load int16 (N, 8, 2500), microvolt: the records of a split in the index's order, read in parallel.

    Needs the products of the corpus and of its shards below `workspace_root`, numpy, zarr and pyarrow, nothing else.
    Raises ValueError if the split has no records, or if a shard of the corpus is missing.
    """
    corpus = CorpusIndex(corpus_dir)
    folders = corpus.shard_folders(workspace_root)
    index = corpus.table(["shard", "row"], split=split)
    if index.num_rows == 0:
        raise ValueError(f"split {split!r} of {Path(corpus_dir)} has no records: use 'train' or 'validation'")
    return read_rows([(folders[shard], rows) for shard, rows in rows_by_shard(index)])
