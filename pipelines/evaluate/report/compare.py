"""Two encoders on the same ECGs, splits and protocol: paired differences, adjusted for being many.

Holm's adjustment goes over the tasks for their macro AUCs, and within a task over its labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import versions
from pipelines.cache import Product, Workspace, digest_of, write_atomically
from pipelines.encoders.names import OURS
from pipelines.evaluate.exposure import Overlap, Overlaps
from pipelines.evaluate.features import EncoderSource, shards_of
from pipelines.evaluate.probes.fit import ProbeConfig, materialize_probe
from pipelines.evaluate.probes.result import SCORES_FILE, ProbeResult
from pipelines.evaluate.probes.stored import Probe
from pipelines.evaluate.statistics import ranking as statistics
from pipelines.evaluate.statistics.ranking import Interval, PairedDifference
from pipelines.tasks.catalogue import LabelTask, Split, protocol_from_dict

PRODUCT = "comparison"
HTML_FILE, JSON_FILE = "comparison.html", "comparison.json"

RESAMPLES_A_COMPARISON = 400
"""A bootstrap of R resamples shows no p below 2 / (R + 1), which Holm's adjustment multiplies by the number K of labels
or of tasks: of 71 on 1,000 resamples none could ever be told apart. Of 400 K, the smallest of K is below 0.05 with up
to nine on the far side of zero, so that no single resample decides."""

FEW_POSITIVES = 10
"""A label with fewer in the test split is named beside its figures: they say little."""

Report = Callable[[str, int, int], None]
"""Called with what is embedded for, the ECGs of a shard that are embedded, and the ECGs of that shard."""


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


def compare_results(
    pairs: Sequence[tuple[str, ProbeResult, ProbeResult]], config: ProbeConfig
) -> tuple[TaskComparison, ...]:
    """Pairs of results with their tasks' titles, both scored; config: of the bootstrap.

    Raises ValueError where two are not about the same test records.
    """
    found = [_compared(title, first, second, config, len(pairs)) for title, first, second in pairs]
    adjusted = statistics.holm([one.difference.p_value for one in found])
    return tuple(replace(one, p_adjusted=p_adjusted) for one, p_adjusted in zip(found, adjusted, strict=True))


def compare_encoders(
    workspace: Workspace,
    encoders: tuple[tuple[str, EncoderSource], tuple[str, EncoderSource]],
    tasks: Sequence[LabelTask],
    progress: Report | None = None,
) -> EncoderComparison:
    """Probe two encoders, each with what it is called, on tasks and compare them; features and probes that are there
    are found.

    A task is probed as ours was probed last, else by its own protocol. Raises ValueError where no task's source is
    harmonized here.
    """
    here = [task for task in tasks if shards_of(workspace, task.source)]
    if not here:
        wanted = ", ".join(dict.fromkeys(task.source for task in tasks))
        raise ValueError(f"no ECGs of {wanted} in {workspace.root}: harmonize them first")
    pairs, seen, not_scored, bootstrap = [], {}, {}, ProbeConfig()
    overlaps = Overlaps(workspace)
    for task in here:
        asked, config = as_ours_was_probed(workspace, task)
        report = None if progress is None else _titled(progress, task.title)
        first, second = (
            Probe.load(materialize_probe(workspace, asked, source, config, progress=report).path)
            for _, source in encoders
        )
        if first.result.scores is None or second.result.scores is None:
            not_scored[task.title] = first.result.reason or second.result.reason or ""
        else:
            pairs.append((task.title, first.result, second.result))
            seen[task.name] = (overlaps.of_probe(first), overlaps.of_probe(second))
    (first_name, first_source), (second_name, second_source) = encoders
    return EncoderComparison(
        first=first_name,
        second=second_name,
        first_digest=first_source.digest,
        second_digest=second_source.digest,
        confidence=bootstrap.confidence,
        tasks=compare_results(pairs, bootstrap),
        seen=seen,
        not_scored=not_scored,
    )


def materialize_comparison(workspace: Workspace, found: EncoderComparison) -> Product:
    """The product `comparison`: comparison.html for people, comparison.json with the same numbers."""

    def make(folder: Path) -> dict[str, Any]:
        from pipelines.evaluate.report.page import comparison_page  # Jinja2 is not needed to find one that is there

        write_atomically(folder / JSON_FILE, json.dumps(found.to_dict(), indent=1, allow_nan=False).encode())
        write_atomically(folder / HTML_FILE, comparison_page(found).encode())
        return {"headline": found.in_words()}

    return workspace.build(
        PRODUCT, version=versions.REPORT, config={}, inputs={"comparison": digest_of(found.to_dict())}, make=make
    )


def as_ours_was_probed(workspace: Workspace, task: LabelTask) -> tuple[LabelTask, ProbeConfig]:
    """The task and the probe's settings of our encoder's last probe; a task's own and the defaults where none is."""
    probe = workspace.current(f"probe/{task.name}/{OURS.probe}")
    if probe is None:
        return task, ProbeConfig()
    about = json.loads((probe.path / SCORES_FILE).read_text())["about"]
    config = ProbeConfig(**{**about["probe"], "penalties": tuple(about["probe"]["penalties"])})
    return replace(task, protocol=protocol_from_dict(about["task"]["protocol"])), config


def _titled(progress: Report, title: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(title, done, total)


def _compared(title: str, first: ProbeResult, second: ProbeResult, config: ProbeConfig, tasks: int) -> TaskComparison:
    """One of so many tasks, whose p is not adjusted yet."""
    assert first.scores is not None
    assert second.scores is not None
    assert first.predictions is not None
    assert second.predictions is not None
    a, b = first.predictions.of(Split.TEST), second.predictions.of(Split.TEST)
    same = (first.task, a.classes, a.record_id, a.patient) == (second.task, b.classes, b.record_id, b.patient)
    if not same or not np.array_equal(a.y_NC, b.y_NC):
        raise ValueError(f"two probes of {title} are on different test records: probe both encoders again")
    scored = first.scores.test.classes
    beside = {score.name: score for score in second.scores.test.classes}
    column = [a.classes.index(score.name) for score in scored]
    most, most_by_label = RESAMPLES_A_COMPARISON * tasks, RESAMPLES_A_COMPARISON * len(column)
    macro, by_label = statistics.paired_differences(
        *(a.y_NC[:, column], a.score_NC[:, column], b.score_NC[:, column], a.patient),
        resamples=config.resamples,
        seed=config.seed,
        confidence=config.confidence,
        most=most,
        most_by_class=most_by_label,
    )
    adjusted = statistics.holm([difference.p_value for difference in by_label])
    labels = tuple(
        LabelComparison(
            name=score.name,
            positives=score.positives,
            negatives=score.negatives,
            first=score.auc,
            second=beside[score.name].auc,
            difference=difference,
            p_adjusted=p_adjusted,
        )
        for score, difference, p_adjusted in zip(scored, by_label, adjusted, strict=True)
    )
    return TaskComparison(
        task=first.task,
        title=title,
        records=len(a.record_id),
        patients=first.scores.test.patients,
        unnamed=a.unnamed,
        first=first.scores.test.macro_auc,
        second=second.scores.test.macro_auc,
        difference=macro,
        p_adjusted=macro.p_value,
        resamples=max(config.resamples, most, most_by_label),
        labels=labels,
        omitted=first.scores.test.omitted,
    )
