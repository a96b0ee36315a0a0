"""The verdict: whether pretraining helped, and whether the encoder is above the handcrafted baseline."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.encoders.names import OURS
from pipelines.evaluate.report.model import (
    ALPHA,
    HANDCRAFTED_BASELINE,
    ReportVerdict,
    TaskReport,
)
from pipelines.evaluate.report.wording import sentence


def judge(tasks: Sequence[TaskReport]) -> ReportVerdict:
    """The verdict: whether pretraining helped, and whether the encoder is above the handcrafted floor.

    What is said to differ has a p-value below 0.05, adjusted for the number of tasks.
    """
    scored = [task for task in tasks if task.probes]
    sentences = tuple(map(sentence, tasks))
    if not scored:
        return ReportVerdict(headline="No task could be scored", sentences=sentences)
    helped, hurt = _counts(scored, OURS.random_baseline)
    with_baseline = [task for task in scored if OURS.random_baseline in task.differences]
    many = _of_tasks(len(with_baseline))
    if not with_baseline:
        headline = "Not compared with a random encoder"
    elif helped:
        headline = f"Pretraining helped on {helped} of {many}" + (f", and hurt on {hurt}" if hurt else "")
    elif hurt:
        headline = f"Pretraining hurt on {hurt} of {many}"
    else:
        headline = f"Pretraining is not shown to help on any of {many}"
    floored = [task for task in scored if HANDCRAFTED_BASELINE in task.differences]
    if floored:
        above, below = _counts(floored, HANDCRAFTED_BASELINE)
        level = len(floored) - above - below
        parts = [f"{word} on {n}" for word, n in (("above", above), ("below", below), ("level", level)) if n]
        headline += f"; beside handcrafted features {', '.join(parts)} of {_of_tasks(len(floored))}"
    return ReportVerdict(headline=headline, sentences=sentences)


def _of_tasks(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'}"


def _counts(tasks: Sequence[TaskReport], other: str) -> tuple[int, int]:
    """On how many tasks ours is better than another, and worse."""
    found = [task.differences[other] for task in tasks if other in task.differences]
    shown = [one.difference.value for one in found if one.p_adjusted < ALPHA]
    return sum(value > 0 for value in shown), sum(value < 0 for value in shown)
