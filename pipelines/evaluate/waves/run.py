"""Run the suite's evaluations of waves: an encoder of the data home and its random baseline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.cache import Product
from pipelines.encoders.names import OURS
from pipelines.evaluate.exposure import Overlap, Overlaps
from pipelines.evaluate.features import EncoderSource, OnProgress, encoder_and_random_baseline
from pipelines.evaluate.statistics.bootstrap import Interval
from pipelines.evaluate.waves import tables
from pipelines.evaluate.waves.config import FINE_TUNED, FROZEN, PseudoConfig, SegmentationConfig
from pipelines.evaluate.waves.delineation import WaveTask, usual_task, wave_data
from pipelines.evaluate.waves.intervals import materialize_regression
from pipelines.evaluate.waves.segmentation import (
    CONFUSIONS_FILE,
    PREDICTIONS_FILE,
    SCORES_FILE,
    SegmentationFacts,
    compare_segmentations,
    materialize_segmentation,
)
from pipelines.evaluate.waves.tables import Row
from pipelines.home import Home

KINDS = {
    "segmentation": "P, QRS and T from tokens, frozen and fine-tuned",
    "regression": "heart rate, P, PR, QRS and QT from embeddings",
}
WAVE_EVALUATIONS = ("segmentation/ludb", "segmentation/ptbxl", "regression/ptbxl")
"""The evaluations that are kept up to date. The same kinds can be requested for any other source."""


@dataclass(frozen=True, kw_only=True)
class Segmentations:
    """The segmentations of an encoder and of its random baseline on one task."""

    task: WaveTask
    products: dict[str, Product]
    """By encoder and mode, such as `pretrained, frozen`; our frozen encoder first."""
    ahead: Interval | None
    """Mean IoU of our frozen encoder minus that of its frozen random baseline; None without scores."""
    best: Product
    """Our encoder's segmentation, the fine-tuned one if there is one."""
    picture: bytes | None
    """Examples on ECG paper, as PNG; None without scores."""
    labels: list[Row]
    """Counts of records and waves."""

    @property
    def reason(self) -> str | None:
        """Why nothing was scored."""
        return SegmentationFacts.of(next(iter(self.products.values()))).reason


@dataclass(frozen=True, kw_only=True)
class Regressions:
    """The regressions of an encoder and of its random baseline on one task."""

    task: WaveTask
    ours: Product
    random_baseline: Product
    labels: list[Row]
    """Counts of records and waves."""


def segment_encoder(
    home: Home,
    source: str,
    pseudo: PseudoConfig | None = None,
    configs: Sequence[SegmentationConfig] = (FROZEN, FINE_TUNED),
    encoders: tuple[EncoderSource, EncoderSource] | None = None,
    progress: OnProgress | None = None,
) -> Segmentations:
    """Segment with an encoder and its random baseline, on the best waves of a source.

    pseudo: settings of pseudo-labels, if the source has no better waves.
    configs: one for each mode, the frozen one first.
    encoders: an encoder and its random baseline; None is the data home's own.
    """
    workspace, (task, mirror) = home.workspace(), waves_of(home, source, pseudo)
    products = {
        f"{encoder.name}, {config.mode.replace('_', '-')}": materialize_segmentation(
            workspace, task, encoder, config, mirror=mirror, progress=progress
        )
        for config in configs
        for encoder in encoders or encoder_and_random_baseline(workspace, OURS)
    }
    frozen, random, *tuned = products.values()
    best = tuned[0] if tuned else frozen
    return Segmentations(
        task=task,
        products=products,
        ahead=compare_segmentations(frozen, random).difference,
        best=best,
        picture=tables.examples(workspace, task, best, mirror),
        labels=tables.label_rows(wave_data(workspace, task, mirror).products),
    )


def regress_encoder(
    home: Home,
    source: str,
    pseudo: PseudoConfig | None = None,
    encoders: tuple[EncoderSource, EncoderSource] | None = None,
    progress: OnProgress | None = None,
) -> Regressions:
    """Predict intervals from the embeddings of an encoder and of its random baseline, on the best waves of a source.

    pseudo: settings of pseudo-labels, if the source has no better waves.
    encoders: as of `segment_encoder`.
    """
    workspace, (task, mirror) = home.workspace(), waves_of(home, source, pseudo)
    ours, random_baseline = (
        materialize_regression(workspace, task, encoder, mirror=mirror, progress=progress)
        for encoder in encoders or encoder_and_random_baseline(workspace, OURS)
    )
    labels = tables.label_rows(wave_data(workspace, task, mirror).products)
    return Regressions(task=task, ours=ours, random_baseline=random_baseline, labels=labels)


def waves_of(home: Home, source: str, pseudo: PseudoConfig | None = None) -> tuple[WaveTask, Path | None]:
    """Return the task on the best waves of a source, and the simulated mirror's folder if the home is simulated."""
    mirror = Path(home.mirror) if home.simulated and home.mirror else None
    return usual_task(source, simulated=home.simulated, pseudo=pseudo), mirror


def overlap_of_waves(overlaps: Overlaps, product: Product) -> Overlap:
    """Return how much of a segmentation's or a regression's test split its encoder saw in pretraining."""
    stored = json.loads((product.path / SCORES_FILE).read_text())
    # A segmentation's confusions name all its test records, its predictions only those with a wave.
    files = [product.path / name for name in (CONFUSIONS_FILE, PREDICTIONS_FILE)]
    file = next((file for file in files if file.is_file()), None)
    tested = () if file is None else set(pq.read_table(file, columns=["record_id"])["record_id"].to_pylist())
    return overlaps.of(stored["encoder"]["name"], stored["encoder"]["digest"], stored["task"]["source"], tested)
