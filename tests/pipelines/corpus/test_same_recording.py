"""Signals of copies are told from those of other rhythms, however regular and alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecg_model.leads import LEADS_12
from ecg_model.signal import prepare
from pipelines.corpus.same_recording import agreement, same_recording, shapes
from tests.support.copies import DISTORTIONS, microvolt, mirrored, packed, ptbxl_and_chapman, regular, synthetic


def pairwise(x_NLT: NDArray[np.int16], y_NLT: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Whether each of x is the same recording as its neighbour in y."""
    pairs = zip(shapes(x_NLT), shapes(y_NLT), strict=True)
    return np.array([same_recording(x_LT, y_LT[None])[0] for x_LT, y_LT in pairs])


def harmonized(x_NLT: NDArray[np.floating], rate: float) -> NDArray[np.int16]:
    return microvolt(prepare(x_NLT.astype(np.float32), leads=LEADS_12, rate=rate))


@given(
    seed=st.integers(0, 999),
    gains=st.lists(st.floats(0.3, 3), min_size=8, max_size=8),
    offset=st.floats(-2, 2),
    wander=st.floats(0, 0.3),
    step=st.sampled_from([1, 2.5, 4.88, 5]),
)
@settings(deadline=None, max_examples=25)
def test_gain_offset_wander_and_rounding_leave_a_copy_a_copy(
    seed: int, gains: list[float], offset: float, wander: float, step: float
) -> None:
    x_NLT = synthetic(1, seed)
    wander_T = wander * np.sin(2 * np.pi * 0.3 * np.arange(2500) / 250)
    changed_NLT = (x_NLT + wander_T) * np.array(gains)[:, None] + offset
    copy_NLT = np.rint(changed_NLT * 1000 / step) * step / 1000
    assert pairwise(microvolt(x_NLT), microvolt(copy_NLT)).all()


@given(
    seed=st.integers(0, 999),
    period=st.floats(0.5, 1.3),
    slower=st.floats(0.0004, 0.01),
    gains=st.lists(st.floats(0.3, 3), min_size=8, max_size=8),
)
@settings(deadline=None, max_examples=25)
def test_regular_rhythms_in_step_at_the_first_beat_are_no_copies(
    seed: int, period: float, slower: float, gains: list[float]
) -> None:
    x_LT = microvolt(regular(period, seed=seed))
    y_LT = microvolt(regular(period + slower, seed=seed + 1) * np.array(gains)[:, None])
    assert not pairwise(x_LT[None], y_LT[None]).any()
    assert not pairwise(y_LT[None], x_LT[None]).any()


def test_the_drift_is_that_of_the_rhythms() -> None:
    x_NLT = np.stack([microvolt(regular(0.8 + slower)) for slower in (0, 0.0001, 0.0005)])
    one_LT, *others = shapes(x_NLT)
    correlation_K, drift_K = agreement(one_LT, np.stack(others))
    assert correlation_K.min() > 0.99
    # In ten seconds there are 12.5 beats.
    np.testing.assert_allclose(drift_K, [1.25, 6.25], rtol=0.1)


def test_a_beat_that_comes_early_is_no_copy() -> None:
    x_LT = regular(0.8)
    early_LT = x_LT.copy()
    early_LT[:, 1500:1700] = np.roll(early_LT[:, 1500:1700], -60, axis=-1)
    assert not pairwise(microvolt(x_LT[None]), microvolt(early_LT[None])).any()


def test_lines_are_no_copies_of_anything() -> None:
    line_NLT = np.full((1, 8, 2500), 7, np.int16)
    x_NLT = microvolt(synthetic(1))
    assert not pairwise(line_NLT, line_NLT).any()
    assert not pairwise(line_NLT, x_NLT).any()
    assert not pairwise(x_NLT, line_NLT).any()


@pytest.mark.parametrize("name", DISTORTIONS)
def test_real_ecgs_are_recognized_after(name: str) -> None:
    distort, rate = DISTORTIONS[name]
    x_NLT = ptbxl_and_chapman()
    base_NLT = harmonized(x_NLT, 500)
    assert pairwise(base_NLT, harmonized(distort(x_NLT), rate)).all()
    assert not pairwise(base_NLT, np.roll(base_NLT, 1, axis=0)).any()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ptbxl_at_100_and_at_500_hz_is_recognized_and_one_patients_paced_rhythms_are_not() -> None:
    ids, low_NLT = packed()
    at = {int(record): number for number, record in enumerate(ids)}

    def low(record: int) -> NDArray[np.int16]:
        return harmonized(low_NLT[at[record]][None].astype(np.float32) / 1000, 100)[0]

    names, high_NLT = mirrored("ptbxl")
    known = [number for number, name in enumerate(names) if int(name) in at]
    assert len(known) > 30
    assert pairwise(np.stack([low(int(names[number])) for number in known]), harmonized(high_NLT[known], 500)).all()
    # The most alike of 3,890 pairs of one patient, put in step by the lag (samples) of the highest correlation.
    for one, other, lag in ((21517, 21419, -105), (20694, 20604, 59), (20604, 20309, 53), (15240, 15234, 20)):
        x_LT, y_LT = low(one), low(other)
        n = 2500 - abs(lag)
        x_LT, y_LT = x_LT[:, max(lag, 0) :][:, :n], y_LT[:, max(-lag, 0) :][:, :n]
        assert not pairwise(x_LT[None, :, : n // 2 * 2], y_LT[None, :, : n // 2 * 2]).any()
