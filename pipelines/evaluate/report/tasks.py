"""The report on one task: its protocol, the figures of each probe, and the differences between ours and the others."""

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
    """Report on a task.

    probes: by name, ours among them; those that are not comparable with ours are only named.
    differences: ours minus each other, by the other's name.
    """
    ours = probes[OURS.probe]
    task, result, scores, test = ours.about["task"], ours.result, ours.result.scores, ours.test
    comparable = {name: probe for name, probe in probes.items() if ours.comparable(probe)}
    probed = tuple(
        Probed(
            name=name_of_probe,
            title=TITLES[name_of_probe],
            hue=list(TITLES).index(name_of_probe),
            digest=probe.about["encoder"]["digest"],
            seen=overlaps.of_probe(probe),
            assessment=assess(probe.result, probe.settings),
        )
        for name_of_probe, probe in comparable.items()
    )
    labels = probed[0].assessment.labels if probed else ()
    drawn = None if test is None else drawn_by(len(test.record_id), test.unnamed)
    return TaskReport(
        name=name,
        title=ours.about["title"],
        source=task["source"],
        kind=task["kind"],
        labels=result.classes,
        protocol=protocol_in_words(task["protocol"], drawn),
        counts=result.counts,
        reason=result.reason,
        tested="" if test is None else of_patients(len(test.record_id), len(set(test.patient)), test.unnamed),
        drawn=drawn or "",
        probes=probed,
        differences=dict(differences),
        omitted={} if scores is None else scores.test.omitted,
        few=tuple(label.name for label in labels if label.positives < FEW_POSITIVES),
        left_out=() if scores is None else tuple(TITLES[other] for other in probes if other not in comparable),
        published=published_for(name),
    )
