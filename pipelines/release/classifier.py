"""The classifier that is served: our encoder, its linear probe on a task, and a calibration of each label.

The product `classifier`: head.safetensors (`ecg_model.serving.classify`). Nothing is trained here: the layer is the
probe's, fitted on training patients and chosen on validation; the calibration is fitted on validation, and what it is
worth is measured once on the test split. Shapes: N records, C labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from scipy.special import expit, logit

from ecg_model.serving.classify import CalibratedHead
from pipelines import versions
from pipelines.cache import Product, Workspace, write_atomically
from pipelines.encoders.names import HEAD_FILE, OURS
from pipelines.evaluate.probes.heads import LAYER_FILE
from pipelines.evaluate.probes.result import load_result
from pipelines.evaluate.statistics.calibration import brier, fit_platt
from pipelines.tasks.catalogue import TASKS
from pipelines.tasks.splits import Split

PRODUCT = "classifier"


def materialize_classifier(workspace: Workspace, task: str) -> Product:
    """The product on the current probe of a task; empty where that was not scored, as the facts `scored` and `reason`
    say.

    Other facts: labels; brier, brier_uncalibrated: mean over the labels on the test split; uncalibrated: labels that
    validation has too few of to be scored, or told the wrong way round there, whose probabilities are the probe's.
    Raises ValueError for a task that is none and for one whose labels exclude each other.
    """
    if task not in TASKS:
        raise ValueError(f"task {task!r}: use {', '.join(TASKS)}")
    if TASKS[task].kind != "multi-label":
        raise ValueError(
            f"task {task!r}: the classifier gives each label a probability of its own; name a multi-label one"
        )
    probe = workspace.require(f"probe/{task}/{OURS.probe}")

    def make(folder: Path) -> dict[str, Any]:
        if not probe.facts["scored"]:
            return {"scored": False, "reason": probe.facts["reason"]}
        result = load_result(probe.path)
        predictions, scores = result.predictions, result.scores
        assert predictions is not None
        assert scores is not None
        scored = {score.name for score in scores.validation.classes} if scores.validation is not None else set()
        layer = load_file(probe.path / LAYER_FILE)
        validation, test = predictions.of(Split.VALIDATION), predictions.of(Split.TEST)
        curves, uncalibrated = [], []
        for column, label in enumerate(predictions.classes):
            curve = (0.0, 0.0)
            if label in scored:
                curve = fit_platt(_logits(validation.score_NC[:, column]), validation.y_NC[:, column])
            if curve[0] <= 0:
                curve = (1.0, 0.0)
                uncalibrated.append(label)
            curves.append(curve)
        slope_C, intercept_C = np.array(curves).T
        head = CalibratedHead(
            labels=predictions.classes,
            weight_CD=layer["weight"],
            bias_C=layer["bias"],
            slope_C=slope_C,
            intercept_C=intercept_C,
        )
        write_atomically(folder / HEAD_FILE, head.to_bytes())
        calibrated_NC = calibrated(test.score_NC, head)
        return {
            "scored": True,
            "reason": None,
            "task": task,
            "labels": list(predictions.classes),
            "uncalibrated": uncalibrated,
            "brier": float(brier(test.y_NC, calibrated_NC).mean()),
            "brier_uncalibrated": float(brier(test.y_NC, test.score_NC).mean()),
        }

    return workspace.build(
        PRODUCT, version=versions.CLASSIFIER, config={"task": task}, inputs={probe.name: probe.digest}, make=make
    )


def calibrated(score_NC: np.ndarray, head: CalibratedHead) -> np.ndarray:
    """What the classifier says where its probe gives these probabilities, (N, C)."""
    return expit(head.slope_C * _logits(score_NC) + head.intercept_C)


def _logits(probability: np.ndarray) -> np.ndarray:
    """The layer's output again; of a probability that is 0 or 1 to float64, one that is nearly so."""
    return logit(np.clip(probability, 1e-15, 1 - 1e-15))
