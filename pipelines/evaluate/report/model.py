"""The values that the pages show: dataclasses of the evaluation report and of a comparison, and their constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipelines.encoders.names import OURS, REFERENCE, REFERENCE_CPC
from pipelines.evaluate.exposure import Overlap
from pipelines.evaluate.probes import handcrafted
from pipelines.evaluate.probes.assessment import Assessment
from pipelines.evaluate.probes.result import labels_scored
from pipelines.evaluate.report.published import Published
from pipelines.evaluate.scaling.facts import ScalingFacts
from pipelines.evaluate.statistics.bootstrap import Interval, PairedDifference
from pipelines.evaluate.waves.tables import Row


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """How the encoder was pretrained, and on which ECGs, without their labels."""

    recipe: str
    digest: str
    """Of the encoder's file."""
    steps: int | None
    ecgs: dict[str, int] | None
    """ECGs by source; None if the corpus that it was trained on is no longer here."""
    unlabelled_folds: tuple[int, ...]
    """Folds of evaluation sources in the corpus."""
    window: str | None = None
    """Says so if the encoder was made for ECGs of another length than those that it is tested on."""
    method: str | None = None
    """The objective and the network, in words; None if they are not known."""
    corpus: str | None = None
    """Digest of the corpus that it was trained on; None if it is not known."""


@dataclass(frozen=True, kw_only=True)
class ReportVerdict:
    """The report's answer to whether pretraining helped."""

    headline: str
    """The answer in one line."""
    meaning: tuple[str, ...]
    """What was measured, and how to take the answer."""
    next_steps: tuple[str, ...]
    """What to do to learn more."""
    sentences: tuple[str, ...]
    """One for each task, with its figures."""


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Everything that the page of the report says in numbers and words."""

    simulated: bool
    """Whether the ECGs are simulated."""
    verdict: ReportVerdict
    pretraining: Pretraining
    tasks: tuple[TaskReport, ...]
    """The linear probes, a task each."""
    precision: str
    """Number format that embeddings were computed in."""
    inputs: dict[str, str] = field(default_factory=dict)
    """What each encoder on the page reads, in words: leads, window, rate, and the scale of its unit."""
    suite: tuple[SuiteTable, ...] = ()
    """The tasks that have other evaluations besides the linear probe."""
    waves: tuple[WaveReport, ...] = ()
    waves_seen: dict[str, Overlap] = field(default_factory=dict)
    """By task of waves, how much of its test ECGs the encoder saw in pretraining."""
    scaling: tuple[ScalingFacts, ...] = ()
    """Scaling curves, of whatever encoders."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


FEW_POSITIVES = 10
"""A label with fewer positives in the test split is marked, since its figures are uncertain."""


@dataclass(frozen=True, kw_only=True)
class LabelComparison:
    """AUCs of two encoders on one label."""

    name: str
    positives: int
    negatives: int
    first: Interval
    second: Interval
    difference: PairedDifference
    """First minus second."""
    p_adjusted: float
    """By Holm's method, over the labels of the task."""


@dataclass(frozen=True, kw_only=True)
class TaskComparison:
    """Macro AUCs of two encoders on a task's test split."""

    task: str
    title: str
    records: int
    patients: int
    """As `tasks.splits.of_patients` takes them."""
    unnamed: int
    """Records of no known patient."""
    first: Interval
    second: Interval
    difference: PairedDifference
    """First minus second."""
    p_adjusted: float
    """By Holm's method, over the tasks that are compared."""
    resamples: int
    """The most resamples that a difference is computed from. A difference stops earlier if enough resamples contradict
    it."""
    labels: tuple[LabelComparison, ...]
    omitted: dict[str, str]
    """Labels that were not scored, each with the reason."""

    @property
    def labels_scored(self) -> str:
        """Over how many of the task's labels the macro AUCs are, such as `3 of 9`."""
        return labels_scored(len(self.labels), len(self.omitted))

    @property
    def few(self) -> tuple[str, ...]:
        """The labels with fewer than FEW_POSITIVES positives."""
        return tuple(label.name for label in self.labels if label.positives < FEW_POSITIVES)


@dataclass(frozen=True, kw_only=True)
class EncoderComparison:
    """Two encoders compared on the same tasks."""

    first: str
    """As the user named it."""
    second: str
    first_digest: str
    """Of the encoder's file, or of the features' definition."""
    second_digest: str
    confidence: float
    tasks: tuple[TaskComparison, ...]
    seen: dict[str, tuple[Overlap, Overlap]]
    """By task that was scored, how much of its test ECGs the first and the second saw in pretraining."""
    not_scored: dict[str, str]
    """Titles of the other tasks, each with the reason."""
    inputs: tuple[str, str] | None = None
    """What the first and the second read, in words: leads, window, rate, and the scale of the unit."""

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        values = asdict(self)
        if self.inputs is None:
            del values["inputs"]
        return values

    def inputs_in_words(self) -> str | None:
        """Say what both read; None if it is not known."""
        if self.inputs is None:
            return None
        first, second = self.inputs
        if first == second:
            return f"both read {first}"
        return f"{self.first} reads {first}; {self.second} reads {second}"

    def in_words(self) -> str:
        """Return the verdict in one line."""
        if not self.tasks:
            return "Not scored: no task has enough labelled ECGs"
        significant = [task for task in self.tasks if task.p_adjusted < 1 - self.confidence]
        better = [task.title for task in significant if task.difference.value > 0]
        worse = [task.title for task in significant if task.difference.value < 0]
        words = [f"{self.first} is better on {', '.join(better)}"] if better else []
        words += [f"{self.second} is better on {', '.join(worse)}"] if worse else []
        if not words:
            return f"No clear difference between {self.first} and {self.second} on any of {len(self.tasks)} tasks"
        rest = len(self.tasks) - len(better) - len(worse)
        return "; ".join([*words, *([f"no clear difference on {rest} of {len(self.tasks)} tasks"] if rest else [])])


HANDCRAFTED_BASELINE = handcrafted.NAME
"""Name of the probe on handcrafted features, which an encoder should exceed."""

TITLES = {
    OURS.probe: "this encoder",
    OURS.random_baseline: "random encoder",
    HANDCRAFTED_BASELINE: "handcrafted features",
    REFERENCE.probe: "released ECG-JEPA",
    REFERENCE.random_baseline: "random, of its size",
    REFERENCE_CPC.probe: "released ECG-CPC",
    REFERENCE_CPC.random_baseline: "random, of ECG-CPC's size",
}
"""Titles of the probes on the page, by the probe's name, in the page's order."""

ALPHA = 0.05
"""A difference is called shown if its adjusted p is below it."""

SEVERAL = "several or other"
"""In the legend of a map of embeddings, the ECGs without a colour."""

Rocs = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""False and true positive rates by label."""


@dataclass(frozen=True, kw_only=True)
class Probed:
    """One probe of a task."""

    name: str
    """Of the source of features, as in the probe's product."""
    title: str
    hue: int
    """Number of its colour on the page."""
    digest: str
    """Of the encoder's file, or of the features' definition."""
    seen: Overlap
    """How much of the test ECGs the encoder saw in pretraining."""
    assessment: Assessment


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """One task with its probes."""

    name: str
    title: str
    source: str
    kind: str
    """`multi-label` or `multi-class`."""
    labels: tuple[str, ...]
    protocol: str
    """The split, in words."""
    counts: dict[str, int]
    """ECGs by split."""
    reason: str | None
    """Why the task was not scored."""
    tested: str
    """How many ECGs of how many patients the test split has, in words."""
    drawn: str
    """The unit that bootstrap resamples draw: patient or ECG, in words."""
    probes: tuple[Probed, ...]
    """Ours first; none if the task was not scored."""
    differences: dict[str, TaskComparison]
    """Ours minus each other probe, by the other's name."""
    omitted: dict[str, str]
    """Labels that are not scored, each with the reason."""
    few: tuple[str, ...]
    """Labels that are scored on fewer than FEW_POSITIVES positives."""
    left_out: tuple[str, ...]
    """Titles of probes of other ECGs or another protocol, which are not shown."""
    published: Published | None

    @property
    def labels_scored(self) -> str:
        """Over how many of the task's labels the figures are, such as `3 of 9`."""
        return labels_scored(len(self.labels) - len(self.omitted), len(self.omitted))


@dataclass(frozen=True, kw_only=True)
class AucDifference:
    """A difference of macro AUCs in a table of the suite."""

    difference: PairedDifference
    p_adjusted: float
    """By Holm's method, over the evaluations of all tables."""


@dataclass(frozen=True, kw_only=True)
class SuiteRow:
    """One evaluation of the suite. Other features are there only if they share ours' ECGs, labels and protocol."""

    name: str
    title: str
    auc: dict[str, Interval]
    """Macro AUC on the test split, by the name of the features, ours first."""
    accuracy: dict[str, Interval]
    """Accuracy on the test split, likewise."""
    ahead: dict[str, AucDifference]
    """Ours minus each other, by the other's name."""
    seen: dict[str, Overlap]
    """How much of the test ECGs each saw in pretraining, by name."""
    reason: str | None
    """Why ours was not scored."""
    labels_scored: str
    """Over how many of the task's labels the figures are, such as `3 of 9`; of draws that differ, each."""
    left_out: tuple[str, ...]
    """Labels that are not in the mean of some or all draws of few labels."""
    percent: float | None
    """Share of the training patients' labels that a linear probe was fitted on; None for another evaluation."""
    labels_used: str | None
    """If labels are few: how many ECGs were fitted on and chosen on, in words."""
    published: Published | None
    parts: tuple[TaskReport, ...]
    """All figures of the evaluation, or of each of its draws; none for a linear probe on all labels."""


@dataclass(frozen=True, kw_only=True)
class SuiteTable:
    """A task's evaluations, the linear probe on all labels first, if there is one."""

    task: str
    title: str
    rows: tuple[SuiteRow, ...]

    @property
    def budget(self) -> tuple[SuiteRow, ...]:
        """The rows of the label-budget curve, from few labels to all; none if no evaluation has few labels."""
        scored = (row for row in self.rows if row.percent is not None and row.auc)
        rows = sorted(scored, key=lambda row: row.percent or 0)
        return tuple(rows) if any(row.percent != 100 for row in rows) else ()


@dataclass(frozen=True, kw_only=True)
class WaveReport:
    """A task of waves as tables."""

    task: str
    title: str
    overlap: tuple[Row, ...]
    """Intersection over union of each segmentation."""
    shown: str | None
    """The mode of our segmentation that `boundaries` and `read_off` are of: `frozen` or `fine-tuned`."""
    boundaries: tuple[Row, ...]
    """Errors of onsets and offsets."""
    read_off: tuple[Row, ...]
    """Errors of intervals that are measured on predicted waves."""
    errors: tuple[Row, ...]
    """Errors of intervals by ridge regression."""
    reasons: tuple[str, ...]
    """What was not scored, and why."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingMap:
    """A map of N embeddings on their first two principal axes."""

    title: str
    point_N2: np.ndarray
    hue_N: np.ndarray
    """Index into `names`; -1 for an ECG without a colour."""
    names: dict[str, int]
    """Labels or sources in the order of their hues, with the number of their ECGs."""
    explained: float
    """Share of the variance on the two axes."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Sheets of ECGs as PNG: the most confident right predictions, and the most confident wrong ones."""

    right: bytes | None
    wrong: bytes | None
