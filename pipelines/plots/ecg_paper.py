"""ECGs on ECG paper: 25 mm a second, 10 mm a millivolt, a line a millimetre and a stronger one every five.

The unit of every length here is the millimetre of paper. Figures are made with one millimetre where matplotlib thinks
of an inch, so that a whole number of pixels a millimetre makes each grid line fall on whole pixels; the file then
carries its true resolution, and prints in its true size.
Shapes: N records, L leads, T samples; millivolt, NaN where a sample is missing.
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

from ecg_model.signal import LEADS, LEADS_12, RATE, canonical_lead, derived_leads
from pipelines.plots.canvas import INK, MAX_BYTES, MUTED, png

SPEED = 25.0  # mm a second
GAIN = 10.0  # mm a millivolt
# A cardiograph's steps, and two more for exams whose wander or gain goes beyond them.
GAINS = (GAIN, 5.0, 2.5, 1.0, 0.5)

_POINTS = 72.0  # of matplotlib's inch, here a millimetre
_BOX = 5
_PULSE_SECONDS = 0.2
_LABEL = 3.0
_LEAD_IN = 10  # the calibration pulse and the flat line on both its sides
_SHEET_LEADS = ("II", "V1", "V5")
_SHEET_SECONDS = 5.0
_SHEET_COLUMNS = 2

_PAPER, _FINE, _STRONG = "#fffafa", "#f9dede", "#edb1b1"
_GRID = ((1, _FINE), (_BOX, _STRONG))


@dataclass(frozen=True)
class _Cell:
    """One lead's stretch of a row: millivolt about its median, and where it begins on the row, in seconds."""

    lead: str
    at: float
    y_T: NDArray[np.float64]


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
    """One ECG as a cardiograph prints it, as PNG bytes of 25.4 * pixels_per_mm dpi.

    Three rows of four leads, a quarter of the time each and simultaneous, and lead II beneath for the whole of it, of
    the first ten seconds (or the whole, if shorter). Leads III, aVR, aVL and aVF that are not given are drawn from I
    and II; another lead that is not given leaves its place empty and named. Each trace is centred on its median, so
    wander does not move it off its row. The paper grows in height with the amplitudes; where a row would take more
    than 60 mm, the gain is the largest of GAINS that fits, and the footer says so.
    Raises ValueError for a shape that does not fit the leads, for unknown or repeated leads and for an empty signal.
    """
    found = _by_lead(np.asarray(signal_LT, np.float64), leads, rate)
    recorded = next(iter(found.values())).shape[-1] / rate
    seconds = min(10.0, recorded)
    rows = [
        [_cell(found, lead, column * seconds / 4, seconds / 4, rate) for column, lead in enumerate(LEADS_12[row::3])]
        for row in range(3)
    ]
    rhythm = "II" if "II" in found else next(iter(found))
    rows.append([_cell(found, rhythm, 0.0, seconds, rate)])
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
    """Sampled ECGs side by side, as PNG bytes below 100 kB: five seconds of II, V1 and V5 of each, under its caption.

    All on paper of one scale, except that an ECG which would not fit its place has a smaller gain, written at it. With
    many or noisy records the resolution falls until the file is small enough; twelve of white noise fit. Raises
    ValueError where they do not, where captions and signals differ in number or there are none, and as `ecg_paper`.
    """
    if len(signal_NLT) != len(captions) or len(captions) == 0:
        raise ValueError(f"{len(signal_NLT)} signals with {len(captions)} captions: give one caption a signal")
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
    """One ECG of a sheet, laid out: its rows with their baselines below the strip's top, its gain and its size."""

    caption: str
    rows: list[_Row]
    baselines: list[float]
    gain: float
    width: int
    height: int


def _strip(found: Mapping[str, NDArray[np.float64]], caption: str, rate: float) -> _Strip:
    seconds = min(_SHEET_SECONDS, next(iter(found.values())).shape[-1] / rate)
    rows = [[_cell(found, lead, 0.0, seconds, rate)] for lead in _SHEET_LEADS]
    gain = _gain(rows, rate, highest_stack=80.0)
    baselines, height = _stack(rows, rate, gain)
    return _Strip(caption, rows, baselines, gain, whole_boxes(_LEAD_IN + seconds * SPEED + _BOX), height)


def _sheet(lines: Sequence[Sequence[_Strip]], title: str, rate: float, pixels_per_mm: int) -> Figure:
    """Strips in columns; those of one line get equal paper."""
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
            spare = (height - strip.height) // (len(strip.rows) + 1)
            for i, (row, baseline) in enumerate(zip(strip.rows, strip.baselines, strict=True), start=1):
                _draw_row(axes, row, (left, top - baseline - i * spare), rate, strip.gain)
            gain = "" if strip.gain == GAIN else f"   ({strip.gain:g} mm/mV)"
            draw_text(axes, (left, top + 1.5), fitted(strip.caption, width - 20, 3.4) + gain, size=3.4, va="bottom")
        top -= height + gap
    return page


def _by_lead(signal_LT: NDArray[np.float64], leads: Sequence[str], rate: float) -> dict[str, NDArray[np.float64]]:
    """The signal of each lead by its canonical name, with those of III, aVR, aVL and aVF that follow from I and II."""
    if signal_LT.ndim != 2 or signal_LT.shape[0] != len(leads) or signal_LT.size == 0:
        raise ValueError(f"signal of shape {signal_LT.shape} does not fit {len(leads)} leads: use (leads, samples)")
    if not rate > 0:
        raise ValueError(f"rate {rate}: give the samples a second")
    found = dict(zip((canonical_lead(name) for name in leads), signal_LT, strict=True))
    if len(found) < len(leads):
        raise ValueError(f"leads {', '.join(leads)}: a lead is named twice; name each row once")
    if "I" in found and "II" in found:
        derived = derived_leads(np.stack([found["I"], found["II"]]))
        found = dict(zip(("III", "aVR", "aVL", "aVF"), derived, strict=True)) | found
    return found


def _cell(found: Mapping[str, NDArray[np.float64]], lead: str, start: float, seconds: float, rate: float) -> _Cell:
    """A lead from `start` on; without samples where it was not recorded."""
    if lead not in found:
        return _Cell(lead, start, np.empty(0))
    # One sample more than the stretch holds, so that the line reaches its end.
    y_T = found[lead][round(start * rate) : round((start + seconds) * rate) + 1]
    finite = np.isfinite(y_T)
    return _Cell(lead, start, y_T - (np.median(y_T[finite]) if finite.any() else 0.0))


def _label_at(cell: _Cell, rate: float, gain: float) -> float:
    """How far above the baseline a cell's name stands, mm: clear of the samples beneath it."""
    under_T = cell.y_T[: math.ceil((1 + 2.3 * len(cell.lead)) / SPEED * rate)]
    return max(3.0, gain * np.max(under_T, initial=0.0, where=np.isfinite(under_T)) + 1.0)


def _reach(row: _Row, rate: float, gain: float) -> tuple[float, float]:
    """How far a row goes above and below its baseline, mm: its samples, its pulse and its labels."""
    y_T = np.concatenate([cell.y_T[np.isfinite(cell.y_T)] for cell in row])
    label = max(_label_at(cell, rate, gain) for cell in row) + _LABEL
    return max(gain * np.max(y_T, initial=0.0), gain, label), max(-gain * np.min(y_T, initial=0.0), 3.0)


def _gain(
    rows: Sequence[_Row], rate: float, *, highest_row: float = math.inf, highest_stack: float = math.inf
) -> float:
    """The largest gain with which each row, and all of them stacked, fit; the smallest one where none does."""
    for gain in GAINS:
        fits = all(sum(_reach(row, rate, gain)) <= highest_row for row in rows)
        if fits and _stack(rows, rate, gain)[1] <= highest_stack:
            return gain
    return GAINS[-1]


def _stack(rows: Sequence[_Row], rate: float, gain: float) -> tuple[list[float], int]:
    """Each row's baseline below the top, on a line of the grid, and the height of all, in whole boxes."""
    baselines, edge = [], 0.0
    for row in rows:
        up, down = _reach(row, rate, gain)
        baseline = math.ceil(edge + up + 1.0)
        baselines.append(float(baseline))
        edge = baseline + down
    return baselines, whole_boxes(edge + 1.0)


def whole_boxes(length: float) -> int:
    """Millimetres, up to a whole number of the grid's large boxes."""
    return _BOX * math.ceil(length / _BOX)


def millimetres(page: Figure) -> Axes:
    """Axes over the whole page, whose unit is the millimetre."""
    width, height = page.get_size_inches()
    axes = page.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return axes


def draw_paper(axes: Axes, box: tuple[float, float, float, float]) -> None:
    """Grid lines on whole millimetres from the box's lower left corner, each one or two whole pixels wide."""
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
    """The calibration pulse of one millivolt, then each cell with its name."""
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
    """A trace as the paper shows it."""
    axes.plot(x, y, color=INK, linewidth=0.28 * _POINTS, solid_joinstyle="round", zorder=5)


def fitted(text: str, width: float, size: float) -> str:
    """The text, cut where it would be wider than `width`: a letter of this font takes about 0.6 of its size."""
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
    """Text whose size is given in mm. A halo of paper keeps it readable over lines."""
    effects: list[Stroke] = [withStroke(linewidth=0.8 * _POINTS, foreground=_PAPER)] if halo else []
    axes.text(
        *at, text, fontsize=size * _POINTS, va=va, ha=ha, color=colour, weight=weight, path_effects=effects,
        zorder=6, parse_math=False,
    )  # fmt: skip
