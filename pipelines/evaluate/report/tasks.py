"""One task as a page tells it: what was asked, each probe's figures, and how far ours is ahead of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.encoders.names import OURS, REFERENCE
from pipelines.evaluate.exposure import Overlap, Overlaps
from pipelines.evaluate.probes import handcrafted
from pipelines.evaluate.probes.assessment import Assessment, assess
from pipelines.evaluate.probes.stored import Probe
from pipelines.evaluate.report.compare import FEW_POSITIVES, TaskComparison
from pipelines.evaluate.report.published import Published, published_for
from pipelines.evaluate.statistics.ranking import Interval
from pipelines.tasks.catalogue import drawn_by, of_patients

FLOOR = handcrafted.NAME
"""The probe on handcrafted features: an encoder below it has not earned its place."""

TITLES = {
    OURS.probe: "this encoder",
    OURS.twin: "random encoder",
    FLOOR: "handcrafted features",
    REFERENCE.probe: "released ECG-JEPA",
    REFERENCE.twin: "random, of its size",
}
"""What the probes go by on the page, in their order there."""

ALPHA = 0.05


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


def task_report(
    name: str, probes: Mapping[str, Probe], overlaps: Overlaps, differences: Mapping[str, TaskComparison]
) -> TaskReport:
    """The report on the probes of a task, by name, ours among them."""
    first = probes[OURS.probe]
    asked, result, scores, test = first.about["task"], first.result, first.result.scores, first.test
    shown = {other: probe for other, probe in probes.items() if first.comparable(probe)}
    told = tuple(
        Probed(
            name=other,
            title=TITLES[other],
            hue=list(TITLES).index(other),
            digest=probe.about["encoder"]["digest"],
            seen=overlaps.of_probe(probe),
            assessment=assess(probe.result, probe.settings),
        )
        for other, probe in shown.items()
    )
    labels = told[0].assessment.labels if told else ()
    drawn = None if test is None else drawn_by(len(test.record_id), test.unnamed)
    return TaskReport(
        name=name,
        title=first.about["title"],
        source=asked["source"],
        kind=asked["kind"],
        labels=result.classes,
        protocol=protocol_in_words(asked["protocol"], drawn),
        counts=result.counts,
        reason=result.reason,
        tested="" if test is None else of_patients(len(test.record_id), len(set(test.patient)), test.unnamed),
        drawn=drawn or "",
        probes=told,
        differences=dict(differences),
        omitted={} if scores is None else scores.test.omitted,
        few=tuple(label.name for label in labels if label.positives < FEW_POSITIVES),
        left_out=() if scores is None else tuple(TITLES[other] for other in probes if other not in shown),
        published=published_for(name),
    )


def sentence(task: TaskReport) -> str:
    """What a task says of ours, in one sentence."""
    if not task.probes:
        return f"{task.title}: not scored, {task.reason}."
    auc = task.probes[0].assessment.auc
    words = f"{task.title}: macro AUC {in_words(auc)}"
    for other in (OURS.twin, FLOOR):
        if other in task.differences:
            one = task.differences[other]
            found, p = one.difference, one.p_adjusted
            relation = "not shown to differ from" if p >= ALPHA else ("above" if found.value > 0 else "below")
            words += f", {relation} the {TITLES[other]}" if other == OURS.twin else f", {relation} {TITLES[other]}"
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
