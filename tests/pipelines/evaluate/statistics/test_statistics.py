from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from pipelines.evaluate.statistics.bootstrap import InsufficientData, interval, resample_patients
from pipelines.evaluate.statistics.paired import paired_difference
from pipelines.evaluate.statistics.ranking import auc, average_precision, resampled_auc, roc_points, why_not_scorable


@st.composite
def scored(draw):
    """Targets with both kinds in every class, and scores with many ties."""
    n, c = draw(st.integers(2, 60)), draw(st.integers(1, 4))
    y_NC = draw(hnp.arrays(bool, (n, c)))
    levels = draw(st.integers(1, 6))
    score_NC = draw(hnp.arrays(np.float64, (n, c), elements=st.integers(0, levels).map(lambda v: v / 7)))
    assume(all(why_not_scorable(y_NC[:, k]) is None for k in range(c)))
    return y_NC, score_NC


def example(n=400, c=6, seed=0, ties=True):
    rng = np.random.default_rng(seed)
    y_NC = rng.random((n, c)) < np.linspace(0.02, 0.6, c)
    y_NC[0], y_NC[1] = True, False
    score_NC = y_NC + rng.normal(size=(n, c))
    return y_NC, np.round(score_NC, 1) if ties else score_NC


@settings(deadline=None, max_examples=80)
@given(scored())
def test_auc_and_average_precision_equal_scikit_learns(data):
    y_NC, score_NC = data
    assert auc(y_NC, score_NC) == pytest.approx(roc_auc_score(y_NC, score_NC, average=None), abs=1e-12)
    precision = [average_precision_score(y, s) for y, s in zip(y_NC.T, score_NC.T, strict=True)]
    assert average_precision(y_NC, score_NC) == pytest.approx(precision, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(scored(), st.integers(0, 2**31))
def test_a_resampled_auc_is_that_of_the_repeated_records(data, seed):
    y_NC, score_NC = data
    times_RN = resample_patients([str(i) for i in range(len(y_NC))], resamples=3, seed=seed)
    value_RC = resampled_auc(y_NC, score_NC, times_RN)
    for r, times_N in enumerate(times_RN):
        rows = np.repeat(np.arange(len(y_NC)), times_N)
        for c in range(y_NC.shape[1]):
            if why_not_scorable(y_NC[rows, c]) is None:
                assert value_RC[r, c] == pytest.approx(roc_auc_score(y_NC[rows, c], score_NC[rows, c]), abs=1e-12)
            else:
                assert value_RC[r, c] is np.ma.masked


@settings(deadline=None, max_examples=50)
@given(scored())
def test_auc_is_unmoved_by_order_preserving_maps_and_turned_by_negation(data):
    y_NC, score_NC = data
    assert auc(y_NC, np.exp(3 * score_NC)) == pytest.approx(auc(y_NC, score_NC), abs=1e-12)
    assert auc(y_NC, -score_NC) == pytest.approx(1 - auc(y_NC, score_NC), abs=1e-12)


def test_constant_scores_are_worth_a_half():
    y_NC, _ = example()
    assert auc(y_NC, np.ones(y_NC.shape)) == pytest.approx(0.5)
    assert average_precision(y_NC, np.ones(y_NC.shape)) == pytest.approx(y_NC.mean(axis=0))


@settings(deadline=None, max_examples=50)
@given(scored())
def test_roc_points_are_the_corners_of_scikit_learns_curve(data):
    y_N, score_N = data[0][:, 0], data[1][:, 0]
    false, true = roc_points(y_N, score_N)
    full_false, full_true, _ = roc_curve(y_N, score_N, drop_intermediate=False)
    corners = set(zip(full_false.round(12), full_true.round(12), strict=True))
    assert set(zip(false.round(12), true.round(12), strict=True)) <= corners
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == pytest.approx(auc(y_N[:, None], score_N[:, None])[0], abs=1e-12)


def test_patients_are_drawn_whole_and_as_many_as_there_are():
    patient_N = ["a", "b", "a", "c", "c", "c", "d"]
    times_RN = resample_patients(patient_N, resamples=500, seed=1)
    assert times_RN.shape == (500, 7)
    assert (times_RN[:, 0] == times_RN[:, 2]).all()
    assert (times_RN[:, [3, 3]] == times_RN[:, [4, 5]]).all()
    assert (times_RN[:, [0, 1, 3, 6]].sum(axis=1) == 4).all()
    assert times_RN.mean(axis=0) == pytest.approx(np.ones(7), abs=0.15)
    assert (resample_patients(patient_N, resamples=500, seed=1) == times_RN).all()
    assert (resample_patients(patient_N, resamples=500, seed=2) != times_RN).any()


def test_repeating_every_record_of_a_patient_does_not_narrow_the_interval():
    y_NC, score_NC = example(n=100, c=1)
    names = [str(i) for i in range(100)]
    once = resampled_auc(y_NC, score_NC, resample_patients(names, resamples=400, seed=0))
    y4, s4 = np.repeat(y_NC, 4, axis=0), np.repeat(score_NC, 4, axis=0)
    by_patient = resampled_auc(y4, s4, resample_patients(np.repeat(names, 4).tolist(), resamples=400, seed=0))
    by_record = resampled_auc(y4, s4, resample_patients([str(i) for i in range(400)], resamples=400, seed=0))
    assert by_patient.std() == pytest.approx(once.std(), rel=0.15)
    assert by_record.std() < 0.65 * once.std()


def test_the_interval_covers_the_true_auc_about_as_often_as_it_says():
    # Scores N(1, 1) and N(0, 1): the true AUC is Phi(1 / sqrt 2) = 0.76025.
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(120):
        y_N1 = np.arange(120)[:, None] < 50
        score_N1 = rng.normal(size=(120, 1)) + y_N1
        times_RN = resample_patients([str(i) for i in range(120)], resamples=300, seed=trial)
        found = interval(auc(y_N1, score_N1)[0], resampled_auc(y_N1, score_N1, times_RN)[:, 0], 0.9)
        assert found.low < found.value < found.high
        covered += found.low <= 0.76025 <= found.high
    assert 0.82 <= covered / 120 <= 0.97


def test_a_paired_difference_is_sharper_than_two_intervals_and_knows_no_difference():
    y_NC, score_NC = example(n=300, ties=False)
    rng = np.random.default_rng(5)
    worse_NC = score_NC + 0.4 * rng.normal(size=score_NC.shape)
    times_RN = resample_patients([str(i) for i in range(300)], resamples=1000, seed=0)
    found = paired_difference(y_NC, score_NC, worse_NC, times_RN, 0.95)
    gap = roc_auc_score(y_NC, score_NC, average="macro") - roc_auc_score(y_NC, worse_NC, average="macro")
    assert found.value == pytest.approx(gap, abs=1e-12)
    assert 0 < found.low < found.value < found.high
    assert found.p_value < 0.05
    alone = interval(0.0, resampled_auc(y_NC, score_NC, times_RN).mean(axis=1), 0.95)
    assert found.high - found.low < alone.high - alone.low
    back = paired_difference(y_NC, worse_NC, score_NC, times_RN, 0.95)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert back.p_value == found.p_value
    none = paired_difference(y_NC, score_NC, score_NC, times_RN, 0.95)
    assert (none.value, none.low, none.high, none.p_value) == (0, 0, 0, 1)


def test_under_no_true_difference_p_values_are_rarely_small():
    rng = np.random.default_rng(8)
    small = 0
    for trial in range(60):
        y_NC = rng.random((150, 2)) < 0.4
        signal = y_NC + rng.normal(size=y_NC.shape)
        first, second = (signal + rng.normal(size=y_NC.shape) for _ in range(2))
        times_RN = resample_patients([str(i) for i in range(150)], resamples=200, seed=trial)
        small += paired_difference(y_NC, first, second, times_RN, 0.95).p_value < 0.05
    assert small <= 9


def test_what_cannot_be_scored_says_why():
    assert why_not_scorable(np.zeros(5, bool)) == "0 positives among 5 records, fewer than 1"
    assert why_not_scorable(np.ones(5, bool)) == "no negatives among 5 records"
    assert why_not_scorable(np.arange(30) < 9, 10) == "9 positives among 30 records, fewer than 10"
    assert why_not_scorable(np.arange(30) < 10, 10) is None


def test_bad_scores_are_refused():
    y_NC, score_NC = example()
    with pytest.raises(ValueError, match="no positives or no negatives"):
        auc(np.zeros_like(y_NC), score_NC)
    with pytest.raises(ValueError, match="NaN"):
        auc(y_NC, np.where(np.arange(len(y_NC))[:, None] == 3, np.nan, score_NC))
    with pytest.raises(ValueError, match="two arrays"):
        auc(y_NC, score_NC[:, :2])
    y_N1 = np.array([[True], [False]])
    times_RN = np.array([[2, 0], [0, 2]])
    with pytest.raises(InsufficientData, match="no resample"):
        interval(1.0, resampled_auc(y_N1, y_N1.astype(float), times_RN)[:, 0], 0.95)
