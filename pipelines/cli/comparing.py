"""`ecg compare`: two encoders, their scores and what lies between them."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.evaluate.report.compare import Report, compare_encoders
from pipelines.evaluate.report.model import EncoderComparison, TaskComparison
from pipelines.evaluate.statistics.bootstrap import Interval
from pipelines.evaluate.suite.names import evaluation
from pipelines.home import Home
from pipelines.release.resolve import named_encoders
from pipelines.tasks.catalogue import TASKS, LabelTask
from pipelines.tasks.splits import of_patients
from pipelines.tracking import Tracking


def compare(home: Home, first: str, second: str, tasks: Sequence[str], progress: Report) -> EncoderComparison:
    """Compare two encoders on tasks by name, on all that a release is judged by where none is named.

    Raises ValueError for a name that is no task, and for an evaluation that is not a linear probe of whole ECGs.
    """
    chosen = [_linear(name) for name in tasks] or list(TASKS.values())
    tracking = Tracking(uri=home.tracking_uri, artifact_root=home.artifact_root)
    workspace = home.workspace()
    with named_encoders(first, second, workspace, tracking) as encoders:
        return compare_encoders(workspace, encoders, chosen, progress)


def _linear(name: str) -> LabelTask:
    """The task of an evaluation by linear probe, such as `georgia__multi_class`."""
    asked = evaluation(name)
    if asked.head != "linear" or asked.leads or asked.percent or asked.noise:
        raise ValueError(
            f"task {name!r}: two encoders are compared by linear probes: multi_class is the variant to use"
        )
    return asked.task


def rows(found: EncoderComparison) -> list[tuple[str, ...]]:
    """A row a task: its name, what it was tested on, what each encoder saw of that and scored, the difference with its
    interval, and p."""
    return [
        (
            one.task,
            of_patients(one.records, one.patients, one.unnamed),
            found.seen[one.task][0].in_words(),
            in_words(one.first),
            found.seen[one.task][1].in_words(),
            in_words(one.second),
            f"{one.difference.value:+.3f} ({one.difference.low:+.3f} to {one.difference.high:+.3f})",
            f"{one.p_adjusted:.3f}",
        )
        for one in found.tasks
    ]


def notes(found: EncoderComparison) -> list[str]:
    """What a reader of the table has to know: what is not in it, and which labels say little."""
    told = [f"{title}: not scored, {reason}" for title, reason in found.not_scored.items()]
    return told + [_few(one) for one in found.tasks if one.few]


def in_words(found: Interval) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _few(one: TaskComparison) -> str:
    counts = ", ".join(f"{label.name} {label.positives}" for label in one.labels if label.name in one.few)
    return f"{one.task}: few positives in the test split, so that these say little: {counts}"
