"""Settings of the corpus."""

from __future__ import annotations

from dataclasses import dataclass

UNLABELLED = tuple(range(1, 9))
"""Folds of evaluation sources that may be pretrained on: of PTB-XL's ten, all but those that are scored on."""


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """validation_share: of the patients. seed: of their draw. sources: these alone; None: all for pretraining.

    unlabelled_folds: of the evaluation sources, ECGs of these folds are pretrained on too, without their labels; the
    other folds are held out as ever. PTB-XL's folds are split by patient.
    """

    validation_share: float = 0.05
    seed: int = 0
    sources: tuple[str, ...] | None = None
    unlabelled_folds: tuple[int, ...] = ()

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
