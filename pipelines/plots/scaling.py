"""Scores against sizes on logarithmic axes: points with intervals, a fitted line, and levels, several overlaid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.plots.canvas import INK, PALETTE, name_axes, png

_DPI = 110
_COLOURS = 128


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A score at a size, and its interval."""

    x: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Series:
    """A curve: its points, by rising size; a line beside them; a level that they are compared with."""

    name: str
    marks: tuple[Mark, ...]
    line: tuple[NDArray[Any], NDArray[Any]] | None = None
    level: float | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The series of one axis of sizes. A series has the same colour in all panels."""

    title: str
    axis: str
    series: tuple[Series, ...]


def scaling_chart(panels: Sequence[Panel], title: str, *, axis: str) -> bytes:
    """Plot the panels side by side, as PNG. axis: of the scores. Raises ValueError if there is no panel."""
    if not panels:
        raise ValueError("no panel to draw: give at least one")
    names = list(dict.fromkeys(series.name for panel in panels for series in panel.series))
    page = Figure(figsize=(4.0 * len(panels), 3.7), dpi=_DPI, layout="constrained", facecolor="white")
    page.suptitle(title, x=0.012, ha="left", fontsize=11, weight="bold", color=INK)
    for number, (panel, axes) in enumerate(
        zip(panels, page.subplots(1, len(panels), sharey=True, squeeze=False)[0], strict=True)
    ):
        for series in panel.series:
            _draw(axes, series, PALETTE[names.index(series.name) % len(PALETTE)])
        axes.set_xscale("log")
        name_axes(axes, panel.title, panel.axis, "" if number else axis)
    first = page.axes[0]
    if any(series.level is not None for panel in panels for series in panel.series):
        first.plot([], [], color=INK, linewidth=0.9, linestyle=":", label="untrained")
    first.legend(frameon=False, fontsize=8, loc="best")
    return png(page, pixels_per_inch=_DPI, colours=_COLOURS)


def _draw(axes: Axes, series: Series, colour: str) -> None:
    x, value = [mark.x for mark in series.marks], [mark.value for mark in series.marks]
    error = [[mark.value - mark.low for mark in series.marks], [mark.high - mark.value for mark in series.marks]]
    joined = "" if series.line is not None else "-"
    axes.errorbar(
        x,
        value,
        yerr=error,
        fmt=f"o{joined}",
        color=colour,
        markersize=4,
        linewidth=1.2,
        capsize=2,
        label=series.name,
    )
    if series.line is not None:
        axes.plot(*series.line, color=colour, linewidth=1.2, linestyle="--")
    if series.level is not None:
        axes.axhline(series.level, color=colour, linewidth=0.9, linestyle=":")
