"""Pictures of a report: maps of embeddings, and sheets of ECGs with their predictions."""

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
    """Return a map of the test ECGs of each scored task, coloured by label; and one named "", coloured by source.

    embedded: features by source and partition; with one source there is no map by source.
    source_of: the source of each task.
    results: of our encoder's probes, by task.
    """
    maps = {}
    for task, result in results.items():
        if result.predictions is not None and source_of[task] in embedded:
            maps[task] = _by_label(workspace, source_of[task], embedded[source_of[task]], result.predictions)
    if len(embedded) > 1:
        maps[""] = _by_source({source: read_features(products) for source, products in embedded.items()})
    return maps


def principal_plane(feature_ND: np.ndarray) -> tuple[np.ndarray, float]:
    """Project features (N, D) on their first two principal axes, (N, 2), and return the share of the variance there.

    The share is 0 if all features are equal. The sign of an axis is chosen so that its largest weight is positive: the
    same features give the same map.
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
    """Return sheets of the test ECGs with the most confident right and wrong predictions, for each scored task."""
    samples = {}
    for task in tasks:
        predictions = results[task.name].predictions
        if predictions is not None and task.probes:
            test = predictions.of(Split.TEST)
            columns = [test.classes.index(label.name) for label in task.probes[0].assessment.labels]
            right, wrong = most_confident(test, columns)
            samples[task.name] = Samples(
                right=_sheet(workspace, task, test, right), wrong=_sheet(workspace, task, test, wrong)
            )
    return samples


def most_confident(test: Predictions, columns: list[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return (record, class) of right predictions and of wrong ones, the most confident first, each ECG once.

    Right: labels that the ECG has, by the highest probability; each label comes once before any comes again. Wrong: by
    the distance of the probability from the truth, whether the label is predicted and absent or present and missed.
    columns: the classes to choose from.
    """
    y_NC, p_NC = test.y_NC[:, columns], test.score_NC[:, columns]
    right_NC = np.where(y_NC & (p_NC >= 0.5), p_NC, -1.0)
    wrong_NC = np.where(np.abs(p_NC - y_NC) > 0.5, np.abs(p_NC - y_NC), -1.0)
    # First the best prediction of each label, then all others, so that a common label does not fill the sheet.
    best = sorted(((int(right_NC[:, c].argmax()), c) for c in range(len(columns))), key=lambda rc: -right_NC[rc])
    right = _first_of_each_record([*best, *_descending(right_NC)], right_NC)
    wrong = _first_of_each_record(_descending(wrong_NC), wrong_NC)
    return [(r, columns[c]) for r, c in right], [(r, columns[c]) for r, c in wrong]


def _descending(confidence_NC: np.ndarray) -> list[tuple[int, int]]:
    """Return every (record, class), the highest value first."""
    places = np.unravel_index(np.argsort(-confidence_NC, axis=None, kind="stable"), confidence_NC.shape)
    return [(int(r), int(c)) for r, c in zip(*places, strict=True)]


def _first_of_each_record(ordered: list[tuple[int, int]], confidence_NC: np.ndarray) -> list[tuple[int, int]]:
    """Return the first SAMPLED pairs of different records whose confidence is above 0."""
    chosen: dict[int, tuple[int, int]] = {}
    for record, column in ordered:
        if len(chosen) < SAMPLED and confidence_NC[record, column] > 0:
            chosen.setdefault(record, (record, column))
    return list(chosen.values())


def _sheet(workspace: Workspace, task: TaskReport, test: Predictions, chosen: list[tuple[int, int]]) -> bytes | None:
    """Return the ECGs of (record, class) pairs on one sheet, with predicted and true labels; None for no pairs."""
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
        labels = ", ".join(name for name, there in zip(test.classes, test.y_NC[record], strict=True) if there)
        predicted = f"{test.classes[column]} {test.score_NC[record, column]:.2f}"
        captions.append(f"{test.record_id[record]}   predicted {predicted}   labelled {labels or 'none of these'}")
    return ecg_sheet(np.stack(signals), captions)


def _by_label(
    workspace: Workspace, source: str, embedded: Mapping[str, Product], predictions: Predictions
) -> EmbeddingMap:
    """Return a map of the test ECGs, in which those with one label have its colour."""
    test = predictions.of(Split.TEST)
    record_id = read_records(shards_of(workspace, source)).column("record_id").to_pylist()
    row_of = {name: row for row, name in enumerate(record_id)}
    some = _some(len(test.record_id))
    feature_ND = read_features(embedded)[[row_of[test.record_id[i]] for i in some]]
    y_NC = test.y_NC[some]
    # ECGs with exactly one label are coloured; the labels with the most such ECGs get the hues.
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
    """Return a map of as many ECGs of each source, coloured by source."""
    per_source = max(1, POINTS // len(feature_of))
    parts = {source: feature_ND[_some(len(feature_ND), per_source)] for source, feature_ND in feature_of.items()}
    point_N2, explained = principal_plane(np.concatenate(list(parts.values())))
    hue_N = np.repeat(np.minimum(np.arange(len(parts)), HUES) % (HUES + 1), [len(part) for part in parts.values()])
    hue_N[hue_N == HUES] = -1
    names = {source: len(part) for source, part in list(parts.items())[:HUES]}
    return EmbeddingMap(title="by source", point_N2=point_N2, hue_N=hue_N, names=names, explained=explained)


def _some(count: int, most: int = POINTS) -> np.ndarray:
    """Return at most `most` indices below `count`, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
