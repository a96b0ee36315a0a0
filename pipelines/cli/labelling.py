"""`ecg evaluate-labels`: an encoder on labels of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.cache import write_atomically
from pipelines.encoders.names import OURS
from pipelines.evaluate.exposure import Overlaps
from pipelines.evaluate.features import OnProgress
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.handcrafted import HandcraftedSource
from pipelines.evaluate.probes.result import load_roc
from pipelines.evaluate.probes.step import materialize_probe
from pipelines.evaluate.probes.stored import Probe
from pipelines.evaluate.report.compare import compare_results
from pipelines.evaluate.report.model import HANDCRAFTED_BASELINE, TaskReport
from pipelines.evaluate.report.tasks import task_report
from pipelines.evaluate.report.wording import in_words
from pipelines.evaluate.suite.own_labels import own_task
from pipelines.evaluate.suite.run import EvaluationRow, evaluation_rows
from pipelines.home import Home
from pipelines.release.resolve import RANDOM, named_encoders
from pipelines.tasks.catalogue import LabelTask
from pipelines.tracking import Tracking

PAGE_FILE = "report.html"
"""Beside the encoder's product."""


@dataclass(frozen=True, kw_only=True)
class OwnLabels:
    """standings: of the encoder, its untrained baseline and handcrafted features. page: what there is to be told of
    them, for a browser; None where the task was not scored."""

    task: LabelTask
    standings: list[EvaluationRow]
    report: TaskReport
    page: Path | None


def evaluate_labels(
    home: Home, file: Path, encoder: str, source: str, config: ProbeConfig, progress: OnProgress
) -> OwnLabels:
    """The encoder of that name on the task of a csv."""
    workspace = home.workspace()
    task = own_task(workspace, file, source)
    tracking = Tracking(uri=home.tracking_uri, artifact_root=home.artifact_root)
    with named_encoders(encoder, RANDOM, workspace, tracking) as ((_, mine), (_, random_baseline)):
        products = [
            materialize_probe(workspace, task, features, config, progress=progress)
            for features in (mine, random_baseline, HandcraftedSource())
        ]
    # On the page the encoder goes by the part that it plays, whatever it is called.
    probes = dict(
        zip(
            (OURS.probe, OURS.random_baseline, HANDCRAFTED_BASELINE),
            (Probe.load(one.path) for one in products),
            strict=True,
        )
    )
    first = probes[OURS.probe]
    beside = {name: one.result for name, one in probes.items() if one is not first and first.comparable(one)}
    differences = {
        name: compared
        for name, other in beside.items()
        for compared in compare_results([(task.title, first.result, other)], config)
    }
    report = task_report(task.name, probes, Overlaps(workspace), differences)
    page = None
    if report.probes:
        from pipelines.evaluate.report.page import task_page  # Jinja2 is not needed to say why there are no scores

        page = products[0].aside / PAGE_FILE
        rocs = {probed.name: load_roc(probes[probed.name].folder) for probed in report.probes}
        text = task_page(report, rocs, encoder=encoder, simulated=home.simulated)
        write_atomically(page, text.encode())
    return OwnLabels(task=task, standings=evaluation_rows(workspace, products, config), report=report, page=page)


def kind_in_words(task: LabelTask) -> str:
    """`multi-label`, with the records that make it so: a second label by mistake changes what is asked."""
    several = [record for record, labels in (task.codes or {}).items() if len(labels) > 1]
    if not several:
        return f"{task.kind}, since each record has one label"
    have = "1 record has" if len(several) == 1 else f"{len(several):,} records have"
    return f"{task.kind}, since {have} several labels, such as {several[0]!r}"


def by_class(report: TaskReport) -> list[dict[str, Any]]:
    """A row a class of the test split, and a row a class that was left out, with its reason; none without scores."""
    if not report.probes:
        return []
    mine = report.probes[0].assessment
    rows: list[dict[str, Any]] = [
        {
            "label": one.name,
            "positives": one.positives,
            "AUC": in_words(one.auc),
            "average precision": in_words(one.average_precision),
            "F1": "no threshold" if one.f1 is None else in_words(one.f1),
            "Brier score": in_words(one.brier),
        }
        for one in mine.labels
    ]
    empty = {"average precision": "", "F1": "", "Brier score": ""}
    left_out = report.omitted.items()
    return rows + [
        {"label": name, "positives": None, "AUC": f"left out: {reason}"} | empty for name, reason in left_out
    ]
