"""The bytes of a download by kind of file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from matplotlib.figure import Figure

from pipelines.formatting import format_bytes
from pipelines.plots.canvas import PALETTE, name_axes, png

_DPI = 110
_MOST = 8  # kinds shown


def files_chart(files: Iterable[tuple[str, int]], title: str) -> bytes | None:
    """Plot a bar per kind of file, the largest first, as PNG. Returns None if there is no file.

    files: paths and sizes in bytes.
    """
    total: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for path, size in files:
        kind = PurePosixPath(path).suffix or "without ending"
        total[kind] += size
        count[kind] += 1
    if not total:
        return None
    kinds = [kind for kind, _ in total.most_common(_MOST)]
    page = Figure(figsize=(6.4, 1.0 + 0.32 * len(kinds)), dpi=_DPI, layout="constrained", facecolor="white")
    axes = page.subplots()
    axes.barh(kinds, [total[kind] for kind in kinds], color=PALETTE[0], height=0.6)
    for row, kind in enumerate(kinds):
        label = f"  {count[kind]:,} file{'s' if count[kind] > 1 else ''}, {format_bytes(total[kind])}"
        axes.text(total[kind], row, label, va="center", fontsize=8)
    axes.set_xlim(0, max(total.values()) * 1.45 or 1)
    axes.set_xticks([])
    axes.invert_yaxis()
    name_axes(axes, title)
    return png(page, pixels_per_inch=_DPI)
