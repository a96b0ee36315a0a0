"""P, QRS and T told sample by sample from an encoder's tokens: a linear map of each token to the classes of its patch.

Frozen, or with the encoder trained along. Choices (map's context, moment to stop) are made on validation; the test
split is scored once, by the overlap of classes and by the boundaries (`boundaries`).
Shapes: N records, B of a batch, L leads that have waves, P patches of a lead, S samples of a patch, T = P * S, D
channels, C = 4 classes (`waves.CLASSES`), R resamples.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from pipelines import versions
from pipelines.cache import Product, Workspace, write_atomically
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
from pipelines.formats.shard import LEADS, SAMPLES, write_table
from pipelines.harmonize.shards import shards_of
from pipelines.hashing import digest_of
from pipelines.tasks.splits import Split

SCORES_FILE = "scores.json"
PREDICTIONS_FILE = "predictions.parquet"
CONFUSIONS_FILE = "confusions.parquet"


@dataclass(frozen=True, kw_only=True)
class ReadOff:
    """An interval measured on predicted waves against the same on annotated ones: mean absolute error, and mean and
    standard deviation of predicted minus annotated, over records.

    omitted: records that it could not be measured in, on either side. None: too few could (for sd fewer than two).
    """

    name: str
    unit: str
    records: int
    omitted: int
    mae: Interval | None
    mean: float | None
    sd: float | None


@dataclass(frozen=True, kw_only=True)
class SegmentationScores:
    """On the test split. miou: mean over the classes of iou, those that occur; omitted: the others."""

    trials: tuple[SegmentationTrial, ...]
    context: int
    records: int
    patients: int
    miou: Interval
    iou: dict[str, Interval]
    omitted: tuple[str, ...]
    boundaries: tuple[BoundaryScore, ...]
    read_off: tuple[ReadOff, ...]


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """What was predicted for the test split. predicted: record i of them is records[i], a row of the task's records.

    confusion_NCC: samples of each record by annotated class, then by predicted class.
    """

    records: NDArray[np.int64]
    predicted: Waves
    confusion_NCC: NDArray[np.int64]
    scores: SegmentationScores


def segment(
    data: WaveData,
    feed: SegmenterFeed,
    config: SegmentationConfig,
    device: torch.device | None = None,
    progress: OnProgress | None = None,
) -> Segmented:
    """Train, choose and score; row i of the feed is record i of the data.

    Raises InsufficientData where a split has too few patients with waves.
    """
    device = device or torch.device("cpu")
    map_NLT = class_map(data.waves, data.records.num_rows)
    leads = np.flatnonzero((map_NLT != UNKNOWN).any(axis=(0, 2))).tolist()
    taught_N = (map_NLT != UNKNOWN).any(axis=(1, 2))
    data.require(taught_N, config.min_patients)
    train, validation, test = (
        np.flatnonzero(taught_N & (data.split_N == split)) for split in (Split.TRAIN, Split.VALIDATION, Split.TEST)
    )
    trained = [
        train_segmenter(feed, map_NLT[:, leads], (train, validation), leads, context, config, device, progress)
        for context in config.contexts
    ]
    model, chosen = max(trained, key=lambda one: one[1].validation_miou)
    predicted_NLT = np.full((len(test), len(LEADS), SAMPLES), UNKNOWN, np.int8)
    predicted_NLT[:, leads] = predict_classes(model, feed, test, leads, config, device)
    confusion_NCC = confusions(map_NLT[test], predicted_NLT)
    predicted = waves_of(predicted_NLT)
    waves = data.waves.of_records(test)
    miou, iou, omitted = _overlap(confusion_NCC, data.patient_N[test], config.bootstrap)
    scores = SegmentationScores(
        trials=tuple(trial for _, trial in trained),
        context=chosen.context,
        records=len(test),
        patients=len(np.unique(data.patient_N[test])),
        miou=miou,
        iou=iou,
        omitted=omitted,
        boundaries=boundary_scores(waves, predicted, map_NLT[test]),
        read_off=_read_off(waves, predicted, data.patient_N[test], config.bootstrap),
    )
    return Segmented(records=test, predicted=predicted, confusion_NCC=confusion_NCC, scores=scores)


def _overlap(
    confusion_NCC: NDArray[np.int64], patient_N: NDArray[np.str_], bootstrap: Bootstrap
) -> tuple[Interval, dict[str, Interval], tuple[str, ...]]:
    """Mean IoU, IoU of each class that occurs, and the names of the others."""
    iou_C = iou_of(confusion_NCC.sum(axis=0))
    iou_RC = iou_of(np.einsum("rn,nij->rij", bootstrap.times(patient_N), confusion_NCC))
    occurs_C = ~np.ma.getmaskarray(iou_C)
    each = {wave.name: bootstrap.interval(float(iou_C[wave]), iou_RC[:, wave]) for wave in CLASSES if occurs_C[wave]}
    mean = bootstrap.interval(float(iou_C.mean()), iou_RC.mean(axis=1))
    return mean, each, tuple(wave.name for wave in CLASSES if not occurs_C[wave])


def _read_off(true: Waves, predicted: Waves, patient_N: NDArray[np.str_], bootstrap: Bootstrap) -> tuple[ReadOff, ...]:
    """Each interval as the predicted waves have it, against the annotated ones."""
    apart_NI = intervals(predicted, len(patient_N)) - intervals(true, len(patient_N))
    found = []
    for one, apart_N in zip(INTERVALS, apart_NI.T, strict=True):
        known_N = ~np.isnan(apart_N)
        error_K = apart_N[known_N]
        found.append(
            ReadOff(
                name=one.name,
                unit=one.unit,
                records=len(error_K),
                omitted=int((~known_N).sum()),
                mae=bootstrap.mean(np.abs(error_K), patient_N[known_N]) if len(error_K) else None,
                mean=float(error_K.mean()) if len(error_K) else None,
                sd=float(error_K.std(ddof=1)) if len(error_K) > 1 else None,
            )
        )
    return tuple(found)


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
    """The product `segmentation/<task>/<encoder>`, with `__fine_tuned` behind it where the encoder was trained along.

    Waves and tokens that are not there yet are computed first. mirror: see `materialize_delineation`. Facts: `scored`,
    `reason`, `miou`, `iou`, `read_off`, and `data_digest`, of ECGs, waves and protocol: scores of two encoders compare
    where it is the same.
    """
    config, features = config or FROZEN, features or FeatureConfig()
    shards = shards_of(workspace, task.source)
    data = wave_data(workspace, task, mirror)
    inputs = {product.name: product.digest for product in (*shards.values(), *data.products.values())}
    data_digest = digest_of({"inputs": inputs, **task.to_dict()})
    tokens: dict[str, Product] = {}
    if config.mode == "frozen":
        tokens = materialize_tokens(workspace, encoder, task.source, features, progress)

    def feed() -> SegmenterFeed:
        if config.mode == "fine_tuned":
            return SignalFeed(signal_NLT=read_signals(shards), encoder=encoder.loaded)
        return TokenFeed(tokens=Tokens(tokens), patch_size=encoder.loaded().config.patch_size)

    def make(folder: Path) -> dict[str, Any]:
        about = {
            "title": task.title,
            "encoder": {"name": encoder.name, "digest": encoder.digest},
            "data_digest": data_digest,
            "ecgs": {product.name: product.digest for product in shards.values()},
            "task": task.to_dict(),
            "config": asdict(config),
        }
        try:
            found = segment(data, feed(), config, features.torch_device, progress)
        except InsufficientData as too_few:
            _write_scores(folder, about | {"reason": str(too_few), "scores": None})
            return {"data_digest": data_digest, "scored": False, "reason": str(too_few)}
        scores = asdict(found.scores)
        _write_scores(folder, about | {"reason": None, "scores": scores})
        _write_predictions(folder, data, found)
        shown = {name: scores[name] for name in ("miou", "iou", "omitted", "read_off", "context")}
        return {"data_digest": data_digest, "scored": True, "reason": None, **shown}

    behind = "" if config.mode == "frozen" else f"__{config.mode}"
    return workspace.build(
        f"segmentation/{task.name}/{encoder.name}{behind}",
        version=versions.SEGMENTATION,
        config={"encoder": encoder.digest, **asdict(config), **features.to_dict(), **task.to_dict()},
        inputs=inputs | {product.name: product.digest for product in tokens.values()},
        make=make,
    )


def _write_scores(folder: Path, stored: dict[str, Any]) -> None:
    write_atomically(folder / SCORES_FILE, json.dumps(stored, indent=1, allow_nan=False).encode())


def _write_predictions(folder: Path, data: WaveData, found: Segmented) -> None:
    """The test split's predicted waves and confusions."""
    record_id = data.records.column("record_id").take(pa.array(found.records)).to_pylist()
    write_table(folder / PREDICTIONS_FILE, found.predicted.to_table(record_id))
    columns = {
        "record_id": pa.array(record_id, pa.string()),
        "patient": pa.array(data.patient_N[found.records].tolist(), pa.string()),
        "confusion": pa.array(list(found.confusion_NCC.reshape(len(record_id), -1)), pa.list_(pa.int64())),
    }
    write_table(folder / CONFUSIONS_FILE, pa.table(columns))


@dataclass(frozen=True, kw_only=True)
class SegmentationPair:
    """Two encoders' segmentations of one task. difference: of mean IoU, first minus second, on the same test records,
    with a paired bootstrap's interval; None where the task was not scored."""

    first: Product
    second: Product
    difference: Interval | None

    @property
    def reason(self) -> str | None:
        return self.first.facts["reason"]


def compare_segmentations(first: Product, second: Product, bootstrap: Bootstrap | None = None) -> SegmentationPair:
    """Raises ValueError where the two are not of the same data."""
    bootstrap = bootstrap or Bootstrap()
    if first.facts["data_digest"] != second.facts["data_digest"]:
        raise ValueError(f"{first.name} and {second.name} are of different ECGs, waves or splits: segment both again")
    if not first.facts["scored"]:
        return SegmentationPair(first=first, second=second, difference=None)
    tables = [pq.read_table(product.path / CONFUSIONS_FILE) for product in (first, second)]
    patient_N = np.asarray(tables[0].column("patient").to_pylist(), dtype=str)
    times_RN = bootstrap.times(patient_N)
    found = []
    for table in tables:
        confusion_NCC = np.array(table.column("confusion").to_pylist()).reshape(-1, len(CLASSES), len(CLASSES))
        resampled_R = iou_of(np.einsum("rn,nij->rij", times_RN, confusion_NCC)).mean(axis=-1)
        found.append((float(iou_of(confusion_NCC.sum(axis=0)).mean()), resampled_R))
    (one, one_R), (other, other_R) = found
    return SegmentationPair(first=first, second=second, difference=bootstrap.interval(one - other, one_R - other_R))
