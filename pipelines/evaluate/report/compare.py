"""Compare two encoders on the same ECGs, splits and protocol: paired differences, with p adjusted by Holm's method.

For macro AUCs the adjustment is over the tasks, for the AUCs of labels over the labels of a task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pipelines.cache import Workspace
from pipelines.encoders.words import input_in_words
from pipelines.evaluate.exposure import Overlaps
from pipelines.evaluate.features import EncoderSource
from pipelines.evaluate.own_code import CannotAnswer
from pipelines.evaluate.probes.comparison import paired_test_scores
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import ProbeResult
from pipelines.evaluate.probes.stored import Probe, as_ours_was_probed
from pipelines.evaluate.report.model import EncoderComparison, LabelComparison, TaskComparison
from pipelines.evaluate.statistics.paired import holm, paired_differences
from pipelines.evaluate.suite.names import Evaluation
from pipelines.evaluate.suite.run import materialize_evaluation
from pipelines.harmonize.shards import shards_of
from pipelines.tasks.splits import unnamed

RESAMPLES_A_COMPARISON = 400
"""Resamples for each of K labels or tasks that are compared. A bootstrap of R resamples gives no p below 2 / (R + 1),
and Holm's method multiplies the smallest p by K: with 1,000 resamples, none of 71 labels could be significant. With
400 K resamples the smallest p is below 0.05 with up to nine resamples on the other side of zero, so that no single
resample decides."""

Report = Callable[[str, int, int], None]
"""Progress callback: the title of the task, the ECGs of a shard embedded so far, and the ECGs of that shard."""


def compare_results(
    pairs: Sequence[tuple[str, ProbeResult, ProbeResult]], config: ProbeConfig
) -> tuple[TaskComparison, ...]:
    """Compare pairs of probe results.

    pairs: the task's title, the first result and the second; both are scored.
    config: settings of the bootstrap.
    Raises ValueError if the results of a pair are not of the same test records.
    """
    comparisons = [_compared(title, first, second, config, len(pairs)) for title, first, second in pairs]
    adjusted = holm([comparison.difference.p_value for comparison in comparisons])
    return tuple(replace(one, p_adjusted=p_adjusted) for one, p_adjusted in zip(comparisons, adjusted, strict=True))


def compare_encoders(
    workspace: Workspace,
    encoders: tuple[tuple[str, EncoderSource], tuple[str, EncoderSource]],
    evaluations: Sequence[Evaluation],
    progress: Report | None = None,
) -> EncoderComparison:
    """Compare two encoders by evaluations with frozen heads. Features, tokens and probes that are cached are reused.

    encoders: each with the name that the user gave it.
    Each has the protocol and settings of our encoder's last probe of that name, or else its own protocol. One that an
    encoder's own code cannot do is among those that are not scored, with the reason. Raises ValueError if the ECGs of
    no task are harmonized here.
    """
    available = [one for one in evaluations if shards_of(workspace, one.task.source)]
    if not available:
        sources = ", ".join(dict.fromkeys(one.task.source for one in evaluations))
        raise ValueError(f"no ECGs of {sources} in {workspace.root}: harmonize them first")
    pairs, seen, not_scored, bootstrap = [], {}, {}, ProbeConfig()
    overlaps = Overlaps(workspace)
    for evaluation in available:
        task, config = as_ours_was_probed(workspace, evaluation.task)
        alike = replace(evaluation, task=task)
        report = None if progress is None else _titled(progress, task.title)
        try:
            first, second = (
                Probe.load(materialize_evaluation(workspace, alike, source, config, report).path)
                for _, source in encoders
            )
        except CannotAnswer as error:
            not_scored[task.title] = str(error)
            continue
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
        inputs=(input_in_words(first_source.config), input_in_words(second_source.config)),
    )


def _titled(progress: Report, title: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(title, done, total)


def _compared(title: str, first: ProbeResult, second: ProbeResult, config: ProbeConfig, tasks: int) -> TaskComparison:
    """Compare two results on one of `tasks` tasks. The p of the task is not adjusted yet, those of labels are."""
    paired = paired_test_scores(first, second)
    assert first.scores is not None
    assert second.scores is not None
    scored = first.scores.test.classes
    score_of_second = {score.name: score for score in second.scores.test.classes}
    most, most_by_label = RESAMPLES_A_COMPARISON * tasks, RESAMPLES_A_COMPARISON * len(scored)
    macro, by_label = paired_differences(
        paired.y_NC,
        paired.first_NC,
        paired.second_NC,
        paired.patient,
        resamples=config.resamples,
        seed=config.seed,
        confidence=config.confidence,
        most=most,
        most_by_class=most_by_label,
    )
    adjusted = holm([difference.p_value for difference in by_label])
    labels = tuple(
        LabelComparison(
            name=score.name,
            positives=score.positives,
            negatives=score.negatives,
            first=score.auc,
            second=score_of_second[score.name].auc,
            difference=difference,
            p_adjusted=p_adjusted,
        )
        for score, difference, p_adjusted in zip(scored, by_label, adjusted, strict=True)
    )
    return TaskComparison(
        task=first.task,
        title=title,
        records=len(paired.patient),
        patients=first.scores.test.patients,
        unnamed=unnamed(paired.patient),
        first=first.scores.test.macro_auc,
        second=second.scores.test.macro_auc,
        difference=macro,
        p_adjusted=macro.p_value,
        resamples=max(config.resamples, most, most_by_label),
        labels=labels,
        omitted=first.scores.test.omitted,
    )
