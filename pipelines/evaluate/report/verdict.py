"""The verdict: whether pretraining helped, and whether the encoder is above the handcrafted baseline."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.encoders.names import OURS
from pipelines.evaluate.report.model import ALPHA, HANDCRAFTED_BASELINE, TITLES, ReportVerdict, TaskReport
from pipelines.evaluate.report.wording import sentence


def judge(tasks: Sequence[TaskReport]) -> ReportVerdict:
    """Decide whether pretraining helped, and whether the encoder is above the handcrafted baseline.

    A difference counts if its p, adjusted for the number of tasks, is below ALPHA.
    """
    scored = [task for task in tasks if task.probes]
    sentences = tuple(map(sentence, tasks))
    if not scored:
        return ReportVerdict(headline="No task could be scored", sentences=sentences)
    helped, hurt = _counts(scored, OURS.random_baseline)
    with_random = [task for task in scored if OURS.random_baseline in task.differences]
    tasks_in_words = _count_of_tasks(len(with_random))
    if not with_random:
        headline = f"Not compared with a {TITLES[OURS.random_baseline]}"
    elif helped:
        headline = f"Pretraining helped on {helped} of {tasks_in_words}" + (f", and hurt on {hurt}" if hurt else "")
    elif hurt:
        headline = f"Pretraining hurt on {hurt} of {tasks_in_words}"
    else:
        headline = f"Pretraining is not shown to help on any of {tasks_in_words}"
    with_handcrafted = [task for task in scored if HANDCRAFTED_BASELINE in task.differences]
    if with_handcrafted:
        above, below = _counts(with_handcrafted, HANDCRAFTED_BASELINE)
        level = len(with_handcrafted) - above - below
        counts = (("above", above), ("below", below), ("not shown to differ", level))
        parts = ", ".join(f"{relation} on {n}" for relation, n in counts if n)
        number = _count_of_tasks(len(with_handcrafted))
        headline += f"; compared with {TITLES[HANDCRAFTED_BASELINE]}: {parts} of {number}"
    return ReportVerdict(headline=headline, sentences=sentences)


def _count_of_tasks(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'}"


def _counts(tasks: Sequence[TaskReport], other: str) -> tuple[int, int]:
    """Return on how many tasks ours is better than another, and on how many it is worse."""
    comparisons = [task.differences[other] for task in tasks if other in task.differences]
    significant = [comparison.difference.value for comparison in comparisons if comparison.p_adjusted < ALPHA]
    return sum(value > 0 for value in significant), sum(value < 0 for value in significant)
