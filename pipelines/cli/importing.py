"""The imported encoder, probed and released, with its scores beside ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipelines.encoders.names import OURS, REFERENCE
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.suite.baselines import beside_ours, probe_pair
from pipelines.home import Home
from pipelines.release.model import Release
from pipelines.release.steps import release_reference
from pipelines.tasks.catalogue import TASKS
from pipelines.tracking import Tracking

Report = Callable[[str, int, int], None]
"""Called with a task's title, the ECGs of a shard that are embedded, and the ECGs of that shard."""


def release_with_scores(home: Home, report: Report) -> tuple[Release, list[tuple[str, ...]]]:
    """Probe the imported encoder on every task and release it.

    A row a task: its name, then test macro AUCs of the reference, of ours and of a random encoder, then the first minus
    the second; a dash where there is none, a reason where the task was not scored.
    """
    workspace, config = home.workspace(), ProbeConfig()
    rows = []
    for task in TASKS.values():
        pair = probe_pair(
            workspace,
            task,
            config,
            REFERENCE,
            progress=lambda done, total, title=task.title: report(title, done, total),
        )
        rows.append(_row(task.name, pair.figures() | beside_ours(workspace, task, pair, config)))
    tracking = Tracking(uri=home.tracking_uri, artifact_root=home.artifact_root)
    return release_reference(workspace, tracking), rows


def _row(task: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    if "not scored" in figures:
        return task, f"not scored: {figures['not scored']}", "-", "-", "-"
    macro_aucs = (_score(figures, name) for name in (REFERENCE.probe, OURS.probe, "random"))
    return task, *macro_aucs, figures.get(f"{REFERENCE.probe} minus {OURS.probe}", "-")


def _score(figures: Mapping[str, Any], name: str) -> str:
    value = figures.get(f"test macro AUC, {name}")
    return "-" if value is None else f"{value:.3f} ({figures[f'test interval, {name}']})"
