"""P, QRS and T told sample by sample from an encoder's tokens: a linear map of each token to the classes of its patch.

Frozen, or with the encoder trained along. Choices (map's context, moment to stop) are made on validation; the test
split is scored once, by the overlap of classes and by the boundaries (`boundaries`).
Shapes: N records, B of a batch, L leads that have waves, P patches of a lead, S samples of a patch, T = P * S, D
channels, C = 4 classes (`waves.CLASSES`), R resamples.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ecg_model.encoder import Encoder
from pipelines import versions
from pipelines.cache import Product, Workspace, digest_of, write_atomically
from pipelines.evaluate.features import (
    MILLIVOLT,
    EncoderSource,
    FeatureConfig,
    Progress,
    Tokens,
    materialize_tokens,
    read_signals,
    shards_of,
)
from pipelines.evaluate.probes.heads import Rows
from pipelines.evaluate.statistics.bootstrap import Bootstrap
from pipelines.evaluate.statistics.ranking import InsufficientData, Interval
from pipelines.evaluate.waves.annotations import CLASSES, INTERVALS, UNKNOWN, Waves, class_map, intervals, waves_of
from pipelines.evaluate.waves.boundaries import BoundaryScore, boundary_scores
from pipelines.evaluate.waves.delineation import WaveData, WaveTask, wave_data
from pipelines.formats.shard import LEADS, SAMPLES, write_table
from pipelines.tasks.catalogue import Split

SCORES_FILE = "scores.json"
PREDICTIONS_FILE = "predictions.parquet"
CONFUSIONS_FILE = "confusions.parquet"

_SCALED_BY = 64  # training records that the channels' means and deviations are taken from

Mode = Literal["frozen", "fine_tuned"]


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """How the map, and with `fine_tuned` the encoder, is trained: AdamW, a cosine to zero.

    contexts: how many neighbours of a token on each side the map sees; each is tried, and validation chooses. batch:
    records. lr: of the map; encoder_lr: of the encoder, to be divided by its width, since Adam's best rate falls with
    it (Yang et al., arXiv 2203.03466). checks: how often in `steps` the validation split is looked at; the best moment
    is kept. A split with fewer than min_patients is not scored.
    """

    mode: Mode = "frozen"
    contexts: tuple[int, ...] = (0, 1)
    steps: int = 1200
    batch: int = 4
    lr: float = 3e-3
    encoder_lr: float = 0.1
    weight_decay: float = 0.01
    checks: int = 12
    min_patients: int = 5
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in ("frozen", "fine_tuned"):
            raise ValueError(f"mode={self.mode!r}: use 'frozen' or 'fine_tuned'")
        if not self.contexts or min(self.contexts) < 0:
            raise ValueError(f"contexts={self.contexts}: give numbers of neighbours, 0 for none")
        for name in ("steps", "batch", "checks", "min_patients"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use at least 1")
        for name in ("lr", "encoder_lr"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use a rate between 0 and 1")


FROZEN = SegmentationConfig()
FINE_TUNED = SegmentationConfig(mode="fine_tuned", contexts=(1,))


@dataclass(frozen=True, kw_only=True)
class SegmentationTrial:
    """A context that was tried, its best moment, and the mean IoU on validation then."""

    context: int
    step: int
    validation_miou: float


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


class PatchMap(nn.Module):
    """Tokens (..., P, D) -> class scores (..., T, C): one linear map of a token and `context` neighbours on each side.

    Channels are first brought to the mean and the deviation that they have in training, which is linear too.
    """

    mean_D: Tensor
    std_D: Tensor

    def __init__(self, mean_D: Tensor, std_D: Tensor, patch_size: int, context: int) -> None:
        super().__init__()
        self.patch_size, self.context = patch_size, context
        self.register_buffer("mean_D", mean_D)
        self.register_buffer("std_D", std_D)
        self.linear = nn.Linear(len(mean_D) * (2 * context + 1), patch_size * len(CLASSES))

    def forward(self, token_PD: Tensor) -> Tensor:
        x_PD = (token_PD - self.mean_D) / self.std_D
        if self.context:
            padded_PD = functional.pad(x_PD, (0, 0, self.context, self.context))
            x_PD = padded_PD.unfold(-2, 2 * self.context + 1, 1).flatten(-2)
        return self.linear(x_PD).unflatten(-1, (self.patch_size, len(CLASSES))).flatten(-3, -2)


class FineTuned(nn.Module):
    """ECGs (B, 8, T) millivolt -> class scores (B, L, T, C) of some leads: the encoder and the map on its tokens."""

    def __init__(self, encoder: Encoder, head: PatchMap, leads: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.head, self.leads = encoder, head, list(leads)

    def forward(self, x_BLT: Tensor) -> Tensor:
        token_BLPD = self.encoder(x_BLT).unflatten(1, (-1, SAMPLES // self.head.patch_size))
        return self.head(token_BLPD[:, self.leads])


class Feed(Protocol):
    """What a model is made on and fed with, by rows of the task's records."""

    def model(self, context: int, rows: NDArray[np.int64], leads: Sequence[int]) -> nn.Module:
        """A fresh model that gives class scores (B, L, T, C) of these leads; rows: of training records, to scale by."""
        ...

    def batch(self, rows: NDArray[np.int64], leads: Sequence[int]) -> Tensor:
        """What the model takes."""
        ...


@dataclass(frozen=True, kw_only=True)
class TokenFeed:
    """Tokens of a frozen encoder, float16 (N, at least 8 * P, D); the model is the map."""

    tokens: Rows
    patch_size: int

    def model(self, context: int, rows: NDArray[np.int64], leads: Sequence[int]) -> nn.Module:
        return PatchMap(*_channels(self.batch(rows, leads)), self.patch_size, context)

    def batch(self, rows: NDArray[np.int64], leads: Sequence[int]) -> Tensor:
        token_BND = torch.from_numpy(self.tokens[rows])
        return token_BND.unflatten(1, (-1, SAMPLES // self.patch_size))[:, list(leads)].float()


@dataclass(frozen=True, kw_only=True)
class SignalFeed:
    """ECGs int16 (N, 8, T), microvolt; the model is an encoder, loaded afresh, and the map."""

    signal_NLT: NDArray[np.int16]
    encoder: Callable[[], Encoder]

    def model(self, context: int, rows: NDArray[np.int64], leads: Sequence[int]) -> nn.Module:
        encoder = self.encoder().eval()
        with torch.inference_mode():
            mean_D, std_D = _channels(encoder(self.batch(rows, leads)))
        head = PatchMap(mean_D.clone(), std_D.clone(), encoder.config.patch_size, context)
        return FineTuned(encoder, head, leads)

    def batch(self, rows: NDArray[np.int64], leads: Sequence[int]) -> Tensor:
        return torch.from_numpy(self.signal_NLT[rows]).float() * MILLIVOLT


def segment(
    data: WaveData,
    feed: Feed,
    config: SegmentationConfig,
    device: torch.device | None = None,
    progress: Progress | None = None,
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
        _train(feed, map_NLT[:, leads], (train, validation), leads, context, config, device, progress)
        for context in config.contexts
    ]
    model, chosen = max(trained, key=lambda one: one[1].validation_miou)
    predicted_NLT = np.full((len(test), len(LEADS), SAMPLES), UNKNOWN, np.int8)
    predicted_NLT[:, leads] = _predict(model, feed, test, leads, config, device)
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


def confusions(true_NLT: NDArray[np.int8], predicted_NLT: NDArray[np.int8]) -> NDArray[np.int64]:
    """(N, C, C): samples of each record by annotated class, then by predicted class; UNKNOWN ones do not count."""
    count = len(CLASSES)
    known_NLT = true_NLT != UNKNOWN
    record = np.broadcast_to(np.arange(len(true_NLT))[:, None, None], true_NLT.shape)[known_NLT]
    place = (record * count + true_NLT[known_NLT]) * count + predicted_NLT[known_NLT]
    return np.bincount(place, minlength=len(true_NLT) * count**2).reshape(-1, count, count)


def iou_of(confusion_CC: NDArray[Any]) -> np.ma.MaskedArray:
    """(..., C, C) -> (..., C): intersection over union (Jaccard) of each class, masked where it does not occur."""
    hit_C = np.diagonal(confusion_CC, axis1=-2, axis2=-1).astype(np.float64)
    union_C = confusion_CC.sum(axis=-1) + confusion_CC.sum(axis=-2) - hit_C
    return np.ma.MaskedArray(hit_C / np.maximum(union_C, 1), mask=union_C == 0)


def _train(
    feed: Feed,
    target_NLT: NDArray[np.int8],
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    leads: list[int],
    context: int,
    config: SegmentationConfig,
    device: torch.device,
    progress: Progress | None,
) -> tuple[nn.Module, SegmentationTrial]:
    """The model at its best moment. rows: that train, and that validate."""
    train, validation = rows
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = feed.model(context, train[:_SCALED_BY], leads).to(device)
    of_encoder = [weight for name, weight in model.named_parameters() if name.startswith("encoder.")]
    of_map = [weight for name, weight in model.named_parameters() if not name.startswith("encoder.")]
    groups = [{"params": of_map, "lr": config.lr}]
    if isinstance(model, FineTuned):
        groups.append({"params": of_encoder, "lr": config.encoder_lr / model.encoder.config.dim})
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: (1 + math.cos(math.pi * s / config.steps)) / 2)
    due = set(np.linspace(0, config.steps, config.checks + 1).round().astype(int)[1:].tolist())
    best, kept = SegmentationTrial(context=context, step=0, validation_miou=-1.0), model.state_dict()
    for step, batch in enumerate(_batches(train, config), start=1):
        model.train()
        logit_BLTC = model(feed.batch(batch, leads).to(device))
        target_BLT = torch.from_numpy(target_NLT[batch]).to(device).long()
        loss = functional.cross_entropy(logit_BLTC.flatten(0, -2), target_BLT.flatten(), ignore_index=UNKNOWN)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step in due:
            predicted_NLT = _predict(model, feed, validation, leads, config, device)
            found = float(iou_of(confusions(target_NLT[validation], predicted_NLT).sum(axis=0)).mean())
            if found > best.validation_miou:
                best = SegmentationTrial(context=context, step=step, validation_miou=found)
                kept = copy.deepcopy(model.state_dict())
            if progress is not None:
                progress(step, config.steps)
    model.load_state_dict(kept)
    return model, best


def _batches(train: NDArray[np.int64], config: SegmentationConfig) -> Iterator[NDArray[np.int64]]:
    """As many batches as there are steps; each pass over the records in an order of its own."""
    rng = np.random.default_rng(config.seed)
    each = math.ceil(len(train) / config.batch)
    passes = (rng.permutation(train) for _ in range(math.ceil(config.steps / each)))
    batches = (order[at * config.batch : (at + 1) * config.batch] for order in passes for at in range(each))
    return itertools.islice(batches, config.steps)


def _predict(
    model: nn.Module,
    feed: Feed,
    rows: NDArray[np.int64],
    leads: list[int],
    config: SegmentationConfig,
    device: torch.device,
) -> NDArray[np.int8]:
    """The most probable class of each sample, int8 (len(rows), L, T)."""
    model.eval()
    parts = []
    with torch.inference_mode():
        for first in range(0, len(rows), config.batch):
            batch = feed.batch(rows[first : first + config.batch], leads).to(device)
            parts.append(model(batch).argmax(dim=-1).to(torch.int8).cpu().numpy())
    return np.concatenate(parts)


def _channels(token_PD: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all other axes."""
    flat_ND = token_PD.flatten(0, -2)
    return flat_ND.mean(dim=0), flat_ND.std(dim=0).clamp_min(1e-6)


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
    progress: Progress | None = None,
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

    def feed() -> Feed:
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
