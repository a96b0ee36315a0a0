"""The filters of an encoder's patch embedding, as waveforms."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.plots.canvas import INK, PALETTE, png

_DPI = 110
_ROWS, _COLUMNS = 4, 8


def patch_filters(weight_DP: NDArray[Any], title: str) -> bytes:
    """Plot the filters with the largest norms as PNG, each to its own scale.

    weight_DP: (channels, samples of a patch).
    """
    strongest = np.argsort(-np.linalg.norm(weight_DP, axis=1))[: _ROWS * _COLUMNS]
    page = Figure(figsize=(7.6, 3.2), dpi=_DPI, layout="constrained", facecolor="white")
    page.suptitle(title, x=0.012, ha="left", fontsize=11, weight="bold", color=INK)
    panels = page.subplots(_ROWS, _COLUMNS, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, channel in zip(panels, strongest, strict=False):
        axes.axhline(0, color="#d0d0d0", linewidth=0.6)
        axes.plot(weight_DP[channel], color=PALETTE[0], linewidth=1.1)
    return png(page, pixels_per_inch=_DPI)
