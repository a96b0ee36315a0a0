"""ECGs on ECG paper: 25 mm per second, 10 mm per millivolt, a grid line per millimetre and a stronger one every five.

The unit of every length here is the millimetre of paper. In matplotlib's figures an inch stands for a millimetre, so
that with a whole number of pixels per millimetre each grid line falls on whole pixels; the file then states its true
resolution and prints in true size.
Shapes: N records, L leads, T samples; millivolt, NaN for a missing sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Stroke, withStroke
from numpy.typing import NDArray

from ecg_model.leads import DERIVED, LEADS, LEADS_12, known_leads
from ecg_model.signal import RATE, derived_leads
from pipelines.plots.canvas import INK, MAX_BYTES, MUTED, png

SPEED = 25.0  # mm per second
GAIN = 10.0  # mm per millivolt
# A cardiograph's steps, and two more for exams with larger wander or gain.
GAINS = (GAIN, 5.0, 2.5, 1.0, 0.5)

_POINTS = 72.0  # per inch of matplotlib, which is a millimetre here
_BOX = 5  # between the strong grid lines
_PULSE_SECONDS = 0.2
_LABEL = 3.0  # height of a lead's name
_LEAD_IN = 10  # width of the calibration pulse with the flat line on both its sides
_SHEET_LEADS = ("II", "V1", "V5")
_SHEET_SECONDS = 5.0
_SHEET_COLUMNS = 2

_PAPER, _FINE, _STRONG = "#fffafa", "#f9dede", "#edb1b1"
_GRID = ((1, _FINE), (_BOX, _STRONG))


@dataclass(frozen=True)
class _Cell:
    """One lead's part of a row."""

    lead: str
    at: float  # where it begins on the row, seconds
    y_T: NDArray[np.float64]  # millivolt above its median; empty if the lead was not recorded


_Row = list[_Cell]


def ecg_paper(
    signal_LT: NDArray[Any],
    leads: Sequence[str],
    rate: float,
    title: str,
    *,
    caption: str = "",
    pixels_per_mm: int = 5,
) -> bytes:
    """Plot one ECG as a cardiograph prints it, as PNG bytes of 25.4 * pixels_per_mm dpi.

    signal_LT: (leads, samples), millivolt; NaN for a missing sample.
    rate: samples per second.

    Three rows of four simultaneous leads, a quarter of the time each, and below them lead II for the whole time, of the
    first ten seconds. Leads III, aVR, aVL and aVF that are not given are computed from I and II; another lead that is
    not given is an empty place with its name. Each trace is centred on its median, so wander does not move it off its
    row. The paper's height follows the amplitudes; if a row would take more than 60 mm, the gain is the largest of
    GAINS that fits, and the footer states it.
    Raises ValueError if the shape does not fit the leads, no lead is known, or the signal is empty.
    """
    signals = _by_lead(np.asarray(signal_LT, np.float64), leads, rate)
    recorded = next(iter(signals.values())).shape[-1] / rate
    seconds = min(10.0, recorded)
    rows = [
        [_cell(signals, lead, column * seconds / 4, seconds / 4, rate) for column, lead in enumerate(LEADS_12[row::3])]
        for row in range(3)
    ]
    rhythm = "II" if "II" in signals else next(iter(signals))
    rows.append([_cell(signals, rhythm, 0.0, seconds, rate)])
    gain = _gain(rows, rate, highest_row=60.0)
    baselines, height = _stack(rows, rate, gain)

    width = max(130, whole_boxes(_LEAD_IN + seconds * SPEED + 2 * _BOX))
    header, footer = (16 if caption else 11), 5
    page = Figure(figsize=(width, header + height + footer), dpi=pixels_per_mm, facecolor="white")
    axes = millimetres(page)
    draw_paper(axes, (0, 0, width, height + footer))
    for row, baseline in zip(rows, baselines, strict=True):
        _draw_row(axes, row, (_BOX, footer + height - baseline), rate, gain)
    top = header + height + footer
    draw_text(axes, (_BOX, top - 4), fitted(title, width - 2 * _BOX, 4.4), size=4.4, weight="bold", va="top")
    draw_text(axes, (_BOX, top - 10.5), fitted(caption, width - 2 * _BOX, 3.2), size=3.2, colour=MUTED, va="top")
    terms = [f"{SPEED:g} mm/s", f"{gain:g} mm/mV", f"{rate:g} Hz"]
    terms += [f"first {seconds:g} s of {recorded:.4g} s"] if recorded > seconds else []
    draw_text(axes, (_BOX, 2.5), "   ".join(terms), size=3.0, colour=INK, va="center", halo=True)
    return png(page, pixels_per_inch=25.4 * pixels_per_mm)


def ecg_sheet(
    signal_NLT: NDArray[Any],
    captions: Sequence[str],
    *,
    leads: Sequence[str] = LEADS,
    rate: float = RATE,
    title: str = "",
) -> bytes:
    """Plot several ECGs in columns, as PNG bytes below 100 kB: five seconds of II, V1 and V5 of each, with a caption.

    signal_NLT: (records, leads, samples), millivolt.

    All have one scale, except that an ECG which would not fit its place has a smaller gain, stated beside it. With many
    or noisy records the resolution is reduced until the file is small enough; twelve of white noise fit. Raises
    ValueError if they do not fit, if captions and signals differ in number, if there are none, and as `ecg_paper`.
    """
    if len(signal_NLT) != len(captions) or len(captions) == 0:
        raise ValueError(f"{len(signal_NLT)} signals with {len(captions)} captions: give one caption per signal")
    strips = [
        _strip(_by_lead(np.asarray(signal_LT, np.float64), leads, rate), caption, rate)
        for signal_LT, caption in zip(signal_NLT, captions, strict=True)
    ]
    lines = [strips[first : first + _SHEET_COLUMNS] for first in range(0, len(strips), _SHEET_COLUMNS)]
    for pixels_per_mm, colours in ((4, 32), (3, 32), (3, 16), (2, 16)):
        page = _sheet(lines, title, rate, pixels_per_mm)
        picture = png(page, pixels_per_inch=25.4 * pixels_per_mm, colours=colours)
        if len(picture) < MAX_BYTES:
            return picture
    raise ValueError(f"{len(captions)} ECGs do not fit one picture of {MAX_BYTES} bytes: sample fewer")


@dataclass(frozen=True)
class _Strip:
    """The layout of one ECG of a sheet."""

    caption: str
    rows: list[_Row]
    baselines: list[float]  # of the rows, below the strip's top
    gain: float  # mm per millivolt
    width: int
    height: int


def _strip(signals: Mapping[str, NDArray[np.float64]], caption: str, rate: float) -> _Strip:
    seconds = min(_SHEET_SECONDS, next(iter(signals.values())).shape[-1] / rate)
    rows = [[_cell(signals, lead, 0.0, seconds, rate)] for lead in _SHEET_LEADS]
    gain = _gain(rows, rate, highest_stack=80.0)
    baselines, height = _stack(rows, rate, gain)
    return _Strip(caption, rows, baselines, gain, whole_boxes(_LEAD_IN + seconds * SPEED + _BOX), height)


def _sheet(lines: Sequence[Sequence[_Strip]], title: str, rate: float, pixels_per_mm: int) -> Figure:
    """Draw strips in columns; those of one line get paper of the same height."""
    above, gap, header = 6, 5, 11
    width = lines[0][0].width
    heights = [max(strip.height for strip in line) for line in lines]
    size = (len(lines[0]) * (width + gap) + gap, header + sum(heights) + len(lines) * (above + gap))
    page = Figure(figsize=size, dpi=pixels_per_mm, facecolor="white")
    axes = millimetres(page)
    top = size[1] - header
    draw_text(axes, (gap, size[1] - 3.5), fitted(title, size[0] - 60, 4.4), size=4.4, weight="bold", va="top")
    scale = f"{SPEED:g} mm/s   {GAIN:g} mm/mV   {rate:g} Hz"
    draw_text(axes, (size[0] - gap, size[1] - 4.2), scale, size=3.0, colour=MUTED, va="top", ha="right")
    for line, height in zip(lines, heights, strict=True):
        top -= above
        for column, strip in enumerate(line):
            left = gap + column * (width + gap)
            draw_paper(axes, (left, top - height, width, height))
            # Rows of a strip with less height than its line are spread evenly.
            spare = (height - strip.height) // (len(strip.rows) + 1)
            for i, (row, baseline) in enumerate(zip(strip.rows, strip.baselines, strict=True), start=1):
                _draw_row(axes, row, (left, top - baseline - i * spare), rate, strip.gain)
            gain = "" if strip.gain == GAIN else f"   ({strip.gain:g} mm/mV)"
            draw_text(axes, (left, top + 1.5), fitted(strip.caption, width - 20, 3.4) + gain, size=3.4, va="bottom")
        top -= height + gap
    return page


def _by_lead(signal_LT: NDArray[np.float64], leads: Sequence[str], rate: float) -> dict[str, NDArray[np.float64]]:
    """Return the signal of each lead by its name in LEADS_12, with III, aVR, aVL and aVF computed from I and II.

    Other channels are left out; of two rows of one lead the first is taken.
    """
    if signal_LT.ndim != 2 or signal_LT.shape[0] != len(leads) or signal_LT.size == 0:
        raise ValueError(f"signal of shape {signal_LT.shape} does not fit {len(leads)} leads: use (leads, samples)")
    if not rate > 0:
        raise ValueError(f"rate {rate}: give the samples per second")
    signals: dict[str, NDArray[np.float64]] = {}
    for lead, x_T in zip(known_leads(tuple(leads)), signal_LT, strict=True):
        if lead is not None:
            signals.setdefault(lead, x_T)
    if not signals:
        raise ValueError(f"leads {', '.join(leads)}: none is one of {', '.join(LEADS_12)}")
    if "I" in signals and "II" in signals:
        derived = derived_leads(np.stack([signals["I"], signals["II"]]))
        signals = dict(zip(DERIVED, derived, strict=True)) | signals
    return signals


def _cell(signals: Mapping[str, NDArray[np.float64]], lead: str, start: float, seconds: float, rate: float) -> _Cell:
    """Return a lead from `start` on, without samples if it was not recorded."""
    if lead not in signals:
        return _Cell(lead, start, np.empty(0))
    # One sample more than the cell's time, so that the line reaches the next cell.
    y_T = signals[lead][round(start * rate) : round((start + seconds) * rate) + 1]
    finite = np.isfinite(y_T)
    return _Cell(lead, start, y_T - (np.median(y_T[finite]) if finite.any() else 0.0))


def _label_at(cell: _Cell, rate: float, gain: float) -> float:
    """Return how far above the baseline a cell's name is placed, mm: above the samples beneath it."""
    under_T = cell.y_T[: math.ceil((1 + 2.3 * len(cell.lead)) / SPEED * rate)]
    return max(3.0, gain * np.max(under_T, initial=0.0, where=np.isfinite(under_T)) + 1.0)


def _reach(row: _Row, rate: float, gain: float) -> tuple[float, float]:
    """Return how far a row extends above and below its baseline, mm: its samples, its pulse and its labels."""
    y_T = np.concatenate([cell.y_T[np.isfinite(cell.y_T)] for cell in row])
    label = max(_label_at(cell, rate, gain) for cell in row) + _LABEL
    return max(gain * np.max(y_T, initial=0.0), gain, label), max(-gain * np.min(y_T, initial=0.0), 3.0)


def _gain(
    rows: Sequence[_Row], rate: float, *, highest_row: float = math.inf, highest_stack: float = math.inf
) -> float:
    """Return the largest gain with which each row, and all of them stacked, fit; the smallest one if none does."""
    for gain in GAINS:
        fits = all(sum(_reach(row, rate, gain)) <= highest_row for row in rows)
        if fits and _stack(rows, rate, gain)[1] <= highest_stack:
            return gain
    return GAINS[-1]


def _stack(rows: Sequence[_Row], rate: float, gain: float) -> tuple[list[float], int]:
    """Return each row's baseline below the top, on a line of the grid, and the height of all rows, in whole boxes."""
    baselines, edge = [], 0.0
    for row in rows:
        up, down = _reach(row, rate, gain)
        baseline = math.ceil(edge + up + 1.0)
        baselines.append(float(baseline))
        edge = baseline + down
    return baselines, whole_boxes(edge + 1.0)


def whole_boxes(length: float) -> int:
    """Return a length in mm, rounded up to a whole number of the grid's large boxes."""
    return _BOX * math.ceil(length / _BOX)


def millimetres(page: Figure) -> Axes:
    """Return axes over the whole page, whose unit is the millimetre."""
    width, height = page.get_size_inches()
    axes = page.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return axes


def draw_paper(axes: Axes, box: tuple[float, float, float, float]) -> None:
    """Draw a grid on whole millimetres from the box's lower left corner; a line is a whole number of pixels wide.

    box: left, bottom, width and height.
    """
    left, bottom, width, height = box
    axes.add_patch(Rectangle((left, bottom), width, height, facecolor=_PAPER, edgecolor="none", zorder=0))
    pixel = 1 / float(axes.figure.dpi)
    for order, (step, colour) in enumerate(_GRID, start=1):
        x = left + np.arange(0, width + step / 2, step)
        y = bottom + np.arange(0, height + step / 2, step)
        lines = [((at, bottom), (at, bottom + height)) for at in x] + [((left, at), (left + width, at)) for at in y]
        axes.add_collection(
            LineCollection(lines, colors=colour, linewidths=pixel * _POINTS, zorder=order, snap=True), autolim=False
        )


def _draw_row(axes: Axes, row: _Row, origin: tuple[float, float], rate: float, gain: float) -> None:
    """Draw the calibration pulse of one millivolt, then each cell with its name.

    origin: the row's left end and its baseline.
    """
    left, baseline = origin
    pulse = (_LEAD_IN - _PULSE_SECONDS * SPEED) / 2
    x = left + np.array([1.0, pulse, pulse, _LEAD_IN - pulse, _LEAD_IN - pulse, _LEAD_IN - 1.0])
    draw_line(axes, x, baseline + gain * np.array([0.0, 0.0, 1.0, 1.0, 0.0, 0.0]))
    for cell in row:
        x = left + _LEAD_IN + (cell.at + np.arange(len(cell.y_T)) / rate) * SPEED
        y = baseline + gain * cell.y_T
        draw_line(axes, x, y)
        begin = left + _LEAD_IN + cell.at * SPEED
        if cell.at > 0:
            axes.plot([begin, begin], [baseline - 2, baseline + 2], color=INK, linewidth=0.25 * _POINTS, zorder=4)
        name = cell.lead if np.isfinite(cell.y_T).any() else f"{cell.lead}  not recorded"
        label = (begin + 1, baseline + _label_at(cell, rate, gain))
        draw_text(axes, label, name, size=_LABEL, weight="bold", va="bottom", halo=True)


def draw_line(axes: Axes, x: NDArray[Any], y: NDArray[Any]) -> None:
    """Draw a trace."""
    axes.plot(x, y, color=INK, linewidth=0.28 * _POINTS, solid_joinstyle="round", zorder=5)


def fitted(text: str, width: float, size: float) -> str:
    """Return the text, shortened if it would be wider than `width`: a letter takes about 0.6 of the font's size."""
    letters = int(width / (0.6 * size))
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def draw_text(
    axes: Axes,
    at: tuple[float, float],
    text: str,
    *,
    size: float,
    va: str,
    ha: str = "left",
    colour: str = INK,
    weight: str = "normal",
    halo: bool = False,
) -> None:
    """Draw text.

    size: height of the letters, mm.
    va, ha: vertical and horizontal alignment, as matplotlib names them.
    halo: surround the text with the paper's colour, so that it is readable over lines.
    """
    effects: list[Stroke] = [withStroke(linewidth=0.8 * _POINTS, foreground=_PAPER)] if halo else []
    x, y = at
    axes.text(
        x,
        y,
        text,
        fontsize=size * _POINTS,
        va=va,
        ha=ha,
        color=colour,
        weight=weight,
        path_effects=effects,
        zorder=6,
    )
