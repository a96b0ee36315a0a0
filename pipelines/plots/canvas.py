"""Shared by all plots: colours, axes, and figures as PNG bytes. pyplot and its global state are not used."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

# Dagster stores pictures in its event log, which it reads as a whole: larger ones make its pages slow.
MAX_BYTES = 100_000

INK = "#1a1a1a"
MUTED = "#5f6368"
# Okabe and Ito's colours (https://jfly.uni-koeln.de/color), distinct for any colour vision; without the yellow, which
# is too light for a line on white.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)


def name_axes(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """Set title and labels, and the frame and grid that all plots share."""
    axes.set_title(title, loc="left", fontsize=9.5, color=INK)
    axes.set_xlabel(x, fontsize=8.5, color=MUTED)
    axes.set_ylabel(y, fontsize=8.5, color=MUTED)
    axes.tick_params(labelsize=8, colors=MUTED, length=2.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b0b0b0")
    axes.grid(True, color="#ececec", linewidth=0.7)
    axes.set_axisbelow(True)


def png(figure: Figure, *, pixels_per_inch: float, colours: int = 32) -> bytes:
    """Return the figure as an indexed PNG of at most `colours` colours, with its resolution in the file.

    A picture of lines looks the same with 32 colours, at a third of the bytes.
    """
    _write_names_as_they_are(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    image = Image.fromarray(pixels).quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True, dpi=(pixels_per_inch, pixels_per_inch))
    return stream.getvalue()


def _write_names_as_they_are(figure: Figure) -> None:
    """Keep matplotlib from reading `$` in names of files, labels and encoders as a formula, which may be none.

    The labels of logarithmic axes are formulas of matplotlib's own.
    """
    formulas: set[Text] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            ticks = axis.get_ticklabels(which="both")  # they are made at this call
            formulas.update(ticks if axis.get_scale() == "log" else ())
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text not in formulas:
            text.set_parse_math(False)
