"""Learning rate, weight decay and momentum by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.pretrain import schedule


def test_the_learning_rate_warms_up_and_follows_torchs_cosine() -> None:
    """Oracle: torch's own schedulers, chained."""
    total, warmup, peak, edge = 50, 10, 3e-4, 1e-6
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    oracle = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, edge / peak, 1.0, total_iters=warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, eta_min=edge),
        ],
        milestones=[warmup],
    )
    for step in range(total):
        ours = schedule.learning_rate(step, total=total, warmup=warmup, peak=peak, edge=edge)
        assert ours == pytest.approx(oracle.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        oracle.step()


@given(total=st.integers(1, 500), share=st.floats(0, 0.99))
@settings(deadline=None, max_examples=50)
def test_schedules_stay_within_their_ends(total: int, share: float) -> None:
    warmup = round(share * total)
    rates = [schedule.learning_rate(step, total=total, warmup=warmup, peak=1e-3, edge=1e-6) for step in range(total)]
    assert all(1e-6 <= rate <= 1e-3 * (1 + 1e-12) for rate in rates)
    assert np.argmax(rates) == min(warmup, total - 1)
    momenta = [schedule.momentum(step, total=total, start=0.9, end=1.0) for step in range(total + 1)]
    assert (momenta[0], momenta[-1]) == (0.9, pytest.approx(1.0))
    assert momenta == sorted(momenta)
