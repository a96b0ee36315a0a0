"""The probes that the gate compares encoders by: names, weights, and what each showed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.evaluate.statistics.bootstrap import PairedDifference
from pipelines.evaluate.suite.names import Evaluation, evaluation
from pipelines.formatting import markdown_table
from pipelines.tasks.catalogue import TASKS

GATE_TASK = "ptbxl_superclass"
"""The task whose validation scores decide, unless settings name another."""

LINEAR = "linear"
"""The name of the plain probe of a task; all other names are variants of it, as `ecg evaluate` takes them."""

USUAL_PROBES: Mapping[str, float] = {LINEAR: 1.0, "attention_pool": 1.0}
"""Weights by probe, unless settings name others."""

HEAVIEST = 1_000
"""The largest weight; only ratios matter."""

MOST = 8
"""Probes at most: a verdict is a tag in MLflow, which takes 5,000 characters."""

_NAMES = f"{LINEAR}, attention_pool, fine_tuned, fine_tuned_layerwise, or leads_<leads>"


def check_probes(probes: Mapping[str, float]) -> None:
    """Raise ValueError for a probe that the gate cannot compare by, and for weights that cannot be."""
    for probe, weight in probes.items():
        if not 0 <= weight <= HEAVIEST:
            raise ValueError(
                f"probes: weight {weight} of {probe!r}: give 0 to {HEAVIEST:,}; 0 shows it without judging it"
            )
        gate_evaluation(GATE_TASK, probe)
    if not any(probes.values()):
        raise ValueError(f"probes={dict(probes)}: give at least one a weight above 0, such as {LINEAR}: 1")
    if len(probes) > MOST:
        raise ValueError(f"probes: {len(probes)} of them: name at most {MOST}")


def gate_evaluation(task: str, probe: str) -> Evaluation:
    """Return the evaluation by which the gate compares encoders on a task.

    Raises ValueError if there is no such probe, if the task lacks what it needs, and if it has no validation scores of
    the task's own ECGs.
    """
    try:
        found = evaluation(task if probe == LINEAR else f"{task}__{probe}")
    except ValueError as error:
        raise ValueError(f"probes: {probe!r}: {error}; of these the gate takes {_NAMES}") from error
    if found.task.kind != TASKS[task].kind:
        why = "it leaves out ECGs of the task, and all probes are compared on the same ECGs"
    elif not found.task.protocol.has_validation:
        why = "it has no validation split, and the gate never looks at test ECGs"
    elif found.noise is not None:
        why = "its noise is on test ECGs, and the gate never looks at these"
    elif found.percent is not None:
        why = "it has several draws of the training patients"
    else:
        return found
    raise ValueError(f"probes: {probe!r} of {task}: {why}: use {_NAMES}")


def usual_evaluations() -> list[Evaluation]:
    """Return what a release is judged by: the plain probe of each task, and the gate's other probes of its task."""
    others = [gate_evaluation(GATE_TASK, probe) for probe in USUAL_PROBES if probe != LINEAR]
    return [*(gate_evaluation(task, LINEAR) for task in TASKS), *others]


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """What a probe showed of challenger and champion on validation, or the weighted mean of the probes."""

    probe: str
    weight: float | None
    """0: shown and not judged; None: the weighted mean, which is what is judged."""
    challenger: float | None
    """Its macro AUC; None if it was not scored."""
    champion: float | None = None
    """Its macro AUC; None if it has no such score."""
    difference: PairedDifference | None = None
    """Of the macro AUCs, challenger minus champion; None if one of them has no score."""
    why: str = ""
    """Why there is no difference."""

    def in_words(self) -> str:
        """Return the row as a part of a sentence."""
        if self.difference is None:
            return f"{self.probe} not compared ({self.why})"
        value, low, high = self.difference.value, self.difference.low, self.difference.high
        figures = f"{self.challenger:.4f} against {self.champion:.4f}, {value:+.4f} ({low:+.4f} to {high:+.4f})"
        return f"{self.probe} {figures}{', not judged' if self.weight == 0 else ''}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ProbeRow:
        difference = values["difference"]
        return cls(**{**values, "difference": None if difference is None else PairedDifference(**difference)})


WEIGHTED = "weighted mean"
"""The name of the row that is judged."""


def probes_table(rows: Sequence[ProbeRow]) -> str:
    """Render the rows in Markdown."""
    header = ("probe", "weight", "challenger", "champion", "difference, with its interval", "")
    return markdown_table(header, [_cells(row) for row in rows])


def _cells(row: ProbeRow) -> tuple[str, ...]:
    scores = ("–" if score is None else f"{score:.4f}" for score in (row.challenger, row.champion))
    difference = row.difference
    told = "–" if difference is None else f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
    if row.weight is None:
        note = "is judged"
    elif difference is None:
        note = f"not compared: {row.why}"
    else:
        note = "" if row.weight else "not judged"
    return (row.probe, "" if row.weight is None else f"{row.weight:g}", *scores, told, note)
