"""The corpus' ECGs as batches for training: kept in memory, or read when they are needed.

Both ways give the same batches in the same order (`sampling_order`); free memory decides between them.

Shapes: N records, B records of a batch, L leads, T samples.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.corpus.index import CorpusIndex, load_signals
from pipelines.formats.shard import (
    CHUNK,
    LEADS,
    MILLIVOLT,
    SAMPLES,
    SHARD,
    THREADS,
    ShardReading,
    open_shard,
    read_rows,
    start_reading,
)
from pipelines.pretrain.crops import Crops
from pipelines.pretrain.free_memory import free_memory
from pipelines.pretrain.sampling_order import Order, Window

log = logging.getLogger(__name__)

BYTES = 2 * len(LEADS) * SAMPLES  # of an ECG in int16
AHEAD = 2  # batches that are prepared before they are needed
MEMORY_SHARE = 0.5  # of the free memory, at most, for the ECGs
PIECE = 16 * SHARD  # ECGs that are copied to a GPU at a time, 660 MB


class BatchFeed:
    """The batches of a run, one after another, prepared by a thread AHEAD of the steps. A context manager."""

    def __init__(
        self,
        signals: Signals,
        order: Order,
        *,
        device: torch.device,
        first_step: int,
        rank: int,
        world: int,
        window: int | None = None,
    ) -> None:
        """Start to prepare the batches from `first_step` on.

        rank, world: this process gets every `world`-th record of each batch, from `rank` on.
        window: samples of the random window that is taken of each ECG; None takes it whole.
        """
        self.waited_seconds = 0.0  # in `next`, that is, without a training step
        self._device = device
        self._readers = ThreadPoolExecutor(THREADS, thread_name_prefix="readers")
        batches = signals.batches(order, first_step=first_step, rank=rank, world=world, readers=self._readers)
        if window is not None:
            crops = Crops(order, window)
            batches = (
                crops.of_step(x_BLT, step, rank=rank, world=world) for step, x_BLT in enumerate(batches, first_step)
            )
        self._batches = batches
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._pending = deque(self._pool.submit(self._prepare) for _ in range(AHEAD))

    def next(self) -> Tensor:
        """Return float32 (B, L, T), millivolt, on the device: this process's share of the next step's batch."""
        began = time.perf_counter()
        x_BLT = self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._prepare))
        if self._device.type != "cpu":  # int16 is half the bytes to copy; the GPU converts
            x_BLT = _millivolt(x_BLT.to(self._device, non_blocking=True))
        self.waited_seconds += time.perf_counter() - began
        return x_BLT

    def _prepare(self) -> Tensor:
        x_BLT = next(self._batches)
        if self._device.type == "cpu":
            return _millivolt(x_BLT)
        return x_BLT if x_BLT.is_cuda else x_BLT.pin_memory()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Cancel reads that have not begun, so that a batch that waits for them ends too.
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._pool.shutdown(cancel_futures=True)
        self._readers.shutdown()


class Signals(Protocol):
    """The ECGs of a split, wherever they are stored."""

    def __len__(self) -> int: ...

    def batches(self, order: Order, *, first_step: int, rank: int, world: int, readers: Executor) -> Iterator[Tensor]:
        """Yield int16 (B, L, T), microvolt, for each step from `first_step` on, endlessly.

        rank, world: yield every `world`-th record of a step's batch, from `rank` on.
        readers: the threads for reading from disk.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The ECGs of a corpus product, ready for training."""

    train: Signals  # the ECGs to train on
    validation_NLT: Tensor  # int16 (N, 8, 2500), microvolt
    names: Sequence[str]  # `source/record` of each training ECG
    chunk_N: NDArray[np.int64]  # the chunk of the store that each training ECG lies in
    digest: str  # of the corpus' index

    def __post_init__(self) -> None:
        for name in ("names", "chunk_N"):
            if len(getattr(self, name)) != len(self.train):
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} entries for {len(self.train)} ECGs: give one for each"
                )

    def feed(
        self,
        order: Order,
        *,
        device: torch.device,
        first_step: int,
        rank: int = 0,
        world: int = 1,
        window: int | None = None,
    ) -> BatchFeed:
        """Return the batches from `first_step` on, see `BatchFeed`."""
        return BatchFeed(self.train, order, device=device, first_step=first_step, rank=rank, world=world, window=window)


def load_corpus(
    workspace_root: Path,
    corpus_dir: Path,
    device: torch.device,
    *,
    memory_budget: int | None = None,
    processes: int = 1,
) -> Corpus:
    """Open a corpus product.

    Its training ECGs are loaded to the GPU if they fit into half of its free memory, else into main memory if they fit
    into half of what is free there; otherwise they are read when they are needed.

    device: the device of the training.
    memory_budget: bytes for the ECGs, in place of half of the free memory.
    processes: number of processes on this machine that load the corpus at the same time and share its memory.

    Raises ValueError if the directory holds no corpus, or if one of its splits is empty.
    """
    corpus = CorpusIndex(corpus_dir)
    shard_folders = corpus.shard_folders(workspace_root)
    index = corpus.table(["shard", "row", "source", "record_id"], split="train")
    names = [
        f"{source}/{record}"
        for source, record in zip(index["source"].to_pylist(), index["record_id"].to_pylist(), strict=True)
    ]
    shards, shard_N = np.unique(np.asarray(index["shard"].to_pylist(), dtype=str), return_inverse=True)
    stored = Streamed(
        folders=[shard_folders[str(name)] for name in shards],
        shard_N=shard_N,
        row_N=index["row"].to_numpy(),
    )
    return Corpus(
        train=_storage(stored, device, memory_budget, processes),
        validation_NLT=torch.from_numpy(load_signals(workspace_root, corpus_dir, "validation")),
        names=names,
        chunk_N=stored.chunk_N,
        digest=corpus.digest,
    )


def _storage(stored: Streamed, device: torch.device, memory_budget: int | None, processes: int) -> Signals:
    """Load the ECGs to the GPU or into memory if they fit, else return them as they are stored."""
    need = len(stored) * BYTES
    budget = (int(MEMORY_SHARE * free_memory()) if memory_budget is None else memory_budget) // processes
    if device.type == "cuda":
        gpu_budget = int(MEMORY_SHARE * torch.cuda.mem_get_info(device)[0])
        if need <= (gpu_budget if memory_budget is None else min(gpu_budget, budget)):
            return Resident(load_to(device, stored))
    if need <= budget:
        return Resident(torch.from_numpy(stored.read(np.arange(len(stored)))))
    log.info(
        "%.1f GB of ECGs are read when they are needed: the memory budget for them is %.1f GB",
        need / 1e9,
        budget / 1e9,
    )
    return stored


def load_to(device: torch.device, stored: Streamed) -> Tensor:
    """Return int16 (N, L, T), microvolt: all ECGs, on the device. Main memory holds at most PIECE of them at a time."""
    signal_NLT = torch.empty((len(stored), len(LEADS), SAMPLES), dtype=torch.int16, device=device)
    for first in range(0, len(stored), PIECE):
        rows = np.arange(first, min(first + PIECE, len(stored)))
        signal_NLT[first : first + PIECE] = torch.from_numpy(stored.read(rows))
    return signal_NLT


class Resident:
    """All ECGs in one int16 tensor (N, L, T), microvolt, in main memory or on the GPU."""

    def __init__(self, signal_NLT: Tensor) -> None:
        self.signal_NLT = signal_NLT

    def __len__(self) -> int:
        return len(self.signal_NLT)

    def batches(self, order: Order, *, first_step: int, rank: int, world: int, readers: Executor) -> Iterator[Tensor]:
        for step in itertools.count(first_step):
            rows = to_device(torch.from_numpy(order.rows(step)[rank::world]), self.signal_NLT.device)
            yield self.signal_NLT.index_select(0, rows)


class Streamed:
    """ECGs that stay in the store."""

    def __init__(self, *, folders: Sequence[Path], shard_N: NDArray[np.integer], row_N: NDArray[np.integer]) -> None:
        """Take the places of the ECGs: ECG n is row_N[n] of the shard folders[shard_N[n]]."""
        self._folders, self._shard_N, self._row_N = folders, shard_N, row_N
        _, self.chunk_N = np.unique(np.stack([shard_N, row_N // CHUNK]), axis=1, return_inverse=True)

    def __len__(self) -> int:
        return len(self._row_N)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.int16]:
        """Return int16 (N, L, T), microvolt: the ECGs of these rows, ascending. Fast for rows that lie together."""
        return read_rows([(self._folders[shard], shard_rows) for shard, shard_rows in self._by_shard(rows)])

    def batches(self, order: Order, *, first_step: int, rank: int, world: int, readers: Executor) -> Iterator[Tensor]:
        """Yield batches. At most two windows of the order are in memory: the current one, and the next, being read."""
        shards = [open_shard(folder) for folder in self._folders]

        def start(position: int) -> _WindowReading:
            """Start to read this process's share of the window at a position of the sequence."""
            window = order.window(position)
            places = np.arange(window.start, window.end) % order.batch
            own_rows = np.sort(window.rows[places % world == rank])
            requests = [(shards[shard], rows) for shard, rows in self._by_shard(own_rows)]
            return _WindowReading(window, own_rows, start_reading(requests, readers, unit=CHUNK))

        current, following = None, start(first_step * order.batch)
        for step in itertools.count(first_step):
            position_B = np.arange(step * order.batch, (step + 1) * order.batch)[rank::world]
            parts = []
            while len(position_B):  # a batch may reach over the end of a window
                if current is None or position_B[0] >= current.window.end:
                    current = following  # frees the window before, so that the next one makes two and not three
                    following = start(current.window.end)
                inside_B = position_B[position_B < current.window.end]
                parts.append(current.take(inside_B))
                position_B = position_B[len(inside_B) :]
            yield torch.cat(parts)

    def _by_shard(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.integer]]]:
        """Yield the shards that contain these rows, each with the rows as the shard numbers them."""
        shard_N = self._shard_N[rows]
        for shard in np.unique(shard_N).tolist():
            yield shard, self._row_N[rows[shard_N == shard]]


@dataclass(frozen=True)
class _WindowReading:
    """A window of which this process's share has been read or is being read."""

    window: Window
    rows_N: NDArray[np.int64]  # the window's rows that fall to this process, ascending
    reading: ShardReading  # of their ECGs

    def take(self, position_B: NDArray[np.int64]) -> Tensor:
        """Return int16 (B, L, T): the ECGs at these positions of the sequence. Waits until they are read."""
        wanted_B = self.window.rows[position_B - self.window.start]
        signal_NLT = torch.from_numpy(self.reading.result())
        return signal_NLT.index_select(0, torch.from_numpy(np.searchsorted(self.rows_N, wanted_B)))


def to_millivolt(signal_NLT: Tensor, rows_B: NDArray[np.int64], device: torch.device) -> Tensor:
    """Return float32 (B, L, T) in millivolt on the device, without waiting for the copy."""
    x_BLT = signal_NLT.index_select(0, to_device(torch.from_numpy(rows_B), signal_NLT.device))
    return _millivolt(to_device(x_BLT, device))


def _millivolt(x_BLT: Tensor) -> Tensor:
    """Convert int16 microvolt to float32 millivolt, (B, L, T)."""
    return x_BLT.float().mul_(MILLIVOLT)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device. The host does not wait, since the copy to a GPU is made from pinned memory."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
