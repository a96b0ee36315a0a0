"""The pictures of products, for the asset's metadata: drawn from what was written, each below 100 kB."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq
from scipy.signal import welch

from pipelines.evaluate.pair import ProbePair
from pipelines.evaluate.report import JSON_FILE
from pipelines.evaluate.result import ROC_FILE, load_result
from pipelines.pictures.comparison import SourceFigures, source_comparison
from pipelines.pictures.curves import Curve, histograms, loss_curve, roc_curves
from pipelines.pictures.ecg_paper import ecg_sheet
from pipelines.pictures.scores import Score, score_chart
from pipelines.records import absent_leads
from pipelines.stage import Product, Workspace
from pipelines.store import RATE, open_shard, read_rows

SAMPLED = 6
SPECTRA = 512  # ECGs of a source, about
MILLIVOLT = 1e-3  # of the store's microvolt


def sampled_ecgs(product: Product) -> bytes | None:
    """A sheet of ECGs of a harmonized shard, evenly spaced over it; None where it is empty."""
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
    """What a shard's records are like; None where it is empty."""
    records = open_shard(product.path).records()
    return histograms(records, product.name) if records.num_rows else None


def compared_sources(workspace: Workspace, corpus: Product) -> bytes:
    """A corpus' sources beside each other."""
    figures = source_figures(workspace, corpus)
    ecgs = sum(len(one.amplitude_N) for one in figures.values())
    return source_comparison(figures, f"{len(figures)} source{'s' if len(figures) > 1 else ''}, {ecgs:,} ECGs")


def source_figures(workspace: Workspace, corpus: Product) -> dict[str, SourceFigures]:
    """By source: amplitude and wander of all its ECGs in a corpus, the spectrum of some, evenly spaced."""
    shards = json.loads((corpus.path / "corpus.json").read_text())["shards"]
    index = pq.read_table(corpus.path / "index.parquet", columns=["shard", "row", "source"])
    shard_N, source_N = (np.asarray(index[name].to_pylist()) for name in ("shard", "source"))
    row_N = index["row"].to_numpy()
    figures: dict[str, SourceFigures] = {}
    for source in dict.fromkeys(source_N.tolist()):
        amplitudes, wanders, signals = [], [], []
        its_shards = dict.fromkeys(shard_N[source_N == source].tolist())
        for name in its_shards:
            shard, rows = open_shard(workspace.root / shards[name]["path"]), row_N[shard_N == name]
            records = shard.records().take(rows)
            peaks = [records[f"quality_{end}"].to_numpy() for end in ("minimum", "maximum")]
            amplitudes.append(np.abs(peaks).max(axis=0))
            wanders.append(records["quality_wander"].to_numpy())
            some = rows[np.linspace(0, len(rows) - 1, min(len(rows), SPECTRA // len(its_shards) + 1)).astype(int)]
            signals.append(read_rows([(shard.folder, np.unique(some))]))
        frequency_F, power_NLF = welch(np.concatenate(signals) * MILLIVOLT, RATE, nperseg=2 * RATE)
        figures[source] = SourceFigures(
            amplitude_N=np.concatenate(amplitudes),
            wander_N=np.concatenate(wanders),
            frequency_F=frequency_F,
            spectrum_F=np.median(power_NLF.mean(axis=1), axis=0),
        )
    return figures


def training_curves(encoder: Product) -> bytes:
    """Loss and collapse figures of a pretraining."""
    lines = (encoder.aside / "metrics.jsonl").read_text().splitlines()
    return loss_curve([json.loads(line) for line in lines], "Pretraining")


def roc(pair: ProbePair) -> bytes | None:
    """The test ROC of each class, the random encoder's dashed; None where the task was not scored."""
    if pair.comparison is None:
        return None
    curves, aucs = _roc(pair.pretrained)
    random_curves, random_aucs = _roc(pair.random)
    title = f"{pair.pretrained.name.split('/')[1]}: ROC on the test split"
    return roc_curves(curves, aucs, random_curves=random_curves, random_aucs=random_aucs, title=title)


def scores(report: Product) -> bytes | None:
    """A report's macro AUCs with their intervals; None where no task was scored."""
    stored = json.loads((report.path / JSON_FILE).read_text())
    found = [
        Score(task["name"], probed["title"], **probed["assessment"]["auc"])
        for task in stored["tasks"]
        for probed in task["probes"]
    ]
    return score_chart(found, stored["verdict"]["headline"]) if found else None


def _roc(probe: Product) -> tuple[dict[str, Curve], dict[str, float]]:
    scores = load_result(probe.path).scores
    assert scores is not None
    table = pq.read_table(probe.path / ROC_FILE)
    names = np.asarray(table["class"].to_pylist())
    false, true = (table[name].to_numpy() for name in ("false_positive_rate", "true_positive_rate"))
    curves = {name: (false[names == name], true[names == name]) for name in dict.fromkeys(names.tolist())}
    return curves, {score.name: score.auc.value for score in scores.test.classes}


def _who(age: float | None, sex: str | None) -> str:
    return f"{'age unknown' if age is None else f'{age:.0f} y'} {sex or ''}".strip()


def _not_recorded(notes: Sequence[str]) -> str:
    """The leads that are zeros because there were none, so that nobody takes them for an ECG's."""
    absent = absent_leads(notes)
    return f"   not recorded: {', '.join(absent)}" if absent else ""
