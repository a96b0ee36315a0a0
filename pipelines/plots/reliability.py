"""Reliability curves: predicted probabilities against observed frequencies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.plots.canvas import PALETTE, name_axes, png

_DPI = 110
_BINS = 10
_LEAST = 5  # records of a point


def reliability_chart(positive_N: NDArray[Any], probabilities: Mapping[str, NDArray[np.float64]], title: str) -> bytes:
    """Plot a curve for each set of probabilities as PNG: the share of positives against the mean, in ten equal bins.

    positive_N: whether each record is positive, bool (N,).
    probabilities: (N,) by name, such as before and after a calibration.

    Bins of fewer than five records are omitted.
    """
    page = Figure(figsize=(4.8, 4.4), dpi=_DPI, layout="constrained", facecolor="white")
    axes = page.subplots()
    axes.plot([0, 1], [0, 1], color="#b0b0b0", linewidth=0.8)
    for (name, probability_N), colour in zip(probabilities.items(), PALETTE, strict=False):
        bin_N = np.minimum((probability_N * _BINS).astype(int), _BINS - 1)
        inside = [bin_N == b for b in np.unique(bin_N) if (bin_N == b).sum() >= _LEAST]
        x, y = ([values[mask].mean() for mask in inside] for values in (probability_N, positive_N))
        axes.plot(x, y, "o-", color=colour, markersize=4.5, linewidth=1.4, label=name)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    name_axes(axes, title, "probability", "share that was positive")
    return png(page, pixels_per_inch=_DPI, colours=64)
