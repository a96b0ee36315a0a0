"""The rules between a challenger and the champion, on scores whose truth is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_model.leads import LEADS
from pipelines.evaluate.probes.result import ClassScore, Predictions, ProbeResult, ProbeScores, SplitScores
from pipelines.evaluate.statistics.bootstrap import Interval, PairedDifference
from pipelines.evaluate.statistics.ranking import auc
from pipelines.finding import Finding
from pipelines.release.contest import Probed, contest, contest_probes
from pipelines.release.gate import (
    CLASSIFIER_RULES,
    RULES,
    Contest,
    GateConfig,
    GateVerdict,
    decide_without_scores,
    judge,
    of_champion,
)
from pipelines.tasks.splits import Split

SOUND = Finding.passed("sound")
CONFIG = GateConfig(margin=0.01, label_margin=0.03, resamples=200)


def difference(value: float, low: float, high: float) -> PairedDifference:
    return PairedDifference(value=value, low=low, high=high, p_value=0.5)


def contested(macro: PairedDifference, **labels: PairedDifference) -> Contest:
    return Contest(challenger=0.9, champion=0.9 - macro.value, records=100, patients=90, macro=macro, labels=labels)


def verdict(compared: Contest | Finding | None, against: int | None = 3, **changes) -> GateVerdict:
    return judge(compared, against=against, **{"training": SOUND, "serving": SOUND, "config": CONFIG} | changes)


def decided(against: int | None = 3, **known) -> Finding | None:
    usual = dict.fromkeys(("was_champion", "same_weights", "simulated", "champion_simulated"), False)
    return decide_without_scores(against=against, **usual | known)


EVEN = difference(0.0, -0.005, 0.005)


@pytest.mark.parametrize(
    ("macro", "label", "failing"),
    [
        (difference(0.02, 0.01, 0.03), EVEN, set()),
        (EVEN, EVEN, set()),
        (difference(-0.005, -0.01, 0.0), EVEN, set()),
        (difference(-0.005, -0.0101, 0.0), EVEN, {"not_worse"}),
        (difference(0.02, -0.02, 0.06), EVEN, {"not_worse"}),
        (difference(0.02, 0.01, 0.03), difference(-0.05, -0.07, -0.03), {"no_label_lost"}),
        (difference(0.02, 0.01, 0.03), difference(-0.05, -0.12, 0.02), set()),
        (difference(0.02, 0.01, 0.03), difference(-0.03, -0.04, -0.02), set()),
        (difference(-0.1, -0.2, -0.05), difference(-0.1, -0.2, -0.05), {"not_worse", "no_label_lost"}),
    ],
)
def test_the_rules_on_intervals(macro, label, failing):
    judged = verdict(contested(macro, MI=EVEN, HYP=label))
    assert {name for name, rule in judged.rules.items() if not rule.holds} == failing
    assert judged.promote == (not failing)
    assert set(judged.rules) == set(RULES)
    assert judged.reason.startswith("kept as challenger" if failing else "promoted")
    assert all(name in judged.reason for name in failing)


@pytest.mark.parametrize(("value", "few"), [(0.02, True), (-0.02, False)])
def test_an_interval_that_is_too_wide_is_told_from_a_fall(value, few):
    judged = verdict(contested(difference(value, -0.05, 0.06), MI=EVEN))
    assert ("; too few ECGs to exclude that it is worse: label more, or `ecg promote` it" in judged.reason) is few


def test_the_lost_label_is_named_with_its_interval():
    judged = verdict(contested(difference(0.02, 0.01, 0.03), MI=EVEN, HYP=difference(-0.05, -0.07, -0.03)))
    assert "HYP -0.0500 (-0.0700 to -0.0300)" in judged.reason
    assert "MI" not in judged.reason


@pytest.mark.parametrize("broken", ["training", "serving"])
def test_what_is_not_about_scores_decides_too(broken):
    judged = verdict(contested(difference(0.02, 0.01, 0.03), MI=EVEN), **{broken: Finding.failed("broken thing")})
    assert not judged.promote
    assert "broken thing" in judged.reason
    first = verdict(decided(None), against=None, **{broken: Finding.failed("broken thing")})
    assert not first.promote, "also where there is no champion yet"


def test_without_scores_a_release_is_champion_only_where_there_is_none():
    first = verdict(decided(None), against=None)
    assert first.reason == "promoted: there was no champion"
    refused = verdict(decided())
    assert not refused.promote
    assert "nothing to compare on validation" in refused.reason


@pytest.mark.parametrize("against", [None, 3])
@pytest.mark.parametrize("same_weights", [False, True])
def test_what_was_champion_does_not_come_back_by_the_gate(against, same_weights):
    judged = verdict(decided(against, was_champion=True, same_weights=same_weights), against=against)
    assert not judged.promote
    assert "ecg rollback" in judged.reason


def test_the_champions_own_weights_are_not_compared_but_served():
    judged = verdict(decided(same_weights=True))
    assert judged.reason == "promoted: the weights are those of version 3, served by other code"
    assert not verdict(decided(same_weights=True), serving=Finding.failed("it differs")).promote


@pytest.mark.parametrize(
    ("simulated", "champion_simulated", "holds"),
    [(False, False, None), (True, True, None), (True, False, False), (False, True, True)],
)
def test_simulated_ecgs_never_replace_recorded_ones_and_recorded_ones_need_not_beat_them(
    simulated, champion_simulated, holds
):
    decision = decided(simulated=simulated, champion_simulated=champion_simulated)
    assert (None if decision is None else decision.holds) is holds
    if holds is not None:
        assert verdict(decision).promote is holds
        assert ("simulated ECGs never take the place of recorded ones" in verdict(decision).reason) is not holds
    assert verdict(decided(None, simulated=simulated), against=None).promote, "somebody has to be the first"


def test_a_classifier_has_a_rule_more():
    better = contested(difference(0.02, 0.01, 0.03), MI=EVEN)
    judged = verdict(better, on_champion=Finding.passed("it is"))
    assert judged.promote
    assert set(judged.rules) == set(CLASSIFIER_RULES)
    assert "on_champion: it is not" in verdict(better, on_champion=Finding.failed("it is not")).reason
    assert set(of_champion(judged, CLASSIFIER_RULES).rules) == set(CLASSIFIER_RULES)


def test_of_the_champion_every_rule_holds_whatever_is_written_on_it():
    passed = verdict(contested(difference(0.02, 0.01, 0.03), MI=EVEN))
    assert of_champion(passed) == passed
    refused = verdict(decided(was_champion=True))
    older = GateVerdict(against=1, rules={"not_worse": Finding.passed("it was better")})
    for stored in (refused, older, None):
        judged = of_champion(stored)
        assert judged.promote
        assert set(judged.rules) == set(RULES)
    assert of_champion(older).rules["not_worse"].seen == "it was better"
    assert of_champion(refused).rules["not_worse"].seen == "it is the champion"


def test_a_verdict_survives_json_and_reads_as_a_page():
    judged = verdict(contested(difference(0.02, 0.01, 0.03), MI=difference(-0.05, -0.07, -0.03)))
    assert GateVerdict.from_dict(json.loads(json.dumps(judged.to_dict()))) == judged
    page = judged.page()
    assert page.startswith("**Kept as challenger.** Against version 3.")
    assert "| no\\_label\\_lost&emsp; | NO&emsp; | fell by more than 0.03: MI" in page


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"margin": -0.01}, "margin=-0.01: give a difference"),
        ({"label_margin": 1.0}, "label_margin=1.0: give a difference"),
        ({"margin": float("nan")}, "margin=nan"),
        ({"resamples": 0}, "resamples=0: use at least 1"),
        ({"confidence": 1.0}, r"confidence=1.0: use a share"),
        ({"probes": {"linear": -1.0}}, r"probes: weight -1.0 of 'linear': give 0 to 1,000"),
        ({"probes": {"linear": float("nan")}}, r"probes: weight nan of 'linear'"),
        ({"probes": {"linear": float("inf")}}, r"probes: weight inf of 'linear'"),
        ({"probes": {"linear": 0.0, "attention_pool": 0.0}}, r"at least one a weight above 0, such as linear: 1"),
        ({"probes": {}}, r"probes=\{\}: give at least one"),
        (
            {"probes": {"quadratic": 1.0}},
            r"probes: 'quadratic': variant 'quadratic' of ptbxl_superclass: use multi",
        ),
        ({"probes": {"nearest_mean": 1.0}}, r"probes: 'nearest_mean': .* a record has one nearest mean"),
        (
            {"probes": {"multi_class": 1.0}},
            r"probes: 'multi_class' of ptbxl_superclass: it leaves out ECGs",
        ),
        (
            {"probes": {"attention_pool__paper_protocol": 1.0}},
            r"it has no validation split, .*: use linear, att",
        ),
        ({"probes": {"noise_muscle_1": 1.0}}, r"its noise is on test ECGs"),
        ({"probes": {"labels_10": 1.0}}, r"it has several draws of the training patients"),
        ({"probes": {f"leads_{lead}": 1.0 for lead in LEADS} | {"linear": 1.0}}, r"probes: 9 of them: name at most 8"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        GateConfig(**wrong)


def result(score_NC: np.ndarray, y_NC: np.ndarray, patient: list[str]) -> ProbeResult:
    """A result scored on validation alone, as a probe would have it."""
    names = tuple(f"c{c}" for c in range(y_NC.shape[1]))
    predictions = Predictions(
        classes=names,
        record_id=tuple(f"r{n}" for n in range(len(y_NC))),
        patient=tuple(patient),
        split_N=np.full(len(y_NC), Split.VALIDATION, dtype="<U10"),
        y_NC=y_NC,
        score_NC=score_NC,
    )
    auc_C = auc(y_NC, score_NC)

    def interval(value: float) -> Interval:
        return Interval(value=float(value), low=0.0, high=1.0)

    scores = SplitScores(
        records=len(y_NC),
        patients=len(set(patient)),
        macro_auc=interval(auc_C.mean()),
        macro_average_precision=0.5,
        classes=tuple(
            ClassScore(name=name, positives=1, negatives=1, auc=interval(value), average_precision=0.5)
            for name, value in zip(names, auc_C, strict=True)
        ),
        omitted={},
    )
    whole = ProbeScores(penalty=1.0, trials=(), validation=scores, test=scores)
    return ProbeResult(task="t", classes=names, counts={}, scores=whole, predictions=predictions)


def held_out(champion: ProbeResult) -> Predictions:
    assert champion.predictions is not None
    return champion.predictions


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_contest_is_the_difference_of_the_two_macro_aucs_and_turns_its_sign_with_them(seed):
    rng = np.random.default_rng(seed)
    y_NC = rng.random((120, 3)) < 0.4
    patient = [f"p{n // 2}" for n in range(120)]
    first, second = (result(y_NC * rng.random() + rng.random(y_NC.shape), y_NC, patient) for _ in range(2))
    there, back = contest(first, held_out(second), CONFIG), contest(second, held_out(first), CONFIG)
    assert there is not None
    assert back is not None
    assert there.macro.value == pytest.approx(there.challenger - there.champion)
    assert there.macro.value == pytest.approx(-back.macro.value)
    assert (there.macro.low, there.macro.high) == pytest.approx((-back.macro.high, -back.macro.low))
    assert there.macro.low <= there.macro.value <= there.macro.high
    assert (there.records, there.patients) == (120, 60)
    assert set(there.labels) == {"c0", "c1", "c2"}


def test_an_encoder_against_itself_passes():
    rng = np.random.default_rng(0)
    y_NC = rng.random((200, 4)) < 0.3
    same = result(y_NC + rng.random(y_NC.shape), y_NC, [f"p{n}" for n in range(200)])
    compared = contest(same, held_out(same), CONFIG)
    assert compared is not None
    assert (compared.macro.low, compared.macro.value, compared.macro.high) == (0.0, 0.0, 0.0)
    assert verdict(compared).promote


def test_probes_of_different_records_are_not_contested():
    y_NC = np.tile([[True], [False]], (10, 1))
    patient = [f"p{n}" for n in range(20)]
    first, second = result(y_NC * 1.0, y_NC, patient), result(~y_NC * 1.0, ~y_NC, patient)
    with pytest.raises(ValueError, match="different validation records: probe both again"):
        contest(first, held_out(second), CONFIG)
    unscored = ProbeResult(task="t", classes=("c0",), counts={}, reason="too few")
    assert contest(unscored, held_out(first), CONFIG) is None


def test_labels_that_both_have_are_compared_and_a_lost_one_is_named():
    rng = np.random.default_rng(1)
    y_NC = rng.random((200, 3)) < 0.3
    score_NC = y_NC + rng.random(y_NC.shape)
    challenger = result(score_NC, y_NC, [f"p{n}" for n in range(200)])
    other = replace(held_out(challenger), classes=("c1", "c2"), y_NC=y_NC[:, 1:], score_NC=score_NC[:, 1:])
    compared = contest(challenger, other, CONFIG)
    assert compared is not None
    assert set(compared.labels) == {"c1", "c2"}
    assert compared.challenger == compared.champion == pytest.approx(auc(y_NC[:, 1:], score_NC[:, 1:]).mean())
    assert verdict(compared).promote, "a label more is nothing lost"
    without = contest(challenger, other, CONFIG, lost=["HYP", "CD"])
    refused = verdict(without)
    assert not refused.promote
    assert refused.rules["no_label_lost"].seen == "it no longer has HYP, CD"
    strange = replace(other, classes=("x", "y"))
    assert contest(challenger, strange, CONFIG) is None
    assert not verdict(None).promote


BOTH = GateConfig(resamples=200, probes={"linear": 1.0, "attention_pool": 1.0})


def known() -> dict[str, tuple[ProbeResult, ProbeResult]]:
    """Challenger and champion by two probes, on 20 positives and 20 negatives of one label.

    linear          the champion orders every pair of a positive and a negative; the challenger misses those with the
                    5 negatives of set A, a quarter, so that its AUC is 0.75
    attention_pool  the challenger orders every pair; the champion misses those with the 10 negatives of set B, a half

    A is a part of B, so that in every resample the champion misses at least the pairs in one that the challenger misses
    in the other: the mean of the two differences is never below zero.
    """
    y_NC = np.repeat([[True], [False]], 20, axis=0)
    right = y_NC * 0.5
    without_a, without_b = right.copy(), right.copy()
    without_a[20:25], without_b[20:30] = 1.0, 1.0
    patient = [f"p{n}" for n in range(40)]
    linear, attention = (without_a, right), (right, without_b)
    challengers_and_champions = {"linear": linear, "attention_pool": attention}
    return {
        probe: (result(first, y_NC, patient), result(second, y_NC, patient))
        for probe, (first, second) in challengers_and_champions.items()
    }


def judged_by(**weights: float) -> GateVerdict:
    config = replace(BOTH, probes=weights)
    both = [Probed(probe, weight, known()[probe][0], held_out(known()[probe][1])) for probe, weight in weights.items()]
    return verdict(contest_probes(both, config), config=config)


def test_an_encoder_that_is_worse_linear_and_better_by_attention_passes_by_both_and_not_by_linear_alone():
    passed = judged_by(linear=1.0, attention_pool=1.0)
    assert passed.promote
    linear, attention, mean = passed.probes
    assert (linear.probe, linear.challenger, linear.champion) == ("linear", 0.75, 1.0)
    assert (attention.probe, attention.challenger, attention.champion) == ("attention_pool", 1.0, 0.5)
    assert (mean.weight, mean.challenger, mean.champion) == (None, 0.875, 0.75)
    assert [row.difference and row.difference.value for row in passed.probes] == [-0.25, 0.5, 0.125]
    assert mean.difference is not None
    assert mean.difference.low >= 0, "of a single draw for both probes it is never below zero"
    seen = passed.rules["not_worse"].seen
    assert "macro AUC, mean of linear and attention_pool, 0.8750 against 0.7500 of version 3, +0.1250 (" in seen
    assert "; linear 0.7500 against 1.0000, -0.2500 (" in seen
    assert "; attention_pool 1.0000 against 0.5000, +0.5000 (" in seen
    alone = judged_by(linear=1.0)
    assert {name for name, rule in alone.rules.items() if not rule.holds} == {"not_worse", "no_label_lost"}
    assert "validation macro AUC 0.7500 against 1.0000 of version 3, -0.2500 (" in alone.reason


def test_weights_are_relative_and_a_weight_of_zero_shows_without_judging():
    shown = judged_by(linear=1.0, attention_pool=0.0)
    assert not shown.promote
    assert "macro AUC by linear 0.7500 against 1.0000" in shown.reason
    assert ", not judged" in shown.reason
    assert [row.probe for row in shown.probes] == ["linear", "attention_pool"]
    mostly = judged_by(linear=3.0, attention_pool=1.0)
    assert mostly.probes[-1].difference is not None
    assert mostly.probes[-1].difference.value == pytest.approx((3 * -0.25 + 0.5) / 4)
    assert "mean of linear and attention_pool (weights 3, 1)," in mostly.reason
    assert judged_by(linear=750.0, attention_pool=250.0).probes[-1].difference == mostly.probes[-1].difference


def test_a_probe_that_the_champion_lacks_is_named_and_the_others_judge():
    linear, attention = known()["linear"], known()["attention_pool"]
    lacking = Probed("attention_pool", 1.0, attention[0], None, "its code has no tokens")
    compared = contest_probes([Probed("linear", 1.0, linear[0], held_out(linear[1])), lacking], BOTH)
    assert isinstance(compared, Contest)
    assert compared.macro.value == -0.25
    judged = verdict(compared)
    assert "macro AUC by linear 0.7500" in judged.reason
    assert "attention_pool not compared (its code has no tokens)" in judged.reason
    assert "not compared: its code has no tokens" in judged.page()
    assert (judged.probes[1].challenger, judged.probes[1].difference) == (1.0, None)
    shown = Probed("linear", 0.0, linear[0], held_out(linear[1]))
    nothing = verdict(contest_probes([shown, lacking], BOTH))
    assert not nothing.promote
    assert "nothing to compare on validation" in nothing.reason
    assert "attention_pool: its code has no tokens): set `probes` to some" in nothing.reason


def test_probes_of_other_records_are_not_put_into_one_mean():
    (first, second), (other, _) = known().values()
    assert other.predictions is not None
    moved = replace(other, predictions=replace(other.predictions, record_id=tuple(f"x{n}" for n in range(40))))
    entries = [Probed("linear", 1.0, first, held_out(second)), Probed("attention_pool", 1.0, moved, held_out(moved))]
    with pytest.raises(ValueError, match="different validation records: probe both again"):
        contest_probes(entries, BOTH)


def by_pairs(y_N: np.ndarray, score_N: np.ndarray) -> float:
    """The AUC of one label, by every pair of a positive and a negative."""
    gap = score_N[y_N][:, None] - score_N[~y_N][None]
    return float(((gap > 0) + 0.5 * (gap == 0)).mean())


def test_the_weighted_interval_is_that_of_drawing_patients_once_for_all_probes():
    rng = np.random.default_rng(7)
    y_NC = rng.random((60, 2)) < 0.4
    patient = [f"p{n // 2:02}" for n in range(60)]
    weights = {"linear": 2.0, "attention_pool": 1.0, "leads_II": 0.0}
    config = GateConfig(resamples=50, seed=5, probes=weights)
    scores = {probe: [np.round(y_NC + rng.normal(size=y_NC.shape), 1) for _ in range(2)] for probe in weights}
    entries = [
        Probed(
            probe, weight, result(scores[probe][0], y_NC, patient), held_out(result(scores[probe][1], y_NC, patient))
        )
        for probe, weight in weights.items()
    ]
    compared = contest_probes(entries, config)
    assert isinstance(compared, Contest)

    def differences(rows: np.ndarray) -> np.ndarray:
        """Of the probes, and of the weighted mean, (4, labels)."""
        single = np.array(
            [
                [by_pairs(y_NC[rows, c], first[rows, c]) - by_pairs(y_NC[rows, c], second[rows, c]) for c in range(2)]
                for first, second in scores.values()
            ]
        )
        return np.vstack([single, (2 * single[0] + single[1]) / 3])

    drawn = np.random.default_rng(5).integers(0, 30, size=(50, 30))
    resampled = np.array([differences(np.concatenate([[2 * p, 2 * p + 1] for p in one])) for one in drawn])
    value = differences(np.arange(60))
    for k, row in enumerate(compared.probes):
        assert row.difference is not None
        assert row.difference.value == pytest.approx(value[k].mean(), abs=1e-12)
        expected = np.quantile(resampled[:, k].mean(axis=1), [0.025, 0.975])
        assert (row.difference.low, row.difference.high) == pytest.approx(tuple(expected), abs=1e-12)
    for c, label in enumerate(compared.labels.values()):
        assert label.value == pytest.approx(value[3, c], abs=1e-12)
        assert (label.low, label.high) == pytest.approx(
            tuple(np.quantile(resampled[:, 3, c], [0.025, 0.975])), abs=1e-12
        )
    assert compared.macro == compared.probes[-1].difference


def test_a_verdict_with_probes_survives_json_and_its_page_has_a_row_each():
    judged = judged_by(linear=1.0, attention_pool=1.0)
    assert GateVerdict.from_dict(json.loads(json.dumps(judged.to_dict()))) == judged
    page = judged.page()
    for cells in (("linear", "1", "0.7500", "1.0000"), ("weighted mean", "", "0.8750", "0.7500")):
        assert "| " + " | ".join(f"{cell}&emsp;" for cell in cells) in page
    assert of_champion(judged) == judged


def test_a_verdict_of_an_earlier_commit_is_read_and_written_as_it_was():
    text = (
        '{"against": 2, "rules": {"no_label_lost": {"holds": true, "seen": "of 5 labels the worst is MI, -0.0010"}, '
        '"not_worse": {"holds": true, "seen": "validation macro AUC 0.9000 against 0.8900 of version 2"}}}'
    )
    read = GateVerdict.from_dict(json.loads(text))
    assert read.promote
    assert read.probes == ()
    assert json.dumps(read.to_dict(), sort_keys=True) == text
    assert "probe" not in read.page()
