"""One task as a page tells it: what was asked, each probe's figures, and how far ours is ahead of the others."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.encoders.names import OURS
from pipelines.evaluate.exposure import Overlaps
from pipelines.evaluate.probes.assessment import assess
from pipelines.evaluate.probes.stored import Probe
from pipelines.evaluate.report.model import FEW_POSITIVES, TITLES, Probed, TaskComparison, TaskReport
from pipelines.evaluate.report.published import published_for
from pipelines.evaluate.report.wording import protocol_in_words
from pipelines.tasks.splits import drawn_by, of_patients


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
