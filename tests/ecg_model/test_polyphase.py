"""Resampling by a ratio of whole numbers, against scipy and against signals that are known at any time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from ecg_model.polyphase import resampled

RATE = 250
rates = st.sampled_from([50, 100, 125, 200, 240, 251, 256, 300, 333, 360, 500, 1000])


def by_scipy(x_T: np.ndarray, up: int, down: int) -> np.ndarray:
    """The same filter, of which each output's weights are made to sum to one, as those of ours do."""
    window = ("kaiser", 5.0)
    return resample_poly(x_T, up, down, window=window) / resample_poly(np.ones_like(x_T), up, down, window=window)


@settings(deadline=None, max_examples=30)
@given(target=rates, samples=st.integers(150, 700), seed=st.integers(0, 99))
def test_inside_it_is_scipys_polyphase_filter(target: int, samples: int, seed: int) -> None:
    x_BLT = np.random.default_rng(seed).standard_normal((2, 3, samples))
    up, down = target // math.gcd(target, RATE), RATE // math.gcd(target, RATE)
    ours_BLT = resampled(torch.from_numpy(x_BLT), RATE, target).numpy()
    assert ours_BLT.shape == (2, 3, samples * target // RATE)
    reach = math.ceil(10 * max(up, down) / down) + 1  # outputs that the end of a signal reaches
    for record in range(2):
        for lead in range(3):
            expected_T = by_scipy(x_BLT[record, lead], up, down)[: ours_BLT.shape[-1]]
            np.testing.assert_allclose(
                ours_BLT[record, lead, reach:-reach], expected_T[reach:-reach], atol=2e-6 if up != down else 0
            )


@settings(deadline=None, max_examples=30)
@given(target=rates, frequency=st.floats(0.5, 15.0), phase=st.floats(0, 6), seconds=st.integers(4, 10))
def test_a_sine_stays_the_sine_at_its_times(target: int, frequency: float, phase: float, seconds: int) -> None:
    def sine(rate: int) -> torch.Tensor:
        return torch.sin(2 * math.pi * frequency * torch.arange(seconds * rate, dtype=torch.float64) / rate + phase)

    ours_T = resampled(sine(RATE)[None, None], RATE, target)[0, 0]
    inside = slice(target, -target)
    assert (ours_T - sine(target))[inside].abs().max() < 5e-3


@given(target=rates, value=st.floats(-5, 5), samples=st.integers(1, 60))
@settings(deadline=None, max_examples=30)
def test_a_constant_stays_that_to_its_ends(target: int, value: float, samples: int) -> None:
    ours_BLT = resampled(torch.full((1, 2, samples), value), RATE, target)
    assert torch.allclose(ours_BLT, torch.full_like(ours_BLT, value), atol=1e-5)


@pytest.mark.parametrize("target", [100, 240, 500])
def test_records_and_leads_are_each_their_own_and_have_gradients(target: int) -> None:
    x_BLT = torch.randn(3, 2, 500, generator=torch.Generator().manual_seed(0), requires_grad=True)
    together_BLT = resampled(x_BLT, RATE, target)
    for record in range(3):
        for lead in range(2):
            alone_11T = resampled(x_BLT[record, lead][None, None], RATE, target)
            torch.testing.assert_close(together_BLT[record, lead], alone_11T[0, 0], atol=1e-6, rtol=0)
    together_BLT[1, 0].sum().backward()
    assert x_BLT.grad is not None
    assert x_BLT.grad[1, 0].abs().min() > 0
    assert x_BLT.grad[[0, 2]].abs().max() == x_BLT.grad[1, 1].abs().max() == 0


def test_nothing_is_done_at_the_same_rate() -> None:
    x_BLT = torch.randn(1, 1, 7)
    assert resampled(x_BLT, RATE, RATE) is x_BLT
