"""What others report, to stand beside our figures: data, each with where it is from.

They are read, not tested against: other splits, other preprocessing and other pretraining lie behind them.
"""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "Kim, arXiv 2410.08559"
BENCHMARK = "benchmark, arXiv 2509.25095"


@dataclass(frozen=True, kw_only=True)
class Published:
    """Macro AUCs on one question, as they were printed. ecg_jepa: of the method that is re-implemented here. best: the
    best that is known. source: of both."""

    ecg_jepa: str
    best: str
    how: str
    source: str


Question = tuple[str, str, int]
"""Data set, kind (multi-label or multi-class), and how many classes."""

_LINEAR, _BETTER = "frozen, linear", "frozen, the better of linear and attention pool"
PUBLISHED: dict[Question, Published] = {
    ("ptbxl", "multi-label", 5): Published(
        ecg_jepa="0.912", best="0.928 (ECGFounder, frozen)", how=_LINEAR, source=f"{PAPER}; {BENCHMARK}"
    ),
    ("ptbxl", "multi-class", 5): Published(
        ecg_jepa="0.903", best="0.943 (ER-JEPA, fine-tuned)", how=_LINEAR, source=f"{PAPER}; {BENCHMARK}"
    ),
    ("ptbxl", "multi-label", 71): Published(ecg_jepa="0.934", best="0.940", how=_BETTER, source=BENCHMARK),
    ("ptbxl", "multi-label", 44): Published(ecg_jepa="0.943", best="0.947", how=_BETTER, source=BENCHMARK),
    ("ptbxl", "multi-label", 23): Published(ecg_jepa="0.934", best="0.945", how=_BETTER, source=BENCHMARK),
    ("ptbxl", "multi-label", 19): Published(ecg_jepa="0.908", best="0.908", how=_BETTER, source=BENCHMARK),
    ("ptbxl", "multi-label", 12): Published(ecg_jepa="0.969", best="0.969", how=_BETTER, source=BENCHMARK),
    ("cpsc2018", "multi-label", 9): Published(
        ecg_jepa="0.966 to 0.975", best="0.975 (fine-tuned)", how=_LINEAR, source=f"{PAPER}; {BENCHMARK}"
    ),
    ("cpsc2018", "multi-class", 9): Published(
        ecg_jepa="0.973", best="0.981 (fine-tuned)", how=_LINEAR, source=f"{PAPER}; {BENCHMARK}"
    ),
}


def published_on(source: str, kind: str, classes: int) -> Published | None:
    """What others report on a question, whatever the task is called here; None where nobody does."""
    data_set = {"ptbxl100": "ptbxl"}.get(source, source)  # the same ECGs at another rate
    return PUBLISHED.get((data_set, kind, classes))
