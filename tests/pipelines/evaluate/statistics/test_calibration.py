"""F1, Brier score, reliability, resampled average precision and Holm's adjustment, beside scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score

from pipelines.evaluate.statistics.bootstrap import resample_patients
from pipelines.evaluate.statistics.calibration import (
    SLOPES,
    best_threshold,
    brier,
    f1,
    fit_temperature,
    reliability,
    resampled_brier,
    resampled_f1,
)
from pipelines.evaluate.statistics.paired import FAR_SIDE, holm, paired_difference, paired_differences
from pipelines.evaluate.statistics.ranking import average_precision, resampled_auc, resampled_average_precision


@st.composite
def probabilities(draw):
    """Targets with both kinds in every class, and probabilities with many ties."""
    n, c = draw(st.integers(2, 50)), draw(st.integers(1, 4))
    y_NC = draw(hnp.arrays(bool, (n, c)))
    levels = draw(st.integers(1, 8))
    p_NC = draw(hnp.arrays(np.float64, (n, c), elements=st.integers(0, levels).map(lambda v: v / levels)))
    assume((y_NC.any(axis=0) & ~y_NC.all(axis=0)).all())
    return y_NC, p_NC


def repeated(times_RN):
    return [np.repeat(np.arange(times_RN.shape[1]), times_N) for times_N in times_RN]


def resampled(y_NC, seed, resamples=4):
    return resample_patients([str(i) for i in range(len(y_NC))], resamples=resamples, seed=seed)


@settings(deadline=None, max_examples=80)
@given(probabilities(), st.integers(0, 2**31))
def test_a_resampled_average_precision_is_scikit_learns_of_the_repeated_records(data, seed):
    y_NC, p_NC = data
    times_RN = resampled(y_NC, seed)
    value_RC = resampled_average_precision(y_NC, p_NC, times_RN)
    for r, rows in enumerate(repeated(times_RN)):
        for c in range(y_NC.shape[1]):
            if y_NC[rows, c].any():
                wanted = average_precision_score(y_NC[rows, c], p_NC[rows, c])
                assert value_RC[r, c] == pytest.approx(wanted, abs=1e-12)
            else:
                assert value_RC[r, c] is np.ma.masked
    once_RN = np.ones((1, len(y_NC)), int)
    same_RC = resampled_average_precision(y_NC, p_NC, once_RN)
    assert same_RC[0].data == pytest.approx(average_precision(y_NC, p_NC), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(probabilities(), st.integers(0, 2**31))
def test_f1_and_brier_are_scikit_learns_also_of_repeated_records(data, seed):
    y_NC, p_NC = data
    threshold_C = np.array([best_threshold(y, p) for y, p in zip(y_NC.T, p_NC.T, strict=True)])
    wanted = [f1_score(y, p >= t) for y, p, t in zip(y_NC.T, p_NC.T, threshold_C, strict=True)]
    assert f1(y_NC, p_NC, threshold_C) == pytest.approx(wanted, abs=1e-12)
    assert brier(y_NC, p_NC) == pytest.approx([brier_score_loss(y, p) for y, p in zip(y_NC.T, p_NC.T, strict=True)])
    times_RN = resampled(y_NC, seed)
    f1_RC, brier_RC = resampled_f1(y_NC, p_NC, threshold_C, times_RN), resampled_brier(y_NC, p_NC, times_RN)
    for r, rows in enumerate(repeated(times_RN)):
        for c in range(y_NC.shape[1]):
            y, p = y_NC[rows, c], p_NC[rows, c]
            assert brier_RC[r, c] == pytest.approx(np.mean((y - p) ** 2), abs=1e-12)
            if y.any():
                assert f1_RC[r, c] == pytest.approx(f1_score(y, p >= threshold_C[c]), abs=1e-12)
            else:
                assert f1_RC[r, c] is np.ma.masked


@settings(deadline=None, max_examples=60)
@given(probabilities())
def test_no_threshold_has_a_higher_f1_and_of_equals_the_highest_is_taken(data):
    y_N, p_N = data[0][:, 0], data[1][:, 0]
    chosen = best_threshold(y_N, p_N)
    every = {t: f1_score(y_N, p_N >= t) for t in np.unique(p_N)}
    best = max(every.values())
    assert chosen == max(t for t, value in every.items() if value > best - 1e-12)


def test_a_threshold_is_not_chosen_on_nothing():
    with pytest.raises(ValueError, match="no positives to choose a threshold on"):
        best_threshold(np.zeros(4, bool), np.linspace(0, 1, 4))


@settings(deadline=None, max_examples=60)
@given(st.integers(20, 200), st.integers(0, 1000), st.integers(2, 12))
def test_reliability_is_scikit_learns_curve_with_counts(records, seed, bins):
    rng = np.random.default_rng(seed)
    p_N = rng.random(records)
    y_N = rng.random(records) < p_N
    assume(y_N.any() and not y_N.all())
    found = reliability(y_N, p_N, resampled(y_N[:, None], seed, 50), bins=bins)
    observed, predicted = calibration_curve(y_N, p_N, n_bins=bins)
    assert [b.observed for b in found] == pytest.approx(observed)
    assert [b.predicted for b in found] == pytest.approx(predicted)
    assert sum(b.records for b in found) == records
    for one in found:
        assert one.low <= one.predicted <= one.high
        assert one.interval is None or one.interval.low <= one.interval.high


def test_certainty_lies_in_the_last_bin_and_a_bin_that_no_resample_holds_has_no_interval():
    y_N, p_N = np.array([True, False, True]), np.array([1.0, 0.0, 0.45])
    found = reliability(y_N, p_N, np.array([[2, 1, 0], [1, 2, 0]]), bins=10)
    assert [(b.low, b.records, b.observed) for b in found] == [(0.0, 1, 0.0), (0.4, 1, 1.0), (0.9, 1, 1.0)]
    assert [b.interval is None for b in found] == [False, True, False]
    with pytest.raises(ValueError, match="not logits"):
        reliability(y_N, p_N + 1, np.ones((1, 3), int))


def test_the_curve_of_a_probe_that_knows_its_doubt_holds_the_diagonal():
    rng = np.random.default_rng(2)
    p_N = rng.random(4000)
    found = reliability(rng.random(4000) < p_N, p_N, resampled(p_N[:, None], 0, 400), confidence=0.99)
    assert all(b.interval is not None and b.interval.low < b.predicted < b.interval.high for b in found)


def by_hand(p_values):
    """Holm's adjustment as its paper words it: step down until the first that is not rejected, for every level."""
    adjusted = []
    for p in p_values:
        worst = 0.0
        for other in p_values:
            if other <= p:
                worst = max(worst, other * sum(q >= other for q in p_values))
        adjusted.append(min(1.0, worst))
    return adjusted


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.1, float("nan")])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(0, 1), max_size=12, unique=True))
def test_holm_equals_the_slow_definition_and_keeps_the_order(p_values):
    found = holm(p_values)
    assert found == pytest.approx(by_hand(p_values))
    assert all(a >= p for a, p in zip(found, p_values, strict=True))
    order = np.argsort(p_values)
    assert (np.diff(np.array(found)[order]) >= 0).all()


def test_differences_by_class_are_those_of_each_class_alone():
    rng = np.random.default_rng(5)
    y_NC = rng.random((200, 3)) < (0, 0.3, 0.5)
    y_NC[:2, 0] = True
    first, second = y_NC + rng.normal(size=(2, 200, 3))
    names = [str(i) for i in range(200)]
    macro, by_class = paired_differences(y_NC, first, second, names, resamples=300, seed=1, confidence=0.9)
    times_RN = resampled(y_NC, 1, 300)
    whole = paired_difference(y_NC, first, second, times_RN, 0.9)
    assert (macro.value, macro.low, macro.high) == pytest.approx((whole.value, whole.low, whole.high), abs=1e-12)
    assert macro.p_value == whole.p_value
    for c, found in enumerate(by_class):
        assert found == paired_difference(y_NC[:, [c]], first[:, [c]], second[:, [c]], times_RN, 0.9)
    assert resampled_auc(y_NC, first, times_RN).mask.sum() > 0, "a rare class is missing from some resamples"


def test_many_resamples_are_drawn_in_blocks_that_differ():
    rng = np.random.default_rng(6)
    y_NC = rng.random((60, 1)) < 0.4
    first, second = y_NC + rng.normal(size=(2, 60, 1))
    names = [str(i) for i in range(60)]
    # Of two equal blocks the quantiles would be those of one; of two that differ they are of all their resamples.
    drawn = [resampled(y_NC, seed, 1000) for seed in (3, 4)]
    whole = paired_difference(y_NC, first, second, np.concatenate(drawn), 0.95)
    macro, _ = paired_differences(y_NC, first, second, names, resamples=2000, seed=3, confidence=0.95)
    assert (macro.low, macro.high, macro.p_value) == pytest.approx((whole.low, whole.high, whole.p_value), abs=1e-12)
    assert not np.array_equal(*drawn)


def test_only_a_difference_that_few_resamples_contradict_is_resampled_on():
    """Classes: ranked better by the first, by a little, and no better; FAR_SIDE is not reached for the first alone."""
    rng = np.random.default_rng(7)
    y_NC = rng.random((200, 3)) < 0.4
    noise_NC = rng.random(y_NC.shape)
    first_NC = noise_NC + y_NC * (2.0, 0.05, 0.0)
    second_NC = np.column_stack([noise_NC[:, 0], rng.random((200, 2))])
    names = [str(i) for i in range(200)]

    def differences(**more):
        asked = {"resamples": 500, "seed": 2, "confidence": 0.95}
        macro, by_class = paired_differences(y_NC, first_NC, second_NC, names, **asked, **more)
        return macro, *by_class

    plain = differences()
    by_class = differences(most_by_class=1800)
    assert [one.p_value for one in plain[:2]] == pytest.approx([2 / 501] * 2), "none on the far side"
    assert min(one.p_value for one in plain[2:]) > 2 * FAR_SIDE / 501
    assert by_class[1].p_value == pytest.approx(2 / 1801)
    assert (by_class[0], *by_class[2:]) == (plain[0], *plain[2:])
    assert differences(most=1800)[0].p_value == pytest.approx(2 / 1801)
    assert differences(most=400, most_by_class=500) == plain, "never fewer than asked for"


def test_resamples_of_the_far_side_are_counted_over_all_blocks():
    """A difference that one resample in a thousand contradicts: FAR_SIDE of them after several blocks."""
    rng = np.random.default_rng(8)
    y_N1 = rng.random((150, 1)) < 0.4
    first_N1, second_N1 = rng.random((2, 150, 1)) + y_N1 * np.array([0.55, 0.22])[:, None, None]
    names = [str(i) for i in range(150)]
    asked = {"resamples": 1000, "seed": 0, "confidence": 0.95}
    _, (found,) = paired_differences(y_N1, first_N1, second_N1, names, **asked, most_by_class=20_000)
    blocks = [resample_patients(names, resamples=1000, seed=seed) for seed in range(20)]
    apart = [(resampled_auc(y_N1, first_N1, t) - resampled_auc(y_N1, second_N1, t))[:, 0] for t in blocks]
    far = np.cumsum([(one <= 0).sum() for one in apart])
    stop = int(np.argmax(far >= FAR_SIDE))
    assert 0 < stop < 19
    assert found.p_value == pytest.approx(2 * (far[stop] + 1) / (1000 * (stop + 1) + 1))


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_how_sure_a_softmax_is(sharpness: float) -> None:
    """Outcomes drawn by the softmax of logits, which are then told too sure or too unsure."""
    rng = np.random.default_rng(2)
    logit_NC = 2 * rng.normal(size=(4000, 3))
    y_NC = np.eye(3, dtype=bool)[[rng.choice(3, p=p_C) for p_C in softmax(logit_NC, axis=1)]]
    assert fit_temperature(sharpness * logit_NC, y_NC) == pytest.approx(1 / sharpness, rel=0.06)


def test_a_temperature_stays_in_its_range_and_needs_a_record() -> None:
    sure = np.array([[5.0, 0.0], [0.0, 5.0]])
    assert 1 < fit_temperature(sure, np.eye(2, dtype=bool)) <= SLOPES[1]
    assert fit_temperature(sure, np.eye(2, dtype=bool)[::-1]) == pytest.approx(SLOPES[0])
    with pytest.raises(ValueError, match="no record of any class"):
        fit_temperature(sure, np.zeros((2, 2), dtype=bool))
