"""`ecg evaluate-labels`: an encoder on labels of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.evaluate.features import Progress
from pipelines.evaluate.handcrafted import HandcraftedSource
from pipelines.evaluate.named import RANDOM, named_encoders
from pipelines.evaluate.own_labels import own_task
from pipelines.evaluate.probe import ProbeConfig, materialize_probe
from pipelines.evaluate.result import load_result
from pipelines.evaluate.run_suite import Standing, lead_over
from pipelines.home import Home
from pipelines.labels import LabelTask
from pipelines.tracking import Tracking


def evaluate_labels(
    home: Home, file: Path, encoder: str, source: str, config: ProbeConfig, progress: Progress
) -> tuple[LabelTask, list[Standing]]:
    """The task of a csv, and on it the encoder of that name, its untrained twin and handcrafted features."""
    workspace = home.workspace()
    task = own_task(workspace, file, source)
    tracking = Tracking(uri=home.tracking_uri, artifact_root=home.artifact_root)
    with named_encoders(encoder, RANDOM, workspace, tracking) as ((_, mine), (_, twin)):
        first, *others = (
            materialize_probe(workspace, task, features, config, progress=progress)
            for features in (mine, twin, HandcraftedSource())
        )
    beside = (Standing(product=other, ahead=lead_over(workspace, first, other, config)) for other in others)
    return task, [Standing(product=first, ahead=None), *beside]


def kind_in_words(task: LabelTask) -> str:
    """`multi-label`, with the records that make it so: a second label by mistake changes what is asked."""
    several = [record for record, labels in (task.codes or {}).items() if len(labels) > 1]
    if not several:
        return f"{task.kind}, since each record has one label"
    have = "1 record has" if len(several) == 1 else f"{len(several):,} records have"
    return f"{task.kind}, since {have} several labels, such as {several[0]!r}"


def by_class(standing: Standing) -> list[dict[str, Any]]:
    """A row a class of the test split, and a row a class that was left out, with its reason; none without scores."""
    scores = load_result(standing.product.path).scores
    if scores is None:
        return []
    rows: list[dict[str, Any]] = [
        {
            "label": one.name,
            "positives": one.positives,
            "AUC": f"{one.auc.value:.3f} ({one.auc.low:.3f} to {one.auc.high:.3f})",
        }
        for one in scores.test.classes
    ]
    left_out = scores.test.omitted.items()
    return rows + [{"label": name, "positives": None, "AUC": f"left out: {reason}"} for name, reason in left_out]
