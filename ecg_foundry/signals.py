"""The ECGs of several shards as one array, of which only what is asked for is read.

Shapes: N records, L leads, T samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from ecg_foundry.layout import SCHEMA, SIGNALS

THREADS = 8  # zarr decodes in threads of its own, and these mostly wait for them


class Signals:
    """The array of one shard. `len` is its number of records.

    Raises ValueError if it has another layout than this version reads.
    """

    def __init__(self, shard: Path) -> None:
        self._shard = shard
        group = zarr.open_group(shard / SIGNALS, mode="r")
        if (schema := group.attrs.get("schema")) != SCHEMA:
            raise ValueError(f"{shard / SIGNALS} has layout {schema}, this version reads {SCHEMA}: harmonize it again")
        array, self._time = group["signal"], group["time"]
        assert isinstance(array, zarr.Array)
        self._array = array
        about: dict[str, Any] = {**array.attrs}
        self.scale = np.float32(about["scale_factor"])
        self.leads: tuple[str, ...] = tuple(about["leads"])
        self.samples = array.shape[2]
        self.chunk = array.chunks[0]
        self._file = (array.shards or array.chunks)[0]

    def __len__(self) -> int:
        return self._array.shape[0]

    def times(self) -> NDArray[np.float64]:
        """Return the seconds from the start (T)."""
        assert isinstance(self._time, zarr.Array)
        return np.asarray(self._time[:])

    def read(self, first: int, end: int) -> NDArray[np.int16]:
        """Return the rows from `first` to before `end` (N, L, T), counts; they lie in one file.

        Raises ValueError if the file is missing or damaged.
        """
        try:
            counts_NLT = np.asarray(self._array[first:end])
        except (ValueError, RuntimeError) as error:  # of checksums and codecs
            raise ValueError(
                f"{self._shard}: rows {first} to {end} cannot be read ({error}): harmonize it again"
            ) from error
        if not (self._shard / SIGNALS / "signal" / "c" / str(first // self._file) / "0" / "0").is_file():
            # Zarr reads a missing file as zeros.
            raise ValueError(f"{self._shard}: rows {first} to {end} are gone: open the ECGs again")
        return counts_NLT


class _Part(NamedTuple):
    """Rows of one chunk of a shard, which begins at `first`, and their places in the result."""

    shard: Signals
    first: int
    row_N: NDArray[np.intp]
    at_N: NDArray[np.intp]


class LazySignals(BackendArray):
    """Several shards one after another, float32 (N, L, T) in millivolt. xarray slices it before it is read.

    absent_NL: bool, the leads of each record that were not recorded: NaN. A shard holds zeros there.
    """

    def __init__(self, shards: Sequence[Signals], absent_NL: NDArray[np.bool_]) -> None:
        self._shards = shards
        self._starts = np.cumsum([0, *map(len, shards)])
        self._absent_NL = absent_NL
        self.shape = (*absent_NL.shape, shards[0].samples)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if not isinstance(key, indexing.VectorizedIndexer):
            return self._read(key.tuple)  # xarray's adapter fails on an empty slice with a negative step
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        """Return what three integers, slices or arrays of indices select, each along its own axis."""
        row_N, lead_L, time_T = (np.atleast_1d(np.arange(n)[one]) for n, one in zip(self.shape, key, strict=True))
        ecg_NLT = np.empty((len(row_N), len(lead_L), len(time_T)), np.float32)

        def fill(part: _Part) -> None:
            counts_NLT = part.shard.read(part.first, min(part.first + part.shard.chunk, len(part.shard)))
            ecg_NLT[part.at_N] = counts_NLT[np.ix_(part.row_N, lead_L, time_T)] * part.shard.scale

        parts = list(self._parts(row_N))
        with ThreadPoolExecutor(min(THREADS, max(1, len(parts)))) as readers:
            list(readers.map(fill, parts))
        ecg_NLT[self._absent_NL[np.ix_(row_N, lead_L)]] = np.nan
        return ecg_NLT[tuple(slice(None) if np.ndim(one) or isinstance(one, slice) else 0 for one in key)]

    def _parts(self, row_N: NDArray[np.intp]) -> Iterator[_Part]:
        """Yield the chunks that hold rows, each once."""
        shard_N = np.searchsorted(self._starts, row_N, side="right") - 1
        for number in np.unique(shard_N):
            shard, at_N = self._shards[number], np.flatnonzero(shard_N == number)
            inside_N = row_N[at_N] - self._starts[number]
            for first in np.unique(inside_N - inside_N % shard.chunk).tolist():
                held_N = inside_N // shard.chunk == first // shard.chunk
                yield _Part(shard, first, inside_N[held_N] - first, at_N[held_N])
