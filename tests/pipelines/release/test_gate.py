"""The rules between a challenger and the champion, on scores whose truth is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evaluate.probes.result import ClassScore, Predictions, ProbeResult, ProbeScores, SplitScores
from pipelines.evaluate.statistics.bootstrap import Interval, PairedDifference
from pipelines.evaluate.statistics.ranking import auc
from pipelines.finding import Finding
from pipelines.release.gate import (
    CLASSIFIER_RULES,
    RULES,
    Contest,
    GateConfig,
    GateVerdict,
    contest,
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
    assert ("; too few ECGs to exclude that it is worse" in judged.reason) is few


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
