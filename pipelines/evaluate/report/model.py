"""What the pages show: the dataclasses of the evaluation report and of a comparison, and their constants."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipelines.encoders.names import OURS, REFERENCE
from pipelines.evaluate.exposure import Overlap
from pipelines.evaluate.probes import handcrafted
from pipelines.evaluate.probes.assessment import Assessment
from pipelines.evaluate.report.published import Published
from pipelines.evaluate.statistics.bootstrap import Interval, PairedDifference
from pipelines.evaluate.waves.tables import (
    Row,
)


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """What the encoder is: its recipe, its digest, and the ECGs of each source that it saw, without their labels.

    ecgs: None where the corpus that it was trained on is no longer here. window: where it was made for longer ECGs than
    it is tested on.
    """

    recipe: str
    digest: str
    steps: int | None
    ecgs: dict[str, int] | None
    unlabelled_folds: tuple[int, ...]
    window: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReportVerdict:
    """headline: the answer in one sentence. sentences: one for each task, with what stands behind it."""

    headline: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """All that the page says in numbers and words. simulated: the ECGs are drawn by a program. suite: of the tasks that
    were evaluated otherwise than by their plain probe. waves: of those that were segmented or measured; waves_seen: of
    their test ECGs, by the encoder, in pretraining."""

    simulated: bool
    verdict: ReportVerdict
    pretraining: Pretraining
    tasks: tuple[TaskReport, ...]
    precision: str
    suite: tuple[SuiteTable, ...] = ()
    waves: tuple[WaveReport, ...] = ()
    waves_seen: dict[str, Overlap] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


FEW_POSITIVES = 10
"""A label with fewer in the test split is named beside its figures: they say little."""


@dataclass(frozen=True, kw_only=True)
class LabelComparison:
    """AUCs of two encoders on one label. p_adjusted: Holm's, over the labels of the task."""

    name: str
    positives: int
    negatives: int
    first: Interval
    second: Interval
    difference: PairedDifference
    p_adjusted: float


@dataclass(frozen=True, kw_only=True)
class TaskComparison:
    """Macro AUCs of two encoders on a task's test split. patients, unnamed: as `labels.of_patients` takes them.
    p_adjusted: Holm's, over the tasks compared. resamples: the most that a difference is of; one that enough of them
    contradict is of fewer."""

    task: str
    title: str
    records: int
    patients: int
    unnamed: int
    first: Interval
    second: Interval
    difference: PairedDifference
    p_adjusted: float
    resamples: int
    labels: tuple[LabelComparison, ...]
    omitted: dict[str, str]

    @property
    def few(self) -> tuple[str, ...]:
        """The labels with too few positives to say much."""
        return tuple(label.name for label in self.labels if label.positives < FEW_POSITIVES)


@dataclass(frozen=True, kw_only=True)
class EncoderComparison:
    """first, second: as they were named, with the digests of what they compute. seen: of the test ECGs of each task
    that was scored, by the first and by the second, in pretraining. not_scored: tasks, each with why."""

    first: str
    second: str
    first_digest: str
    second_digest: str
    confidence: float
    tasks: tuple[TaskComparison, ...]
    seen: dict[str, tuple[Overlap, Overlap]]
    not_scored: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def in_words(self) -> str:
        """The verdict in one line."""
        if not self.tasks:
            return "No task could be scored"
        better = [one.title for one in self.tasks if one.p_adjusted < 1 - self.confidence and one.difference.value > 0]
        worse = [one.title for one in self.tasks if one.p_adjusted < 1 - self.confidence and one.difference.value < 0]
        words = [f"{self.first} is better on {', '.join(better)}"] if better else []
        words += [f"{self.second} is better on {', '.join(worse)}"] if worse else []
        if not words:
            return f"No difference between {self.first} and {self.second} is shown on any of {len(self.tasks)} tasks"
        rest = len(self.tasks) - len(better) - len(worse)
        return "; ".join([*words, *([f"no difference is shown on {rest} of {len(self.tasks)} tasks"] if rest else [])])


HANDCRAFTED_BASELINE = handcrafted.NAME
"""The probe on handcrafted features: an encoder below it has not earned its place."""

TITLES = {
    OURS.probe: "this encoder",
    OURS.random_baseline: "random encoder",
    HANDCRAFTED_BASELINE: "handcrafted features",
    REFERENCE.probe: "released ECG-JEPA",
    REFERENCE.random_baseline: "random, of its size",
}
"""What the probes go by on the page, in their order there."""

ALPHA = 0.05

SEVERAL = "several or other"
"""The legend of ECGs without a colour of their own on a map of embeddings."""


@dataclass(frozen=True, kw_only=True)
class Probed:
    """One probe of a task. name: of the probe product. hue: its colour on the page. seen: of the test ECGs, by the
    encoder, in pretraining."""

    name: str
    title: str
    hue: int
    digest: str
    seen: Overlap
    assessment: Assessment


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """One task. probes: ours first; none where the task was not scored, and `reason` says why.

    differences: ours minus each of the others, by its name. omitted: labels that are not scored, each with why. few:
    labels that are scored on few positives. tested: on how many ECGs of how many patients. drawn: what resamples are
    drawn by. left_out: probes of other ECGs or of another protocol.
    """

    name: str
    title: str
    source: str
    kind: str
    labels: tuple[str, ...]
    protocol: str
    counts: dict[str, int]
    reason: str | None
    tested: str
    drawn: str
    probes: tuple[Probed, ...]
    differences: dict[str, TaskComparison]
    omitted: dict[str, str]
    few: tuple[str, ...]
    left_out: tuple[str, ...]
    published: Published | None


@dataclass(frozen=True, kw_only=True)
class AucDifference:
    """A difference of macro AUCs. p_adjusted: Holm's, over the evaluations of all tables."""

    difference: PairedDifference
    p_adjusted: float


@dataclass(frozen=True, kw_only=True)
class SuiteRow:
    """One evaluation. auc, accuracy: on the test split, by the name of what was probed, ours first; of others only
    where they are of the same ECGs, labels and protocol as ours. ahead: ours over each other. seen: of the test ECGs,
    by name. reason: why ours was not scored. left_out: labels that the mean is without, in some or all draws of few
    labels. percent: of the training patients' labels, where the plain linear probe was fitted on that many; else None.
    labels_used: where they are few, the ECGs that were fitted and chosen on. parts: every figure of it, or of each of
    its draws; none of a plain probe."""

    name: str
    title: str
    auc: dict[str, Interval]
    accuracy: dict[str, Interval]
    ahead: dict[str, AucDifference]
    seen: dict[str, Overlap]
    reason: str | None
    left_out: tuple[str, ...]
    percent: float | None
    labels_used: str | None
    published: Published | None
    parts: tuple[TaskReport, ...]


@dataclass(frozen=True, kw_only=True)
class SuiteTable:
    """A task's evaluations, the plain linear probe first where it is there."""

    task: str
    title: str
    rows: tuple[SuiteRow, ...]

    @property
    def budget(self) -> tuple[SuiteRow, ...]:
        """The rows of the label-budget curve, from few labels to all; none where labels were never few."""
        rows = sorted(
            (row for row in self.rows if row.percent is not None and row.auc), key=lambda row: row.percent or 0
        )
        return tuple(rows) if any(row.percent != 100 for row in rows) else ()


@dataclass(frozen=True, kw_only=True)
class WaveReport:
    """A task of waves as tables. boundaries, read_off: of our segmentation that was done in the way `shown`; reasons:
    what was not scored, and why."""

    task: str
    title: str
    overlap: tuple[Row, ...]
    shown: str | None
    boundaries: tuple[Row, ...]
    read_off: tuple[Row, ...]
    errors: tuple[Row, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EmbeddingMap:
    """Embeddings on their first two principal axes. hue_N: into `names`; -1 for what has no colour of its own.

    explained: the share of their variance that the two axes hold. names: in the order of the hues, with counts.
    """

    title: str
    point_N2: np.ndarray
    hue_N: np.ndarray
    names: dict[str, int]
    explained: float


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Sheets of ECGs as PNG: the most confident predictions that were right, and those that were wrong."""

    right: bytes | None
    wrong: bytes | None
