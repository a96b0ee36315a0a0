"""Small plots as inline SVG, coloured by the page's CSS, for light, dark and printed pages.

Every function returns markup that is safe to put into a page: all text is escaped, the rest is numbers and names of CSS
classes: `c0` to `c6` for hues, `axis` for frames, `faint` for the background. Text sizes are in units of the view box,
which is drawn at about its own size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from pipelines.formatting import format_name

HUES = 6
_SIDE = 120.0  # of a square plot, in its own units
_LEFT, _BOTTOM, _TOP = 24.0, 20.0, 6.0


@dataclass(frozen=True)
class PlotMark:
    """A value and its interval."""

    low: float
    value: float
    high: float
    hue: int  # of an encoder: the number of a CSS class


def intervals(marks: Sequence[PlotMark], low: float, high: float, ticks: Sequence[float], text: str) -> str:
    """Return one row of a forest plot: marks below each other over an axis from `low` to `high`.

    It can have any width: lines and dots keep their thickness.
    text: the content in words, for screen readers.
    """
    height = 8.0 * len(marks) + 4

    def at(value: float) -> str:
        return _number(100 * (min(max(value, low), high) - low) / (high - low))

    lines = [f'<path class="faint" d="M{at(tick)} 0V{_number(height)}"/>' for tick in ticks]
    for i, mark in enumerate(marks):
        y = _number(6 + 8.0 * i)
        lines.append(f'<path class="c{mark.hue}" d="M{at(mark.low)} {y}H{at(mark.high)}"/>')
        lines.append(f'<path class="dot c{mark.hue}" d="M{at(mark.value)} {y}h0"/>')
    return (
        f'<svg class="intervals" viewBox="0 0 100 {_number(height)}" preserveAspectRatio="none" role="img" '
        f'style="height:{_number(height)}px" aria-label="{_escaped(text)}">{"".join(lines)}</svg>'
    )


def roc(curves: Sequence[tuple[int, NDArray[np.float64], NDArray[np.float64]]], text: str) -> str:
    """Return ROC curves, each a hue with false and true positive rates; those after the first are dashed."""
    shapes = [
        f'<polyline class="c{hue}{" dashed" if i else ""}" points="{_points(false, true)}"/>'
        for i, (hue, false, true) in reversed(list(enumerate(curves)))
    ]
    return _square([_diagonal(), *shapes], "false positive rate", "true positive rate", text)


def budget(
    curves: Sequence[tuple[int, Sequence[tuple[float, PlotMark]]]], published: Sequence[tuple[float, float]], text: str
) -> str:
    """Return AUC against the share of labels in percent, on a logarithmic axis from 1 to 100.

    curves: a hue and its points (percent, AUC with interval) each, in order.
    published: points (percent, AUC) that others report, drawn as crosses.
    """
    values = [mark.low for _, points in curves for _, mark in points] + [value for _, value in published]
    low = math.floor(min(values) * 10 + 1e-9) / 10 if min(values) < 1 else 0.9

    def at(percent: float, value: float) -> str:
        return f"{_x(math.log10(max(percent, 1)) / 2)} {_y((value - low) / (1 - low))}"

    shapes = []
    for hue, points in curves:
        shapes += [
            f'<path class="c{hue}" d="M{at(percent, mark.low)}L{at(percent, mark.high)}"/>' for percent, mark in points
        ]
        shapes.append(f'<path class="c{hue}" d="M{"L".join(at(percent, mark.value) for percent, mark in points)}"/>')
    shapes += [f'<path class="axis" d="M{at(percent, value)}m-3 -3l6 6m0 -6l-6 6"/>' for percent, value in published]
    shares = {percent for _, points in curves for percent, _ in points} | {1.0, 100.0}
    names = "".join(
        f'<text x="{_x(math.log10(share) / 2)}" y="{_number(_TOP + _SIDE + 9)}" text-anchor="middle">{share:g}</text>'
        for share in sorted(shares)
    )
    width, height = _LEFT + _SIDE + 6, _TOP + _SIDE + _BOTTOM
    return (
        f'<svg class="square" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{_escaped(text)}">'
        f'<path class="axis" d="M{_x(0)} {_y(1)}V{_y(0)}H{_x(1)}"/>{names}'
        f'<text x="{_number(_LEFT - 4)}" y="{_y(1)}" dy="6" text-anchor="end">1</text>'
        f'<text x="{_number(_LEFT - 4)}" y="{_y(0)}" text-anchor="end">{low:g}</text>'
        f'<text x="{_number(_LEFT + _SIDE / 2)}" y="{_number(height - 2)}" text-anchor="middle">% of labels</text>'
        f"{''.join(shapes)}</svg>"
    )


@dataclass(frozen=True)
class Bin:
    """A point of a reliability curve."""

    predicted: float  # mean probability
    observed: float  # share of positives, with its interval
    low: float
    high: float
    records: int


def reliability(bins: Sequence[Bin], hue: int, text: str) -> str:
    """Return a reliability curve; the area of a dot is proportional to the number of its records."""
    most = max(point.records for point in bins)
    line = " ".join(f"{_x(point.predicted)},{_y(point.observed)}" for point in bins)
    shapes = [_diagonal()]
    shapes += [f'<path class="c{hue}" d="M{_x(point.predicted)} {_y(point.low)}V{_y(point.high)}"/>' for point in bins]
    shapes.append(f'<polyline class="c{hue}" points="{line}"/>')
    shapes += [
        f'<circle class="fill c{hue}" cx="{_x(point.predicted)}" cy="{_y(point.observed)}" '
        f'r="{_number(1.2 + 3.8 * math.sqrt(point.records / most))}"/>'
        for point in bins
    ]
    return _square(shapes, "predicted probability", "observed share", text)


def scatter(point_N2: NDArray[np.float64], hue_N: NDArray[np.int64], text: str) -> str:
    """Return a map of points (N, 2), each in a hue; -1 is faint, and drawn behind the others.

    Both axes have the same scale; the map is at most 0.8 times as high as wide.
    """
    width, r = 300.0, 1.8
    low_2, span_2 = point_N2.min(axis=0), np.ptp(point_N2, axis=0)
    scale = (width - 4 * r) / max(span_2[0], span_2[1] / 0.8, 1e-12)
    height = max(scale * span_2[1] + 4 * r, width / 3)
    x_N = width / 2 + scale * (point_N2[:, 0] - low_2[0] - span_2[0] / 2)
    y_N = height / 2 - scale * (point_N2[:, 1] - low_2[1] - span_2[1] / 2)
    groups = []
    for hue in sorted(set(hue_N.tolist())):
        places = zip(x_N[hue_N == hue].tolist(), y_N[hue_N == hue].tolist(), strict=True)
        circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>' for x, y in places)
        groups.append(f'<g class="fill {"faint" if hue < 0 else f"c{hue}"}">{circles}</g>')
    return (
        f'<svg class="map" viewBox="0 0 {width:g} {_number(height)}" role="img" aria-label="{_escaped(text)}">'
        f"{''.join(groups)}</svg>"
    )


def _square(shapes: Sequence[str], x: str, y: str, text: str) -> str:
    """Return a plot of the unit square with its frame and the names of its axes."""
    width, height = _LEFT + _SIDE + 6, _TOP + _SIDE + _BOTTOM
    middle = _number(_LEFT + _SIDE / 2)
    frame = f'<path class="axis" d="M{_x(0)} {_y(1)}V{_y(0)}H{_x(1)}"/>'
    numbers = (
        f'<text x="{_x(0)}" y="{_number(height - 11)}" text-anchor="middle">0</text>'
        f'<text x="{_x(1)}" y="{_number(height - 11)}" text-anchor="middle">1</text>'
        f'<text x="{_number(_LEFT - 4)}" y="{_y(1)}" dy="6" text-anchor="end">1</text>'
    )
    turned = f"translate(9 {_number(_TOP + _SIDE / 2)}) rotate(-90)"
    names = (
        f'<text x="{middle}" y="{_number(height - 2)}" text-anchor="middle">{_escaped(x)}</text>'
        f'<text transform="{turned}" text-anchor="middle">{_escaped(y)}</text>'
    )
    return (
        f'<svg class="square" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{_escaped(text)}">'
        f"{frame}{numbers}{names}{''.join(shapes)}</svg>"
    )


def _diagonal() -> str:
    return f'<path class="faint" d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}"/>'


def _points(x_N: NDArray[np.float64], y_N: NDArray[np.float64]) -> str:
    return " ".join(f"{_x(x)},{_y(y)}" for x, y in zip(x_N.tolist(), y_N.tolist(), strict=True))


def _x(value: float) -> str:
    return _number(_LEFT + _SIDE * value)


def _y(value: float) -> str:
    return _number(_TOP + _SIDE * (1 - value))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _escaped(text: str) -> str:
    return escape(format_name(text))
