"""Results as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.encoders.names import OURS
from pipelines.evaluate.report.model import ALPHA, HANDCRAFTED_BASELINE, TITLES, TaskReport
from pipelines.evaluate.statistics.bootstrap import Interval


def sentence(task: TaskReport) -> str:
    """What a task says of ours, in one sentence."""
    if not task.probes:
        return f"{task.title}: not scored, {task.reason}."
    auc = task.probes[0].assessment.auc
    words = f"{task.title}: macro AUC {in_words(auc)}"
    for other in (OURS.random_baseline, HANDCRAFTED_BASELINE):
        if other in task.differences:
            one = task.differences[other]
            found, p = one.difference, one.p_adjusted
            relation = "not shown to differ from" if p >= ALPHA else ("above" if found.value > 0 else "below")
            words += (
                f", {relation} the {TITLES[other]}"
                if other == OURS.random_baseline
                else f", {relation} {TITLES[other]}"
            )
            words += f" ({found.value:+.3f}, {found.low:+.3f} to {found.high:+.3f}, p {_p(p)})"
    return f"{words}."


def in_words(found: Interval) -> str:
    """A figure with its interval."""
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def protocol_in_words(values: Mapping[str, Any], drawn: str | None) -> str:
    """A protocol. drawn: by what, where it draws; None where that is not known."""
    what, drawn = values["by"], drawn or "patient, or by ECG where no patient is named"
    if what == "few labels":
        share, draw = values["percent"], values["seed"] + 1
        return f"{share:g} % of the labels to fit on, draw {draw}, by {drawn}; {protocol_in_words(values['of'], drawn)}"
    if what == "patient":
        choosing, tested = values["validation_share"], values["test_share"]
        held = f"chosen on {choosing:.0%}" if choosing else "nothing is chosen on validation"
        return f"fitted on {1 - choosing - tested:.0%}; {held}; tested once on {tested:.0%}, drawn by {drawn}"
    train, test = (", ".join(map(str, values[name])) for name in ("train", "test"))
    if what == "fold":
        validation = ", ".join(map(str, values["validation"]))
        held = f"chosen on {validation}" if validation else "nothing is chosen on validation"
    else:
        share = values["validation_share"]
        held = f"chosen on {share:.0%} of them, drawn by {drawn}" if share else "nothing is chosen on validation"
    return f"fitted on {what}s {train}; {held}; tested once on {test}"


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"
