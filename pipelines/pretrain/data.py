"""The corpus' ECGs on their way into the network: held in memory, or read as they are needed.

Both ways give the same batches in the same order (`order`); which one it is, is a question of memory alone.

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
from pipelines.pretrain.free_memory import free_memory
from pipelines.pretrain.sampling_order import Order, Window

log = logging.getLogger(__name__)

BYTES = 2 * len(LEADS) * SAMPLES  # of an ECG
AHEAD = 2  # batches
MEMORY_SHARE = 0.5  # of what is free
PIECE = 16 * SHARD  # ECGs, 660 MB


class BatchFeed:
    """The batches of a run, one after another; a context manager.

    A thread prepares them AHEAD of the steps. waited_seconds: how long `next` took in all, time without a step.
    """

    def __init__(
        self, signals: Signals, order: Order, *, device: torch.device, first_step: int, rank: int, world: int
    ) -> None:
        self.waited_seconds = 0.0
        self._device = device
        self._readers = ThreadPoolExecutor(THREADS, thread_name_prefix="readers")
        self._batches = signals.batches(order, first_step=first_step, rank=rank, world=world, readers=self._readers)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._coming = deque(self._pool.submit(self._prepare) for _ in range(AHEAD))

    def next(self) -> Tensor:
        """float32 (B, L, T), millivolt, on the device: this process's share of the next step's batch."""
        began = time.perf_counter()
        x_BLT = self._coming.popleft().result()
        self._coming.append(self._pool.submit(self._prepare))
        if self._device.type != "cpu":  # half the bytes travel, and the GPU converts
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
        # What is not being read yet never is, so that a batch that waits for it ends too.
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._pool.shutdown(cancel_futures=True)
        self._readers.shutdown()


class Signals(Protocol):
    """The ECGs of a split, wherever they are."""

    def __len__(self) -> int: ...

    def batches(self, order: Order, *, first_step: int, rank: int, world: int, readers: Executor) -> Iterator[Tensor]:
        """int16 (B, L, T), microvolt, of each step from the first on, without end: every `world`-th record of its
        batch. readers: do what reading there is."""
        ...


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """train: the ECGs to train on; validation_NLT: int16 (N, 8, 2500), microvolt; names: `source/record` of each
    training ECG; chunk_N: the chunk of the store that each lies in; digest: of the index."""

    train: Signals
    validation_NLT: Tensor
    names: Sequence[str]
    chunk_N: NDArray[np.int64]
    digest: str

    def __post_init__(self) -> None:
        for name in ("names", "chunk_N"):
            if len(getattr(self, name)) != len(self.train):
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} entries for {len(self.train)} ECGs: give one for each"
                )

    def feed(self, order: Order, *, device: torch.device, first_step: int, rank: int = 0, world: int = 1) -> BatchFeed:
        """The batches from `first_step` on; of each, every `world`-th record from `rank` on."""
        return BatchFeed(self.train, order, device=device, first_step=first_step, rank=rank, world=world)


def load_corpus(
    workspace_root: Path,
    corpus_dir: Path,
    device: torch.device,
    *,
    memory_budget: int | None = None,
    processes: int = 1,
) -> Corpus:
    """Open a corpus product. Its training ECGs go to the GPU where they fit into half of its free memory, else into
    memory where they fit into half of what is free, else they are read as they are needed.

    memory_budget: bytes for them, wherever they are, in place of half of the free memory. processes: of this machine
    that load the corpus at the same time, and share its memory.
    Raises ValueError where the directory holds no corpus, and for a corpus without ECGs in one of the splits.
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
        train=_placed(stored, device, memory_budget, processes),
        validation_NLT=torch.from_numpy(load_signals(workspace_root, corpus_dir, "validation")),
        names=names,
        chunk_N=stored.chunk_N,
        digest=corpus.digest,
    )


def _placed(stored: Streamed, device: torch.device, memory_budget: int | None, processes: int) -> Signals:
    need = len(stored) * BYTES
    budget = (int(MEMORY_SHARE * free_memory()) if memory_budget is None else memory_budget) // processes
    if device.type == "cuda":
        there = int(MEMORY_SHARE * torch.cuda.mem_get_info(device)[0])
        if need <= (there if memory_budget is None else min(there, budget)):
            return Resident(copied(stored, device))
    if need <= budget:
        return Resident(torch.from_numpy(stored.read(np.arange(len(stored)))))
    log.info(
        "%.1f GB of ECGs are read as they are needed: the budget for them is %.1f GB",
        *(need / 1e9, budget / 1e9),
    )
    return stored


def copied(stored: Streamed, device: torch.device) -> Tensor:
    """int16 (N, L, T), microvolt: all ECGs, on the device; of ordinary memory that takes PIECE of them."""
    signal_NLT = torch.empty((len(stored), len(LEADS), SAMPLES), dtype=torch.int16, device=device)
    for first in range(0, len(stored), PIECE):
        rows = np.arange(first, min(first + PIECE, len(stored)))
        signal_NLT[first : first + PIECE] = torch.from_numpy(stored.read(rows))
    return signal_NLT


class Resident:
    """All ECGs in one int16 tensor (N, L, T), microvolt, in memory or on the GPU."""

    def __init__(self, signal_NLT: Tensor) -> None:
        self.signal_NLT = signal_NLT

    def __len__(self) -> int:
        return len(self.signal_NLT)

    def batches(self, order: Order, *, first_step: int, rank: int, world: int, readers: Executor) -> Iterator[Tensor]:
        for step in itertools.count(first_step):
            rows = to_device(torch.from_numpy(order.rows(step)[rank::world]), self.signal_NLT.device)
            yield self.signal_NLT.index_select(0, rows)


class Streamed:
    """ECGs that stay in the store: row_N of the shard folders[shard_N]."""

    def __init__(self, *, folders: Sequence[Path], shard_N: NDArray[np.integer], row_N: NDArray[np.integer]) -> None:
        self._folders, self._shard_N, self._row_N = folders, shard_N, row_N
        _, self.chunk_N = np.unique(np.stack([shard_N, row_N // CHUNK]), axis=1, return_inverse=True)

    def __len__(self) -> int:
        return len(self._row_N)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.int16]:
        """int16 (N, L, T), microvolt: the ECGs of these rows, ascending; made for rows that lie together."""
        return read_rows([(self._folders[shard], some) for shard, some in self._by_shard(rows)])

    def batches(self, order: Order, *, first_step: int, rank: int, world: int, readers: Executor) -> Iterator[Tensor]:
        """Two windows of the order at most are in memory: the one in use, and the next, which is read meanwhile."""
        shards = [open_shard(folder) for folder in self._folders]

        def start(position: int) -> _Held:
            window = order.window(position)
            places = np.arange(window.start, window.end) % order.batch
            mine = np.sort(window.rows[places % world == rank])
            requests = [(shards[shard], rows) for shard, rows in self._by_shard(mine)]
            return _Held(window, mine, start_reading(requests, readers, unit=CHUNK))

        held, coming = None, start(first_step * order.batch)
        for step in itertools.count(first_step):
            position_B = np.arange(step * order.batch, (step + 1) * order.batch)[rank::world]
            parts = []
            while len(position_B):
                if held is None or position_B[0] >= held.window.end:
                    held = coming  # the one before is let go first: two are never three
                    coming = start(held.window.end)
                here = position_B[position_B < held.window.end]
                parts.append(held.take(here))
                position_B = position_B[len(here) :]
            yield torch.cat(parts)

    def _by_shard(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.integer]]]:
        """The shards that these rows lie in, and which of the shard's own they are."""
        shard_N = self._shard_N[rows]
        for shard in np.unique(shard_N).tolist():
            yield shard, self._row_N[rows[shard_N == shard]]


@dataclass(frozen=True)
class _Held:
    """A window: the rows of it that fall to this process, ascending, and their ECGs, in memory or on their way."""

    window: Window
    rows_N: NDArray[np.int64]
    reading: ShardReading

    def take(self, position_B: NDArray[np.int64]) -> Tensor:
        """int16 (B, L, T): the ECGs at these places of the sequence."""
        wanted_B = self.window.rows[position_B - self.window.start]
        signal_NLT = torch.from_numpy(self.reading.result())
        return signal_NLT.index_select(0, torch.from_numpy(np.searchsorted(self.rows_N, wanted_B)))


def to_millivolt(signal_NLT: Tensor, rows_B: NDArray[np.int64], device: torch.device) -> Tensor:
    """float32 (B, L, T) in millivolt on the device, without waiting for it."""
    x_BLT = signal_NLT.index_select(0, to_device(torch.from_numpy(rows_B), signal_NLT.device))
    return _millivolt(to_device(x_BLT, device))


def _millivolt(x_BLT: Tensor) -> Tensor:
    return x_BLT.float().mul_(MILLIVOLT)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy from ordinary memory to a GPU makes the host wait; from pinned memory it does not."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
