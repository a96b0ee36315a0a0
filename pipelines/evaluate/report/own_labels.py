"""The report on labels of one's own: a probe, or what is made of it, beside its baselines."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.encoders.names import OURS
from pipelines.evaluate.exposure import Overlaps
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import load_roc
from pipelines.evaluate.probes.stored import Probe
from pipelines.evaluate.report.compare import compare_results
from pipelines.evaluate.report.model import HANDCRAFTED_BASELINE, TaskReport
from pipelines.evaluate.report.page import task_page
from pipelines.evaluate.report.tasks import task_report

ROLES = (OURS.probe, OURS.random_baseline, HANDCRAFTED_BASELINE)
"""The encoder's probe, its untrained baseline's and that of handcrafted features: what they are called on the page."""


def own_labels_report(name: str, probes: Mapping[str, Probe], overlaps: Overlaps, config: ProbeConfig) -> TaskReport:
    """Report on a task of one's own labels. probes: by their roles, of ROLES."""
    first = probes[OURS.probe]
    others = {name: probe.result for name, probe in probes.items() if probe is not first and first.comparable(probe)}
    title = first.about["title"]
    differences = {
        name: difference
        for name, other in others.items()
        for difference in compare_results([(title, first.result, other)], config)
    }
    return task_report(name, probes, overlaps, differences)


def own_labels_page(report: TaskReport, probes: Mapping[str, Probe], *, encoder: str, simulated: bool) -> str:
    """Return the page of a task that was scored. encoder: as the user named it."""
    rocs = {probed.name: load_roc(probes[probed.name].folder) for probed in report.probes}
    return task_page(report, rocs, encoder=encoder, simulated=simulated)
