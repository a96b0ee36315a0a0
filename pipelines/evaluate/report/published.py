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


_LINEAR = "frozen, linear"


def _frozen(ecg_jepa: str, best: str = "the same", how: str = _LINEAR) -> Published:
    return Published(ecg_jepa=ecg_jepa, best=best, how=how, source=f"{PAPER}; {BENCHMARK}")


def _better(ecg_jepa: str, best: str) -> Published:
    how = "frozen, the better of linear and attention pool"
    return Published(ecg_jepa=ecg_jepa, best=best, how=how, source=BENCHMARK)


def _fine_tuned(ecg_jepa: str, best: str) -> Published:
    return Published(ecg_jepa=ecg_jepa, best=best, how="fine-tuned", source=BENCHMARK)


_SUPERCLASS = _frozen("0.912", "0.928 (ECGFounder, frozen)")
_SUPERCLASS_ONE = _frozen("0.903", "0.943 (ER-JEPA, fine-tuned)")
_BY_LABELS = {
    "ptbxl_all": _better("0.934", "0.940"),
    "ptbxl_diagnostic": _better("0.943", "0.947"),
    "ptbxl_subclass": _better("0.934", "0.945"),
    "ptbxl_form": _better("0.908", "0.908"),
    "ptbxl_rhythm": _better("0.969", "0.969"),
}

BY_EVALUATION: dict[str, Published] = {
    "ptbxl_superclass": _SUPERCLASS,
    "ptbxl_superclass__paper_protocol": _SUPERCLASS,
    "ptbxl_superclass__multi_class": _SUPERCLASS_ONE,
    "ptbxl_superclass__multi_class__paper_protocol": _SUPERCLASS_ONE,
    "ptbxl_superclass__fine_tuned": _frozen("0.931", "0.936", "fine-tuned"),
    "ptbxl_superclass__multi_class__fine_tuned": _frozen("0.934", "0.943 (ER-JEPA)", "fine-tuned"),
    **_BY_LABELS,
    **{f"{name}__attention_pool": one for name, one in _BY_LABELS.items()},
    "ptbxl_all__fine_tuned": _fine_tuned("0.940", "0.949"),
    "ptbxl_diagnostic__fine_tuned": _fine_tuned("0.946", "0.951"),
    "ptbxl_subclass__fine_tuned": _fine_tuned("0.935", "0.943"),
    "ptbxl_form__fine_tuned": _fine_tuned("0.912", "0.934"),
    "ptbxl_rhythm__fine_tuned": _fine_tuned("0.956", "0.965"),
    "ptbxl_superclass__labels_1": _frozen("0.839"),
    "ptbxl_superclass__labels_10": _frozen("0.893"),
    "ptbxl_superclass__leads_II": _frozen("0.849"),
    "ptbxl_superclass__leads_II_V1": _frozen("0.879"),
    "cpsc2018": _frozen("0.966 to 0.975", "0.975 (fine-tuned)"),
    "cpsc2018__multi_class": _frozen("0.973", "0.981 (fine-tuned)"),
    "cpsc2018__multi_class__nearest_mean": Published(
        ecg_jepa="accuracy 0.707", best="–", how="nearest class mean", source=PAPER
    ),
    "georgia": _frozen("0.895", "0.924"),
    "georgia__multi_class": _frozen("0.908", "0.924"),
}
"""What others report on an evaluation of the suite, by its name."""


def published_for(evaluation: str) -> Published | None:
    """What others report on an evaluation; None where nobody does. The benchmark's layer-wise learning rates count as
    fine-tuning, and PTB-XL from 100 Hz as PTB-XL."""
    return BY_EVALUATION.get(evaluation.replace("ptbxl100_", "ptbxl_").replace("_layerwise", ""))


@dataclass(frozen=True, kw_only=True)
class WaveFigure:
    """A figure on waves as it was printed, with its unit and how it was got."""

    ecg_jepa: str
    best: str


WAVE_FIGURES: dict[str, WaveFigure] = {
    "heart rate": WaveFigure(ecg_jepa="0.40 (frozen, linear)", best="0.40"),
    "QRS duration": WaveFigure(ecg_jepa="1.9 (frozen, linear)", best="1.42 (ST-MEM)"),
    "miou, frozen": WaveFigure(ecg_jepa="0.888 (pseudo-labels)", best="–"),
    "miou, fine-tuned": WaveFigure(ecg_jepa="0.954 (pseudo-labels)", best="–"),
}
"""Mean absolute errors in the unit of `waves.INTERVALS`, by its title, and mean IoU; all from PAPER. Ours is the mean
over background, P, QRS and T; of which classes theirs is was not to be found."""
