"""The report on an encoder and the comparison of two, through the real road on a small simulated mirror."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score

from assets.previews import scores
from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder
from pipelines.cache import Product, Workspace
from pipelines.cli import main
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.download.mirror import Mirror, list_source
from pipelines.download.step import materialize_raw
from pipelines.evaluate.exposure import Overlaps
from pipelines.evaluate.features import EncoderSource
from pipelines.evaluate.probes.assessment import assess, points
from pipelines.evaluate.probes.comparison import compare
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import (
    ClassScore,
    Predictions,
    ProbeResult,
    ProbeScores,
    SplitScores,
    load_result,
    load_roc,
)
from pipelines.evaluate.probes.step import materialize_probe
from pipelines.evaluate.probes.stored import Probe
from pipelines.evaluate.report.compare import compare_encoders, compare_results
from pipelines.evaluate.report.model import TaskReport
from pipelines.evaluate.report.page import forest_scale, report_page
from pipelines.evaluate.report.published import BY_EVALUATION, published_for
from pipelines.evaluate.report.step import HTML_FILE, JSON_FILE, materialize_report, summarise
from pipelines.evaluate.report.verdict import judge
from pipelines.evaluate.report.views import most_confident, principal_plane
from pipelines.evaluate.scaling.facts import Curve, Point, ScalingFacts
from pipelines.evaluate.scaling.fit import PowerLaw
from pipelines.evaluate.statistics.bootstrap import Interval
from pipelines.evaluate.statistics.paired import holm
from pipelines.evaluate.suite.baselines import probe_pair
from pipelines.evaluate.suite.names import SUITE, Evaluation, evaluation
from pipelines.evaluate.suite.run import labels_used, materialize_evaluation, paired_lead, results_of
from pipelines.evaluate.waves import tables as wave_views
from pipelines.evaluate.waves.config import SegmentationConfig
from pipelines.evaluate.waves.delineation import WaveTask
from pipelines.evaluate.waves.intervals import RegressionConfig, materialize_regression
from pipelines.evaluate.waves.segmentation import materialize_segmentation
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.home import Home
from pipelines.plots import svg
from pipelines.release.resolve import named_encoders
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from pipelines.tasks.catalogue import SUITE_TASKS, TASKS
from pipelines.tasks.splits import FoldProtocol, Split
from pipelines.tracking import Tracking
from tests.support.pages import Page, self_contained

NETWORK = EncoderConfig(dim=32, depth=2, heads=2, input_scale=5.0, patch_init_scale=7.0)
QUICK = ProbeConfig(resamples=200, min_positives=1, penalties=(1e-2, 1e-4))
HOSTILE = '<script>alert("1")</script>&\'x'
# A label's name and a task's title are data: these must come through as text.
TASK = replace(
    TASKS["ptbxl_superclass"],
    title="Superclasses <b>&",
    classes=(replace(TASKS["ptbxl_superclass"].classes[0], name=HOSTILE), *TASKS["ptbxl_superclass"].classes[1:]),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    root = tmp_path_factory.mktemp("report")
    sizes = MirrorSizes(chapman=(90,), code15=(), ptbxl=(400,), cpsc2018=(6,) * 7, georgia=(), ludb=0)
    write_mirror(root / "mirror", seed=1, sizes=sizes)
    home, mirror = Home(root / "home", "hosts"), Mirror.parse(str(root / "mirror"))
    workspace = home.workspace()
    for name in ("chapman", "ptbxl", "cpsc2018"):
        source = SOURCES[name]
        for partition in source.available(list_source(source, mirror, raw_root=root / "files")):
            materialize_raw(workspace, source, partition, mirror=mirror, raw_root=root / "files")
            materialize_ecgs(workspace, source, partition, limits=QualityLimits())
    corpus = materialize_corpus(workspace, CorpusConfig())
    put_encoder(workspace, 5, corpus.facts["digest"])
    probe_pair(workspace, TASK, QUICK)
    probe_pair(workspace, TASKS["cpsc2018"], QUICK)
    return home


@pytest.fixture
def workspace(home: Home) -> Workspace:
    return home.workspace()


@pytest.fixture
def report(workspace: Workspace) -> Product:
    return materialize_report(workspace, simulated=True)


def put_encoder(workspace: Workspace, seed: int, corpus_digest: str) -> Product:
    def make(work: Path) -> dict:
        save_encoder(work / "encoder.safetensors", random_encoder(NETWORK, seed))
        return {"recipe": {"name": "demo", "seed": 4}, "corpus_digest": corpus_digest, "steps": 8}

    return workspace.build("encoder", version="test", config={"seed": seed}, inputs={}, make=make)


def stored(product: Product) -> dict:
    return json.loads((product.path / JSON_FILE).read_text())


def summarised(workspace: Workspace, products: dict[str, dict[str, Product]]) -> tuple[TaskReport, ...]:
    probes = {task: {name: Probe.load(one.path) for name, one in named.items()} for task, named in products.items()}
    encoder, overlaps = workspace.require("encoder"), Overlaps(workspace)
    return summarise(workspace, probes, encoder, overlaps, simulated=False).tasks


def shown(interval: dict) -> str:
    return f"{interval['value']:.3f} {interval['low']:.3f} to {interval['high']:.3f}"


# the report


def test_the_page_holds_all_it_shows_and_takes_names_from_data_as_text(report):
    text = (report.path / HTML_FILE).read_text()
    page = self_contained(text)
    assert HOSTILE not in text
    assert HOSTILE in page.words
    assert "Superclasses <b>&" in page.words
    assert "The ECGs are simulated" in page.words
    assert "prefers-color-scheme: dark" in text
    assert report.facts["headline"] in page.words
    targets = {value for name, value in page.attributes if name == "id"}
    assert {value[1:] for name, value in page.attributes if name == "href"} <= targets


def test_the_pages_numbers_are_the_jsons(report):
    page = Page((report.path / HTML_FILE).read_text())
    task, unscored = stored(report)["tasks"]
    rows = [cells for section, cells in page.rows if section == task["name"]]
    for probed in task["probes"]:
        (cells,) = [row for row in rows if row[""] == probed["title"]]
        figures = probed["assessment"]
        assert cells["AUC"] == shown(figures["auc"])
        assert cells["average precision"] == shown(figures["average_precision"])
        assert cells["F1"] == shown(figures["f1"])
        assert cells["Brier score"] == shown(figures["brier"])
        assert cells["AUC on validation"] == shown(figures["validation_auc"])
    ours = task["probes"][0]["assessment"]
    against = {label["name"]: label for label in task["differences"]["random"]["labels"]}
    for label in ours["labels"]:
        (cells,) = [row for row in rows if row[""] == label["name"] and "positives" in row]
        assert cells["positives"] == str(label["positives"])
        assert cells["AUC"] == shown(label["auc"])
        one = against[label["name"]]
        assert cells["ahead of random"].startswith(f"{one['difference']['value']:+.3f} {one['difference']['low']:+.3f}")
        bins = [row for row in rows if row[""] == label["name"] and "observed share" in row]
        assert [int(row["ECGs"]) for row in bins] == [b["records"] for b in label["reliability"]]
    (first,) = [cells for section, cells in page.rows if section == "summary" and cells[""].startswith(task["title"])]
    assert first[""] == f"{task['title']} {len(ours['labels'])} of {len(task['labels'])} labels"
    assert first["this encoder"] == f"{shown(ours['auc'])} seen: nothing"
    assert first["published: ECG-JEPA"].startswith("0.912")
    assert task["few"] == [label["name"] for label in ours["labels"] if label["positives"] < 10]
    assert task["few"], "the simulated test fold is small enough for one"
    assert all(name in page.words for name in task["few"])
    assert unscored["probes"] == []
    assert f"not scored: {unscored['reason']}" in page.words


def test_the_jsons_numbers_are_scikit_learns(report, workspace):
    task = stored(report)["tasks"][0]
    for probed in task["probes"]:
        result = load_result(workspace.require(f"probe/{task['name']}/{probed['name']}").path)
        assert result.predictions is not None
        test, chosen_on = result.predictions.of(Split.TEST), result.predictions.of(Split.VALIDATION)
        figures = probed["assessment"]
        for label in figures["labels"]:
            c = test.classes.index(label["name"])
            y, p = test.y_NC[:, c], test.score_NC[:, c]
            assert label["average_precision"]["value"] == pytest.approx(average_precision_score(y, p), abs=1e-12)
            assert label["brier"]["value"] == pytest.approx(brier_score_loss(y, p), abs=1e-12)
            best = max(f1_score(chosen_on.y_NC[:, c], chosen_on.score_NC[:, c] >= t) for t in chosen_on.score_NC[:, c])
            assert f1_score(chosen_on.y_NC[:, c], chosen_on.score_NC[:, c] >= label["threshold"]) == pytest.approx(best)
            assert label["f1"]["value"] == pytest.approx(f1_score(y, p >= label["threshold"]), abs=1e-12)
            for name in ("auc", "average_precision", "f1", "brier"):
                assert label[name]["low"] <= label[name]["value"] + 1e-12
                assert label[name]["value"] <= label[name]["high"] + 1e-12
        mean = np.mean([label["average_precision"]["value"] for label in figures["labels"]])
        assert figures["average_precision"]["value"] == pytest.approx(mean)


def test_what_the_encoder_saw_is_said(report, workspace):
    values = stored(report)
    assert values["pretraining"]["ecgs"] == workspace.require("corpus").facts["by_source"]
    nothing = {"data_set": False, "test": 0, "tested": values["tasks"][0]["probes"][0]["seen"]["tested"]}
    assert [probed["seen"] for probed in values["tasks"][0]["probes"]] == [nothing, nothing, nothing]
    assert values["tasks"][0]["protocol"] == "fitted on folds 1, 2, 3, 4, 5, 6, 7, 8; chosen on 9; tested once on 10"
    unknown = "patient, or by ECG if no patient is named"
    assert f"chosen on 10% of them, drawn by {unknown}; tested once on g7" in values["tasks"][1]["protocol"]
    picture = scores(report)
    assert picture is not None
    assert picture.startswith(b"\x89PNG")


def test_a_window_that_is_longer_than_the_ecgs_is_said_under_the_scores(workspace, report, monkeypatch):
    task, window = "ptbxl_superclass", "made for 20 s, tested on 10 s"
    probe = workspace.require(f"probe/{task}/pretrained")
    monkeypatch.setattr(EncoderSource, "window", window)
    probes, encoder = {task: {"pretrained": Probe.load(probe.path)}}, workspace.require("encoder")
    summary = summarise(workspace, probes, encoder, Overlaps(workspace), simulated=True)
    rocs = {task: {"pretrained": load_roc(probe.path)}}
    assert window in report_page(summary, rocs=rocs, maps={}, samples={}, examples={}, scaling=[])
    assert window not in (report.path / HTML_FILE).read_text()


def test_it_is_found_again_and_made_anew_for_a_new_probe(report, workspace):
    again = materialize_report(workspace, simulated=True)
    assert again == replace(report, cached=True)
    handcrafted = EncoderSource.random("handcrafted", replace(NETWORK, depth=1), 9)
    materialize_probe(workspace, TASK, handcrafted, QUICK)
    with_handcrafted = materialize_report(workspace, simulated=True)
    task = stored(with_handcrafted)["tasks"][0]
    assert [probed["name"] for probed in task["probes"]] == ["pretrained", "random", "handcrafted"]
    assert "features without a network (handcrafted)" in " ".join(stored(with_handcrafted)["verdict"]["meaning"])
    materialize_probe(workspace, TASK, handcrafted, replace(QUICK, min_positives=2))
    other_protocol = stored(materialize_report(workspace, simulated=True))["tasks"][0]
    assert other_protocol["left_out"] == ["handcrafted features"]
    assert [probed["name"] for probed in other_protocol["probes"]] == ["pretrained", "random"]


def test_probes_of_an_earlier_encoder_are_not_reported(workspace):
    corpus = workspace.require("corpus").facts["digest"]
    put_encoder(workspace, 6, corpus)
    try:
        with pytest.raises(ValueError, match="no probe of the current encoder"):
            materialize_report(workspace, simulated=True)
    finally:
        put_encoder(workspace, 5, corpus)


def test_probes_of_ecgs_that_have_changed_since_are_not_reported(workspace):
    materialize_ecgs(workspace, SOURCES["ptbxl"], "00000", limits=QualityLimits(amplitude=2.0))
    try:
        with pytest.raises(ValueError, match="probe/ptbxl_superclass is of other ECGs than are here now"):
            materialize_report(workspace, simulated=True)
    finally:
        materialize_ecgs(workspace, SOURCES["ptbxl"], "00000", limits=QualityLimits())


def test_what_was_seen_of_a_task_and_that_its_source_names_no_patients_is_told(workspace, tmp_path):
    """Of Chapman, which is in the encoder's corpus, a copy of one ECG aside, and has no folds of its own."""
    copied = Workspace(shutil.copytree(workspace.root, tmp_path / "copy"))
    task = SUITE_TASKS["chapman_rhythm"]
    probe_pair(copied, task, replace(QUICK, min_patients=2))
    report = materialize_report(copied, simulated=True)
    (reported,) = [one for one in stored(report)["tasks"] if one["name"] == "chapman_rhythm"]
    drawn = "ECG (the source names no patients)"
    assert reported["protocol"] == f"fitted on 70%; chosen on 10%; tested once on 20%, drawn by {drawn}"
    predictions = load_result(copied.require("probe/chapman_rhythm/pretrained").path).predictions
    assert predictions is not None
    tested = set(predictions.of(Split.TEST).record_id)
    index = pq.read_table(copied.require("corpus").path / "index.parquet")
    pretrained_on = tested & set(index["record_id"].to_pylist())
    assert pretrained_on, "the True case"
    assert [probed["seen"]["test"] for probed in reported["probes"]] == [len(pretrained_on), 0, 0]
    page = Page((report.path / HTML_FILE).read_text())
    assert f"Tested on {len(tested)} ECGs, patients not named; intervals by {drawn}." in page.words
    (first,) = [cells for section, cells in page.rows if section == "summary" and cells[""].startswith(task.title)]
    assert first["this encoder"].endswith(f" seen: {len(pretrained_on)} of {len(tested)} test ECGs")
    assert first["random encoder"].endswith(" seen: nothing")
    seen = [cells["seen"] for section, cells in page.rows if section == "chapman_rhythm" and "seen" in cells]
    assert seen == [f"{len(pretrained_on)} of {len(tested)} test ECGs", "nothing", "nothing"]


def test_a_scale_leaves_room_where_all_is_perfect():
    assert forest_scale([1.0, 1.0]) == (0.9, [0.9, 1.0])
    assert forest_scale([0.55]) == (0.5, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


@pytest.mark.parametrize(
    ("value", "p", "headline"),
    [
        (0.03, 0.01, "Pretraining helped on 1 of 1 task"),
        (-0.03, 0.01, "Pretraining hurt on 1 of 1 task"),
        (0.03, 0.2, "No evidence yet that pretraining helps: 0 of 1 task"),
    ],
)
def test_the_verdict_is_what_is_shown_not_what_is_hoped(workspace, value, p, headline):
    probes = {TASK.name: {name: workspace.require(f"probe/{TASK.name}/{name}") for name in ("pretrained", "random")}}
    (task,) = summarised(workspace, probes)
    comparison = task.differences["random"]
    changed = replace(comparison, p_adjusted=p, difference=replace(comparison.difference, value=value))
    verdict = judge([replace(task, differences={"random": changed})], simulated=True, recipe="demo")
    assert verdict.headline == headline
    assert any("make demo MIRROR=" in step for step in verdict.next_steps)
    below = replace(changed, p_adjusted=0.001, difference=replace(comparison.difference, value=-0.1))
    both = judge(
        [replace(task, differences={"random": changed, "handcrafted": below})], simulated=False, recipe="small"
    )
    assert both.headline == headline
    assert "Handcrafted features are ahead of it on 1 of 1 task." in both.meaning
    assert not any("make demo" in step for step in both.next_steps), "these ECGs are recorded"
    assert "below handcrafted features (-0.100" in both.sentences[0]


def scored(y_NC: np.ndarray, score_NC: np.ndarray) -> ProbeResult:
    """A probe's result with these scores of the test split, a patient a record."""
    names = tuple(f"l{c}" for c in range(y_NC.shape[1]))
    patients = tuple(map(str, range(len(y_NC))))
    value = Interval(value=0.5, low=0.4, high=0.6)
    classes = tuple(ClassScore(name=name, positives=1, negatives=1, auc=value, average_precision=0.3) for name in names)
    test = SplitScores(
        records=len(y_NC),
        patients=len(y_NC),
        macro_auc=value,
        macro_average_precision=0.3,
        classes=classes,
        omitted={},
    )
    return ProbeResult(
        task="many",
        classes=names,
        counts={},
        scores=ProbeScores(penalty=None, trials=(), validation=None, test=test),
        predictions=Predictions(
            classes=names,
            record_id=patients,
            patient=patients,
            split_N=np.full(len(y_NC), "test"),
            y_NC=y_NC,
            score_NC=score_NC,
        ),
    )


def test_of_many_labels_one_that_differs_can_be_told():
    """Of 40 labels, one is ranked by one encoder alone: a thousand resamples could not show a p below 0.05 for it."""
    rng = np.random.default_rng(0)
    y_NC = rng.random((400, 40)) < 0.3
    noise_NC = rng.random(y_NC.shape)
    better_NC = noise_NC.copy()
    better_NC[:, 7] = 0.5 * y_NC[:, 7] + 0.5 * noise_NC[:, 7]
    (comparison,) = compare_results([("Many", scored(y_NC, better_NC), scored(y_NC, noise_NC))], ProbeConfig())
    assert comparison.resamples == 16000
    significant = {label.name: label.p_adjusted for label in comparison.labels if label.p_adjusted < 0.05}
    assert list(significant) == ["l7"]
    assert significant["l7"] == pytest.approx(40 * 2 / 16001), "no resample is on the far side"
    assert {label.p_adjusted for label in comparison.labels if label.name != "l7"} == {1.0}, (
        "equal scores do not differ"
    )


def test_of_many_tasks_those_that_differ_can_be_told():
    """At 26 tasks a thousand resamples could show none of them below 0.05, were they ever so different."""
    rng = np.random.default_rng(1)
    y_NC = rng.random((60, 2)) < 0.4
    noise_NC = rng.random(y_NC.shape)
    better, same = scored(y_NC, 0.5 * y_NC + 0.5 * noise_NC), scored(y_NC, noise_NC)
    comparisons = compare_results([*[("Ahead", better, same)] * 25, ("Level", same, same)], ProbeConfig())
    assert [one.p_adjusted < 0.05 for one in comparisons] == [True] * 25 + [False]
    assert {one.resamples for one in comparisons} == {10400}


@pytest.mark.parametrize("name", ["georgia", "ptbxl100_all"])
def test_a_task_has_its_published_figures_beside_it(workspace, name):
    probes = {name: {"pretrained": workspace.require(f"probe/{TASK.name}/pretrained")}}
    (task,) = summarised(workspace, probes)
    assert task.published == BY_EVALUATION[name.replace("100", "")]


def test_every_evaluation_with_a_published_figure_exists():
    for name in BY_EVALUATION:
        assert evaluation(name).name == name
    assert published_for("ptbxl100_all__fine_tuned_layerwise") == BY_EVALUATION["ptbxl_all__fine_tuned"]
    assert published_for("ptbxl_superclass__labels_5") is None
    assert {"georgia", "cpsc2018", "ptbxl_all"} <= BY_EVALUATION.keys() & SUITE_TASKS.keys()
    assert {"ptbxl_superclass__labels_1", "ptbxl_superclass__leads_II_V1"} <= BY_EVALUATION.keys() & SUITE.keys()


def test_the_suite_stands_on_the_page_where_it_was_done_for_this_encoder(workspace, report):
    before = Page((report.path / HTML_FILE).read_text())
    assert all(section != "suite" for section, _ in before.rows), "only plain probes are here"
    assert stored(report)["suite"] == []
    ours = EncoderSource.of_product("pretrained", workspace.require("encoder"))
    few = evaluation("ptbxl_superclass__labels_50")
    products = {
        source.name: materialize_evaluation(workspace, few, source, QUICK)
        for source in (ours, EncoderSource.random("random", NETWORK, 4))
    }
    of_another = EncoderSource.random("pretrained", NETWORK, 77)
    materialize_evaluation(workspace, evaluation("ptbxl_superclass__leads_II"), of_another, QUICK)
    again = materialize_report(workspace, simulated=True)
    assert again.fingerprint != report.fingerprint, "what is shown is an input"
    text = (again.path / HTML_FILE).read_text()
    page = self_contained(text)
    rows = {cells[""]: cells for section, cells in page.rows if section == "suite" and "published: best known" in cells}
    draw = products["pretrained"].facts["draws"][0]
    assert draw["chosen_on"] == results_of(workspace, products["pretrained"])[0].counts["validation"] > 0
    assert list(rows) == [
        "linear 4 of 5 labels without HYP",
        f"50 % of the labels {labels_used(products['pretrained'])} 4 of 5 labels without HYP",
    ], "another encoder's evaluation is not this one's, and what is left out is named"
    assert f"chosen on {draw['chosen_on']} of validation" in list(rows)[1]
    rows = {name.split(" 4 of 5 ")[0].split(" fitted ")[0]: cells for name, cells in rows.items()}
    for name, title in (("pretrained", "this encoder"), ("random", "random encoder")):
        assert rows["50 % of the labels"][title] == f"{shown(products[name].facts['test_macro_auc'])} seen: nothing"
        draws = results_of(workspace, products[name])
        value = np.mean([draw.scores.test.macro_auc.value for draw in draws if draw.scores is not None])
        assert rows["50 % of the labels"][title].startswith(f"{value:.3f} ")
    assert rows["linear"]["published: ECG-JEPA"].startswith("0.912")
    lead = paired_lead(workspace, products["pretrained"], products["random"], ProbeConfig())
    assert lead is not None
    assert rows["50 % of the labels"]["ahead of random"].startswith(
        f"{lead.value:+.3f} {lead.low:+.3f} to {lead.high:+.3f}"
    )
    assert rows["50 % of the labels"]["ahead of handcrafted"] == "–", "it was not asked the same"
    texts = [value for name, value in page.attributes if name == "aria-label" and value.startswith("AUC by share")]
    auc = products["pretrained"].facts["test_macro_auc"]["value"]
    assert len(texts) == 1
    assert f"this encoder 50 %: {auc:.3f}, 100 %: " in texts[0]
    assert "nan" not in text.lower().split("</style>")[1].replace("base64", "").split("data:image")[0].split()


def test_each_evaluation_has_every_figure_and_an_adjusted_lead(workspace):
    """A multi-class one with three draws, and one with fewer leads, each with its random baseline."""
    ours = EncoderSource.of_product("pretrained", workspace.require("encoder"))
    sources = (ours, EncoderSource.random("random", NETWORK, 4))
    evaluations = [evaluation(f"ptbxl_superclass__{name}") for name in ("multi_class__labels_50", "leads_II_V1")]
    few, leads = ([materialize_evaluation(workspace, one, source, QUICK) for source in sources] for one in evaluations)
    report = materialize_report(workspace, simulated=True)
    (table,) = [one for one in stored(report)["suite"] if one["task"] == "ptbxl_superclass"]
    rows = {row["name"]: row for row in table["rows"]}
    assert rows["ptbxl_superclass"]["parts"] == [], "a plain probe has its own section"
    draws = results_of(workspace, few[0])
    accuracies = [draw.scores.test.accuracy.value for draw in draws if draw.scores and draw.scores.test.accuracy]
    assert len(accuracies) == 3
    accuracy = rows["ptbxl_superclass__multi_class__labels_50"]["accuracy"]["pretrained"]
    assert accuracy["value"] == pytest.approx(np.mean(accuracies))
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    parts = {part["name"]: part for row in rows.values() for part in row["parts"]}
    assert {f"ptbxl_superclass__multi_class__labels_50__seed_{seed}" for seed in range(3)} <= set(parts)
    part = parts["ptbxl_superclass__leads_II_V1"]
    result = load_result(leads[0].path)
    wanted = assess(result, QUICK)
    (figures, _) = (probed["assessment"] for probed in part["probes"])
    assert figures["f1"]["value"] == pytest.approx(wanted.f1.value if wanted.f1 else None)
    assert figures["average_precision"]["value"] == pytest.approx(wanted.average_precision.value)
    assert [len(label["reliability"]) for label in figures["labels"]] == [len(one.reliability) for one in wanted.labels]
    compared = compare(result, load_result(leads[1].path), ProbeConfig()).difference
    lead = {name: row["ahead"]["random"] for name, row in rows.items() if "random" in row["ahead"]}
    assert lead["ptbxl_superclass__leads_II_V1"]["difference"]["value"] == pytest.approx(compared.value)
    assert [one["p_adjusted"] for one in lead.values()] == holm([one["difference"]["p_value"] for one in lead.values()])
    assert part["differences"]["random"]["p_adjusted"] == lead["ptbxl_superclass__leads_II_V1"]["p_adjusted"]
    page = self_contained((report.path / HTML_FILE).read_text())
    matching = [cells for section, cells in page.rows if section == "suite" and cells.get("F1") == shown(figures["f1"])]
    assert matching, "the section is on the page"
    assert {label["name"] for label in figures["labels"]} <= {
        cells[""] for section, cells in page.rows if section == "suite"
    }


def test_what_is_behind_each_figure_is_named(workspace):
    """A label that validation has too few of has no threshold, and an AUC on test alone."""
    result = load_result(workspace.require(f"probe/{TASK.name}/pretrained").path)
    assert result.scores is not None
    assert result.scores.validation is not None
    assert result.predictions is not None
    on_validation = result.predictions.of(Split.VALIDATION)
    count = {name: int(on_validation.y_NC[:, c].sum()) for c, name in enumerate(on_validation.classes)}
    wanted = sorted(count.values())[1]
    scored = [one.name for one in result.scores.test.classes]
    without = [name for name in scored if count[name] < wanted]
    figures = assess(result, replace(QUICK, min_positives=wanted))
    assert without
    assert figures.without_f1 == {
        name: f"{count[name]} positives on validation, fewer than {wanted}" for name in without
    }
    assert [one.name for one in figures.labels if one.f1 is None] == without
    f1s = [one.f1.value for one in figures.labels if one.f1 is not None]
    assert figures.f1 is not None
    assert figures.f1.value == pytest.approx(np.mean(f1s))
    assert points(result, replace(QUICK, min_positives=wanted)).f1 == pytest.approx(figures.f1.value)
    validation = result.scores.validation
    fewer = replace(validation, classes=validation.classes[1:], omitted={validation.classes[0].name: "too few"})
    other = assess(replace(result, scores=replace(result.scores, validation=fewer)), QUICK)
    assert other.not_validated == (validation.classes[0].name,)
    assert (figures.not_validated, figures.validated_alone) == (
        (),
        tuple(one.name for one in validation.classes if one.name not in scored),
    )


@pytest.mark.slow
def test_waves_stand_on_the_page_where_they_were_told_from_this_encoder(home, workspace, report):
    text = (report.path / HTML_FILE).read_text()
    assert "Not evaluated: materialize" in text
    assert stored(report)["waves"] == []
    mirror = home.root.parent / "mirror"
    task = WaveTask(source="ptbxl", labels="truth", protocol=FoldProtocol())
    quick = SegmentationConfig(contexts=(0,), steps=4, checks=1, min_patients=2)
    ours = EncoderSource.of_product("pretrained", workspace.require("encoder"))
    of_another = EncoderSource.random("pretrained", NETWORK, 77)
    segmentations = {}
    for one in (of_another, EncoderSource.random("random", NETWORK, 4), ours):  # the last is the current one
        segmentations[one.name] = materialize_segmentation(workspace, task, one, quick, mirror=mirror)
        materialize_regression(workspace, task, one, RegressionConfig(min_patients=2), mirror=mirror)
    picture = wave_views.examples(workspace, task, segmentations["pretrained"], mirror)
    assert picture is not None
    again = materialize_report(workspace, simulated=True)
    assert again.fingerprint != report.fingerprint, "what is shown is an input"
    text = (again.path / HTML_FILE).read_text()
    rows = {cells[""]: cells for section, cells in self_contained(text).rows if section == "waves"}
    assert base64.b64encode(picture).decode() in text
    for name, title in (("pretrained", "this encoder, frozen"), ("random", "random encoder, frozen")):
        assert rows[title]["mIoU"] == f"{round(segmentations[name].facts['miou']['value'], 4)}"
    assert rows["this encoder, frozen"]["published: ECG-JEPA"].startswith("0.888")
    assert rows["heart rate"]["published: ECG-JEPA"].startswith("0.40")
    assert "QRS onset" in rows
    tested = pq.read_table(segmentations["pretrained"].path / "confusions.parquet").num_rows
    assert stored(again)["waves_seen"] == {"ptbxl_truth": {"data_set": False, "test": 0, "tested": tested}}
    materialize_segmentation(workspace, task, of_another, quick, mirror=mirror)
    materialize_regression(workspace, task, of_another, RegressionConfig(min_patients=2), mirror=mirror)
    assert stored(materialize_report(workspace, simulated=True))["waves"] == [], "another encoder's"


def scaling_curves(corpus_digest: str) -> ScalingFacts:
    auc = Interval(value=0.8, low=0.7, high=0.9)
    point = Point(
        share=1.0,
        records=1234.0,
        patients=1000.0,
        steps=8.0,
        flops=1e9,
        auc=auc,
        by_seed=(0.81, 0.79),
        few_labels={"10": replace(auc, value=0.712)},
        reason=None,
    )
    law = PowerLaw(scale=auc, exponent=auc, floor=auc, twice=replace(auc, value=0.0123))
    fitted = Curve(name="small", weights=7, points=(point,), untrained=auc, law=law, why="")
    flat = Curve(name="cpc", weights=7, points=(point,), untrained=auc, law=None, why="the curve is flat")
    return ScalingFacts(
        evaluation="cpsc2018",
        title=HOSTILE,
        fixed="updates",
        corpus_digest=corpus_digest,
        records=1234,
        seeds=(0, 1),
        confidence=0.95,
        curves=(fitted, flat),
    )


@pytest.mark.slow
def test_scaling_curves_stand_on_the_page_with_their_laws_and_their_corpus(workspace, report):
    assert "Scaling curves" not in (report.path / HTML_FILE).read_text()
    digest = workspace.require("corpus").facts["digest"]
    png = base64.b64encode(b"a picture").decode()
    try:
        for corpus_digest, is_another in ((digest, False), ("0" * 64, True)):

            def make(folder: Path, corpus_digest: str = corpus_digest) -> dict:
                (folder / "aside").mkdir()
                (folder / "aside" / "scaling.png").write_bytes(b"a picture")
                facts = scaling_curves(corpus_digest).to_dict()
                (folder / "scaling.json").write_text(json.dumps(facts))
                return facts

            workspace.build(
                "scaling/curves/cpsc2018-updates", version="1", config={"of": corpus_digest}, inputs={}, make=make
            )
            made = materialize_report(workspace, simulated=True)
            text = (made.path / HTML_FILE).read_text()
            said = " ".join(self_contained(text).words.split())
            assert f"data:image/png;base64,{png}" in text
            assert HOSTILE not in text
            for words in (
                "0.712",
                "1,234 ECGs are predicted to add",
                "the curve is flat",
                "0.810, 0.790",
                "fixed updates",
            ):
                assert words in said
            assert ("Of another corpus" in text) == is_another
            assert stored(made)["scaling"][0]["curves"][0]["law"]["twice"]["value"] == 0.0123
    finally:
        shutil.rmtree(workspace.folder("scaling"))


# what is seen


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 5))
def test_the_most_confident_are_right_or_wrong_as_said_and_each_ecg_comes_once(seed, records, classes):
    rng = np.random.default_rng(seed)
    y_NC, p_NC = rng.random((records, classes)) < 0.4, rng.random((records, classes))
    test = Predictions(
        classes=tuple(map(str, range(classes))),
        record_id=tuple(map(str, range(records))),
        patient=tuple(map(str, range(records))),
        split_N=np.full(records, "test"),
        y_NC=y_NC,
        score_NC=p_NC,
    )
    right, wrong = most_confident(test, list(range(classes)))
    assert all(y_NC[r, c] and p_NC[r, c] >= 0.5 for r, c in right)
    assert all(abs(p_NC[r, c] - y_NC[r, c]) > 0.5 for r, c in wrong)
    for chosen in (right, wrong):
        assert len({r for r, _ in chosen}) == len(chosen) <= 4
    assert bool(wrong) == bool((np.abs(p_NC - y_NC) > 0.5).any())
    if wrong:
        worst = np.abs(p_NC - y_NC).max()
        assert abs(p_NC[wrong[0]] - y_NC[wrong[0]]) == worst


def test_the_map_is_the_principal_plane():
    rng = np.random.default_rng(1)
    feature_ND = rng.normal(size=(200, 6)) * (5, 3, 1, 0.5, 0.2, 0.1) @ rng.normal(size=(6, 6)) + 7
    point_N2, explained = principal_plane(feature_ND.astype(np.float32))
    pca = PCA(2).fit(feature_ND)
    wanted_N2 = pca.transform(feature_ND)
    assert np.abs(point_N2) == pytest.approx(np.abs(wanted_N2), abs=1e-3)
    assert explained == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-5)
    assert principal_plane(np.ones((3, 4), np.float32))[1] == 0.0


def elements(markup: str, tag: str) -> Iterator[ElementTree.Element]:
    return ElementTree.fromstring(markup).iter(tag)


def test_plots_put_values_where_they_belong_and_escape_their_words():
    marks = [svg.PlotMark(0.6, 0.75, 0.9, 0), svg.PlotMark(0.2, 0.5, 1.0, 1)]
    row = svg.intervals(marks, 0.5, 1.0, [0.5, 1.0], HOSTILE)
    lines = [element.get("d") for element in elements(row, "path") if element.get("class") in ("c0", "c1")]
    assert lines == ["M20 6H80", "M0 14H100"], "beyond the scale is drawn at its edge"
    assert ElementTree.fromstring(row).get("aria-label") == HOSTILE
    turned = svg.intervals(marks, 0.5, 1.0, [0.5], "MI\u202eIM\x1b")
    assert ElementTree.fromstring(turned).get("aria-label") == r"MI\u202eIM\x1b"
    corner = svg.roc([(0, np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]))], "ROC")
    (line,) = elements(corner, "polyline")
    assert line.get("points") == "24,126 24,6 144,6"
    bins = [svg.Bin(0.1, 0.0, 0.0, 0.2, 400), svg.Bin(0.9, 1.0, 0.5, 1.0, 100)]
    dots = [float(dot.get("r", "")) - 1.2 for dot in elements(svg.reliability(bins, 0, ""), "circle")]
    assert dots == pytest.approx([3.8, 1.9])
    places = svg.scatter(np.array([[0.0, 0.0], [4.0, 1.0], [2.0, 3.0]]), np.array([0, -1, 1]), "map")
    dots = {(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in elements(places, "circle")}
    assert len(dots) == 3
    assert all(0 <= x <= 300 for x, _ in dots)
    svg.scatter(np.zeros((2, 2)), np.zeros(2, int), "all in one place")
    points = [
        (1.0, svg.PlotMark(0.5, 0.6, 0.7, 0)),
        (10.0, svg.PlotMark(0.7, 0.8, 0.9, 0)),
        (100.0, svg.PlotMark(0.9, 0.9, 1, 0)),
    ]
    lines = [path.get("d") for path in elements(svg.budget([(0, points)], [(10.0, 0.75)], "budget"), "path")]
    assert "M24 102L84 54L144 30" in lines, "each tenfold is half of the width, and 0.5 to 1 the height"
    assert "M84 66m-3 -3l6 6m0 -6l-6 6" in lines


# the comparison


@pytest.fixture
def store(tmp_path: Path, new_store: Callable[[Path], Tracking]) -> Tracking:
    return new_store(tmp_path)


def test_a_comparison_is_the_paired_bootstrap_of_the_probes_that_are_there(workspace, store):
    before = set(workspace.root.glob("features/*/*/*/*"))
    with named_encoders("pretrained", "random", workspace, store) as encoders:
        comparison = compare_encoders(workspace, encoders, [Evaluation(task=TASK), evaluation("cpsc2018")])
    assert set(workspace.root.glob("features/*/*/*/*")) == before, "nothing is embedded again"
    (task,) = comparison.tasks
    first, second = (load_result(workspace.require(f"probe/{TASK.name}/{n}").path) for n in ("pretrained", "random"))
    wanted = compare(first, second, ProbeConfig()).difference
    assert task.difference.value == pytest.approx(wanted.value, abs=1e-12)
    assert first.scores is not None
    assert task.labels_scored == first.scores.test.labels == f"{len(task.labels)} of {len(TASK.names)}"
    assert (task.difference.low, task.difference.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert task.difference.p_value == wanted.p_value
    with pytest.raises(ValueError, match="on different test records"):
        compare_results([("it", first, replace(second, task="another"))], ProbeConfig())
    assert task.p_adjusted == task.difference.p_value
    assert [label.p_adjusted for label in task.labels] == holm([label.difference.p_value for label in task.labels])
    mean = np.mean([label.difference.value for label in task.labels])
    assert task.difference.value == pytest.approx(mean)
    assert list(comparison.not_scored) == [TASKS["cpsc2018"].title]
    assert "each needs 20" in comparison.not_scored[TASKS["cpsc2018"].title]


def test_files_are_named_by_their_digest_and_one_encoder_is_not_compared_with_itself(workspace, store, tmp_path):
    file = tmp_path / "encoder.safetensors"
    save_encoder(file, random_encoder(NETWORK, 11))
    with named_encoders(str(file), "pretrained", workspace, store) as ((_, one), (_, ours)):
        assert one.name == f"encoder-{one.digest[:12]}"
        assert ours.name == "pretrained"
    with named_encoders("random", str(file), workspace, store) as ((_, random_baseline), _):
        assert random_baseline.digest == EncoderSource.random("x", NETWORK, 0).digest
    same = workspace.require("encoder").path / "encoder.safetensors"
    for names, why in (
        (("pretrained", str(same)), "are the same encoder"),
        (("random", "random"), "name an encoder to compare with its random baseline"),
        (("pretrained", "nowhere"), "'nowhere' is no encoder: give pretrained, reference, reference-cpc, random"),
        (("reference", "random"), "product 'reference' is not built"),
    ):
        with pytest.raises(ValueError, match=why), named_encoders(*names, workspace, store):
            pass


def test_the_command_prints_what_it_found_as_table_json_and_page(home, tmp_path, monkeypatch):
    monkeypatch.setenv("ECG_HOME", str(home.root))
    monkeypatch.setenv("ECG_MIRROR", "hosts")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    page = tmp_path / "compared.html"
    only = ("--task", "ptbxl_superclass")
    result = CliRunner().invoke(main, ["compare", "pretrained", "random", *only, "--json", "--html", str(page)])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    (task,) = printed["tasks"]
    parsed = self_contained(page.read_text())
    (cells,) = [cells for _, cells in parsed.rows if cells.get("") == task["title"]]
    assert cells["pretrained"] == f"{shown(task['first'])} seen: nothing"
    assert cells["random"] == f"{shown(task['second'])} seen: nothing"
    table = CliRunner().invoke(main, ["compare", "pretrained", "random", *only])
    assert f"{task['difference']['value']:+.3f} ({task['difference']['low']:+.3f}" in table.stdout
    assert "few positives in the test split" in table.stdout
    wrong = CliRunner().invoke(main, ["compare", "pretrained", "random", "--task", "ptbxl_supercalss"])
    assert wrong.exit_code == 1
    assert "evaluation 'ptbxl_supercalss': begin with one of ptbxl_superclass" in wrong.stderr
