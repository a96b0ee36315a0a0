"""The training ECGs of each step: a pure function of the seed, the step and the layout of the ECGs in the store.

The order is one endless sequence, epoch after epoch; step s takes its records s * batch .. (s + 1) * batch. So every
record is drawn once an epoch, batches are always full, and a run can resume from any step.

An epoch puts the store's chunks (64 ECGs that are read together) in random order, takes them by windows of WINDOW
chunks, and puts all ECGs of a window in random order. So a run that reads from the disk reads each chunk once an epoch
and holds two windows, and a run with the whole corpus in memory trains on the same batches. For a corpus of one window
an epoch is a plain permutation.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW = 128  # chunks; about 8,192 ECGs, 330 MB

_ORDER = 1  # separates these random numbers from others of the same seed, such as those of the masks


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of the sequence."""

    start: int  # position of the first row in the sequence
    rows: NDArray[np.int64]  # (records,): the training ECGs from there on

    @property
    def end(self) -> int:
        """The position after the last row."""
        return self.start + len(self.rows)


class Order:
    """The order of training ECGs for a seed, a batch size and a layout."""

    def __init__(self, *, seed: int, batch: int, chunk_N: NDArray[np.integer]) -> None:
        """Prepare the order. Raises ValueError if there is no record.

        chunk_N: integer (records,), the chunk of the store that each record lies in, numbered from 0.
        """
        if len(chunk_N) == 0:
            raise ValueError("chunk_N is empty: an order needs at least one record")
        self.batch, self.records = batch, len(chunk_N)
        self.seed, self._chunk_N = seed, chunk_N
        self._epoch = functools.lru_cache(maxsize=2)(self._draw)  # a batch touches one epoch or two

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return int64 (batch,): the records that a step trains on."""
        return self.drawn(step)[1]

    def drawn(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return int64 (batch,), (batch,): the epoch in which each record of a step is drawn, and the record."""
        position_B = np.arange(step * self.batch, (step + 1) * self.batch)
        epoch_B, place_B = np.divmod(position_B, self.records)
        rows = [self._epoch(int(epoch))[0][place_B[epoch_B == epoch]] for epoch in np.unique(epoch_B)]
        return epoch_B, np.concatenate(rows)

    def window(self, position: int) -> Window:
        """Return the window that contains a position of the sequence."""
        epoch, place = divmod(position, self.records)
        order_N, starts_W = self._epoch(epoch)
        number = int(np.searchsorted(starts_W, place, side="right")) - 1
        start, end = starts_W[number], starts_W[number + 1]
        return Window(start=epoch * self.records + int(start), rows=order_N[start:end])

    def _draw(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return an epoch's order (N,), and the places where its windows start (W + 1,), the last one being its end."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, _ORDER, epoch]))
        place_C = rng.permutation(int(self._chunk_N.max()) + 1)
        any_N = rng.permutation(self.records)
        # Sorting by window keeps the random order within each window, since the sort is stable.
        window_N = place_C[self._chunk_N[any_N]] // WINDOW
        order_N = any_N[np.argsort(window_N, kind="stable")]
        sizes_W = np.bincount(window_N)
        return order_N, np.r_[0, np.cumsum(sizes_W[sizes_W > 0])]
