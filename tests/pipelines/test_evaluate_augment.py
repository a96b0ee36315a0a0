"""Each operation does what its name says, within its bounds, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evaluate import augment
from pipelines.evaluate.augment import OPERATIONS, AugmentConfig, augmented

SAMPLES = 1000
seeds = st.integers(0, 2**32)
few = settings(max_examples=25, deadline=None)


def ecg(leads: int = 8) -> np.ndarray:
    """No sample of it is zero."""
    return (np.random.default_rng(0).normal(size=(leads, SAMPLES)) + 10).astype(np.float32)


def run_lengths(changed_T: np.ndarray) -> list[int]:
    """How long the runs of True are."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], changed_T, [False]]).astype(int)))
    return (edges[1::2] - edges[::2]).tolist()


@few
@given(seed=seeds, strength=st.floats(0, 1), name=st.sampled_from(sorted(OPERATIONS)))
def test_an_operation_gives_a_new_finite_ecg_decided_by_its_generator(seed, strength, name):
    x_LT = ecg()
    before = x_LT.copy()
    once, again = (OPERATIONS[name](x_LT, strength, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(x_LT, before)
    assert once is not x_LT
    assert once.dtype == np.float32
    assert once.shape == x_LT.shape
    assert np.isfinite(once).all()
    assert np.array_equal(once, again)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_without_strength_nothing_changes(name):
    for seed in range(5):
        assert np.array_equal(OPERATIONS[name](ecg(), 0.0, np.random.default_rng(seed)), ecg())


@few
@given(seed=seeds)
def test_shift_moves_all_leads_alike_and_fills_with_zeros(seed):
    x_LT = ecg()
    moved_LT = augment.shift(x_LT, 1.0, np.random.default_rng(seed))
    entered_T = (moved_LT == 0).any(axis=0)
    by = int(entered_T.sum())
    assert by <= 0.3 * SAMPLES
    assert by == 0 or run_lengths(entered_T) == [by]
    later = by == 0 or entered_T[0]
    kept_LT, was_LT = (moved_LT[:, by:], x_LT[:, : SAMPLES - by]) if later else (moved_LT[:, :-by], x_LT[:, by:])
    assert np.array_equal(kept_LT, was_LT)


@few
@given(seed=seeds)
def test_time_mask_is_one_piece_in_all_leads(seed):
    masked_LT = augment.time_mask(ecg(), 1.0, np.random.default_rng(seed))
    zero_T = (masked_LT == 0).all(axis=0)
    assert np.array_equal(masked_LT[:, ~zero_T], ecg()[:, ~zero_T])
    assert len(run_lengths(zero_T)) <= 1
    assert zero_T.sum() <= 0.3 * SAMPLES


@few
@given(seed=seeds)
def test_lead_mask_takes_one_lead(seed):
    masked_LT = augment.lead_mask(ecg(), 1.0, np.random.default_rng(seed))
    zero_L = (masked_LT == 0).all(axis=1)
    assert zero_L.sum() == 1
    assert np.array_equal(masked_LT[~zero_L], ecg()[~zero_L])


@few
@given(seed=seeds)
def test_amplitude_is_one_factor_for_the_whole_ecg(seed):
    ratio_LT = augment.amplitude(ecg(), 1.0, np.random.default_rng(seed)) / ecg()
    assert np.ptp(ratio_LT) < 1e-6
    assert 0.7 - 1e-6 <= ratio_LT[0, 0] <= 1 / 0.7 + 1e-6


@few
@given(seed=seeds)
def test_baseline_wander_is_slow_and_the_same_breath_in_all_leads(seed):
    x_LT = np.random.default_rng(1).normal(size=(8, 2500)).astype(np.float32)
    added_LT = (augment.baseline_wander(x_LT, 1.0, np.random.default_rng(seed)) - x_LT).astype(np.float64)
    assert np.abs(added_LT).max() <= 0.3 * x_LT.std() + 1e-6
    singular = np.linalg.svd(added_LT, compute_uv=False)
    assert singular[1] < 1e-4 * singular[0]  # one wave
    # At most half a wave a second: over ten seconds its slope changes sign at most ten times.
    strongest_T = added_LT[np.abs(added_LT).max(axis=1).argmax()]
    slope = np.diff(strongest_T[::50])
    assert (np.sign(slope[1:]) != np.sign(slope[:-1])).sum() <= 10


@few
@given(seed=seeds)
def test_noise_is_one_piece_of_bounded_size(seed):
    x_LT = ecg()
    added_LT = augment.noise(x_LT, 1.0, np.random.default_rng(seed)) - x_LT
    changed_T = (added_LT != 0).any(axis=0)
    where = np.flatnonzero(changed_T)
    assert len(where) == 0 or where[-1] - where[0] < 0.3 * SAMPLES
    assert added_LT.std() <= 0.3 * x_LT.std()


def test_operations_are_drawn_by_count_and_probability():
    x_LT = ecg()

    def share_unchanged(config: AugmentConfig) -> float:
        same = [augmented(x_LT, config, np.random.default_rng(seed)) is x_LT for seed in range(400)]
        return float(np.mean(same))

    assert share_unchanged(AugmentConfig()) == pytest.approx(0.25, abs=0.07)  # (1 - 0.5)^2
    assert share_unchanged(AugmentConfig(count=1, probability=0.8)) == pytest.approx(0.2, abs=0.07)
    assert share_unchanged(AugmentConfig(count=0)) == 1.0
    assert share_unchanged(AugmentConfig(probability=0.0)) == 1.0
    assert share_unchanged(AugmentConfig(probability=1.0)) == 0.0


def test_only_the_named_operations_are_drawn():
    config = AugmentConfig(operations=("lead_mask", "amplitude"), probability=1.0)
    for seed in range(20):
        changed_LT = augmented(ecg(), config, np.random.default_rng(seed))
        zero_L = (changed_LT == 0).all(axis=1)
        assert zero_L.sum() == 1
        assert np.ptp(changed_LT[~zero_L] / ecg()[~zero_L]) < 1e-6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"operations": ("flip",)}, "operations"),
        ({"operations": ("shift", "shift")}, "each once"),
        ({"count": 7}, "use 0 to 6"),
        ({"probability": 1.5}, "probability"),
        ({"strength": -0.1}, "strength"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**wrong)
