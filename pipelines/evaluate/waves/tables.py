"""Segmentations and regressions as people look at them: rows of tables, and examples on ECG paper."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipelines.cache import Product, Workspace, write_atomically
from pipelines.evaluate.waves.annotations import IEC_MS, INTERVALS, UNKNOWN, Wave, Waves, class_map
from pipelines.evaluate.waves.delineation import WaveTask, wave_data
from pipelines.evaluate.waves.intervals import compare_regressions
from pipelines.evaluate.waves.segmentation import CONFUSIONS_FILE, PREDICTIONS_FILE, SCORES_FILE
from pipelines.formats.shard import LEADS, MILLIVOLT, RATE, SAMPLES, read_rows
from pipelines.harmonize.shards import HarmonizedFacts, shards_of
from pipelines.plots.segmentation import SegmentedLead, Span, segmentation_sheet

EXAMPLES = 4
EXAMPLES_FILE = "examples.png"
"""Beside a segmentation's product."""
_SECONDS = 5
_SHOWN_LEADS = ("II", "V2", "V5", "I")
_TITLES = {one.name: one.title for one in INTERVALS}
Row = dict[str, Any]


def overlap_rows(segmentations: Mapping[str, Product]) -> list[Row]:
    """A row an encoder and way of training, by name: mean IoU with its interval, and each class's IoU."""
    scored = {name: product.facts for name, product in segmentations.items() if product.facts["scored"]}
    occurring = dict.fromkeys(wave for facts in scored.values() for wave in facts["iou"])
    return [
        {"encoder": name, "mIoU": round(facts["miou"]["value"], 4), "interval": _interval(facts["miou"])}
        | {wave: _rounded(facts["iou"].get(wave, {}).get("value"), 4) for wave in occurring}
        for name, facts in scored.items()
    ]


def boundary_rows(segmentation: Product) -> list[Row]:
    """A row a kind of boundary; nothing where it was not scored."""
    scores = json.loads((segmentation.path / SCORES_FILE).read_text())["scores"]
    return [
        {
            "boundary": f"{one['wave']} {one['side']}",
            "annotated": one["annotated"],
            "sensitivity": _rounded(one["sensitivity"], 4),
            "PPV": _rounded(one["ppv"], 4),
            "mean error, ms": _rounded(one["mean_ms"], 1),
            "sd, ms": _rounded(one["sd_ms"], 1),
            "2 s_CSE (loose), ms": one["cse_ms"],
            "s_CSE (strict), ms": None if one["cse_ms"] is None else round(one["cse_ms"] / 2, 2),
        }
        for one in (scores or {"boundaries": ()})["boundaries"]
    ]


def read_off_rows(segmentation: Product) -> list[Row]:
    """A row a figure that was measured on the predicted waves, beside what IEC 60601-2-25 accepts of its errors."""
    return [
        {
            "figure": _TITLES[one["name"]],
            "unit": one["unit"],
            "MAE": _rounded(one["mae"]["value"], 2),
            "interval": _interval(one["mae"], 2),
            "mean error": _rounded(one.get("mean"), 2),
            "sd": _rounded(one.get("sd"), 2),
            "IEC: mean, sd": "±{:g}, {:g}".format(*IEC_MS[one["name"]]) if one["name"] in IEC_MS else "",
            "records": one["records"],
            "not measurable": one["omitted"],
        }
        for one in segmentation.facts.get("read_off", ())
        if one["mae"] is not None
    ]


def error_rows(first: Product, second: Product) -> list[Row]:
    """A row a figure of two encoders' regressions on the same records, paired, and a row a figure that was not scored.

    `ahead by`: the second's error minus the first's.
    """
    beside = {one["name"]: one for one in second.facts["figures"]}
    ahead = compare_regressions(second, first) if first.facts["figures"] else {}
    rows = [
        {
            "figure": one["title"],
            "unit": one["unit"],
            "MAE": round(one["mae"]["value"], 2),
            "interval": _interval(one["mae"], 2),
            "random encoder": round(beside[one["name"]]["mae"]["value"], 2),
            "ahead by": f"{ahead[one['name']].value:.2f} ({_interval(asdict(ahead[one['name']]), 2)})",
            "training median": round(one["baseline"]["value"], 2),
            "pooling": one["chosen"]["pooling"],
            "note": f"{one['omitted']} records without it",
        }
        for one in first.facts["figures"]
    ]
    empty = dict.fromkeys(("unit", "MAE", "interval", "random encoder", "ahead by", "training median", "pooling"))
    return rows + [{"figure": name, **empty, "note": why} for name, why in first.facts["reasons"].items()]


def label_rows(delineations: Mapping[str, Product]) -> list[Row]:
    """What the waves of all partitions add up to: records, waves by kind, and what was left out by reason."""
    totals: dict[str, int] = {}
    for product in delineations.values():
        facts = product.facts
        counts = {"records": facts["records"], "records with waves": facts["delineated"], **facts["waves"]}
        for name, count in (counts | {f"left out: {why}": n for why, n in facts["left_out"].items()}).items():
            totals[name] = totals.get(name, 0) + count
    return [{"what": name, "count": count} for name, count in totals.items()]


def examples(workspace: Workspace, task: WaveTask, segmentation: Product, mirror: Path | None = None) -> bytes | None:
    """Annotated test records, evenly spaced, each in another lead: annotated beside predicted; None where nothing was
    scored.

    Drawn once, and kept beside the product, where the report finds it.
    """
    if not segmentation.facts["scored"]:
        return None
    path = segmentation.aside / EXAMPLES_FILE
    if not path.is_file():
        write_atomically(path, _drawn(workspace, task, segmentation, mirror))
    return path.read_bytes()


def _drawn(workspace: Workspace, task: WaveTask, segmentation: Product, mirror: Path | None) -> bytes:
    data = wave_data(workspace, task, mirror)
    record_id = data.records.column("record_id").to_pylist()
    table = pq.read_table(segmentation.path / PREDICTIONS_FILE)
    predicted = Waves.from_table(table, record_id)
    row_of = {name: row for row, name in enumerate(record_id)}
    in_test = pq.read_table(segmentation.path / CONFUSIONS_FILE, columns=["record_id"]).column("record_id").to_pylist()
    tested = np.intersect1d([row_of[name] for name in in_test], data.waves.record_W)  # found or not: misses are shown
    rows = tested[np.unique(np.linspace(0, len(tested) - 1, min(EXAMPLES, len(tested))).round().astype(int))]
    annotated = data.waves.of_records(rows)
    map_NLT = class_map(annotated, len(rows))
    leads = []
    for place, row in enumerate(rows):
        drawn = [lead for lead in range(len(LEADS)) if (map_NLT[place, lead] != UNKNOWN).any()]
        wanted = LEADS.index(_SHOWN_LEADS[place % len(_SHOWN_LEADS)])
        lead = wanted if wanted in drawn else drawn[0]
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
    called = {"manual": "cardiologists", "truth": "simulated", "pseudo": "pseudo-labels"}[task.labels]
    miou = segmentation.facts["miou"]["value"]
    return segmentation_sheet(leads, f"{task.source}: mean IoU {miou:.3f} on the test split", called)


def _signal(workspace: Workspace, task: WaveTask, row: int) -> Any:
    """int16 (8, 2500): the ECG at this row of all of a task's records."""
    for shard, records in ((one, HarmonizedFacts.of(one).kept) for one in shards_of(workspace, task.source).values()):
        if row < records:
            return read_rows([(shard.path, np.array([row]))])[0]
        row -= records
    raise IndexError(row)


def _spans(waves: Waves, record: int, lead: int) -> list[Span]:
    """The whole waves of a lead."""
    chosen = (waves.record_W == record) & (waves.lead_W == lead) & ~np.isnan(waves.onset_W + waves.offset_W)
    own = waves[np.flatnonzero(chosen)]
    columns = (own.wave_W.tolist(), own.onset_W.tolist(), own.offset_W.tolist())
    return [(Wave(wave).name, onset, offset) for wave, onset, offset in zip(*columns, strict=True)]


def _interval(found: Mapping[str, float], digits: int = 3) -> str:
    return f"{found['low']:.{digits}f} to {found['high']:.{digits}f}"


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
