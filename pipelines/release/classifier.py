"""The served classifier: our encoder, its linear probe on a task, and a calibration of each label.

The product `classifier` is head.safetensors (`ecg_model.serving.classify`). Nothing is trained here: the layer is the
probe's, fitted on training patients and chosen on validation. The calibration is fitted on validation, and its effect
is measured once on the test split. Shapes: N records, C labels, D dimensions of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.durable import write_atomically
from pipelines.encoders.names import HEAD_FILE, OURS
from pipelines.evaluate.probes.result import load_result
from pipelines.evaluate.probes.step import ProbeFacts
from pipelines.evaluate.statistics.calibration import brier
from pipelines.facts import Facts, written_if_set
from pipelines.release.calibration import fit_calibration
from pipelines.release.heads import calibrated_head
from pipelines.tasks.catalogue import TASKS
from pipelines.tasks.splits import Split

PRODUCT = "classifier"


@dataclass(frozen=True, kw_only=True)
class ClassifierFacts(Facts):
    """What the step reports; the fields after `reason` are None if the task was not scored."""

    scored: bool
    reason: str | None
    """Why the task was not scored; None if it was."""
    task: str | None = written_if_set()
    labels: tuple[str, ...] | None = written_if_set()
    uncalibrated: tuple[str, ...] | None = written_if_set()
    """Labels whose probabilities are the probe's: too few ECGs on validation to be scored, or a fitted slope there that
    does not rise."""
    brier: float | None = written_if_set()
    """Brier score on the test split, mean over the labels."""
    brier_uncalibrated: float | None = written_if_set()
    """The same of the probe's own probabilities."""


def materialize_classifier(workspace: Workspace, task: str) -> Product:
    """Build the product `classifier` from the current probe of a task; without files if that was not scored.

    Raises ValueError for an unknown task and for a task whose labels exclude each other.
    """
    if task not in TASKS:
        raise ValueError(f"task {task!r}: use {', '.join(TASKS)}")
    if TASKS[task].kind != "multi-label":
        raise ValueError(
            f"task {task!r}: the classifier gives each label a probability of its own; name a multi-label one"
        )
    probe = workspace.require(f"probe/{task}/{OURS.probe}")

    def make(folder: Path) -> dict[str, Any]:
        facts = ProbeFacts.of(probe)
        if not facts.scored:
            return ClassifierFacts(scored=False, reason=facts.reason).to_dict()
        return _write_head(probe, task, folder).to_dict()

    return workspace.build(
        PRODUCT, version=versions.CLASSIFIER, config={"task": task}, inputs={probe.name: probe.digest}, make=make
    )


def _write_head(probe: Product, task: str, folder: Path) -> ClassifierFacts:
    """Calibrate a scored probe on validation, write its head into `folder`, and measure it on the test split."""
    result = load_result(probe.path)
    predictions, scores = result.predictions, result.scores
    assert predictions is not None
    assert scores is not None
    calibration, uncalibrated = fit_calibration(predictions, scores, exclusive=False)
    write_atomically(folder / HEAD_FILE, calibrated_head(probe.path, calibration).to_bytes())
    test = predictions.of(Split.TEST)
    return ClassifierFacts(
        scored=True,
        reason=None,
        task=task,
        labels=tuple(predictions.classes),
        uncalibrated=uncalibrated,
        brier=float(brier(test.y_NC, calibration.apply(test.score_NC)).mean()),
        brier_uncalibrated=float(brier(test.y_NC, test.score_NC).mean()),
    )
