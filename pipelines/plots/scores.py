"""Scores of several encoders on several tasks, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from pipelines.plots.canvas import INK, PALETTE, name_axes, png

_DPI = 110
_COLOURS = 64
_CHANCE = 0.5


@dataclass(frozen=True)
class Score:
    """A score of an encoder on a task, and its interval."""

    task: str
    encoder: str
    value: float
    low: float
    high: float


def score_chart(
    scores: Sequence[Score],
    title: str = "",
    *,
    axis: str = "Macro AUC on the test split",
    marks: Sequence[float] = (_CHANCE,),
) -> bytes:
    """Plot a row per task and a colour per encoder, in the order of the scores, as PNG.

    marks: values at which vertical lines are drawn for comparison. Raises ValueError if there is no score.
    """
    if not scores:
        raise ValueError("no score to draw: score a task first")
    tasks = list(dict.fromkeys(score.task for score in scores))
    encoders = list(dict.fromkeys(score.encoder for score in scores))
    page = Figure(figsize=(7.6, 1.5 + 0.34 * len(tasks) * (1 + 0.3 * len(encoders))), dpi=_DPI, layout="constrained")
    if title:
        page.suptitle(title, x=0.012, ha="left", fontsize=11, weight="bold", color=INK)
    axes = page.subplots()
    for number, encoder in enumerate(encoders):
        own = [score for score in scores if score.encoder == encoder]
        # The encoders of a task are spread over half its row.
        place = [tasks.index(score.task) + 0.5 * (number - (len(encoders) - 1) / 2) / len(encoders) for score in own]
        value = [score.value for score in own]
        error = [[s.value - s.low for s in own], [s.high - s.value for s in own]]
        colour = PALETTE[number % len(PALETTE)]
        axes.errorbar(value, place, xerr=error, fmt="o", color=colour, markersize=5, linewidth=1.5, label=encoder)
    for mark in marks:
        axes.axvline(mark, color="#b0b0b0", linewidth=0.8)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    if len(encoders) > 1:
        axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    name_axes(axes, axis, "")
    return png(page, pixels_per_inch=_DPI, colours=_COLOURS)
