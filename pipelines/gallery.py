"""The pictures of products, for the asset's metadata: drawn from what was written, each below 100 kB."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq

from pipelines.evaluate.pair import ProbePair
from pipelines.evaluate.result import ROC_FILE, load_result
from pipelines.pictures.curves import Curve, histograms, loss_curve, roc_curves
from pipelines.pictures.ecg_paper import ecg_sheet
from pipelines.stage import Product
from pipelines.store import open_shard

SAMPLED = 6


def sampled_ecgs(product: Product) -> bytes | None:
    """A sheet of ECGs of a harmonized shard, evenly spaced over it; None where it is empty."""
    shard = open_shard(product.path)
    records = shard.records()
    if records.num_rows == 0:
        return None
    rows = np.unique(np.linspace(0, records.num_rows - 1, min(SAMPLED, records.num_rows)).round().astype(int))
    captions = [
        f"{record['record_id']}   {_who(record['age'], record['sex'])}   {', '.join(record['labels'])[:48]}"
        for record in records.take(rows).to_pylist()
    ]
    return ecg_sheet(shard.signals()[rows] / 1000.0, captions, title=f"{product.name}, {records.num_rows:,} ECGs")


def quality_histograms(product: Product) -> bytes | None:
    """What a shard's records are like; None where it is empty."""
    records = open_shard(product.path).records()
    return histograms(records, product.name) if records.num_rows else None


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
