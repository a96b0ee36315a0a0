"""Amplitude, wander and spectrum of a corpus' sources, in one plot. Shapes: N ECGs, F frequencies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.plots.canvas import INK, PALETTE, name_axes, png

_DPI = 110
_COLOURS = 128
_BINS = 40
_BEYOND = 99.0  # the percentile, over all sources, at which an axis ends


@dataclass(frozen=True, kw_only=True)
class SourceFigures:
    """Figures of a source's ECGs."""

    amplitude_N: NDArray[Any]  # the largest absolute value of each ECG, millivolt
    wander_N: NDArray[Any]  # rms below 0.5 Hz, millivolt
    frequency_F: NDArray[Any]  # Hz
    spectrum_F: NDArray[Any]  # the median power spectral density, millivolt^2 / Hz


def source_comparison(sources: Mapping[str, SourceFigures], title: str = "") -> bytes:
    """Return a PNG with two densities and a spectrum, and each source's median in the legend.

    Densities make a source of a thousand ECGs comparable with one of a hundred thousand. Raises ValueError if there is
    no source.
    """
    if not sources:
        raise ValueError("no source to compare: build a corpus of at least one")
    page = Figure(figsize=(9.5, 5.6), dpi=_DPI, layout="constrained", facecolor="white")
    if title:
        page.suptitle(title, x=0.012, ha="left", fontsize=13, weight="bold", color=INK)
    top, bottom = page.subfigures(2, 1, squeeze=False)[:, 0]
    amplitude, wander = top.subplots(1, 2)
    amplitudes = {name: figures.amplitude_N for name, figures in sources.items()}
    wanders = {name: figures.wander_N for name, figures in sources.items()}
    _densities(amplitude, amplitudes, "Largest amplitude")
    _densities(wander, wanders, "Baseline wander, rms below 0.5 Hz")
    _spectra(bottom.subplots(), sources)
    return png(page, pixels_per_inch=_DPI, colours=_COLOURS)


def _densities(axes: Axes, values: Mapping[str, NDArray[Any]], name: str) -> None:
    finite = {source: x_N[np.isfinite(x_N)] for source, x_N in values.items()}
    all_values = np.concatenate(list(finite.values()))
    high = float(np.percentile(all_values, _BEYOND)) if len(all_values) else 1.0
    edges = np.linspace(0.0, high or 1.0, _BINS + 1)
    for (source, x_N), colour in zip(finite.items(), _colours(len(finite)), strict=True):
        share, _ = np.histogram(x_N, edges)
        label = f"{source}  {np.median(x_N):.2g} mV" if len(x_N) else f"{source}  not known"
        axes.stairs(share / max(len(x_N), 1), edges, color=colour, linewidth=1.5, label=label)
    axes.legend(title="median", frameon=False, fontsize=8, title_fontsize=8)
    name_axes(axes, name, "mV", "share of its ECGs")


def _spectra(axes: Axes, sources: Mapping[str, SourceFigures]) -> None:
    for (source, figures), colour in zip(sources.items(), _colours(len(sources)), strict=True):
        axes.semilogy(figures.frequency_F[1:], figures.spectrum_F[1:], color=colour, linewidth=1.3, label=source)
    axes.set_xlim(0, sources[next(iter(sources))].frequency_F[-1])
    axes.legend(frameon=False, fontsize=8)
    name_axes(axes, "Power spectral density, median over ECGs", "Hz", "mV² / Hz")


def _colours(count: int) -> list[str]:
    return [PALETTE[number % len(PALETTE)] for number in range(count)]
