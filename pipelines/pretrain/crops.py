"""Random windows of the ECGs of a batch: a pure function of the seed, the epoch and the record.

Shapes: B records, L leads, T samples.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.pretrain.sampling_order import Order

_CROPS = 4  # separates these random numbers from others of the same seed


@dataclass(frozen=True)
class Crops:
    """The windows of a training, each of so many samples."""

    order: Order
    samples: int

    def of_step(self, x_BLT: Tensor, step: int, *, rank: int, world: int) -> Tensor:
        """Return the windows (B, L, samples) of a process's share of a step's batch."""
        starts_B = torch.from_numpy(self.starts(step, x_BLT.shape[-1])[rank::world]).to(x_BLT.device)
        index_BT = starts_B[:, None] + torch.arange(self.samples, device=x_BLT.device)
        return x_BLT.gather(-1, index_BT[:, None].expand(-1, x_BLT.shape[1], -1))

    def starts(self, step: int, length: int) -> NDArray[np.int64]:
        """Return int64 (batch,): where the window of each record of a step begins in its ECG of so many samples."""
        epoch_B, row_B = self.order.drawn(step)
        starts_B = np.empty(len(row_B), np.int64)
        for epoch in np.unique(epoch_B):
            chosen = epoch_B == epoch
            of_epoch_N = _starts(self.order.seed, int(epoch), self.order.records, length - self.samples)
            starts_B[chosen] = of_epoch_N[row_B[chosen]]
        return starts_B


@functools.lru_cache(maxsize=2)  # a batch touches one epoch or two
def _starts(seed: int, epoch: int, records: int, last: int) -> NDArray[np.int64]:
    """Return int64 (records,): the start of each record's window in an epoch, 0 .. last."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, _CROPS, epoch]))
    return rng.integers(0, last, records, endpoint=True)
