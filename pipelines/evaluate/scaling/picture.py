"""The picture of scaling curves, from what their product says."""

from __future__ import annotations

import numpy as np

from pipelines.evaluate.scaling.facts import Curve, ScalingFacts
from pipelines.plots.scaling import Mark, Panel, Series, scaling_chart

_ALL_LABELS = 100.0


def scaling_picture(facts: ScalingFacts) -> bytes:
    """Draw AUC against ECGs with the laws, against patients, and, with few labels, against labels, as PNG."""
    panels = [
        Panel(
            title="By ECGs of pretraining",
            axis="ECGs; dashed: the law, up to twice as many" if any(curve.law for curve in facts.curves) else "ECGs",
            series=tuple(_by_size(curve, "records") for curve in facts.curves),
        ),
        Panel(
            title="By patients of pretraining",
            axis="patients",
            series=tuple(_by_size(curve, "patients") for curve in facts.curves),
        ),
    ]
    labels = tuple(series for curve in facts.curves if (series := _by_labels(curve)).marks)
    if labels:
        panels.append(Panel(title="By labels, pretrained on all ECGs", axis="% of the labels", series=labels))
    return scaling_chart(panels, facts.headline(), axis="Test macro AUC")


def _by_size(curve: Curve, size: str) -> Series:
    scored = [(getattr(point, size), point) for point in curve.points if point.auc is not None]
    marks = [Mark(x=x, value=p.auc.value, low=p.auc.low, high=p.auc.high) for x, p in scored if p.auc is not None]
    law = None
    if curve.law is not None and size == "records":
        x_P = np.geomspace(marks[0].x, 2 * marks[-1].x, 60)
        law = (x_P, 1 - np.array([curve.law.error(float(x)) for x in x_P]))
    untrained = None if curve.untrained is None else curve.untrained.value
    return Series(name=curve.name, marks=tuple(marks), line=law, level=untrained)


def _by_labels(curve: Curve) -> Series:
    """Return the largest share's AUC with few and with all labels; no marks if few labels were not scored."""
    largest = curve.points[-1]
    if largest.auc is None or not largest.few_labels:
        return Series(name=curve.name, marks=())
    few = [(float(percentage), auc) for percentage, auc in largest.few_labels.items()]
    marks = [Mark(x=x, value=a.value, low=a.low, high=a.high) for x, a in (*few, (_ALL_LABELS, largest.auc))]
    return Series(name=curve.name, marks=tuple(marks))
