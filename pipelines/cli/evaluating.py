"""Evaluations of the suite by name, from a shell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipelines.evaluate.features import shards_of
from pipelines.evaluate.run_suite import evaluate_subject
from pipelines.evaluate.subject import OURS, REFERENCE
from pipelines.evaluate.suite import SUITE, evaluation
from pipelines.home import Home
from pipelines.labels import TASKS

Report = Callable[[str, int, int], None]
"""Called with an evaluation's title, the ECGs of a shard that are embedded, and the ECGs of that shard."""

SUBJECTS = {subject.probe: subject for subject in (OURS, REFERENCE)}


def listed(home: Home) -> list[tuple[str, str, str]]:
    """A row an evaluation that is kept up to date: its name, its title, and whether its ECGs are here."""
    workspace = home.workspace()
    tasks = [*TASKS.values(), *(one.task for one in SUITE.values())]
    here = {source: bool(shards_of(workspace, source)) for source in {task.source for task in tasks}}
    return [(task.name, task.title, "here" if here[task.source] else f"no {task.source}") for task in tasks]


def evaluated(
    home: Home, names: Sequence[str], encoder: str, report: Report
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each evaluation with its rows: the encoder's first, then those of what it has to beat; one row with a reason
    where it could not be scored. Raises ValueError for a name that means nothing, before any is done, and for one whose
    ECGs are not here."""
    workspace, asked = home.workspace(), [evaluation(name) for name in names]
    for one in asked:
        if not shards_of(workspace, one.task.source):
            raise ValueError(f"{one.name}: no ECGs of {one.task.source} in {workspace.root}: harmonize them first")
    for one in asked:
        standings = evaluate_subject(
            workspace,
            one,
            subject=SUBJECTS[encoder],
            progress=lambda done, total, title=one.task.title: report(title, done, total),
        )
        reason = standings[0].product.facts["reason"]
        yield one.name, [{"not scored": reason}] if reason else [standing.row() for standing in standings]
