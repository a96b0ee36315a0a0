"""Settings of the corpus."""

from __future__ import annotations

from dataclasses import dataclass, field

UNLABELLED = tuple(range(1, 9))
"""Folds of evaluation sources that may be pretrained on: of PTB-XL's ten, all but those that are scored on."""


TRAINING_FOLDS = tuple(range(1, 8))
"""Folds of PTB-XL on which neither its tasks at 500 Hz nor those at 100 Hz make a choice or score."""


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """What the corpus is made of, and how it is split."""

    validation_share: float = field(default=0.05, metadata={"gt": 0, "lt": 1})
    """Share of the patients that training never sees. The validation loss is measured on their ECGs."""
    seed: int = 0
    """Seed of the draw of those patients."""
    sources: tuple[str, ...] | None = None
    """Pretrain on these sources alone. None: on all that are for pretraining."""
    unlabelled_folds: tuple[int, ...] = ()
    """Folds of the evaluation sources whose ECGs are pretrained on too, without their labels, such as 1 to 7. The other
    folds stay held out. PTB-XL's folds are split by patient."""

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share {self.validation_share}: use a share between 0 and 1, such as 0.05")
        unknown = [fold for fold in self.unlabelled_folds if fold not in UNLABELLED]
        if unknown:
            raise ValueError(
                f"unlabelled_folds {self.unlabelled_folds}: use folds of {UNLABELLED[0]} to {UNLABELLED[-1]}; "
                "9 and 10 are scored on"
            )
        if self.sources is not None and not self.sources:
            raise ValueError("sources (): name at least one source, or use None for all")
