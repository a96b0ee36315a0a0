"""Published figures that the pages show next to ours, each with its source.

They give orientation and are not tested against: their splits, preprocessing and pretraining differ from ours.
"""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "Kim, arXiv 2410.08559"
BENCHMARK = "benchmark, arXiv 2509.25095"


@dataclass(frozen=True, kw_only=True)
class Published:
    """Published macro AUCs on one task, as they were printed."""

    ecg_jepa: str
    """Of the method that is re-implemented here."""
    best: str
    """The best that is known."""
    how: str
    """How `ecg_jepa` was evaluated."""
    source: str
    """Of both figures."""


_LINEAR = "frozen, linear"


def _frozen(ecg_jepa: str, best: str = "the same", how: str = _LINEAR) -> Published:
    return Published(ecg_jepa=ecg_jepa, best=best, how=how, source=f"{PAPER}; {BENCHMARK}")


def _linear_or_pool(ecg_jepa: str, best: str) -> Published:
    how = "frozen, the better of linear and attention pool"
    return Published(ecg_jepa=ecg_jepa, best=best, how=how, source=BENCHMARK)


def _fine_tuned(ecg_jepa: str, best: str) -> Published:
    return Published(ecg_jepa=ecg_jepa, best=best, how="fine-tuned", source=BENCHMARK)


_SUPERCLASS = _frozen("0.912", "0.928 (ECGFounder, frozen)")
_SUPERCLASS_ONE = _frozen("0.903", "0.943 (ER-JEPA, fine-tuned)")
_BY_LABELS = {
    "ptbxl_all": _linear_or_pool("0.934", "0.940"),
    "ptbxl_diagnostic": _linear_or_pool("0.943", "0.947"),
    "ptbxl_subclass": _linear_or_pool("0.934", "0.945"),
    "ptbxl_form": _linear_or_pool("0.908", "0.908"),
    "ptbxl_rhythm": _linear_or_pool("0.969", "0.969"),
}

BY_EVALUATION: dict[str, Published] = {
    "ptbxl_superclass": _SUPERCLASS,
    "ptbxl_superclass__paper_protocol": _SUPERCLASS,
    "ptbxl_superclass__multi_class": _SUPERCLASS_ONE,
    "ptbxl_superclass__multi_class__paper_protocol": _SUPERCLASS_ONE,
    "ptbxl_superclass__fine_tuned": _frozen("0.931", "0.936", "fine-tuned"),
    "ptbxl_superclass__multi_class__fine_tuned": _frozen("0.934", "0.943 (ER-JEPA)", "fine-tuned"),
    **_BY_LABELS,
    **{f"{name}__attention_pool": figures for name, figures in _BY_LABELS.items()},
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
"""Published figures by the name of an evaluation of the suite."""


def published_for(evaluation: str) -> Published | None:
    """Return the published figures of an evaluation, or None.

    The benchmark's layer-wise learning rates count as fine-tuning, and PTB-XL from 100 Hz as PTB-XL.
    """
    return BY_EVALUATION.get(evaluation.replace("ptbxl100_", "ptbxl_").replace("_layerwise", ""))


@dataclass(frozen=True, kw_only=True)
class WaveFigure:
    """A published figure on waves, as it was printed, with how it was obtained."""

    ecg_jepa: str
    best: str
    """The best that is known."""


WAVE_FIGURES: dict[str, WaveFigure] = {
    "heart rate": WaveFigure(ecg_jepa="0.40 (frozen, linear)", best="0.40"),
    "QRS duration": WaveFigure(ecg_jepa="1.9 (frozen, linear)", best="1.42 (ST-MEM)"),
    "miou, frozen": WaveFigure(ecg_jepa="0.888 (pseudo-labels)", best="–"),
    "miou, fine-tuned": WaveFigure(ecg_jepa="0.954 (pseudo-labels)", best="–"),
}
"""Mean absolute errors by the title of an interval, in the unit of `annotations.INTERVALS`, and mean IoU; all from
PAPER. Our mean IoU is over background, P, QRS and T; the paper does not say which classes its mean is over."""
