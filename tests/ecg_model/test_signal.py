"""The one preprocessing: lead names, resampling against analytic signals and scipy, the window."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecg_model.leads import LEADS, LEADS_12
from ecg_model.signal import (
    RATE,
    SAMPLES,
    TooShort,
    derived_leads,
    prepare,
    resample,
    window_reach,
    window_samples,
)

EDGE = RATE // 2


def sines(rate: float, samples: int, *, leads: int = 40, highest: float = 40.0, seed: int = 0) -> np.ndarray:
    """(leads, samples): sums of sines of 0.5 to `highest` Hz with a peak of at most 1 mV, sampled at `rate`."""
    rng = np.random.default_rng(seed)
    frequency = rng.uniform(0.5, highest, (leads, 24, 1))
    phase = rng.uniform(0, 2 * np.pi, (leads, 24, 1))
    weight = rng.uniform(0.5, 1.0, (leads, 24, 1))
    weight /= weight.sum(axis=1, keepdims=True)
    time = np.arange(samples) / rate
    return (weight * np.sin(2 * np.pi * frequency * time + phase)).sum(axis=1) * 4


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def test_the_limb_leads_close_einthovens_triangle() -> None:
    lead_i, lead_ii = np.random.default_rng(0).normal(size=(2, 100))
    lead_iii, right, left, foot = derived_leads(np.stack([lead_i, lead_ii]))
    np.testing.assert_allclose(lead_i + lead_iii, lead_ii)
    np.testing.assert_allclose(right + left + foot, 0, atol=1e-12)
    np.testing.assert_allclose(left, (lead_i - lead_iii) / 2)
    np.testing.assert_allclose(foot, (lead_ii + lead_iii) / 2)


@pytest.mark.parametrize("rate", [100, 128, 200, 257, 257.13, 360, 400, 500, 999.9, 1000, 2000])
def test_a_known_signal_is_resampled_within_a_microvolt(rate: float) -> None:
    y_LT = resample(sines(rate, int(np.ceil(10 * rate))), rate)[:, :SAMPLES]
    error = (y_LT - sines(RATE, SAMPLES)) * 1000
    assert y_LT.dtype == np.float32
    assert rms(error[:, EDGE:-EDGE]) < 1
    assert rms(np.concatenate([error[:, :EDGE], error[:, -EDGE:]], axis=1)) < 5


def test_the_end_of_a_longer_recording_is_no_edge() -> None:
    names = list(LEADS)
    x_LT = sines(100, 1100, leads=8)
    error = (prepare(x_LT, leads=names, rate=100) - sines(RATE, SAMPLES, leads=8)) * 1000
    assert rms(error[:, -EDGE:]) < 0.2
    cut = (prepare(x_LT[:, :1000], leads=names, rate=100) - sines(RATE, SAMPLES, leads=8)) * 1000
    assert rms(error[:, -EDGE:]) < rms(cut[:, -EDGE:])


@pytest.mark.parametrize("rate", [400, 500, 1000])
def test_what_250_hz_cannot_hold_is_removed_and_not_folded(rate: int) -> None:
    time = np.arange(10 * rate) / rate
    for frequency in np.arange(140, rate / 2, 13):
        folded = resample(np.sin(2 * np.pi * frequency * time), rate)[EDGE:-EDGE]
        assert rms(folded) < 1e-3


@pytest.mark.parametrize(("rate", "up", "down"), [(100, 5, 2), (200, 5, 4), (400, 5, 8), (500, 1, 2), (1000, 1, 4)])
def test_scipys_polyphase_resampler_agrees(rate: int, up: int, down: int) -> None:
    x_LT = sines(rate, 10 * rate, seed=3)
    oracle = scipy.signal.resample_poly(x_LT, up, down, axis=-1, window=("kaiser", 8.0))
    assert rms((resample(x_LT, rate) - oracle)[:, EDGE:-EDGE]) < 2e-3


def test_samples_at_the_target_rate_pass_unchanged() -> None:
    x_LT = np.random.default_rng(0).normal(size=(8, 777)).astype(np.float32)
    np.testing.assert_array_equal(resample(x_LT, 250), x_LT)


@given(
    rate=st.one_of(st.integers(50, 2000), st.floats(50, 2000)),
    samples=st.integers(1, 700),
    level=st.floats(-20, 20),
)
@settings(deadline=None, max_examples=60)
def test_a_constant_stays_and_the_length_follows_the_rate(rate: float, samples: int, level: float) -> None:
    y = resample(np.full((2, samples), level), rate)
    assert abs(y.shape[-1] - samples * RATE / rate) < 1 + 1e-6
    np.testing.assert_allclose(y, level, rtol=1e-6, atol=1e-6)


@given(rate=st.sampled_from([100, 257, 400, 499.87, 500]), scale=st.floats(-30, 30), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_resampling_is_linear_and_bounded(rate: float, scale: float, seed: int) -> None:
    x_LT = np.random.default_rng(seed).normal(size=(3, 600))
    y_LT = resample(x_LT, rate)
    np.testing.assert_allclose(resample(scale * x_LT + 1, rate), scale * y_LT + 1, atol=2e-4)
    assert np.abs(y_LT).max() < 4 * np.abs(x_LT).max()


@pytest.mark.parametrize("rate", [100, 250, 257.3, 500])
def test_a_record_gives_the_same_bits_alone_and_in_a_batch(rate: float) -> None:
    x_NLT = np.random.default_rng(1).normal(size=(9, 12, int(11 * rate))).astype(np.float32)
    together = prepare(x_NLT, leads=LEADS_12, rate=rate)
    assert together.shape == (9, 8, SAMPLES)
    for x_LT, y_LT in zip(x_NLT, together, strict=True):
        np.testing.assert_array_equal(prepare(x_LT, leads=LEADS_12, rate=rate), y_LT)


@given(rate=st.one_of(st.integers(50, 2000), st.floats(50, 2000)), extra=st.integers(0, 300), fill=st.floats(-9, 9))
@settings(deadline=None, max_examples=20)
def test_nothing_behind_the_window_and_its_margin_matters(rate: float, extra: int, fill: float) -> None:
    x_LT = np.random.default_rng(2).normal(size=(8, window_reach(rate) + extra))
    y_LT = prepare(x_LT, leads=LEADS, rate=rate)
    assert y_LT.shape == (8, SAMPLES)
    x_LT[:, window_reach(rate) :] = fill
    np.testing.assert_array_equal(prepare(x_LT, leads=LEADS, rate=rate), y_LT)


@given(rate=st.one_of(st.integers(50, 2000), st.floats(50, 130), st.floats(50, 2000)))
@example(rate=50.04)
@settings(deadline=None, max_examples=25)
def test_ten_seconds_are_enough_and_less_is_refused(rate: float) -> None:
    x_LT = np.random.default_rng(3).normal(size=(8, window_samples(rate)))
    assert prepare(x_LT, leads=LEADS, rate=rate).shape == (8, SAMPLES)
    with pytest.raises(TooShort, match="give at least 10 s"):
        prepare(x_LT[:, :-1], leads=LEADS, rate=rate)


@pytest.mark.parametrize("rate", [0, -500, 49.9, 2000.1, float("nan"), float("inf")])
def test_a_rate_outside_the_range_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate .* Hz is not supported: use 50 to 2000"):
        resample(np.zeros(10), rate)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("rate", [250, 500])
def test_a_sample_that_is_not_finite_is_never_smeared(bad: float, rate: float) -> None:
    x_LT = np.zeros((8, 5000))
    x_LT[3, 100] = bad
    with pytest.raises(ValueError, match="not finite: fill or drop"):
        prepare(x_LT, leads=LEADS, rate=rate)


def test_an_empty_signal_is_refused() -> None:
    with pytest.raises(ValueError, match="has no samples"):
        resample(np.zeros((8, 0)), 500)


@pytest.mark.parametrize("rate", [100.0, 250.0, 500.0])
def test_a_missing_sample_behind_the_window_does_not_spoil_it(rate: float) -> None:
    samples = int(rate * 10) + 40
    x_LT = sines(rate, samples, leads=8)
    x_LT[3, int(rate * 10) + 2] = np.nan
    prepared = prepare(x_LT, leads=LEADS, rate=rate)
    assert np.array_equal(prepared, prepare(x_LT[:, : int(rate * 10)], leads=LEADS, rate=rate))


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 1e308, -500.0])
def test_prepare_refuses_what_is_no_rate(rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate .* Hz is not supported"):
        prepare(np.zeros((8, 10)), leads=LEADS, rate=rate)
