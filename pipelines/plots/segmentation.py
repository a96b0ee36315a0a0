"""Traces on ECG paper, with the annotated and the predicted waves below each as bars.

The unit of length is the millimetre of paper, as in `ecg_paper`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ecg_model.signal import RATE
from pipelines.plots.canvas import MAX_BYTES, MUTED, PALETTE, png
from pipelines.plots.ecg_paper import (
    GAINS,
    SPEED,
    draw_line,
    draw_paper,
    draw_text,
    fitted,
    millimetres,
    whole_boxes,
)

COLOURS = {"P": PALETTE[0], "QRS": PALETTE[1], "T": PALETTE[2]}

_HIGHEST = 35.0  # of a trace
_BAR, _ROOM = 3.0, 1.5  # heights of a bar and of the space around it
_BARS = 2 * (_BAR + _ROOM) + _ROOM
_NAMES = 26  # left of the paper, for the bars' names
_GAP, _ABOVE, _HEADER = 5, 6, 14
_BOX = 5

Span = tuple[str, float, float]
"""P, QRS or T, its onset and its offset, in samples at 250 Hz."""


@dataclass(frozen=True, kw_only=True)
class SegmentedLead:
    """A part of one lead of an ECG, and the waves of the whole lead."""

    caption: str
    y_T: NDArray[np.float64]  # millivolt, 250 Hz
    first: int  # the sample of the ECG at which y_T begins
    annotated: Sequence[Span]
    predicted: Sequence[Span]
    known: tuple[float, float]  # the first and the last sample with annotations


def segmentation_sheet(leads: Sequence[SegmentedLead], title: str, annotated: str = "annotated") -> bytes:
    """Plot parts of leads of equal length below each other, as PNG bytes below 100 kB.

    annotated: the name of the upper bars. Raises ValueError if there is no lead, or too many for one picture.
    """
    if not leads:
        raise ValueError("leads=(): give at least one lead")
    for pixels_per_mm, colours in ((5, 32), (4, 32), (3, 16), (2, 16)):
        page = _page(leads, title, annotated, pixels_per_mm)
        picture = png(page, pixels_per_inch=25.4 * pixels_per_mm, colours=colours)
        if len(picture) < MAX_BYTES:
            return picture
    raise ValueError(f"{len(leads)} leads do not fit one picture of {MAX_BYTES} bytes: give fewer")


def _page(leads: Sequence[SegmentedLead], title: str, annotated: str, pixels_per_mm: int) -> Figure:
    gains = [_gain(lead.y_T) for lead in leads]
    heights = [whole_boxes(gain * float(np.ptp(lead.y_T)) + 2 + _BARS) for lead, gain in zip(leads, gains, strict=True)]
    width = whole_boxes(max(len(lead.y_T) for lead in leads) / RATE * SPEED)
    size = (_NAMES + width + _GAP, _HEADER + sum(heights) + len(leads) * (_ABOVE + 2))
    page = Figure(figsize=size, dpi=pixels_per_mm, facecolor="white")
    axes = millimetres(page)
    draw_text(axes, (_GAP, size[1] - 2.5), fitted(title, size[0] - 2 * _GAP, 4.4), size=4.4, weight="bold", va="top")
    # The legend: a bar and a name per wave.
    for place, (name, colour) in enumerate(COLOURS.items()):
        left = _NAMES + 22 * place
        axes.add_patch(Rectangle((left, size[1] - 12.5), 5, _BAR, facecolor=colour, edgecolor="none"))
        draw_text(axes, (left + 6.5, size[1] - 11), name, size=3.2, va="center")
    top = float(size[1] - _HEADER)
    for lead, gain, height in zip(leads, gains, heights, strict=True):
        top -= _ABOVE
        scale = f"{lead.caption}   {SPEED:g} mm/s   {gain:g} mm/mV"
        draw_text(axes, (_NAMES, top + 1.2), fitted(scale, width, 3.2), size=3.2, va="bottom")
        draw_paper(axes, (_NAMES, top - height, width, height))
        # The lowest sample lies 1 mm above the bars.
        zero = top - height + _BARS + 1 - gain * float(lead.y_T.min())
        x_T = _NAMES + np.arange(len(lead.y_T)) / RATE * SPEED
        draw_line(axes, x_T, zero + gain * lead.y_T)
        for row, (name, spans) in enumerate((("predicted", lead.predicted), (annotated, lead.annotated))):
            bottom = top - height + _ROOM + row * (_BAR + _ROOM)
            draw_text(axes, (_NAMES - 1.5, bottom + _BAR / 2), name, size=3.0, colour=MUTED, va="center", ha="right")
            _bars(axes, lead, spans, bottom)
        _unknown(axes, lead, top - height + _ROOM + _BAR + _ROOM)
        top -= height + 2
    return page


def _gain(y_T: NDArray[np.float64]) -> float:
    """Return the largest of GAINS with which the trace is at most _HIGHEST high; the smallest if none is enough."""
    return next((gain for gain in GAINS if gain * float(np.ptp(y_T)) <= _HIGHEST), GAINS[-1])


def _bars(axes: Axes, lead: SegmentedLead, spans: Sequence[Span], bottom: float) -> None:
    """Draw a bar per wave, from its first sample to the end of its last, within the part that is shown."""
    for name, onset, offset in spans:
        begin, end = max(onset, lead.first), min(offset + 1, lead.first + len(lead.y_T))
        if begin < end:
            left = _NAMES + (begin - lead.first) / RATE * SPEED
            bar = Rectangle(
                (left, bottom), (end - begin) / RATE * SPEED, _BAR, facecolor=COLOURS[name], edgecolor="none"
            )
            bar.set_zorder(4)
            axes.add_patch(bar)


def _unknown(axes: Axes, lead: SegmentedLead, bottom: float) -> None:
    """Draw a dashed line where there are no annotations."""
    last = lead.first + len(lead.y_T) - 1
    for begin, end in ((lead.first, min(lead.known[0], last)), (max(lead.known[1], lead.first), last)):
        if begin < end:
            x = [_NAMES + (at - lead.first) / RATE * SPEED for at in (begin, end)]
            axes.plot(x, [bottom + _BAR / 2] * 2, color=MUTED, linewidth=20, linestyle=(0, (2, 2)), zorder=4)
