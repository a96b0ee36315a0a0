"""The corpus in memory, and which of its ECGs each step sees: a pure function of the seed, the step and its size.

The order is one endless sequence, epoch after epoch, each a permutation of its own; step s takes its records
s * batch .. (s + 1) * batch. So every record is seen once an epoch, batches are always full, and a run can go on from
any step without having gone through those before.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.corpus import load_signals

MILLIVOLT = 1e-3  # of the store's microvolt

_ORDER = 1  # separates this use of (seed, number) from others, such as the masks'


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Signals as int16 (N, 8, 2500) in microvolt; names: `source/record` of each training ECG; digest: of the index."""

    train_NLT: Tensor
    validation_NLT: Tensor
    names: Sequence[str]
    digest: str

    def __post_init__(self) -> None:
        if len(self.names) != len(self.train_NLT):
            raise ValueError(f"names has {len(self.names)} entries for {len(self.train_NLT)} ECGs: give one for each")


def load_corpus(workspace_root: Path, corpus_dir: Path, device: torch.device) -> Corpus:
    """Read a corpus product; its signals go to the GPU where they fit into half of its free memory.

    Raises ValueError where the directory holds no corpus, and for a corpus without ECGs in one of the splits.
    """
    description = corpus_dir / "corpus.json"
    if not description.is_file():
        raise ValueError(f"{corpus_dir} holds no corpus ({description.name}): build the corpus first")
    index = pq.read_table(
        corpus_dir / "index.parquet", columns=["source", "record_id"], filters=[("split", "==", "train")]
    )
    names = [f"{source}/{record}" for source, record in zip(*(c.to_pylist() for c in index.columns), strict=True)]
    train_NLT = torch.from_numpy(load_signals(workspace_root, corpus_dir, "train"))
    if device.type == "cuda" and train_NLT.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
        train_NLT = train_NLT.to(device)
    return Corpus(
        train_NLT=train_NLT,
        validation_NLT=torch.from_numpy(load_signals(workspace_root, corpus_dir, "validation")),
        names=names,
        digest=json.loads(description.read_text())["digest"],
    )


@functools.lru_cache(maxsize=2)  # a batch touches one epoch or two
def epoch_order(seed: int, epoch: int, records: int) -> NDArray[np.int64]:
    """int64 (records,): the permutation of an epoch. Shared, so read-only."""
    order_N = np.random.default_rng(np.random.SeedSequence([seed, _ORDER, epoch])).permutation(records)
    order_N.setflags(write=False)
    return order_N


def batch_rows(step: int, *, seed: int, batch: int, records: int) -> NDArray[np.int64]:
    """int64 (batch,): the rows that a step trains on."""
    position_B = np.arange(step * batch, (step + 1) * batch)
    epoch_B, place_B = np.divmod(position_B, records)
    return np.concatenate([epoch_order(seed, int(e), records)[place_B[epoch_B == e]] for e in np.unique(epoch_B)])


def to_millivolt(signal_NLT: Tensor, rows_B: NDArray[np.int64], device: torch.device) -> Tensor:
    """float32 (B, L, T) in millivolt on the device, without waiting for it."""
    x_BLT = signal_NLT.index_select(0, to_device(torch.from_numpy(rows_B), signal_NLT.device))
    return to_device(x_BLT, device).float().mul_(MILLIVOLT)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy from ordinary memory to a GPU makes the host wait; from pinned memory it does not."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
