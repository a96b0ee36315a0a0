"""Segmentations and regressions for display: rows of tables, and examples on ECG paper."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipelines.cache import Product, Workspace
from pipelines.durable import write_atomically
from pipelines.evaluate.statistics.bootstrap import Interval
from pipelines.evaluate.waves.annotations import IEC_MS, INTERVALS, UNKNOWN, Wave, Waves, class_map
from pipelines.evaluate.waves.delineation import DelineationFacts, WaveTask, wave_data
from pipelines.evaluate.waves.intervals import RegressionFacts, compare_regressions
from pipelines.evaluate.waves.segmentation import (
    CONFUSIONS_FILE,
    PREDICTIONS_FILE,
    SCORES_FILE,
    SegmentationFacts,
)
from pipelines.formats.shard import LEADS, MILLIVOLT, RATE, SAMPLES, read_rows
from pipelines.harmonize.shards import HarmonizedFacts, shards_of
from pipelines.plots.segmentation import SegmentedLead, Span, segmentation_sheet

EXAMPLES = 4
EXAMPLES_FILE = "examples.png"
"""In the `aside` folder of a segmentation's product."""
_SECONDS = 5
_SHOWN_LEADS = ("II", "V2", "V5", "I")
_TITLES = {interval.name: interval.title for interval in INTERVALS}
Row = dict[str, Any]
"""A row of a table: values by column title."""


def overlap_rows(segmentations: Mapping[str, Product]) -> list[Row]:
    """Return a row for each segmentation that was scored: its mean IoU with its interval, and the IoU of each class.

    segmentations: by encoder and mode.
    """
    facts = {name: SegmentationFacts.of(product) for name, product in segmentations.items()}
    scored = [(name, one.miou, one.iou or {}) for name, one in facts.items() if one.miou is not None]
    occurring = dict.fromkeys(wave for _, _, iou in scored for wave in iou)
    return [
        {"encoder": name, "mIoU": round(miou.value, 4), "interval": _bounds(miou)}
        | {wave: round(iou[wave].value, 4) if wave in iou else None for wave in occurring}
        for name, miou, iou in scored
    ]


def boundary_rows(segmentation: Product) -> list[Row]:
    """Return a row for each kind of boundary; none if the segmentation was not scored."""
    scores = json.loads((segmentation.path / SCORES_FILE).read_text())["scores"]
    return [
        {
            "boundary": f"{score['wave']} {score['side']}",
            "annotated": score["annotated"],
            "sensitivity": _rounded(score["sensitivity"], 4),
            "PPV": _rounded(score["ppv"], 4),
            "mean error, ms": _rounded(score["mean_ms"], 1),
            "sd, ms": _rounded(score["sd_ms"], 1),
            "2 s_CSE (loose), ms": score["cse_ms"],
            "s_CSE (strict), ms": None if score["cse_ms"] is None else round(score["cse_ms"] / 2, 2),
        }
        for score in (scores or {"boundaries": ()})["boundaries"]
    ]


def read_off_rows(segmentation: Product) -> list[Row]:
    """Return a row for each figure measured on the predicted waves, with the errors that IEC 60601-2-25 accepts."""
    return [
        {
            "figure": _TITLES[figure.name],
            "unit": figure.unit,
            "MAE": _rounded(figure.mae.value, 2),
            "interval": _bounds(figure.mae, 2),
            "mean error": _rounded(figure.mean, 2),
            "sd": _rounded(figure.sd, 2),
            "IEC: mean, sd": "±{:g}, {:g}".format(*IEC_MS[figure.name]) if figure.name in IEC_MS else "",
            "records": figure.records,
            "not measurable": figure.omitted,
        }
        for figure in SegmentationFacts.of(segmentation).read_off or ()
        if figure.mae is not None
    ]


def error_rows(first: Product, second: Product) -> list[Row]:
    """Return a row for each figure of an encoder's regression and its random baseline's, on the same records.

    Figures that were not scored follow, with the reason. `ahead by`: the second's error minus the first's.
    """
    facts = RegressionFacts.of(first)
    of_random = {figure.name: figure for figure in RegressionFacts.of(second).figures}
    ahead = compare_regressions(second, first) if facts.figures else {}
    rows = [
        {
            "figure": figure.title,
            "unit": figure.unit,
            "MAE": round(figure.mae.value, 2),
            "interval": _bounds(figure.mae, 2),
            "random encoder": round(of_random[figure.name].mae.value, 2),
            "ahead by": f"{ahead[figure.name].value:.2f} ({_bounds(ahead[figure.name], 2)})",
            "training median": round(figure.baseline.value, 2),
            "pooling": figure.chosen.pooling,
            "note": f"{figure.omitted} records without it",
        }
        for figure in facts.figures
    ]
    empty = dict.fromkeys(("unit", "MAE", "interval", "random encoder", "ahead by", "training median", "pooling"))
    return rows + [{"figure": name, **empty, "note": reason} for name, reason in facts.reasons.items()]


def label_rows(delineations: Mapping[str, Product]) -> list[Row]:
    """Count over all partitions: records, waves by kind, and what was left out by reason."""
    totals: dict[str, int] = {}
    for product in delineations.values():
        facts = DelineationFacts.of(product)
        counts = {"records": facts.records, "records with waves": facts.delineated, **facts.waves}
        for name, count in (counts | {f"left out: {why}": n for why, n in facts.left_out.items()}).items():
            totals[name] = totals.get(name, 0) + count
    return [{"what": name, "count": count} for name, count in totals.items()]


def examples(workspace: Workspace, task: WaveTask, segmentation: Product, mirror: Path | None = None) -> bytes | None:
    """Return a PNG of annotated test records, evenly spaced, each in another lead, with annotated and predicted waves.

    It is drawn once and stored as EXAMPLES_FILE, which the report reads. Returns None if nothing was scored.
    """
    miou = SegmentationFacts.of(segmentation).miou
    if miou is None:
        return None
    path = segmentation.aside / EXAMPLES_FILE
    if not path.is_file():
        title = f"{task.source}: mean IoU {miou.value:.3f} on the test split"
        whose = {"manual": "cardiologists", "truth": "simulated", "pseudo": "pseudo-labels"}[task.labels]
        leads = _example_leads(workspace, task, segmentation, mirror)
        write_atomically(path, segmentation_sheet(leads, title, whose))
    return path.read_bytes()


def _example_leads(
    workspace: Workspace, task: WaveTask, segmentation: Product, mirror: Path | None
) -> list[SegmentedLead]:
    """Choose some annotated test records and a lead of each, and return five seconds of it with its waves."""
    data = wave_data(workspace, task, mirror)
    record_id = data.records.column("record_id").to_pylist()
    table = pq.read_table(segmentation.path / PREDICTIONS_FILE)
    predicted = Waves.from_table(table, record_id)
    row_of = {name: row for row, name in enumerate(record_id)}
    in_test = pq.read_table(segmentation.path / CONFUSIONS_FILE, columns=["record_id"]).column("record_id").to_pylist()
    # Records in which nothing was predicted are among them, so that misses are shown, too.
    tested = np.intersect1d([row_of[name] for name in in_test], data.waves.record_W)
    rows = tested[np.unique(np.linspace(0, len(tested) - 1, min(EXAMPLES, len(tested))).round().astype(int))]
    annotated = data.waves.of_records(rows)
    map_NLT = class_map(annotated, len(rows))
    leads = []
    for place, row in enumerate(rows):
        with_waves = [lead for lead in range(len(LEADS)) if (map_NLT[place, lead] != UNKNOWN).any()]
        preferred = LEADS.index(_SHOWN_LEADS[place % len(_SHOWN_LEADS)])
        lead = preferred if preferred in with_waves else with_waves[0]
        known = np.flatnonzero(map_NLT[place, lead] != UNKNOWN)
        first = int(np.clip(known[0] - RATE // 2, 0, SAMPLES - _SECONDS * RATE))
        signal_T = _signal(workspace, task, int(row))[lead] * MILLIVOLT
        leads.append(
            SegmentedLead(
                caption=f"record {record_id[row]}, lead {LEADS[lead]}",
                y_T=signal_T[first : first + _SECONDS * RATE],
                first=first,
                annotated=_spans(annotated, place, lead),
                predicted=_spans(predicted, int(row), lead),
                known=(float(known[0]), float(known[-1])),
            )
        )
    return leads


def _signal(workspace: Workspace, task: WaveTask, row: int) -> Any:
    """Return the ECG int16 (8, 2500) at this row of all of a task's records."""
    for shard in shards_of(workspace, task.source).values():
        records = HarmonizedFacts.of(shard).kept
        if row < records:
            return read_rows([(shard.path, np.array([row]))])[0]
        row -= records
    raise IndexError(row)


def _spans(waves: Waves, record: int, lead: int) -> list[Span]:
    """Return the complete waves of a lead."""
    chosen = (waves.record_W == record) & (waves.lead_W == lead) & ~np.isnan(waves.onset_W + waves.offset_W)
    own = waves[np.flatnonzero(chosen)]
    columns = (own.wave_W.tolist(), own.onset_W.tolist(), own.offset_W.tolist())
    return [(Wave(wave).name, onset, offset) for wave, onset, offset in zip(*columns, strict=True)]


def _bounds(interval: Interval, digits: int = 3) -> str:
    return f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
