"""The suite by name, and what it does with labels, leads and test ECGs that are changed."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assets.previews import evaluated
from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder
from pipelines.cache import Product, Workspace
from pipelines.evaluate.features import (
    Condition,
    EncoderSource,
    FeatureConfig,
    Tokens,
    embed,
    materialize_features,
    materialize_tokens,
    read_features,
)
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.handcrafted import HandcraftedSource, handcrafted, heart_rate
from pipelines.evaluate.probes.result import load_result
from pipelines.evaluate.probes.step import materialize_probe
from pipelines.evaluate.suite.names import AGAINST_DENSE, DRAWS, SUITE, VARIANT_HEADS, evaluation
from pipelines.evaluate.suite.run import evaluate_encoder, head_of, labels_used, materialize_evaluation, results_of
from pipelines.formats.shard import LEADS, QUALITY, ShardWriter, open_shard
from pipelines.harmonize.shards import read_records, shards_of
from pipelines.tasks.catalogue import SUITE_TASKS
from pipelines.tasks.splits import PAPER_FOLDS, FewLabels, FoldProtocol, Split, patients, protocol_from_dict
from tests.support.paths import ROOT

TINY = EncoderConfig(dim=16, depth=1, heads=2, input_scale=5.0, patch_init_scale=7.0)
QUICK = ProbeConfig(resamples=50, min_patients=5, min_positives=1)
ROWS_OF_SECTION_6 = (
    "ptbxl_superclass__multi_class",
    "ptbxl_superclass__fine_tuned",
    "ptbxl_superclass__multi_class__fine_tuned",
    "ptbxl_superclass__fine_tuned_layerwise",
    "ptbxl_superclass__paper_protocol",
    "ptbxl_superclass__multi_class__paper_protocol",
    "ptbxl_all",
    "ptbxl_diagnostic",
    "ptbxl_subclass",
    "ptbxl_form",
    "ptbxl_rhythm",
    "ptbxl_all__attention_pool",
    "ptbxl_diagnostic__attention_pool",
    "ptbxl_subclass__attention_pool",
    "ptbxl_form__attention_pool",
    "ptbxl_rhythm__attention_pool",
    "ptbxl_all__fine_tuned",
    "ptbxl_diagnostic__fine_tuned",
    "ptbxl_subclass__fine_tuned",
    "ptbxl_form__fine_tuned",
    "ptbxl_rhythm__fine_tuned",
    "cpsc2018__multi_class",
    "georgia",
    "georgia__multi_class",
    "ptbxl_superclass__labels_1",
    "ptbxl_superclass__labels_10",
    "ptbxl_superclass__leads_II",
    "ptbxl_superclass__leads_II_V1",
    "cpsc2018__multi_class__nearest_mean",
)


def harmonized(workspace: Workspace, partition: str, n: int = 200, source: str = "ptbxl") -> Product:
    """Bumps whose height in lead II alone is the diagnosis."""

    def make(folder: Path) -> dict:
        rng = np.random.default_rng(int(partition))
        large_N = rng.random(n) < 0.5
        wave_T = 900 * np.exp(-((np.arange(2500) % 250 - 100) ** 2) / 200)
        height_NL = np.ones((n, 8))
        height_NL[:, 1] = np.where(large_N, 1.5, 0.7) + 0.2 * rng.normal(size=n)
        signal_NLT = height_NL[:, :, None] * wave_T + 20 * rng.normal(size=(n, 8, 2500))
        writer = ShardWriter(folder)
        for i in range(n):
            row = {"source": source, "record_id": f"{partition}-{i}", "patient_id": str(i // 2), "age": None}
            row |= {"sex": None, "rate": 500.0, "samples": 5000, "labels": ["LVH" if large_N[i] else "NORM"]}
            row |= {"fold": i // 2 % 10 + 1, "notes": [], "content_hash": f"{i}", "signature": bytes(128)}
            writer.append(signal_NLT[i].round().astype(np.int16), row | {f"quality_{name}": 0.0 for name in QUALITY})
        writer.close()
        return {}

    return workspace.build(f"ecgs/{source}/{partition}", version="1", config={}, inputs={}, make=make)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("suite"))
    harmonized(workspace, "00000")

    def make(work: Path) -> dict:
        save_encoder(work / "encoder.safetensors", random_encoder(TINY, 5))
        return {"recipe": {"seed": 4}}

    workspace.build("encoder", version="test", config={}, inputs={}, make=make)
    return workspace


def encoder() -> EncoderSource:
    return EncoderSource.random("tiny", TINY, 0)


@pytest.mark.parametrize("name", ROWS_OF_SECTION_6)
def test_what_the_paper_reports_is_there_by_name(name):
    assert evaluation(name).name == name
    assert name in SUITE


def test_cropa_off_and_on_is_there_by_name():
    assert "georgia__multi_class" in AGAINST_DENSE
    assert "georgia__multi_class" in SUITE


def test_every_name_in_the_documentation_means_something():
    text = (ROOT / "docs" / "evaluation.md").read_text()
    names = re.findall(r"`((?:ptbxl|cpsc2018|georgia|chapman)[a-z0-9]*(?:_\w+)?)`", text)
    assert len(names) > 20
    for name in names:
        assert evaluation(name).name == name


def test_names_are_keys_and_titles_say_how_they_differ():
    for name, asked in SUITE.items():
        assert re.fullmatch(r"[a-z0-9_]+(_II|_V1)*[a-z0-9_]*", name)
        assert asked == evaluation(name)
    assert len({asked.task.title for asked in SUITE.values()}) == len(SUITE)


def test_label_sets_have_the_fields_sizes():
    sizes = {"all": 71, "diagnostic": 44, "subclass": 23, "superclass": 5, "form": 19, "rhythm": 12}
    for source, folds in (("ptbxl", (10,)), ("ptbxl100", (9,))):
        for name, size in sizes.items():
            task = SUITE_TASKS[f"{source}_{name}"]
            assert (len(task.classes), task.source) == (size, source)
            assert isinstance(task.protocol, FoldProtocol)
            assert task.protocol.test == folds
    assert evaluation("ptbxl_all__paper_protocol").task.protocol == PAPER_FOLDS


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mitbih", "begin with one of ptbxl_superclass"),
        ("cpsc2018__kernel", "use multi_class"),
        ("ptbxl_superclass__nearest_mean", "name multi_class too"),
        ("cpsc2018__paper_protocol", "of ptbxl, not of cpsc2018"),
        ("ptbxl_all__attention_pool__fine_tuned", "has one head"),
        ("ptbxl_all__labels_0", "labels_<percent>"),
        ("ptbxl_all__labels_01", "labels_<percent>"),
        ("ptbxl_all__multi_class__multi_class", "one class a record already"),
        ("ptbxl_all__noise_muscle_1__noise_baseline_2", "the name has noise already"),
        ("ptbxl_all__labels_1__labels_5", "a percentage of labels already"),
        ("ptbxl_all__leads_V1_II", "in this order"),
        ("ptbxl_all__leads_aVR", "name some of I, II"),
        ("ptbxl_superclass__leads_II__fine_tuned", "fine-tuning takes all leads"),
        ("ptbxl_superclass__fine_tuned_layerwise__leads_II_V1", "fine-tuning takes all leads"),
    ],
)
def test_a_name_that_means_nothing_is_refused(name, says):
    with pytest.raises(ValueError, match=says):
        evaluation(name)


def test_the_table_of_names_needs_no_torch():
    script = "import sys; import pipelines.evaluate.suite.names; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"False\n"


def test_few_labels_are_nested_whole_patients_and_leave_the_rest_alone(workspace):
    records = read_records(shards_of(workspace, "ptbxl"))
    whole_N = FoldProtocol().split(records)
    patient_N = np.asarray(patients(records))
    taken = {}
    for percent in (5, 10, 50, 100):
        few = FewLabels(of=FoldProtocol(), percent=percent, seed=1)
        split_N = few.split(records)
        assert protocol_from_dict(few.to_dict()) == few
        for split in (Split.VALIDATION, Split.TEST):
            assert np.array_equal(split_N == split, whole_N == split)
        taken[percent] = set(patient_N[split_N == Split.TRAIN])
        assert len(taken[percent]) == round(80 * percent / 100)
        assert taken[percent].isdisjoint(patient_N[split_N != Split.TRAIN])
    assert taken[5] < taken[10] < taken[50] < taken[100]
    assert FewLabels(of=FoldProtocol(), percent=50, seed=2).split(records).tolist() != split_N.tolist()
    with pytest.raises(ValueError, match="percent=0"):
        FewLabels(of=FoldProtocol(), percent=0)


def test_a_label_budget_is_the_mean_over_draws_and_keeps_each(workspace):
    asked = evaluation("ptbxl_superclass__labels_50")
    product = materialize_evaluation(workspace, asked, encoder(), QUICK)
    assert product.name == "probe/ptbxl_superclass__labels_50/tiny"
    draws = results_of(workspace, product)
    assert len(draws) == DRAWS
    values = [result.scores.test.macro_auc.value for result in draws if result.scores is not None]
    assert len(set(values)) > 1
    mean = product.facts["test_macro_auc"]
    assert mean["value"] == pytest.approx(np.mean(values))
    assert mean["low"] <= mean["value"] <= mean["high"]
    assert [draw["test_macro_auc"]["value"] for draw in product.facts["draws"]] == values
    fitted = [result.counts["train"] for result in draws]
    assert len(set(fitted)) == 1
    told = f"fitted on {fitted[0]} ECGs, chosen on {draws[0].counts['validation']} of validation"
    assert labels_used(product) == told
    assert labels_used(workspace.require(product.facts["draws"][0]["product"])) is None
    assert materialize_evaluation(workspace, asked, encoder(), QUICK).cached
    unchosen = evaluation("ptbxl_superclass__paper_protocol__labels_50")
    product = materialize_evaluation(workspace, unchosen, encoder(), QUICK)
    assert labels_used(product) == "fitted on 90 ECGs, nothing chosen"
    few = materialize_evaluation(workspace, evaluation("ptbxl_superclass__labels_1"), encoder(), QUICK)
    assert not few.facts["scored"]
    assert "each needs 5" in few.facts["reason"]


def test_all_of_the_labels_are_drawn_once(workspace):
    everything = materialize_evaluation(workspace, evaluation("ptbxl_superclass__labels_100"), encoder(), QUICK)
    plain = materialize_evaluation(workspace, evaluation("ptbxl_superclass"), encoder(), QUICK)
    assert everything.name == "probe/ptbxl_superclass__labels_100/tiny"
    assert len(results_of(workspace, everything)) == 1
    assert not list(workspace.folder("probe").glob("ptbxl_superclass__labels_100__seed_*"))
    assert everything.facts["test_macro_auc"] == plain.facts["test_macro_auc"]


def test_fewer_leads_are_other_features_and_hold_what_they_show(workspace):
    auc = {}
    for leads in ("II", "V1"):
        asked = evaluation(f"ptbxl_superclass__leads_{leads}")
        product = materialize_evaluation(workspace, asked, encoder(), QUICK)
        auc[leads] = product.facts["test_macro_auc"]
        assert workspace.current(f"features/tiny__leads_{leads}/ptbxl/00000") is not None
    assert auc["II"]["value"] > 0.9
    assert auc["V1"]["low"] < 0.6
    signal_NLT = open_shard(shards_of(workspace, "ptbxl")["00000"].path).signals()
    config = FeatureConfig(leads=("II", "V1"))
    both = read_features(materialize_features(workspace, encoder(), "ptbxl", config))
    assert both == pytest.approx(embed(random_encoder(TINY, 0), signal_NLT[:, [1, 2]], config), abs=1e-6)


def test_leads_out_of_order_or_unknown_are_refused():
    for leads in ((), ("V1", "II"), ("II", "II"), ("aVR",)):
        with pytest.raises(ValueError, match="in this order, each once"):
            FeatureConfig(leads=leads)


def test_an_encoder_for_other_ecgs_is_refused_by_name(workspace):
    others = ({"leads": 3}, {"leads": 10}, {"patch_size": 64, "patches": 40})
    for config in (replace(TINY, **wrong) for wrong in others):
        source = EncoderSource.random("other", config, 0)
        for looked_at in (None, FeatureConfig(leads=("II",))):
            with pytest.raises(ValueError, match=r"encoder 'other' is made for .* probe an encoder that"):
                materialize_features(workspace, source, "ptbxl", looked_at)


@pytest.mark.parametrize("variant", ["multi_class", "labels_50"])
def test_a_score_of_an_encoder_for_longer_ecgs_says_so(tmp_path, variant):
    workspace = Workspace(tmp_path)
    harmonized(workspace, "00000")

    def make(work: Path) -> dict:
        save_encoder(work / "encoder.safetensors", random_encoder(replace(TINY, patches=100), 5))
        return {}

    workspace.build("encoder", version="test", config={}, inputs={}, make=make)
    mine, random, floor = evaluate_encoder(workspace, evaluation(f"ptbxl_superclass__{variant}"), QUICK)
    told = "made for 20 s, tested on 10 s"
    assert mine.row()["features"] == f"pretrained ({told})"
    assert mine.row()["test macro AUC"] is not None
    assert random.product.facts["window"] == told
    assert floor.row()["features"] == "handcrafted"


def test_a_condition_changes_the_test_split_alone(workspace):
    seen: list[str] = []

    def apply(signal_NLT: np.ndarray, record_ids) -> np.ndarray:
        seen.extend(record_ids)
        return np.zeros_like(signal_NLT)

    silence = Condition(name="silence", settings={"level": 1}, apply=apply)
    task = SUITE_TASKS["ptbxl_superclass"]
    plain = materialize_probe(workspace, task, encoder(), QUICK)
    product = materialize_probe(
        workspace, replace(task, name="ptbxl_superclass__silence"), encoder(), QUICK, condition=silence
    )
    records = read_records(shards_of(workspace, "ptbxl"))
    test_N = FoldProtocol().split(records) == Split.TEST
    assert seen == np.asarray(records.column("record_id"))[test_N].tolist()
    assert product.facts["test_macro_auc"]["value"] == 0.5
    assert product.facts["validation_macro_auc"] == plain.facts["validation_macro_auc"]
    assert product.facts["data_digest"] != plain.facts["data_digest"]


def test_tokens_are_the_encoders_and_are_read_by_row(workspace):
    harmonized(workspace, "01000", n=30, source="georgia")
    harmonized(workspace, "00000", n=20, source="georgia")
    products = materialize_tokens(workspace, encoder(), "georgia")
    tokens = Tokens(products)
    assert tokens.shape == (50, 400, 16)
    rows = np.array([40, 3, 19, 20])
    parts = [open_shard(shard.path).signals() for shard in shards_of(workspace, "georgia").values()]
    signal_NLT = np.concatenate(parts)[rows]
    pooled = tokens[rows].astype(np.float32).mean(axis=1)
    assert pooled == pytest.approx(embed(random_encoder(TINY, 0), signal_NLT, FeatureConfig()), abs=2e-3)
    assert materialize_tokens(workspace, encoder(), "georgia")["00000"].cached


def test_an_encoder_stands_beside_what_it_has_to_beat(workspace):
    standings = evaluate_encoder(workspace, evaluation("ptbxl_superclass__multi_class"), QUICK)
    names = [standing.row()["features"] for standing in standings]
    assert names == ["pretrained", "random", "handcrafted"]
    mine, random, floor = (standing.product.facts["test_macro_auc"]["value"] for standing in standings)
    assert standings[0].lead is None
    for standing, other in ((standings[1], random), (standings[2], floor)):
        assert standing.lead is not None
        assert standing.lead.value == pytest.approx(mine - other)
        assert standing.lead.low <= standing.lead.value <= standing.lead.high
        assert standing.row()["accuracy"] is not None
    assert floor > 0.95
    drawn = evaluated(standings)
    assert drawn is not None
    assert drawn.startswith(b"\x89PNG")


def test_what_was_not_scored_has_no_picture(workspace):
    few = replace(QUICK, min_patients=10_000)
    assert evaluated(evaluate_encoder(workspace, evaluation("ptbxl_superclass__multi_class"), few)) is None


@pytest.mark.parametrize("head", VARIANT_HEADS)
def test_by_the_papers_protocol_no_head_chooses(workspace, head):
    name = f"ptbxl_superclass__multi_class__{head}__paper_protocol"
    asked = evaluation(name)
    assert evaluation(f"ptbxl_superclass__paper_protocol__multi_class__{head}").head == asked.head == head
    found = head_of(asked)
    assert found is not None
    assert not found.chooses
    plain = head_of(evaluation(f"ptbxl_superclass__multi_class__{head}"))
    assert plain is not None
    assert plain.chooses == (head != "nearest_mean")
    if head == "attention_pool":
        source = EncoderSource.random("pretrained", TINY, 4)
        product = materialize_evaluation(workspace, asked, source, QUICK)
        assert product.facts["scored"], product.facts["reason"]
        assert "validation_macro_auc" not in product.facts


def test_handcrafted_features_are_finite_whatever_the_ecg():
    rng = np.random.default_rng(0)
    flat = np.zeros((1, 8, 2500), np.int16)
    ends = np.where(np.arange(2500) % 2, 32767, -32768).astype(np.int16) * np.ones((1, 8, 1), np.int16)
    noise = rng.integers(-2000, 2000, size=(130, 8, 2500)).astype(np.int16)
    feature_ND = handcrafted(np.concatenate([flat, ends, noise]))
    assert feature_ND.shape == (132, 170)
    assert np.isfinite(feature_ND).all()
    assert handcrafted(noise[:3, [1, 2]]).shape == (3, 44)
    assert np.array_equal(handcrafted(noise[:1])[0], feature_ND[2])
    assert handcrafted(noise[:0]).shape == (0, 170)


@pytest.mark.parametrize("rate", [45, 72, 150])
def test_the_heart_rate_of_a_clock_is_found(rate):
    time_T = np.arange(2500) / 250
    beat_T = np.exp(-(((time_T * rate / 60) % 1 - 0.5) ** 2) / (2 * (0.02 * rate / 60) ** 2))
    slope_NLT = np.diff(1000 * beat_T).round().astype(np.int16)[None, None].repeat(8, axis=1)
    found_N, height_N = heart_rate(slope_NLT)
    assert found_N[0] == pytest.approx(rate, rel=0.02)
    assert height_N[0] > 0.8


def test_handcrafted_features_are_cached_and_probed_as_an_encoders(workspace):
    product = materialize_probe(workspace, SUITE_TASKS["ptbxl_superclass"], HandcraftedSource(), QUICK)
    assert product.name == "probe/ptbxl_superclass/handcrafted"
    result = load_result(product.path)
    assert result.scores is not None
    assert result.scores.test.macro_auc.value > 0.95
    assert workspace.require("features/handcrafted/ptbxl/00000").facts == {"records": 200, "dim": 170}


def test_the_store_and_the_suite_name_leads_alike():
    from ecg_model.leads import LEADS as of_the_model

    assert of_the_model == LEADS
