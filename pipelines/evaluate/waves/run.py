"""The suite's evaluations of waves, done: an encoder of the data home beside its random baseline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.cache import Product
from pipelines.encoders.names import OURS, EncoderNames
from pipelines.evaluate.exposure import Overlap, Overlaps
from pipelines.evaluate.features import OnProgress, encoder_and_random_baseline
from pipelines.evaluate.statistics.bootstrap import Interval
from pipelines.evaluate.waves import tables
from pipelines.evaluate.waves.config import FINE_TUNED, FROZEN, PseudoConfig, SegmentationConfig
from pipelines.evaluate.waves.delineation import WaveTask, usual_task, wave_data
from pipelines.evaluate.waves.intervals import materialize_regression
from pipelines.evaluate.waves.segmentation import (
    CONFUSIONS_FILE,
    PREDICTIONS_FILE,
    SCORES_FILE,
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
"""Those that are kept up to date; of any other source they can be asked for, too."""


@dataclass(frozen=True, kw_only=True)
class Segmentations:
    """made: by encoder and way, our frozen encoder first. ahead: its mean IoU minus its frozen random_baseline's, None
    without a score. best: ours, fine-tuned where it was, else frozen."""

    task: WaveTask
    made: dict[str, Product]
    ahead: Interval | None
    best: Product
    picture: bytes | None
    labels: list[Row]

    @property
    def reason(self) -> str | None:
        """Why nothing was scored."""
        return next(iter(self.made.values())).facts["reason"]


@dataclass(frozen=True, kw_only=True)
class Regressions:
    """ours, random_baseline: the products of `regression`."""

    task: WaveTask
    ours: Product
    random_baseline: Product
    labels: list[Row]


def segment_encoder(
    home: Home,
    source: str,
    pseudo: PseudoConfig | None = None,
    ways: Sequence[SegmentationConfig] = (FROZEN, FINE_TUNED),
    encoder_names: EncoderNames = OURS,
    progress: OnProgress | None = None,
) -> Segmentations:
    """An encoder and its random baseline on the best waves that a source has. ways: the frozen one first."""
    workspace, (task, mirror) = home.workspace(), waves_of(home, source, pseudo)
    made = {
        f"{one.name}, {way.mode.replace('_', '-')}": materialize_segmentation(
            workspace, task, one, way, mirror=mirror, progress=progress
        )
        for way in ways
        for one in encoder_and_random_baseline(workspace, encoder_names)
    }
    frozen, random, *tuned = made.values()
    best = tuned[0] if tuned else frozen
    return Segmentations(
        task=task,
        made=made,
        ahead=compare_segmentations(frozen, random).difference,
        best=best,
        picture=tables.examples(workspace, task, best, mirror),
        labels=tables.label_rows(wave_data(workspace, task, mirror).products),
    )


def regress_encoder(
    home: Home,
    source: str,
    pseudo: PseudoConfig | None = None,
    encoder_names: EncoderNames = OURS,
    progress: OnProgress | None = None,
) -> Regressions:
    """Intervals from the embeddings of an encoder and of its random baseline."""
    workspace, (task, mirror) = home.workspace(), waves_of(home, source, pseudo)
    ours, random_baseline = (
        materialize_regression(workspace, task, one, mirror=mirror, progress=progress)
        for one in encoder_and_random_baseline(workspace, encoder_names)
    )
    labels = tables.label_rows(wave_data(workspace, task, mirror).products)
    return Regressions(task=task, ours=ours, random_baseline=random_baseline, labels=labels)


def waves_of(home: Home, source: str, pseudo: PseudoConfig | None = None) -> tuple[WaveTask, Path | None]:
    """The waves that there are of a source, and the folder of its simulated mirror if that is what it is."""
    mirror = Path(home.mirror) if home.simulated and home.mirror else None
    return usual_task(source, simulated=home.simulated, pseudo=pseudo), mirror


def overlap_of_waves(overlaps: Overlaps, product: Product) -> Overlap:
    """Return how much of a segmentation's or a regression's test split its encoder saw in pretraining."""
    stored = json.loads((product.path / SCORES_FILE).read_text())
    # A segmentation's confusions name all its records, its predictions only those with a wave.
    files = [product.path / name for name in (CONFUSIONS_FILE, PREDICTIONS_FILE)]
    file = next((file for file in files if file.is_file()), None)
    tested = () if file is None else set(pq.read_table(file, columns=["record_id"])["record_id"].to_pylist())
    return overlaps.of(stored["encoder"]["name"], stored["encoder"]["digest"], stored["task"]["source"], tested)
