"""What of a report is seen rather than read: maps of embeddings, and ECGs beside what was said of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipelines.cache import Product, Workspace
from pipelines.evaluate.features import read_features
from pipelines.evaluate.probes.result import Predictions, ProbeResult
from pipelines.evaluate.report.model import EmbeddingMap, Samples, TaskReport
from pipelines.formats.shard import MILLIVOLT, open_shard, read_rows
from pipelines.harmonize.shards import read_records, shards_of
from pipelines.plots.ecg_paper import ecg_sheet
from pipelines.plots.svg import HUES
from pipelines.tasks.splits import Split

POINTS = 900  # of a map
SAMPLED = 4  # ECGs of a sheet


def embedding_maps(
    workspace: Workspace,
    embedded: Mapping[str, Mapping[str, Product]],
    source_of: Mapping[str, str],
    results: Mapping[str, ProbeResult],
) -> dict[str, EmbeddingMap]:
    """A map for each task that was scored, its test ECGs coloured by label; and one, named "", coloured by source."""
    maps = {}
    for task, result in results.items():
        if result.predictions is not None and source_of[task] in embedded:
            maps[task] = _by_label(workspace, source_of[task], embedded[source_of[task]], result.predictions)
    if len(embedded) > 1:
        maps[""] = _by_source({source: read_features(products) for source, products in embedded.items()})
    return maps


def principal_plane(feature_ND: np.ndarray) -> tuple[np.ndarray, float]:
    """Features on their first two principal axes, (N, 2), and the share of their variance there; 0 where all are equal.

    The sign of an axis is chosen so that its largest weight is positive: the same features give the same map.
    """
    centred_ND = feature_ND.astype(np.float64) - feature_ND.mean(axis=0, dtype=np.float64)
    _, size_K, axis_KD = np.linalg.svd(centred_ND, full_matrices=False)
    axis_2D, total = axis_KD[:2], float(np.square(size_K).sum())
    axis_2D = axis_2D * np.sign(axis_2D[np.arange(len(axis_2D)), np.abs(axis_2D).argmax(axis=1)])[:, None]
    point_N2 = np.zeros((len(feature_ND), 2))
    point_N2[:, : len(axis_2D)] = centred_ND @ axis_2D.T
    return point_N2, float(np.square(size_K[:2]).sum()) / total if total else 0.0


def sampled_predictions(
    workspace: Workspace, tasks: tuple[TaskReport, ...], results: Mapping[str, ProbeResult]
) -> dict[str, Samples]:
    """For each task that was scored, sheets of the test ECGs that the probe was surest of, and right or wrong."""
    found = {}
    for task in tasks:
        predictions = results[task.name].predictions
        if predictions is not None and task.probes:
            test = predictions.of(Split.TEST)
            wanted = [test.classes.index(label.name) for label in task.probes[0].assessment.labels]
            right, wrong = surest(test, wanted)
            found[task.name] = Samples(
                right=_sheet(workspace, task, test, right), wrong=_sheet(workspace, task, test, wrong)
            )
    return found


def surest(test: Predictions, column: list[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(record, class) of the predictions that are right, and of those that are wrong, the surest first, each ECG once.

    Right: labels that the ECG has, by the highest probability, a label no more often than it must be. Wrong: by how far
    the probability is from the truth, whether the label was said and is not there or is there and was not said.
    """
    y_NC, p_NC = test.y_NC[:, column], test.score_NC[:, column]
    right_NC = np.where(y_NC & (p_NC >= 0.5), p_NC, -1.0)
    wrong_NC = np.where(np.abs(p_NC - y_NC) > 0.5, np.abs(p_NC - y_NC), -1.0)
    # Each label's surest, then the surest of what is left: a common label does not fill the sheet.
    best = sorted(((int(right_NC[:, c].argmax()), c) for c in range(len(column))), key=lambda rc: -right_NC[rc])
    every = zip(*np.unravel_index(np.argsort(-right_NC, axis=None, kind="stable"), right_NC.shape), strict=True)
    right = _first([*best, *((int(r), int(c)) for r, c in every)], right_NC)
    every = zip(*np.unravel_index(np.argsort(-wrong_NC, axis=None, kind="stable"), wrong_NC.shape), strict=True)
    wrong = _first([(int(r), int(c)) for r, c in every], wrong_NC)
    return [(r, column[c]) for r, c in right], [(r, column[c]) for r, c in wrong]


def _first(ordered: list[tuple[int, int]], worth_NC: np.ndarray) -> list[tuple[int, int]]:
    """The first few of worth, each record once."""
    chosen: dict[int, tuple[int, int]] = {}
    for record, column in ordered:
        if len(chosen) < SAMPLED and worth_NC[record, column] > 0:
            chosen.setdefault(record, (record, column))
    return list(chosen.values())


def _sheet(workspace: Workspace, task: TaskReport, test: Predictions, chosen: list[tuple[int, int]]) -> bytes | None:
    if not chosen:
        return None
    shards = shards_of(workspace, task.source)
    place = {}
    for product in shards.values():
        shard = open_shard(product.path)
        for row, record_id in enumerate(shard.records().column("record_id").to_pylist()):
            place[record_id] = (shard.folder, row)
    signals, captions = [], []
    for record, column in chosen:
        folder, row = place[test.record_id[record]]
        signals.append(read_rows([(folder, np.array([row]))])[0] * MILLIVOLT)
        has = ", ".join(name for name, there in zip(test.classes, test.y_NC[record], strict=True) if there)
        said = f"{test.classes[column]} {test.score_NC[record, column]:.2f}"
        captions.append(f"{test.record_id[record]}   said {said}   labelled {has or 'none of these'}")
    return ecg_sheet(np.stack(signals), captions)


def _by_label(
    workspace: Workspace, source: str, embedded: Mapping[str, Product], predictions: Predictions
) -> EmbeddingMap:
    test = predictions.of(Split.TEST)
    record_id = read_records(shards_of(workspace, source)).column("record_id").to_pylist()
    row_of = {name: row for row, name in enumerate(record_id)}
    some = _some(len(test.record_id))
    feature_ND = read_features(embedded)[[row_of[test.record_id[i]] for i in some]]
    y_NC = test.y_NC[some]
    # Only ECGs of one label have a hue; the labels that have most of them get one.
    alone_NC = y_NC & (y_NC.sum(axis=1) == 1)[:, None]
    common = np.argsort(-alone_NC.sum(axis=0), kind="stable")[:HUES]
    hue_N = np.full(len(some), -1)
    names = {}
    for hue, c in enumerate(c for c in common.tolist() if alone_NC[:, c].any()):
        hue_N[alone_NC[:, c]] = hue
        names[test.classes[c]] = int(alone_NC[:, c].sum())
    point_N2, explained = principal_plane(feature_ND)
    return EmbeddingMap(title="by label", point_N2=point_N2, hue_N=hue_N, names=names, explained=explained)


def _by_source(feature_of: Mapping[str, np.ndarray]) -> EmbeddingMap:
    each = max(1, POINTS // len(feature_of))
    parts = {source: feature_ND[_some(len(feature_ND), each)] for source, feature_ND in feature_of.items()}
    point_N2, explained = principal_plane(np.concatenate(list(parts.values())))
    hue_N = np.repeat(np.minimum(np.arange(len(parts)), HUES) % (HUES + 1), [len(part) for part in parts.values()])
    hue_N[hue_N == HUES] = -1
    names = {source: len(part) for source, part in list(parts.items())[:HUES]}
    return EmbeddingMap(title="by source", point_N2=point_N2, hue_N=hue_N, names=names, explained=explained)


def _some(count: int, most: int = POINTS) -> np.ndarray:
    """Indices of at most `most` of them, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
