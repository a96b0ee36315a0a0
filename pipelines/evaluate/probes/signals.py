"""Harmonized ECGs of several shards, read row by row when they are needed, so that any number of them fits."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipelines.formats.shard import CHUNK, THREADS, open_shard, start_reading


class Signals:
    """ECGs of several shards on disk, int16 (N, 8, 2500) in microvolt, concatenated in their order; `[rows]` reads."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        self._shards = [open_shard(folder) for folder in self.folders]
        self._first = np.cumsum([0, *map(len, self._shards)])
        self._readers = ThreadPoolExecutor(THREADS)

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Read ECGs by their numbers from 0, each once, in the given order; memory is theirs and a chunk per reader."""
        order = np.argsort(rows)
        ascending = rows[order]
        cuts = np.searchsorted(ascending, self._first)
        parts = [
            (shard, ascending[begin:end] - first)
            for shard, first, begin, end in zip(self._shards, self._first, cuts, cuts[1:], strict=False)
            if end > begin
        ]
        signal_NLT = start_reading(parts, self._readers, CHUNK).result()
        return signal_NLT[np.argsort(order)]
