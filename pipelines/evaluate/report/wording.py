"""Results and protocols in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.encoders.names import OURS
from pipelines.evaluate.report.model import ALPHA, HANDCRAFTED_BASELINE, TITLES, TaskReport
from pipelines.evaluate.statistics.bootstrap import Interval
from pipelines.formatting import format_interval


def sentence(task: TaskReport) -> str:
    """Return our scores on a task, and whether they are above the baselines, in one sentence."""
    if not task.probes:
        return f"{task.title}: not scored, {task.reason}."
    auc = task.probes[0].assessment.auc
    words = f"{task.title}: macro AUC {in_words(auc)} over {task.labels_scored} labels"
    for other in (OURS.random_baseline, HANDCRAFTED_BASELINE):
        if other in task.differences:
            difference, p = task.differences[other].difference, task.differences[other].p_adjusted
            relation = "not clearly different from" if p >= ALPHA else ("above" if difference.value > 0 else "below")
            article = "the " if other == OURS.random_baseline else ""
            words += f", {relation} {article}{TITLES[other]}"
            words += f" ({difference.value:+.3f}, {difference.low:+.3f} to {difference.high:+.3f}, p {_p(p)})"
    return f"{words}."


def below(task: TaskReport) -> tuple[str, ...]:
    """Return the baselines that our scores on a task are clearly below, in words."""
    others = (OURS.random_baseline, HANDCRAFTED_BASELINE)
    found = {other: task.differences[other] for other in others if other in task.differences}
    return tuple(TITLES[name] for name, one in found.items() if one.p_adjusted < ALPHA and one.difference.value < 0)


def in_words(interval: Interval) -> str:
    """Return an estimate with its interval."""
    return format_interval(interval.value, interval.low, interval.high)


def protocol_in_words(values: Mapping[str, Any], drawn: str | None) -> str:
    """Describe a protocol.

    values: its settings, as JSON values.
    drawn: the unit that its random parts draw, in words; None if it is not known.
    """
    kind, drawn = values["by"], drawn or "patient, or by ECG if no patient is named"
    if kind == "few labels":
        share, draw = values["percent"], values["seed"] + 1
        return f"{share:g} % of the labels to fit on, draw {draw}, by {drawn}; {protocol_in_words(values['of'], drawn)}"
    no_validation = "nothing is chosen on validation"
    if kind == "patient":
        validation_share, test_share = values["validation_share"], values["test_share"]
        chosen = f"chosen on {validation_share:.0%}" if validation_share else no_validation
        train_share = 1 - validation_share - test_share
        return f"fitted on {train_share:.0%}; {chosen}; tested once on {test_share:.0%}, drawn by {drawn}"
    train, test = (", ".join(map(str, values[name])) for name in ("train", "test"))
    if kind == "fold":
        validation = ", ".join(map(str, values["validation"]))
        chosen = f"chosen on {validation}" if validation else no_validation
    else:
        share = values["validation_share"]
        chosen = f"chosen on {share:.0%} of them, drawn by {drawn}" if share else no_validation
    return f"fitted on {kind}s {train}; {chosen}; tested once on {test}"


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"
