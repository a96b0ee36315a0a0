from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pipelines.evaluate.probes.comparison import compare
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.fit import run_probe
from pipelines.evaluate.probes.result import load_result, roc_table, write_result
from pipelines.evaluate.statistics.bootstrap import InsufficientData
from pipelines.tasks.catalogue import TASKS
from pipelines.tasks.splits import PAPER_FOLDS, Split

TASK = TASKS["ptbxl_superclass"]
CODES = ("NORM", "IMI", "NDT", "LAFB", "LVH")
QUICK = ProbeConfig(resamples=200, min_positives=1)


def example(n=800, d=20, seed=0, noise=1.0):
    """Features that know the labels, and a table with two records a patient, patients whole within a fold."""
    rng = np.random.default_rng(seed)
    truth_NK = rng.normal(size=(n, 5))
    y_NC = truth_NK > np.array([0.0, 0.6, 0.8, 0.9, 1.4])
    # One draw for all noise levels, so that a higher level is worse on the same records.
    blur_NK = rng.normal(size=(n, 5))
    feature_ND = ((truth_NK + noise * blur_NK) @ rng.normal(size=(5, d)) + 0.1 * rng.normal(size=(n, d))).astype("f4")
    labels = [[code for code, y in zip(CODES, row, strict=True) if y] for row in y_NC]
    columns = {
        "record_id": pa.array([f"e{i:05}" for i in range(n)]),
        "patient_id": pa.array([str(i // 2) for i in range(n)]),
        "labels": pa.array(labels, pa.list_(pa.string())),
        "fold": pa.array([i // 2 % 10 + 1 for i in range(n)], pa.int8()),
    }
    return feature_ND, pa.table(columns)


def relabel(records: pa.Table, keep) -> pa.Table:
    """The records with only the codes that keep(fold, code) lets stand."""
    folds, labels = records.column("fold").to_pylist(), records.column("labels").to_pylist()
    kept = [[c for c in codes if keep(fold, c)] for fold, codes in zip(folds, labels, strict=True)]
    return records.set_column(records.column_names.index("labels"), "labels", pa.array(kept, pa.list_(pa.string())))


def scored(result):
    assert result.reason is None
    assert result.scores is not None
    assert result.predictions is not None
    return result.scores, result.predictions


def test_scores_are_those_of_its_predictions_and_counts_add_up():
    feature_ND, records = example()
    result = run_probe(TASK, feature_ND, records, QUICK)
    scores, predictions = scored(result)
    assert sum(result.counts.values()) == len(feature_ND)
    assert result.counts["unlabelled"] > 0
    assert scores.validation is not None
    for split, found in ((Split.VALIDATION, scores.validation), (Split.TEST, scores.test)):
        part = predictions.of(split)
        assert found.records == len(part.record_id) == result.counts[split]
        assert found.patients < found.records
        auc_C = roc_auc_score(part.y_NC, part.score_NC, average=None)
        assert [c.auc.value for c in found.classes] == pytest.approx(auc_C, abs=1e-12)
        assert found.macro_auc.value == pytest.approx(np.mean(auc_C), abs=1e-12)
        precision = average_precision_score(part.y_NC, part.score_NC, average="macro")
        assert found.macro_average_precision == pytest.approx(precision, abs=1e-12)
        assert found.macro_auc.low < found.macro_auc.value < found.macro_auc.high
        for c in found.classes:
            assert c.auc.low <= c.auc.value <= c.auc.high
            assert c.positives + c.negatives == found.records
    assert scores.test.macro_auc.value > 0.75
    assert scores.test.omitted == {}


def test_features_without_information_score_a_half():
    _, records = example()
    noise_ND = np.random.default_rng(9).normal(size=(800, 20)).astype("f4")
    scores, _ = scored(run_probe(TASK, noise_ND, records, QUICK))
    assert scores.test.macro_auc.low < 0.5 < scores.test.macro_auc.high


def test_a_collapsed_encoder_scores_a_half_and_not_an_error():
    _, records = example()
    same_ND = np.full((800, 20), 0.731, np.float32)
    scores, _ = scored(run_probe(TASK, same_ND, records, QUICK))
    assert [c.auc.value for c in scores.test.classes] == [0.5] * 5


def test_the_choice_is_the_best_on_validation_and_blind_to_the_test_split():
    feature_ND, records = example(n=600, d=200, noise=2.0)
    config = replace(QUICK, penalties=(10.0, 1.0, 0.1, 0.01, 0.001, 1e-4, 1e-5))
    scores, predictions = scored(run_probe(TASK, feature_ND, records, config))
    tried = {t.penalty: t.validation_macro_auc for t in scores.trials}
    assert list(tried) == list(config.penalties)[: len(tried)]
    assert scores.penalty == max(tried, key=lambda p: tried[p])
    assert len(tried) in (list(tried).index(scores.penalty) + 3, len(config.penalties))
    part = predictions.of(Split.VALIDATION)
    assert tried[scores.penalty] == pytest.approx(roc_auc_score(part.y_NC, part.score_NC), abs=1e-12)
    upset_ND = np.where((np.asarray(records.column("fold")) == 10)[:, None], -5 * feature_ND, feature_ND)
    other, _ = scored(run_probe(TASK, upset_ND, records, config))
    assert other.test != scores.test
    assert (other.trials, other.penalty, other.validation) == (scores.trials, scores.penalty, scores.validation)


def test_the_search_goes_on_while_it_gets_better():
    # The labels lie on an axis of the features that holds a ten-thousandth of their variance.
    truth_ND, records = example(noise=0.3)
    loud_N1 = 300 * np.random.default_rng(1).normal(size=(800, 1))
    scores, _ = scored(run_probe(TASK, (truth_ND + loud_N1).astype("f4"), records, QUICK))
    assert scores.penalty is not None
    assert scores.penalty <= 1e-4
    assert scores.test.macro_auc.value > 0.85


def test_the_same_input_gives_the_same_result():
    feature_ND, records = example()
    first, second = (run_probe(TASK, feature_ND, records, QUICK) for _ in range(2))
    assert first.scores == second.scores
    assert first.scores != run_probe(TASK, feature_ND, records, replace(QUICK, seed=1)).scores


def test_records_outside_the_protocol_are_counted_and_change_nothing():
    feature_ND, records = example()
    extra = records.slice(0, 40).set_column(3, "fold", pa.array([None] * 40, pa.int8()))
    plain = run_probe(TASK, feature_ND, records, QUICK)
    more = run_probe(
        TASK, np.concatenate([feature_ND, feature_ND[:40] + 100]), pa.concat_tables([records, extra]), QUICK
    )
    assert more.scores == plain.scores
    assert more.counts[Split.UNUSED] + more.counts["unlabelled"] == plain.counts["unlabelled"] + 40


def test_classes_that_cannot_be_scored_are_left_out_by_name():
    feature_ND, records = example()
    # HYP is nowhere in training, CD nowhere in the test fold, MI is 3 times in the test fold.
    thin = relabel(records, lambda fold, code: (code != "LVH" or fold > 8) and (code != "LAFB" or fold != 10))
    result = run_probe(TASK, feature_ND, thin, replace(QUICK, min_positives=10))
    scores, predictions = scored(result)
    assert predictions.classes == ("NORM", "MI", "STTC", "CD")
    assert scores.test.omitted["HYP"] == "no positives, or no negatives, to train on"
    assert scores.test.omitted["CD"].startswith("0 positives among")
    assert [c.name for c in scores.test.classes] == ["NORM", "MI", "STTC"]
    assert scores.validation is not None
    assert [c.name for c in scores.validation.classes] == ["NORM", "MI", "STTC", "CD"]
    assert set(roc_table(result).column("class").to_pylist()) == {"NORM", "MI", "STTC"}


def test_too_few_is_a_result_with_a_reason():
    feature_ND, records = example(n=40)
    result = run_probe(TASK, feature_ND, records)
    assert (result.scores, result.predictions) == (None, None)
    assert result.reason is not None
    assert "each needs 20" in result.reason
    assert sum(result.counts.values()) == 40


def test_no_records_and_no_folds_are_results_too():
    feature_ND, records = example()
    assert run_probe(TASK, np.zeros((0, 0)), records.slice(0, 0)).reason is not None
    no_fold = records.set_column(3, "fold", pa.nulls(len(feature_ND), pa.int8()))
    result = run_probe(TASK, feature_ND, no_fold)
    assert result.reason is not None
    assert "train 0, validation 0, test 0" in result.reason


def test_one_class_everywhere_is_not_scored():
    feature_ND, records = example()
    every = records.set_column(2, "labels", pa.array([["NORM"]] * 800, pa.list_(pa.string())))
    assert (
        run_probe(TASK, feature_ND, every).reason == "no class has both positives and negatives in the training split"
    )
    same_test = relabel(records, lambda fold, code: fold != 10 or code == "NORM")
    result = run_probe(TASK, feature_ND, same_test)
    assert result.reason is not None
    assert result.reason.startswith("no class can be scored on the test split")


def test_multi_class_takes_records_with_exactly_one_class():
    feature_ND, records = example()
    result = run_probe(replace(TASK, kind="multi-class"), feature_ND, records, QUICK)
    scores, predictions = scored(result)
    assert (predictions.y_NC.sum(axis=1) == 1).all()
    assert predictions.score_NC.sum(axis=1) == pytest.approx(1, abs=1e-5)
    part = predictions.of(Split.TEST)
    oracle = roc_auc_score(part.y_NC, part.score_NC, average="macro")
    assert scores.test.macro_auc.value == pytest.approx(oracle, abs=1e-12)


def test_the_papers_protocol_chooses_nothing():
    feature_ND, records = example()
    paper = replace(TASK, protocol=PAPER_FOLDS)
    with pytest.raises(ValueError, match="no validation split"):
        run_probe(paper, feature_ND, records)
    for config in (replace(QUICK, solver="adamw"), replace(QUICK, penalties=(0.01,))):
        scores, predictions = scored(run_probe(paper, feature_ND, records, config))
        assert scores.validation is None
        assert set(predictions.split_N) == {Split.TEST}
        assert scores.test.macro_auc.value > 0.75
        assert scores.trials == ()


def test_a_patient_on_both_sides_is_an_error():
    feature_ND, records = example()
    torn = records.set_column(1, "patient_id", pa.array([str(i % 7) for i in range(800)]))
    with pytest.raises(ValueError, match="7 patients are in more than one split, such as patient 0"):
        run_probe(TASK, feature_ND, torn)


def test_features_of_other_records_are_refused():
    feature_ND, records = example()
    with pytest.raises(ValueError, match="799 rows of features for 800 records"):
        run_probe(TASK, feature_ND[1:], records)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"solver": "sgd"}, "solver='sgd'"),
        ({"penalties": ()}, "strongest first"),
        ({"penalties": (0.1, 1.0)}, "strongest first"),
        ({"penalties": (1.0, 0.0)}, "positive"),
        ({"min_patients": 1}, "min_patients=1"),
        ({"min_positives": 0}, "min_positives=0"),
        ({"resamples": 0}, "resamples=0"),
        ({"confidence": 95.0}, "confidence=95.0"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(fault, says):
    with pytest.raises(ValueError, match=says):
        ProbeConfig(**fault)


def test_compare_finds_the_better_encoder_and_no_difference_with_itself():
    good_ND, records = example(n=2000, noise=0.5)
    worse_ND, _ = example(n=2000, noise=2.5)
    good, worse = (run_probe(TASK, x, records, QUICK) for x in (good_ND, worse_ND))
    found = compare(good, worse, QUICK)
    gap = scored(good)[0].test.macro_auc.value - scored(worse)[0].test.macro_auc.value
    assert found.difference.value == pytest.approx(gap, abs=1e-12)
    assert found.difference.low > 0
    assert found.difference.p_value < 0.05
    assert found.records == good.counts[Split.TEST]
    same = compare(good, good, QUICK).difference
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_compare_refuses_other_records_and_missing_scores():
    feature_ND, records = example()
    result = run_probe(TASK, feature_ND, records, QUICK)
    fewer = run_probe(TASK, feature_ND[:700], records.slice(0, 700), QUICK)
    with pytest.raises(ValueError, match="different test records"):
        compare(result, fewer)
    unscored = run_probe(TASK, feature_ND[:40], records.slice(0, 40))
    with pytest.raises(InsufficientData, match="not scored: labelled patients"):
        compare(result, unscored)


@pytest.mark.parametrize("rows", [800, 40])
def test_a_result_comes_back_from_its_files(tmp_path, rows):
    feature_ND, records = example()
    result = run_probe(TASK, feature_ND[:rows], records.slice(0, rows), QUICK)
    write_result(tmp_path, result, {"encoder": "x"})
    back = load_result(tmp_path)
    assert (back.task, back.classes, back.counts) == (result.task, result.classes, result.counts)
    assert (back.scores, back.reason) == (result.scores, result.reason)
    assert json.loads((tmp_path / "scores.json").read_text())["about"] == {"encoder": "x"}
    if result.predictions is None:
        assert back.predictions is None
        assert not (tmp_path / "predictions.parquet").exists()
    else:
        assert compare(result, back, QUICK).difference.value == 0
        assert back.predictions is not None
        assert np.array_equal(back.predictions.score_NC, result.predictions.score_NC)
