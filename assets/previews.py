"""Pictures, sentences and tables on products for the metadata of assets, from their files; each is below 100 kB."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file

from ecg_foundry.layout import absent_leads
from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import stored_config
from ecg_model.serving.classify import CalibratedHead
from pipelines.cache import Product, Workspace
from pipelines.corpus.figures import source_figures
from pipelines.corpus.index import EXCLUSIONS_FILE
from pipelines.corpus.left_out import LeftOut, dropped_of, excluded_of, some_of_each_reason
from pipelines.encoders.names import ENCODER_FILE, HEAD_FILE, OURS
from pipelines.evaluate.probes.result import load_result, load_roc, load_scores
from pipelines.evaluate.probes.step import ProbeFacts
from pipelines.evaluate.report.model import EncoderComparison
from pipelines.evaluate.report.step import JSON_FILE
from pipelines.evaluate.suite.baselines import ProbePair
from pipelines.evaluate.suite.run import EvaluationRow
from pipelines.evaluate.waves.intervals import RegressionFacts
from pipelines.formats.shard import DROPS_FILE, open_shard
from pipelines.formatting import format_name
from pipelines.harmonize.patients import PatientCounts
from pipelines.plots.comparison import source_comparison
from pipelines.plots.curves import Curve, histograms, loss_curve, roc_curves
from pipelines.plots.ecg_paper import ecg_sheet
from pipelines.plots.reliability import reliability_chart
from pipelines.plots.scores import Score, score_chart
from pipelines.plots.weights import patch_filters
from pipelines.pretrain.step import METRICS_FILE
from pipelines.release.calibration import Calibration
from pipelines.release.classifier import ClassifierFacts
from pipelines.release.gate import Contest, GateConfig
from pipelines.tasks.splits import Split

if TYPE_CHECKING:
    from pipelines.release.model import Release

SAMPLED = 6
RECORDS_SHOWN = 50
"""Rows of a table of dropped records; `ecg sources --dropped` has all."""

_DETAIL_SHOWN = 400  # characters
_ENDS = ("value", "low", "high")


def sampled_ecgs(product: Product) -> bytes | None:
    """Draw a sheet of ECGs of a harmonized shard, evenly spaced over it. Returns None if it is empty."""
    shard = open_shard(product.path)
    records = shard.records()
    if records.num_rows == 0:
        return None
    rows = np.unique(np.linspace(0, records.num_rows - 1, min(SAMPLED, records.num_rows)).round().astype(int))
    captions = [
        f"{record['record_id']}   {_who(record['age'], record['sex'])}   {', '.join(record['labels'])[:48]}"
        f"{_not_recorded(record['notes'])}"
        for record in records.take(rows).to_pylist()
    ]
    return ecg_sheet(shard.signals()[rows] / 1000.0, captions, title=f"{product.name}, {records.num_rows:,} ECGs")


def quality_histograms(product: Product) -> bytes | None:
    """Draw histograms of a shard's quality figures and patients. Returns None if it is empty."""
    records = open_shard(product.path).records()
    return histograms(records, product.name) if records.num_rows else None


def patients_in_words(product: Product) -> str:
    """Return how many records of a harmonized shard name a patient, as a sentence."""
    return PatientCounts.of(open_shard(product.path).records().column("patient_id").to_pylist()).in_words()


@dataclass(frozen=True)
class LeftOutRecords:
    """Records that are left out, as a table for people."""

    rows: list[dict[str, str]]
    """Of at most RECORDS_SHOWN records, some of each reason."""
    whole: str
    """How many there are, and where all of them are, as a sentence; empty if there is none."""


def dropped_records(shard: Product) -> LeftOutRecords:
    """Return the records that a harmonized shard dropped, with their details."""
    source = shard.name.split("/")[1]
    return _left_out(dropped_of(shard), f"ecg sources {source} --dropped", f"{shard.path / DROPS_FILE}", shards=False)


def excluded_records(corpus: Product) -> LeftOutRecords:
    """Return the harmonized records that a corpus left out, with their details."""
    return _left_out(excluded_of(corpus), "ecg sources --dropped", f"{corpus.path / EXCLUSIONS_FILE}", shards=True)


def _left_out(records: Sequence[LeftOut], command: str, file: str, *, shards: bool) -> LeftOutRecords:
    """shards: whether each row names its shard."""
    shown = some_of_each_reason(records, RECORDS_SHOWN)
    rows = [
        {
            **({"shard": f"{record.source}/{record.partition}"} if shards else {}),
            "record": format_name(record.record_id),
            "reason": record.reason,
            "detail": _shortened(format_name(record.detail)),
        }
        for record in shown
    ]
    told = f"all {len(records):,}" if len(shown) == len(records) else f"{len(shown):,} of {len(records):,}"
    return LeftOutRecords(rows, f"{told} shown; all as csv: `{command}`; as a table: {file}")


def _shortened(text: str) -> str:
    return text if len(text) <= _DETAIL_SHOWN else f"{text[:_DETAIL_SHOWN]}..."


def compared_sources(workspace: Workspace, corpus: Product) -> bytes:
    """Draw the sources of a corpus beside each other."""
    figures = source_figures(workspace, corpus)
    ecgs = sum(len(source.amplitude_N) for source in figures.values())
    return source_comparison(figures, f"{len(figures)} source{'s' if len(figures) > 1 else ''}, {ecgs:,} ECGs")


def training_curves(encoder: Product) -> bytes:
    """Draw the loss and the collapse figures of a pretraining."""
    lines = (encoder.path / METRICS_FILE).read_text().splitlines()
    return loss_curve([json.loads(line) for line in lines], "Pretraining")


def roc(pair: ProbePair) -> bytes | None:
    """Draw the test ROC of each class, the random encoder's dashed. Returns None if the task was not scored."""
    if pair.comparison is None:
        return None
    curves, aucs = _roc(pair.pretrained)
    random_curves, random_aucs = _roc(pair.random)
    title = f"{pair.pretrained.name.split('/')[1]}: ROC on the test split"
    return roc_curves(curves, aucs, random_curves=random_curves, random_aucs=random_aucs, title=title)


def scores(report: Product) -> bytes | None:
    """Draw a report's macro AUCs with their intervals. Returns None if no task was scored."""
    stored = json.loads((report.path / JSON_FILE).read_text())
    drawn = [
        Score(task["name"], probed["title"], **probed["assessment"]["auc"])
        for task in stored["tasks"]
        for probed in task["probes"]
    ]
    return score_chart(drawn, stored["verdict"]["headline"]) if drawn else None


def filters(encoder: Product) -> bytes | None:
    """Draw the filters of an encoder's first layer. Returns None if it has no patches: its filters are short."""
    if not isinstance(stored_config(encoder.path / ENCODER_FILE), EncoderConfig):
        return None
    weights = load_file(encoder.path / ENCODER_FILE)["patch.weight"]
    return patch_filters(weights.reshape(len(weights), -1), "Filters of the first layer, 200 ms each")


def released(release: Release) -> bytes | None:
    """Draw a version's test scores beside its random baseline's. Returns None if no task was scored."""
    drawn = [
        Score(task, whose, value, value, value)
        for name, value in release.scores.metrics.items()
        for task, _, figure in [name.partition("/")]
        for whose in [{"test_macro_auc": "this version", "test_macro_auc_random": "random encoder"}.get(figure)]
        if whose is not None
    ]
    return score_chart(drawn, f"{release.name} version {release.version}") if drawn else None


def contested(contest: Contest | None, config: GateConfig) -> bytes | None:
    """Draw challenger minus champion, macro by each probe and as it is judged, and label by label.

    Returns None if there was nothing to compare.
    """
    if contest is None:
        return None
    by_probe = {row.probe: row.difference for row in contest.probes if row.weight is not None}
    shown = {probe: auc for probe, auc in by_probe.items() if auc is not None} if len(by_probe) > 1 else {}
    differences = {**shown, "macro, judged" if shown else "macro": contest.macro, **contest.labels}
    drawn = [Score(name, "difference", auc.value, auc.low, auc.high) for name, auc in differences.items()]
    title = f"margin {config.margin:g}, for one label {config.label_margin:g}"
    axis = "Validation AUC, challenger minus champion"
    return score_chart(drawn, title, axis=axis, marks=(0.0, -config.margin, -config.label_margin))


def evaluated(rows: Sequence[EvaluationRow]) -> bytes | None:
    """Draw an evaluation's encoder and its baselines. Returns None if nothing was scored."""
    scored = [(row.features, ProbeFacts.of(row.product).test_macro_auc) for row in rows]
    figures = [Score("", features, auc.value, auc.low, auc.high) for features, auc in scored if auc is not None]
    return score_chart(figures) if figures else None


def compared(comparison: EncoderComparison) -> bytes | None:
    """Draw the differences of two encoders, task by task. Returns None if no task was scored."""
    drawn = [
        Score(task.task, "difference", task.difference.value, task.difference.low, task.difference.high)
        for task in comparison.tasks
    ]
    axis = f"Macro AUC on the test split, {comparison.first} minus {comparison.second}"
    return score_chart(drawn, axis=axis, marks=(0.0,)) if drawn else None


def regressed(ours: Product, random_baseline: Product) -> bytes | None:
    """Plot the errors of intervals as shares of the training median's error, which is taken as exact.

    Returns None if none was scored.
    """
    drawn = [
        Score(
            f"{figure.title} ({figure.unit})",
            name,
            *(getattr(figure.mae, end) / figure.baseline.value for end in _ENDS),
        )
        for name, product in (("this encoder", ours), ("random encoder", random_baseline))
        for figure in RegressionFacts.of(product).figures
        if figure.baseline.value > 0
    ]
    axis = "Mean absolute error, the training median's being 1"
    return score_chart(drawn, axis=axis, marks=(1.0,)) if drawn else None


def reliability(workspace: Workspace, head: Product) -> bytes | None:
    """Draw the reliability of a classifier's probabilities on the test split, before and after calibration.

    Returns None if its task was not scored.
    """
    facts = ClassifierFacts.of(head)
    if not facts.scored:
        return None
    predictions = load_result(workspace.require(f"probe/{facts.task}/{OURS.probe}").path).predictions
    assert predictions is not None
    test = predictions.of(Split.TEST)
    stored = CalibratedHead.load(head.path / HEAD_FILE)
    calibration = Calibration(labels=stored.labels, slope_C=stored.slope_C, intercept_C=stored.intercept_C)
    probabilities = {"uncalibrated": test.score_NC.ravel(), "calibrated": calibration.apply(test.score_NC).ravel()}
    return reliability_chart(test.y_NC.ravel(), probabilities, "All labels together, test split")


def _roc(probe: Product) -> tuple[dict[str, Curve], dict[str, float]]:
    scores = load_scores(probe.path)
    assert scores is not None
    return load_roc(probe.path), {score.name: score.auc.value for score in scores.test.classes}


def _who(age: float | None, sex: str | None) -> str:
    return f"{'age unknown' if age is None else f'{age:.0f} y'} {sex or ''}".strip()


def _not_recorded(notes: Sequence[str]) -> str:
    """Name the leads that were not recorded and are zeros, as a part of the caption."""
    absent = absent_leads(notes)
    return f"   not recorded: {', '.join(absent)}" if absent else ""
