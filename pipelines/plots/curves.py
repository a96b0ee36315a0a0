"""Training curves, ROC curves, and histograms of a shard's records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipelines.plots.canvas import INK, PALETTE, name_axes, png

_DPI = 110
_COLOURS = 128  # several hues, each with its shades from antialiasing
_TRAINING, _VALIDATION, _BEST = PALETTE[0], PALETTE[1], PALETTE[2]

Curve = tuple[NDArray[Any], NDArray[Any]]
"""False and true positive rates, both ascending from 0 to 1."""


def loss_curve(metrics: Sequence[Mapping[str, float]], title: str = "Pretraining") -> bytes:
    """Plot a training's metrics as PNG: the loss, and small panels of figures that show a collapse before the loss.

    metrics: lines with `step` and any of `loss`, `validation_loss`, `learning_rate`, `embedding_std`, `target_std`,
        `effective_rank`, `probe_auc`; a curve has the points of the lines with its name.

    The probe's curve, if there is one, is below the loss, with the best step marked in both. Raises ValueError if no
    line has a loss.
    """
    if not any("loss" in line for line in metrics):
        raise ValueError("metrics hold no line with a loss: train at least one step")
    page = Figure(figsize=(9.5, 4.6), dpi=_DPI, layout="constrained", facecolor="white")
    page.suptitle(title, x=0.012, ha="left", fontsize=13, weight="bold", color=INK)
    left, right = page.subfigures(1, 2, squeeze=False, width_ratios=(1.6, 1))[0]
    probed = [line for line in metrics if "probe_auc" in line]
    if probed:
        loss, probe = left.subplots(2, 1, sharex=True, height_ratios=(1.6, 1))
        _probe(probe, loss, probed)
    else:
        loss = left.subplots()
    _plot(loss, metrics, {"loss": "training", "validation_loss": "validation"})
    of_jepa = any("target_std" in line for line in metrics)
    name_axes(loss, "Smooth-L1 loss" if of_jepa else "Loss", "" if probed else "step")
    panels = right.subplots(3, 1, sharex=True)
    spread = {"embedding_std": "student", "target_std": "teacher"} if of_jepa else {"embedding_std": "encoder"}
    _plot(panels[0], metrics, spread)
    name_axes(panels[0], "Spread over records (std)")
    _plot(panels[1], metrics, {"effective_rank": "student"}, legend=False)
    name_axes(panels[1], "Effective rank of embeddings")
    _plot(panels[2], metrics, {"learning_rate": "learning rate"}, legend=False)
    name_axes(panels[2], "Learning rate", "step")
    for axes in panels[:2]:
        axes.set_ylim(bottom=0)
    panels[2].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return png(page, pixels_per_inch=_DPI, colours=_COLOURS)


def roc_curves(
    curves: Mapping[str, Curve],
    aucs: Mapping[str, float],
    *,
    random_curves: Mapping[str, Curve] | None = None,
    random_aucs: Mapping[str, float] | None = None,
    title: str = "ROC on the test split",
) -> bytes:
    """Plot a curve per class as PNG, with AUCs in the legend; the random encoder's are dashed in the same colour.

    All mappings are by class name; AUCs are given, not computed from the curves. Raises ValueError if a curve has no
    AUC, or if there is no curve.
    """
    random_curves, random_aucs = random_curves or {}, random_aucs or {}
    unknown = [*(curves.keys() - aucs.keys()), *(random_curves.keys() - random_aucs.keys())]
    if unknown or not curves:
        raise ValueError(f"curves {', '.join(unknown) or '(none)'}: give a curve and its AUC for each class")
    page = Figure(figsize=(7.6, 4.8), dpi=_DPI, layout="constrained", facecolor="white")
    axes = page.subplots()
    axes.plot([0, 1], [0, 1], color="#b0b0b0", linewidth=0.8, zorder=1)
    for i, (name, (false, true)) in enumerate(curves.items()):
        colour, dashes = PALETTE[i % len(PALETTE)], "-" if i < len(PALETTE) else "-."
        random_auc = f"   ({random_aucs[name]:.3f})" if name in random_curves else ""
        label = f"{name}  {aucs[name]:.3f}{random_auc}"
        axes.plot(false, true, color=colour, linewidth=1.6, linestyle=dashes, label=label, zorder=3)
        if name in random_curves:
            axes.plot(*random_curves[name], color=colour, linewidth=1.0, linestyle=(0, (3, 2)), alpha=0.75, zorder=2)
    name_axes(axes, title, "False positive rate (1 - specificity)", "True positive rate (sensitivity)")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    heading = "AUC   (random encoder, dashed)" if random_curves else "AUC"
    legend = axes.legend(
        title=heading, loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False, fontsize=9, title_fontsize=9
    )
    legend.set_alignment("left")
    return png(page, pixels_per_inch=_DPI, colours=_COLOURS)


# Column of RECORDS, or `amplitude`, which is computed; title; unit of the axis.
_HISTOGRAMS = (
    ("quality_heart_rate", "Heart rate", "beats a minute"),
    ("amplitude", "Largest amplitude", "mV"),
    ("quality_wander", "Baseline wander, rms", "mV"),
    ("quality_noise", "Noise of 70-110 Hz, rms", "mV"),
    ("age", "Age", "years"),
    ("rate", "Sampling rate", "Hz"),
)


def histograms(records: pa.Table, title: str = "") -> bytes:
    """Plot histograms of a shard's records as PNG: heart rate, amplitude, wander, noise, age and sampling rate.

    records: a table with the columns of `pipelines.formats.shard.RECORDS`. The axes end at the 99.5th percentile, so
    that one record of 27 mV does not compress all others into a bin; the axis states how many lie beyond, and how many
    values are missing.
    """
    page = Figure(figsize=(9.5, 4.4), dpi=_DPI, layout="constrained", facecolor="white")
    if title:
        page.suptitle(title, x=0.012, ha="left", fontsize=13, weight="bold", color=INK)
    for axes, (column, name, unit) in zip(page.subplots(2, 3).flat, _HISTOGRAMS, strict=True):
        values = _amplitude(records) if column == "amplitude" else _floats(records, column)
        _histogram(axes, values, name, unit)
    return png(page, pixels_per_inch=_DPI, colours=_COLOURS)


def _histogram(axes: Axes, values: NDArray[np.float64], name: str, unit: str) -> None:
    present = values[np.isfinite(values)]
    notes = []
    if len(present):
        distinct = np.unique(present)
        low, high = present.min(), np.percentile(present, 99.5)
        if len(distinct) <= 3:  # such as sampling rates: a bar for each value
            counts = [np.count_nonzero(present == value) for value in distinct]
            axes.bar([f"{value:g}" for value in distinct], counts, width=0.5, color=PALETTE[0])
            axes.set_xlim(-1, len(distinct))
        else:
            axes.hist(present[present <= high], bins=30, range=(low, high), color=PALETTE[0])
            beyond = np.count_nonzero(present > high)
            notes += [f"{beyond} beyond {high:.3g}, up to {present.max():.3g}"] if beyond else []
    if len(present) < len(values):
        notes.append(f"{len(values) - len(present)} not known")
    name_axes(axes, name, f"{unit}   ({'; '.join(notes)})" if notes else unit, "records")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _amplitude(records: pa.Table) -> NDArray[np.float64]:
    """Return the largest absolute value of each record, millivolt."""
    return np.maximum(_floats(records, "quality_maximum"), -_floats(records, "quality_minimum"))


def _floats(records: pa.Table, column: str) -> NDArray[np.float64]:
    """Return a numeric column, with NaN for null."""
    return np.array([math.nan if v is None else v for v in records.column(column).to_pylist()], np.float64)


def _plot(axes: Axes, metrics: Sequence[Mapping[str, float]], names: Mapping[str, str], *, legend: bool = True) -> None:
    """Plot a curve for each name; curves of few points have markers, so that a single point is visible."""
    for key, colour in zip(names, (_TRAINING, _VALIDATION), strict=False):
        points = [(line["step"], line[key]) for line in metrics if key in line]
        marker = "o" if len(points) <= 40 and key != "loss" else ""
        x, y = zip(*points, strict=True) if points else ((), ())
        axes.plot(x, y, color=colour, linewidth=1.4, marker=marker, markersize=2.5, label=names[key])
    if legend:
        axes.legend(frameon=False, fontsize=8)


def _probe(axes: Axes, loss: Axes, probed: Sequence[Mapping[str, float]]) -> None:
    """Plot the online probe's curve, and mark its best step, the first of equals, here and in the loss."""
    _plot(axes, probed, {"probe_auc": "probe"}, legend=False)
    best = max(probed, key=lambda line: line["probe_auc"])
    axes.plot(best["step"], best["probe_auc"], "o", color=_BEST, markersize=5, zorder=3)
    for panel in (axes, loss):
        panel.axvline(best["step"], color=_BEST, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    name_axes(axes, f"Online probe, mean AUC: best {best['probe_auc']:.3f} at step {best['step']:.0f}", "step")
