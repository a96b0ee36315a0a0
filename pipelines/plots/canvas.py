"""Figures to PNG bytes, and the colours they share. matplotlib's objects alone, never pyplot's global state."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

# Dagster keeps pictures in its event log, which is read whole: more than this and its pages become slow.
MAX_BYTES = 100_000

INK = "#1a1a1a"
MUTED = "#5f6368"
# Okabe and Ito's colours (https://jfly.uni-koeln.de/color), told apart with any colour vision; the yellow is left out,
# since it is too light for a line on white.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)


def name_axes(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """Title and labels in their places, and the plain frame that all plots share."""
    axes.set_title(title, loc="left", fontsize=9.5, color=INK)
    axes.set_xlabel(x, fontsize=8.5, color=MUTED)
    axes.set_ylabel(y, fontsize=8.5, color=MUTED)
    axes.tick_params(labelsize=8, colors=MUTED, length=2.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b0b0b0")
    axes.grid(True, color="#ececec", linewidth=0.7)
    axes.set_axisbelow(True)


def png(figure: Figure, *, pixels_per_inch: float, colours: int = 32) -> bytes:
    """The figure as an indexed PNG of at most `colours` colours, with its physical size in the file.

    A picture of lines on paper keeps its look with 32 colours, at a third of the bytes.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    image = Image.fromarray(pixels).quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True, dpi=(pixels_per_inch, pixels_per_inch))
    return stream.getvalue()
