"""Segmentation into P, QRS and T from an encoder's tokens: a linear map of each token to the classes of its samples.

The encoder is frozen, or fine-tuned together with the map. The map's context and the step to stop at are chosen on
validation; the test split is scored once, by the overlap of classes and by the boundaries (`boundaries`).
Shapes: N records, L leads that have waves, T samples, C = 4 classes (`annotations.CLASSES`), R resamples.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.durable import write_atomically
from pipelines.evaluate.features import (
    EncoderSource,
    FeatureConfig,
    OnProgress,
    Tokens,
    materialize_tokens,
    read_signals,
)
from pipelines.evaluate.statistics.bootstrap import Bootstrap, InsufficientData, Interval
from pipelines.evaluate.waves.annotations import CLASSES, INTERVALS, UNKNOWN, Waves, class_map, intervals, waves_of
from pipelines.evaluate.waves.boundaries import BoundaryScore, boundary_scores
from pipelines.evaluate.waves.config import FROZEN, SegmentationConfig
from pipelines.evaluate.waves.delineation import WaveData, WaveTask, wave_data
from pipelines.evaluate.waves.segmentation_model import (
    SegmentationTrial,
    SegmenterFeed,
    SignalFeed,
    TokenFeed,
    confusions,
    iou_of,
    predict_classes,
    train_segmenter,
)
from pipelines.evaluate.waves.token_grid import TokenGrid
from pipelines.facts import Facts, written_if_set
from pipelines.formats.shard import LEADS, SAMPLES, write_table
from pipelines.harmonize.shards import shards_of
from pipelines.hashing import digest_of
from pipelines.tasks.splits import Split

SCORES_FILE = "scores.json"
PREDICTIONS_FILE = "predictions.parquet"
CONFUSIONS_FILE = "confusions.parquet"


@dataclass(frozen=True, kw_only=True)
class ReadOff:
    """The errors of an interval that is measured on predicted waves: predicted minus annotated, over records."""

    name: str
    unit: str
    records: int
    omitted: int
    """Records in which it could not be measured on the predicted or on the annotated waves."""
    mae: Interval | None
    """Mean absolute error; None if it could be measured in no record."""
    mean: float | None = None
    """None if it could be measured in no record, and in products of earlier versions."""
    sd: float | None = None
    """Standard deviation; None also if it could be measured in one record only."""


@dataclass(frozen=True, kw_only=True)
class SegmentationScores:
    """The scores of a segmentation on the test split."""

    trials: tuple[SegmentationTrial, ...]
    context: int
    """Context that the chosen map sees, as in `SegmentationConfig.contexts`."""
    records: int
    patients: int
    miou: Interval
    """Mean of `iou`."""
    iou: dict[str, Interval]
    """Intersection over union of each class that occurs, by the name of `Wave`."""
    omitted: tuple[str, ...]
    """Classes that do not occur."""
    boundaries: tuple[BoundaryScore, ...]
    read_off: tuple[ReadOff, ...]
    """Intervals measured on the predicted waves."""


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """The predictions and scores of the test split."""

    records: NDArray[np.int64]
    """The test records, as rows of the task's records."""
    predicted: Waves
    """Record i of them is `records[i]`."""
    confusion_NCC: NDArray[np.int64]
    """Samples of each record by annotated class, then by predicted class."""
    scores: SegmentationScores


def segment(
    data: WaveData,
    feed: SegmenterFeed,
    config: SegmentationConfig,
    device: torch.device | None = None,
    progress: OnProgress | None = None,
) -> Segmented:
    """Train with each context, choose one on validation, and score it on the test split.

    feed: row i is record i of the data.
    Raises InsufficientData if a split has too few patients with waves.
    """
    device = device or torch.device("cpu")
    map_NLT = class_map(data.waves, data.records.num_rows)
    leads = np.flatnonzero((map_NLT != UNKNOWN).any(axis=(0, 2))).tolist()
    has_waves_N = (map_NLT != UNKNOWN).any(axis=(1, 2))
    data.require(has_waves_N, config.min_patients)
    train, validation, test = (
        np.flatnonzero(has_waves_N & (data.split_N == split)) for split in (Split.TRAIN, Split.VALIDATION, Split.TEST)
    )
    trained = [
        train_segmenter(feed, map_NLT[:, leads], (train, validation), leads, context, config, device, progress)
        for context in config.contexts
    ]
    model, chosen = max(trained, key=lambda model_and_trial: model_and_trial[1].validation_miou)
    predicted_NLT = np.full((len(test), len(LEADS), SAMPLES), UNKNOWN, np.int8)
    predicted_NLT[:, leads] = predict_classes(model, feed, test, leads, config, device)
    confusion_NCC = confusions(map_NLT[test], predicted_NLT)
    predicted = waves_of(predicted_NLT)
    waves = data.waves.of_records(test)
    miou, iou, absent = _overlap(confusion_NCC, data.patient_N[test], config.bootstrap)
    scores = SegmentationScores(
        trials=tuple(trial for _, trial in trained),
        context=chosen.context,
        records=len(test),
        patients=len(np.unique(data.patient_N[test])),
        miou=miou,
        iou=iou,
        omitted=absent,
        boundaries=boundary_scores(waves, predicted, map_NLT[test]),
        read_off=_read_off(waves, predicted, data.patient_N[test], config.bootstrap),
    )
    return Segmented(records=test, predicted=predicted, confusion_NCC=confusion_NCC, scores=scores)


def _overlap(
    confusion_NCC: NDArray[np.int64], patient_N: NDArray[np.str_], bootstrap: Bootstrap
) -> tuple[Interval, dict[str, Interval], tuple[str, ...]]:
    """Return the mean IoU, the IoU of each class that occurs, and the names of the other classes."""
    iou_C = iou_of(confusion_NCC.sum(axis=0))
    iou_RC = iou_of(np.einsum("rn,nij->rij", bootstrap.times(patient_N), confusion_NCC))
    occurs_C = ~np.ma.getmaskarray(iou_C)
    iou = {wave.name: bootstrap.interval(float(iou_C[wave]), iou_RC[:, wave]) for wave in CLASSES if occurs_C[wave]}
    miou = bootstrap.interval(float(iou_C.mean()), iou_RC.mean(axis=1))
    return miou, iou, tuple(wave.name for wave in CLASSES if not occurs_C[wave])


def _read_off(true: Waves, predicted: Waves, patient_N: NDArray[np.str_], bootstrap: Bootstrap) -> tuple[ReadOff, ...]:
    """Compare each interval of the predicted waves with that of the annotated ones."""
    error_NI = intervals(predicted, len(patient_N)) - intervals(true, len(patient_N))
    read_off = []
    for interval, error_N in zip(INTERVALS, error_NI.T, strict=True):
        known_N = ~np.isnan(error_N)
        error_K = error_N[known_N]
        read_off.append(
            ReadOff(
                name=interval.name,
                unit=interval.unit,
                records=len(error_K),
                omitted=int((~known_N).sum()),
                mae=bootstrap.mean(np.abs(error_K), patient_N[known_N]) if len(error_K) else None,
                mean=float(error_K.mean()) if len(error_K) else None,
                sd=float(error_K.std(ddof=1)) if len(error_K) > 1 else None,
            )
        )
    return tuple(read_off)


@dataclass(frozen=True, kw_only=True)
class SegmentationFacts(Facts):
    """What a segmentation reports. The scores are None if the task was not scored."""

    data_digest: str
    """Of ECGs, waves and protocol: scores of two encoders are comparable if it is the same."""
    scored: bool
    reason: str | None
    """Why the task was not scored."""
    miou: Interval | None = written_if_set()
    iou: dict[str, Interval] | None = written_if_set()
    omitted: tuple[str, ...] | None = written_if_set()
    read_off: tuple[ReadOff, ...] | None = written_if_set()
    context: int | None = written_if_set()


def materialize_segmentation(
    workspace: Workspace,
    task: WaveTask,
    encoder: EncoderSource,
    config: SegmentationConfig | None = None,
    features: FeatureConfig | None = None,
    *,
    mirror: Path | None = None,
    progress: OnProgress | None = None,
) -> Product:
    """Build the product `segmentation/<task>/<encoder>`, or `segmentation/<task>/<encoder>__fine_tuned`.

    Missing waves and tokens are computed first. mirror: see `materialize_delineation`. Facts: `SegmentationFacts`.
    Raises ValueError as `TokenGrid.of` does.
    """
    config, features, grid = config or FROZEN, features or FeatureConfig(), TokenGrid.of(encoder.config)
    shards = shards_of(workspace, task.source)
    data = wave_data(workspace, task, mirror)
    inputs = {product.name: product.digest for product in (*shards.values(), *data.products.values())}
    about = {
        "title": task.title,
        "encoder": {"name": encoder.name, "digest": encoder.digest},
        "data_digest": digest_of({"inputs": inputs, **task.to_dict()}),
        "ecgs": {product.name: product.digest for product in shards.values()},
        "task": task.to_dict(),
        "config": asdict(config),
    }
    frozen = config.mode == "frozen"
    tokens = materialize_tokens(workspace, encoder, task.source, features, progress) if frozen else {}

    def feed() -> SegmenterFeed:
        if not frozen:
            return SignalFeed(signal_NLT=read_signals(shards), encoder=encoder.loaded, grid=grid)
        return TokenFeed(tokens=Tokens(tokens), grid=grid)

    def make(folder: Path) -> dict[str, Any]:
        try:
            result = segment(data, feed(), config, features.torch_device, progress)
        except InsufficientData as too_few:
            return _write(folder, about, None, str(too_few)).to_dict()
        _write_predictions(folder, data, result)
        return _write(folder, about, result.scores, None).to_dict()

    suffix = "" if frozen else f"__{config.mode}"
    return workspace.build(
        f"segmentation/{task.name}/{encoder.name}{suffix}",
        version=versions.SEGMENTATION,
        config={"encoder": encoder.digest, **asdict(config), **features.to_dict(), **task.to_dict()},
        inputs=inputs | {product.name: product.digest for product in tokens.values()},
        make=make,
    )


def _write(
    folder: Path, about: dict[str, Any], scores: SegmentationScores | None, reason: str | None
) -> SegmentationFacts:
    """Write scores.json and return the facts. reason: why there are no scores."""
    stored = about | {"reason": reason, "scores": None if scores is None else asdict(scores)}
    write_atomically(folder / SCORES_FILE, json.dumps(stored, indent=1, allow_nan=False).encode())
    facts = SegmentationFacts(data_digest=about["data_digest"], scored=scores is not None, reason=reason)
    if scores is None:
        return facts
    return replace(
        facts,
        miou=scores.miou,
        iou=scores.iou,
        omitted=scores.omitted,
        read_off=scores.read_off,
        context=scores.context,
    )


def _write_predictions(folder: Path, data: WaveData, result: Segmented) -> None:
    """Write the predicted waves and the confusions of the test split."""
    record_id = data.records.column("record_id").take(pa.array(result.records)).to_pylist()
    write_table(folder / PREDICTIONS_FILE, result.predicted.to_table(record_id))
    columns = {
        "record_id": pa.array(record_id, pa.string()),
        "patient": pa.array(data.patient_N[result.records].tolist(), pa.string()),
        "confusion": pa.array(list(result.confusion_NCC.reshape(len(record_id), -1)), pa.list_(pa.int64())),
    }
    write_table(folder / CONFUSIONS_FILE, pa.table(columns))


@dataclass(frozen=True, kw_only=True)
class SegmentationPair:
    """Two encoders' segmentations of one task."""

    first: Product
    second: Product
    difference: Interval | None
    """Mean IoU of the first minus the second on the same test records, with the interval of a paired bootstrap; None if
    the task was not scored."""

    @property
    def reason(self) -> str | None:
        """Why the task was not scored."""
        return SegmentationFacts.of(self.first).reason


def compare_segmentations(first: Product, second: Product, bootstrap: Bootstrap | None = None) -> SegmentationPair:
    """Compare two segmentations. Raises ValueError if they are not of the same data."""
    bootstrap = bootstrap or Bootstrap()
    facts = SegmentationFacts.of(first)
    if facts.data_digest != SegmentationFacts.of(second).data_digest:
        raise ValueError(
            f"{first.name} and {second.name} are of different ECGs, waves or splits: materialize both again"
        )
    if not facts.scored:
        return SegmentationPair(first=first, second=second, difference=None)
    tables = [pq.read_table(product.path / CONFUSIONS_FILE) for product in (first, second)]
    patient_N = np.asarray(tables[0].column("patient").to_pylist(), dtype=str)
    times_RN = bootstrap.times(patient_N)
    scores = []
    for table in tables:
        confusion_NCC = np.array(table.column("confusion").to_pylist()).reshape(-1, len(CLASSES), len(CLASSES))
        resampled_R = iou_of(np.einsum("rn,nij->rij", times_RN, confusion_NCC)).mean(axis=-1)
        scores.append((float(iou_of(confusion_NCC.sum(axis=0)).mean()), resampled_R))
    (miou, miou_R), (other_miou, other_miou_R) = scores
    difference = bootstrap.interval(miou - other_miou, miou_R - other_miou_R)
    return SegmentationPair(first=first, second=second, difference=difference)
