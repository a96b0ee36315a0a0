"""Each operation does what its name says, within its bounds, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evaluate.probes import augment
from pipelines.evaluate.probes.augment import OPERATIONS, AugmentConfig, augmented

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
def test_cutout_is_one_piece_in_all_leads(seed):
    masked_LT = augment.cutout(ecg(), 1.0, np.random.default_rng(seed))
    zero_T = (masked_LT == 0).all(axis=0)
    assert np.array_equal(masked_LT[:, ~zero_T], ecg()[:, ~zero_T])
    assert len(run_lengths(zero_T)) <= 1
    assert zero_T.sum() <= 0.3 * SAMPLES


def test_drop_takes_samples_here_and_there_in_all_leads():
    dropped = [augment.drop(ecg(), 1.0, np.random.default_rng(seed)) for seed in range(50)]
    share = []
    for dropped_LT in dropped:
        zero_T = (dropped_LT == 0).all(axis=0)
        assert np.array_equal(dropped_LT[:, ~zero_T], ecg()[:, ~zero_T])
        assert zero_T.sum() < 30 or len(run_lengths(zero_T)) > 10
        share.append(zero_T.mean())
    assert max(share) <= 0.3
    assert np.mean(share) == pytest.approx(0.15, abs=0.04)


@few
@given(seed=seeds)
def test_erase_takes_one_lead(seed):
    masked_LT = augment.erase(ecg(), 1.0, np.random.default_rng(seed))
    zero_L = (masked_LT == 0).all(axis=1)
    assert zero_L.sum() == 1
    assert np.array_equal(masked_LT[~zero_L], ecg()[~zero_L])


def two_waves(strength: float = 1.0) -> np.ndarray:
    """ST-MEM's sine of a level, written anew: amplitude * sin(2 pi t / period), t from 0 to 1 over the recording."""
    period = 0.5 / strength
    return 0.3 * strength * np.sin(2 * np.pi * np.arange(SAMPLES) / SAMPLES / period)


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_sine_is_the_same_whatever_is_drawn(strength):
    for seed in range(3):
        added_LT = augment.sine(ecg(), strength, np.random.default_rng(seed)) - ecg()
        assert added_LT == pytest.approx(np.tile(two_waves(strength), (8, 1)), abs=2e-6)


def test_partial_sine_is_the_beginning_of_the_sine_somewhere():
    starts = set()
    for seed in range(30):
        added_LT = augment.partial_sine(ecg(), 1.0, np.random.default_rng(seed)) - ecg()
        where = np.flatnonzero((np.abs(added_LT) > 1e-6).any(axis=0))
        if len(where) < 2:
            continue
        first, count = where[0] - 1, where[-1] - where[0] + 2  # the sine begins with zero
        assert count <= 0.3 * SAMPLES
        assert added_LT[:, first : first + count] == pytest.approx(np.tile(two_waves()[:count], (8, 1)), abs=2e-6)
        starts.add(int(first))
    assert len(starts) > 10


def test_partial_white_noise_is_one_piece_of_one_size():
    sizes, lengths = [], []
    for seed in range(50):
        added_LT = augment.partial_white_noise(ecg(), 1.0, np.random.default_rng(seed)) - ecg()
        where = np.flatnonzero((added_LT != 0).any(axis=0))
        if len(where) > 100:
            sizes.append(added_LT[:, where[0] : where[-1] + 1].std())
        lengths.append(0 if len(where) == 0 else where[-1] - where[0] + 1)
    assert max(lengths) <= 0.3 * SAMPLES
    assert np.mean(lengths) == pytest.approx(0.15 * SAMPLES, abs=0.04 * SAMPLES)
    assert sizes == pytest.approx([0.3] * len(sizes), rel=0.1)
    assert len(sizes) > 20


def test_sizes_are_of_the_ecg_as_it_came():
    x_LT = (np.random.default_rng(1).normal(size=(8, SAMPLES)) * 0.2).astype(np.float32)
    config = AugmentConfig(probability=1.0)
    for seed in range(20):
        once_LT = augmented(x_LT, config, np.random.default_rng(seed))
        larger_LT = augmented(x_LT * 4, config, np.random.default_rng(seed))
        assert larger_LT == pytest.approx(once_LT * 4, abs=1e-5)
    both = AugmentConfig(operations=("cutout", "sine"), probability=1.0)
    for seed in range(10):
        changed_LT = augmented(x_LT, both, np.random.default_rng(seed))
        kept_T = np.abs(changed_LT - x_LT).max(axis=0) < 0.061  # not cut out; 0.3 of 0.2 mV is added there
        assert kept_T.mean() > 0.65
        assert np.abs(changed_LT - x_LT)[:, kept_T].max() == pytest.approx(0.3 * x_LT.std(), rel=0.01)


def test_a_flat_ecg_stays_as_it_is():
    flat_LT = np.zeros((8, SAMPLES), np.float32)
    for seed in range(10):
        assert augmented(flat_LT, AugmentConfig(probability=1.0), np.random.default_rng(seed)) is flat_LT


def test_no_operation_makes_another_diagnosis():
    """Neither turned upside down nor taller or smaller: where nothing is hidden or added, the ECG is as it was."""
    assert set(OPERATIONS) == {"shift", "cutout", "drop", "erase", "sine", "partial_sine", "partial_white_noise"}
    for name in ("cutout", "drop", "erase", "partial_sine", "partial_white_noise"):
        same_LT = OPERATIONS[name](ecg(), 1.0, np.random.default_rng(3)) == ecg()
        assert same_LT.mean() > 0.6


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
    config = AugmentConfig(operations=("erase", "sine"), probability=1.0)
    for seed in range(20):
        changed_LT = augmented(ecg(), config, np.random.default_rng(seed))
        sine_T = two_waves() * ecg().std()
        left_L = [
            bool(np.allclose(x_T, ecg_T + sine_T, atol=1e-4)) for x_T, ecg_T in zip(changed_LT, ecg(), strict=True)
        ]
        assert sum(left_L) == 7


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"operations": ("flip",)}, "operations"),
        ({"operations": ("shift", "shift")}, "each once"),
        ({"count": 8}, "use 0 to 7"),
        ({"probability": 1.5}, "probability"),
        ({"strength": -0.1}, "strength"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**wrong)
