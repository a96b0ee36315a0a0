"""Waves beside each other on ECG paper: as they were annotated, and as they were predicted, under the trace.

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

_HIGHEST = 35.0
_BAR, _ROOM = 3.0, 1.5
_BARS = 2 * (_BAR + _ROOM) + _ROOM
_NAMES = 26  # left of the paper, for the bars' names
_GAP, _ABOVE, _HEADER = 5, 6, 14
_BOX = 5

Span = tuple[str, float, float]
"""P, QRS or T, its onset and its offset, in samples at 250 Hz."""


@dataclass(frozen=True, kw_only=True)
class SegmentedLead:
    """One lead's stretch of an ECG: y_T in millivolt at 250 Hz from sample `first` on, and the waves of all of it.

    known: the first and the last sample that were annotated.
    """

    caption: str
    y_T: NDArray[np.float64]
    first: int
    annotated: Sequence[Span]
    predicted: Sequence[Span]
    known: tuple[float, float]


def segmentation_sheet(leads: Sequence[SegmentedLead], title: str, annotated: str = "annotated") -> bytes:
    """Stretches of equal length under each other, as PNG bytes below 100 kB.

    annotated: what the upper bars are called. Raises ValueError where there is no stretch, and where they are too many
    for a picture of that size.
    """
    if not leads:
        raise ValueError("leads=(): give at least one stretch of an ECG")
    for pixels_per_mm, colours in ((5, 32), (4, 32), (3, 16), (2, 16)):
        page = _page(leads, title, annotated, pixels_per_mm)
        picture = png(page, pixels_per_inch=25.4 * pixels_per_mm, colours=colours)
        if len(picture) < MAX_BYTES:
            return picture
    raise ValueError(f"{len(leads)} stretches do not fit one picture of {MAX_BYTES} bytes: give fewer")


def _page(leads: Sequence[SegmentedLead], title: str, annotated: str, pixels_per_mm: int) -> Figure:
    gains = [_gain(lead.y_T) for lead in leads]
    heights = [whole_boxes(gain * float(np.ptp(lead.y_T)) + 2 + _BARS) for lead, gain in zip(leads, gains, strict=True)]
    width = whole_boxes(max(len(lead.y_T) for lead in leads) / RATE * SPEED)
    size = (_NAMES + width + _GAP, _HEADER + sum(heights) + len(leads) * (_ABOVE + 2))
    page = Figure(figsize=size, dpi=pixels_per_mm, facecolor="white")
    axes = millimetres(page)
    draw_text(axes, (_GAP, size[1] - 2.5), fitted(title, size[0] - 2 * _GAP, 4.4), size=4.4, weight="bold", va="top")
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
    """The largest of the cardiograph's gains with which the trace keeps to its height; the smallest where none does."""
    return next((gain for gain in GAINS if gain * float(np.ptp(y_T)) <= _HIGHEST), GAINS[-1])


def _bars(axes: Axes, lead: SegmentedLead, spans: Sequence[Span], bottom: float) -> None:
    """A bar a wave, from its first sample to the end of its last, as far as the stretch goes."""
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
    """A thin line where nothing was annotated."""
    last = lead.first + len(lead.y_T) - 1
    for begin, end in ((lead.first, min(lead.known[0], last)), (max(lead.known[1], lead.first), last)):
        if begin < end:
            x = [_NAMES + (at - lead.first) / RATE * SPEED for at in (begin, end)]
            axes.plot(x, [bottom + _BAR / 2] * 2, color=MUTED, linewidth=20, linestyle=(0, (2, 2)), zorder=4)
