"""The windows that are trained on: any part of an ECG, the same whoever asks and however the batch is shared out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.pretrain.crops import Crops
from pipelines.pretrain.sampling_order import Order

RECORDS = 60


def crops(samples: int, *, batch: int = 4, seed: int = 0, records: int = RECORDS) -> Crops:
    return Crops(Order(seed=seed, batch=batch, chunk_N=np.zeros(records, np.int64)), samples)


def by_record(made: Crops, epochs: int, length: int) -> dict[tuple[int, int], int]:
    """The start of each record's window in each epoch."""
    steps = epochs * made.order.records // made.order.batch
    found: dict[tuple[int, int], int] = {}
    for step in range(steps):
        epoch_B, row_B = made.order.drawn(step)
        starts_B = made.starts(step, length).tolist()
        found |= dict(zip(zip(epoch_B.tolist(), row_B.tolist(), strict=True), starts_B, strict=True))
    return found


def test_each_start_is_as_likely_as_the_others_the_last_one_too() -> None:
    starts = list(by_record(crops(21, records=1200), 5, 30).values())
    assert len(starts) == 6000
    counted = np.bincount(starts, minlength=10)
    assert len(counted) == 10
    assert ((counted - 600) ** 2 / 600).sum() < 27.9  # chi-square of 9 degrees at 0.001


@given(seed=st.integers(0, 2**32 - 1), batch=st.sampled_from([1, 3, 5, 12, 20]))
@settings(deadline=None, max_examples=15)
def test_a_start_is_of_seed_epoch_and_record_alone(seed: int, batch: int) -> None:
    starts = by_record(crops(25, batch=batch, seed=seed), 3, 100)
    assert starts == by_record(crops(25, batch=4, seed=seed), 3, 100)
    assert len(starts) == 3 * RECORDS
    epochs = [[starts[epoch, record] for record in range(RECORDS)] for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    other = by_record(crops(25, batch=batch, seed=(seed + 1) % 2**32), 1, 100)
    assert [other[0, record] for record in range(RECORDS)] != epochs[0]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_share_the_windows_of_a_batch(world: int) -> None:
    made, steps = crops(40, batch=8), (0, 7, 8)  # step 7 is of two epochs
    signal_NLT = torch.arange(RECORDS * 2 * 100).reshape(RECORDS, 2, 100)
    for step in steps:
        row_B, starts_B = made.order.rows(step), made.starts(step, 100)
        expected_BLT = torch.stack(
            [signal_NLT[row, :, start : start + 40] for row, start in zip(row_B, starts_B, strict=True)]
        )
        for rank in range(world):
            share_BLT = made.of_step(signal_NLT[row_B[rank::world]], step, rank=rank, world=world)
            assert torch.equal(share_BLT, expected_BLT[rank::world])


def test_an_ecg_of_the_windows_length_is_taken_whole() -> None:
    x_BLT = torch.randn(4, 8, 30)
    assert torch.equal(crops(30).of_step(x_BLT, 0, rank=0, world=1), x_BLT)
