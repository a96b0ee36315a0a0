"""Heart rate, P, PR, QRS and QT from frozen embeddings by ridge regression: the mean absolute error on the test split.

`annotations.intervals` defines the five figures; from pseudo-labels they are pseudo-labels, too. For each figure,
validation chooses the pooling of tokens and the penalty. The baseline predicts the training median for every record.
Shapes: N records, D channels, F features, K penalties.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.durable import write_atomically
from pipelines.evaluate.features import (
    EncoderSource,
    Extract,
    FeatureConfig,
    OnProgress,
    materialize_features,
    read_features,
)
from pipelines.evaluate.statistics.bootstrap import Bootstrap, InsufficientData, Interval
from pipelines.evaluate.waves.annotations import INTERVALS, intervals
from pipelines.evaluate.waves.delineation import WaveData, WaveTask, wave_data
from pipelines.facts import Facts
from pipelines.formats.shard import MILLIVOLT, SAMPLES, write_table
from pipelines.harmonize.shards import shards_of
from pipelines.hashing import digest_of
from pipelines.tasks.splits import Split

SCORES_FILE = "scores.json"
PREDICTIONS_FILE = "predictions.parquet"

POOLINGS: dict[str, tuple[int, ...]] = {"mean": (0,), "mean_std": (0, 1), "rhythm": (0, 2, 3, 4)}
"""By the name of a pooling, which of `moments` are the features. `mean` is the paper's embedding."""
_MOMENTS = 5


def moments(token_BLPD: Tensor) -> Tensor:
    """Summarise each channel of tokens (B, L, P, D) by five numbers, (B, 5 * D).

    In this order: the mean; the standard deviation; the standard deviation in time of the mean over leads; the standard
    deviation in time, averaged over leads; the mean absolute change of the mean over leads from a patch to the next.
    The mean alone carries little information on the heart rate.
    """
    over_leads_BPD = token_BLPD.mean(dim=1)
    return torch.cat(
        [
            token_BLPD.mean(dim=(1, 2)),
            token_BLPD.flatten(1, 2).std(dim=1),
            over_leads_BPD.std(dim=1),
            token_BLPD.std(dim=2).mean(dim=1),
            over_leads_BPD.diff(dim=1).abs().mean(dim=1),
        ],
        dim=1,
    )


@dataclass(frozen=True, kw_only=True)
class MomentsSource:
    """Source of features: `moments` of an encoder's tokens."""

    encoder: EncoderSource

    @property
    def name(self) -> str:
        return f"{self.encoder.name}__moments"

    @property
    def digest(self) -> str:
        return digest_of({"encoder": self.encoder.digest, "moments": _MOMENTS})

    def extractor(self, config: FeatureConfig) -> Extract:
        encoder = self.encoder.loaded()
        encoder = encoder.to(config.torch_device).eval()
        leads = None if config.leads is None else config.rows
        columns = encoder.config.columns(SAMPLES)

        def extract(signal_NLT: NDArray[np.int16], progress: OnProgress | None) -> NDArray[np.float32]:
            feature_NF = np.zeros((len(signal_NLT), _MOMENTS * encoder.config.dim), np.float32)
            for first in range(0, len(signal_NLT), config.batch):
                x_BLT = torch.from_numpy(signal_NLT[first : first + config.batch]).to(config.torch_device).float()
                with (
                    torch.inference_mode(),
                    torch.autocast(config.torch_device.type, torch.bfloat16, enabled=config.precision == "bf16"),
                ):
                    token_BND = encoder.tokens(x_BLT * MILLIVOLT, leads=leads).float()
                    moments_BF = moments(token_BND.unflatten(1, (-1, columns)))
                feature_NF[first : first + config.batch] = moments_BF.cpu().numpy()
                if progress is not None:
                    progress(min(first + config.batch, len(signal_NLT)), len(signal_NLT))
            if not np.isfinite(feature_NF).all():
                raise ValueError(f"encoder {self.encoder.name!r} gives embeddings that are not finite: it has diverged")
            return feature_NF

        return extract


@dataclass(frozen=True, kw_only=True)
class RegressionConfig:
    """The choices that validation decides on, and what is needed to score a figure."""

    poolings: tuple[str, ...] = tuple(POOLINGS)
    """Some of POOLINGS."""
    penalties: tuple[float, ...] = (1e4, 3e3, 1e3, 3e2, 1e2, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
    """On the squared weights of standardized features, against errors summed over training records. Strongest first."""
    min_patients: int = 20
    """A figure is not scored if a split has fewer patients with it."""
    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def __post_init__(self) -> None:
        if not self.poolings or not set(self.poolings) <= set(POOLINGS):
            raise ValueError(f"poolings={self.poolings}: use some of {', '.join(POOLINGS)}")
        if not self.penalties or min(self.penalties) <= 0:
            raise ValueError(f"penalties={self.penalties}: give positive numbers")
        if self.min_patients < 2:
            raise ValueError(f"min_patients={self.min_patients}: use at least 2")


@dataclass(frozen=True, kw_only=True)
class RegressionTrial:
    """One combination that was tried, and its mean absolute error on validation."""

    pooling: str
    penalty: float
    validation_mae: float


@dataclass(frozen=True, kw_only=True)
class FigureScores:
    """The scores of one figure on the test split."""

    name: str
    title: str
    unit: str
    records: dict[str, int]
    """Records with this figure, by split."""
    omitted: int
    """Records of all splits without it (no P wave, or no complete beat)."""
    trials: tuple[RegressionTrial, ...]
    chosen: RegressionTrial
    mae: Interval
    """Mean absolute error, in `unit`."""
    baseline: Interval
    """Mean absolute error of the training median as the prediction."""


@dataclass(frozen=True, kw_only=True)
class Regressed:
    """The result of `regress`."""

    figures: tuple[FigureScores, ...]
    """Those that were scored."""
    reasons: dict[str, str]
    """Why the others were not scored, by name."""
    predictions: pa.Table
    """Of schema PREDICTIONS: a row for each figure and record of the test split."""


PREDICTIONS = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("figure", "record_id", "patient")),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("measured", "predicted")),
    ]
)


class Ridge:
    """Ridge regression for many penalties and targets on the same rows, from one singular value decomposition.

    Features are standardized and targets centred by these rows: w minimises |Z w - y|^2 + penalty * |w|^2.
    """

    def __init__(self, x_NF: NDArray[Any]) -> None:
        x_NF = x_NF.astype(np.float64)
        self._mean_F, std_F = x_NF.mean(axis=0), x_NF.std(axis=0)
        # A constant feature becomes 0 instead of being scaled up from rounding errors.
        self._std_F = np.where(std_F > 1e-9 * (1 + np.abs(self._mean_F)), std_F, np.inf)
        self._z_NF = self._standardized(x_NF)
        left_NM, self._size_M, self._right_MF = np.linalg.svd(self._z_NF, full_matrices=False)
        self._left_MN = left_NM.T

    def predict(self, y_N: NDArray[np.float64], penalties: Sequence[float], x_NF: NDArray[Any]) -> NDArray[np.float64]:
        """Fit targets of the constructor's rows and predict those of `x_NF` with each penalty, float64 (K, N)."""
        projected_M = self._left_MN @ (y_N - y_N.mean())
        shrunk_KM = [self._size_M / (self._size_M**2 + penalty) * projected_M for penalty in penalties]
        return np.stack(shrunk_KM) @ (self._right_MF @ self._standardized(x_NF).T) + y_N.mean()

    def _standardized(self, x_NF: NDArray[Any]) -> NDArray[np.float64]:
        return (x_NF.astype(np.float64) - self._mean_F) / self._std_F


def regress(data: WaveData, moments_NF: NDArray[np.float32], config: RegressionConfig | None = None) -> Regressed:
    """Fit, choose and score each figure; moments_NF: (N, 5 * D), row i for record i of the data."""
    config = config or RegressionConfig()
    measured_NI = intervals(data.waves, data.records.num_rows)
    pooled: dict[str, NDArray[np.float32]] = {
        pooling: np.concatenate([np.split(moments_NF, _MOMENTS, axis=1)[at] for at in POOLINGS[pooling]], axis=1)
        for pooling in config.poolings
    }
    ridges: dict[tuple[str, bytes], Ridge] = {}  # figures of the same training records share a decomposition
    figures, reasons, parts = [], {}, [PREDICTIONS.empty_table()]
    for figure, y_N in zip(INTERVALS, measured_NI.T, strict=True):
        try:
            counts = data.require(~np.isnan(y_N), config.min_patients)
        except InsufficientData as too_few:
            reasons[figure.name] = str(too_few)
            continue
        train, validation, test = (
            np.flatnonzero(~np.isnan(y_N) & (data.split_N == split))
            for split in (Split.TRAIN, Split.VALIDATION, Split.TEST)
        )
        trials, predicted = _tried(pooled, y_N, (train, validation, test), config.penalties, ridges)
        best = min(range(len(trials)), key=lambda i: trials[i].validation_mae)
        error_N = np.abs(predicted[best] - y_N[test])
        baseline_N = np.abs(np.median(y_N[train]) - y_N[test])
        figures.append(
            FigureScores(
                name=figure.name,
                title=figure.title,
                unit=figure.unit,
                records=counts,
                omitted=int(np.isnan(y_N).sum()),
                trials=tuple(trials),
                chosen=trials[best],
                mae=config.bootstrap.mean(error_N, data.patient_N[test]),
                baseline=config.bootstrap.mean(baseline_N, data.patient_N[test]),
            )
        )
        parts.append(_predictions(data, figure.name, test, y_N[test], predicted[best]))
    return Regressed(figures=tuple(figures), reasons=reasons, predictions=pa.concat_tables(parts))


def _tried(
    pooled: Mapping[str, NDArray[np.float32]],
    y_N: NDArray[np.float64],
    rows: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    penalties: Sequence[float],
    ridges: dict[tuple[str, bytes], Ridge],
) -> tuple[list[RegressionTrial], list[NDArray[np.float64]]]:
    """Fit a figure with every pooling and penalty; return each trial and its predictions for the test split.

    pooled: features of all records, by pooling.
    y_N: the figure, NaN in records without it.
    rows: those that train, validate and test.
    ridges: decompositions by pooling and training rows; missing ones are added.
    """
    train, validation, test = rows
    trials, predicted = [], []
    for pooling, x_NF in pooled.items():
        key = (pooling, train.tobytes())
        if key not in ridges:
            ridges[key] = Ridge(x_NF[train])
        of_penalty_KN = ridges[key].predict(y_N[train], penalties, x_NF[np.concatenate([validation, test])])
        for penalty, y_M in zip(penalties, of_penalty_KN, strict=True):
            error = float(np.abs(y_M[: len(validation)] - y_N[validation]).mean())
            trials.append(RegressionTrial(pooling=pooling, penalty=penalty, validation_mae=error))
            predicted.append(y_M[len(validation) :])
    return trials, predicted


def _predictions(
    data: WaveData,
    figure: str,
    test: NDArray[np.int64],
    measured_M: NDArray[np.float64],
    predicted_M: NDArray[np.float64],
) -> pa.Table:
    """Return a figure's rows of PREDICTIONS; test: rows of the data."""
    columns = {
        "figure": [figure] * len(test),
        "record_id": data.records.column("record_id").take(pa.array(test)).to_pylist(),
        "patient": data.patient_N[test].tolist(),
        "measured": measured_M,
        "predicted": predicted_M,
    }
    return pa.table(columns, schema=PREDICTIONS)


@dataclass(frozen=True, kw_only=True)
class RegressionFacts(Facts):
    """What a regression reports."""

    data_digest: str
    """Of ECGs, waves and protocol: errors of two encoders are comparable if it is the same."""
    figures: tuple[FigureScores, ...]
    """The figures that were scored, without their trials."""
    reasons: dict[str, str]
    """Why the others were not scored, by name."""


def materialize_regression(
    workspace: Workspace,
    task: WaveTask,
    encoder: EncoderSource,
    config: RegressionConfig | None = None,
    features: FeatureConfig | None = None,
    *,
    mirror: Path | None = None,
    progress: OnProgress | None = None,
) -> Product:
    """Build the product `regression/<task>/<encoder>`: the result of `regress` as scores.json and predictions.parquet.

    Missing waves and features are computed first. mirror: see `materialize_delineation`. Facts: `RegressionFacts`.
    """
    config, features = config or RegressionConfig(), features or FeatureConfig()
    data = wave_data(workspace, task, mirror)
    computed = materialize_features(workspace, MomentsSource(encoder=encoder), task.source, features, progress)
    shards = shards_of(workspace, task.source)
    inputs = {product.name: product.digest for product in (*shards.values(), *data.products.values())}
    data_digest = digest_of({"inputs": inputs, **task.to_dict()})

    def make(folder: Path) -> dict[str, Any]:
        result = regress(data, read_features(computed), config)
        stored = {
            "title": task.title,
            "encoder": {"name": encoder.name, "digest": encoder.digest},
            "data_digest": data_digest,
            "ecgs": {product.name: product.digest for product in shards.values()},
            "task": task.to_dict(),
            "config": asdict(config),
            "figures": [asdict(figure) for figure in result.figures],
            "reasons": result.reasons,
        }
        write_atomically(folder / SCORES_FILE, json.dumps(stored, indent=1, allow_nan=False).encode())
        write_table(folder / PREDICTIONS_FILE, result.predictions)
        figures = tuple(replace(figure, trials=()) for figure in result.figures)
        return RegressionFacts(data_digest=data_digest, figures=figures, reasons=result.reasons).to_dict()

    return workspace.build(
        f"regression/{task.name}/{encoder.name}",
        version=versions.REGRESSION,
        config={"encoder": encoder.digest, **asdict(config), **features.to_dict(), **task.to_dict()},
        inputs=inputs | {product.name: product.digest for product in computed.values()},
        make=make,
    )


def compare_regressions(first: Product, second: Product, bootstrap: Bootstrap | None = None) -> dict[str, Interval]:
    """Return the first product's mean absolute error minus the second's, by figure, paired on the same test records.

    Raises ValueError if the two are not of the same data.
    """
    bootstrap = bootstrap or Bootstrap()
    if RegressionFacts.of(first).data_digest != RegressionFacts.of(second).data_digest:
        raise ValueError(
            f"{first.name} and {second.name} are of different ECGs, waves or splits: materialize both again"
        )
    tables = [pq.read_table(product.path / PREDICTIONS_FILE) for product in (first, second)]
    figure_N, patient_N = (np.asarray(tables[0].column(name).to_pylist(), dtype=str) for name in ("figure", "patient"))
    error_2N = [np.abs(table["predicted"].to_numpy() - table["measured"].to_numpy()) for table in tables]
    difference_N = error_2N[0] - error_2N[1]
    return {
        name: bootstrap.mean(difference_N[figure_N == name], patient_N[figure_N == name])
        for name in dict.fromkeys(figure_N.tolist())
    }
