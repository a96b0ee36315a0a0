"""The verdict: whether pretraining helped, what that means, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.encoders.names import OURS
from pipelines.evaluate.report.model import ALPHA, HANDCRAFTED_BASELINE, TITLES, ReportVerdict, TaskReport
from pipelines.evaluate.report.wording import sentence

DEMO = "demo"
"""The recipe that trains for a minute or two."""


def judge(tasks: Sequence[TaskReport], *, simulated: bool, recipe: str) -> ReportVerdict:
    """Decide whether pretraining helped, and whether the encoder is above the handcrafted baseline.

    A difference counts if its p, adjusted for the number of tasks, is below ALPHA.

    simulated: whether the ECGs are simulated.
    recipe: its name.
    """
    scored = [task for task in tasks if task.probes]
    return ReportVerdict(
        headline=_headline(tasks, scored),
        meaning=_meaning(scored, recipe),
        next_steps=_next_steps(tasks, simulated=simulated, recipe=recipe),
        sentences=tuple(map(sentence, tasks)),
    )


def _headline(tasks: Sequence[TaskReport], scored: Sequence[TaskReport]) -> str:
    if not scored:
        return f"Not scored: none of {_count_of_tasks(len(tasks))} has enough labelled ECGs"
    compared = _count_of_tasks(len(_with(scored, OURS.random_baseline)))
    helped, hurt = _counts(scored, OURS.random_baseline)
    if not _with(scored, OURS.random_baseline):
        return f"Scored on {_count_of_tasks(len(scored))}, but not compared with a {TITLES[OURS.random_baseline]}"
    if helped:
        return f"Pretraining helped on {helped} of {compared}" + (f", and hurt on {hurt}" if hurt else "")
    if hurt:
        return f"Pretraining hurt on {hurt} of {compared}"
    return f"No evidence yet that pretraining helps: 0 of {compared}"


def _meaning(scored: Sequence[TaskReport], recipe: str) -> tuple[str, ...]:
    """Return what was measured, and how to take it."""
    if not scored:
        return ("The encoder was trained, and can be released and used. How good it is, is not known.",)
    words = [
        "Measured: how well a linear probe on the frozen encoder finds each label, beside the same network before "
        "pretraining (random encoder), and features without a network (handcrafted)."
    ]
    compared = _with(scored, OURS.random_baseline)
    helped, hurt = _counts(scored, OURS.random_baseline)
    if compared and not helped and not hurt:
        words.append(
            "The encoder may be better than the random one or not: the test ECGs are too few to tell so small a "
            "difference from chance."
        )
    above, below = _counts(scored, HANDCRAFTED_BASELINE)
    handcrafted = _count_of_tasks(len(_with(scored, HANDCRAFTED_BASELINE)))
    if below:
        words.append(f"Handcrafted features are ahead of it on {below} of {handcrafted}.")
    elif above:
        words.append(f"It is ahead of handcrafted features on {above} of {handcrafted}.")
    if recipe == DEMO:
        words.append("That is what to expect of the recipe `demo`, which trains a tiny network for a minute or two.")
    return tuple(words)


def _next_steps(tasks: Sequence[TaskReport], *, simulated: bool, recipe: str) -> tuple[str, ...]:
    """Return what to do to learn more, the most useful first."""
    steps = ["Use recorded ECGs: `make demo MIRROR=FOLDER`, or your own (docs/own-data.md)."] if simulated else []
    if recipe == DEMO:
        steps.append(
            "Train longer: launch the asset `encoder` with the recipe `small`, or with `paper_block` on a GPU."
        )
    unscored = [task.title for task in tasks if not task.probes]
    if unscored and not simulated:
        steps.append(f"Harmonize more labelled ECGs, so that these can be scored: {', '.join(unscored)}.")
    return (*steps, "Judge it by labels of your own: `ecg evaluate-labels labels.csv`.")


def _count_of_tasks(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'}"


def _with(tasks: Sequence[TaskReport], other: str) -> list[TaskReport]:
    """Return the tasks on which ours was compared with another."""
    return [task for task in tasks if other in task.differences]


def _counts(tasks: Sequence[TaskReport], other: str) -> tuple[int, int]:
    """Return on how many tasks ours is better than another, and on how many it is worse."""
    comparisons = [task.differences[other] for task in _with(tasks, other)]
    significant = [comparison.difference.value for comparison in comparisons if comparison.p_adjusted < ALPHA]
    return sum(value > 0 for value in significant), sum(value < 0 for value in significant)
