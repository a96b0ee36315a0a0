"""Settings of a probe. No torch: the launchpad's form is made from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How a probe is fitted, chosen and scored."""

    solver: Literal["logistic", "adamw"] = "logistic"
    """`logistic` solves the L2-penalised problem for each penalty and keeps the one with the best validation macro AUC;
    `adamw` is the paper's training loop, which chooses nothing."""
    penalties: tuple[float, ...] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # see `linear.fit_path`
    """Strengths of the probe's L2 penalty, the strongest first; validation chooses one. Embeddings of small encoders
    lie near a few axes and need the weak ones, wide embeddings of few records the strong ones. The weakest cost most,
    so two in a row that are no better than the best end the search."""
    min_patients: int = field(default=20, metadata={"ge": 2})
    """A split with fewer patients is not scored."""
    min_positives: int = field(default=10, metadata={"ge": 1})
    """Classes with fewer positives in a split are left out of that split's scores, and listed by name."""
    resamples: int = field(default=1000, metadata={"ge": 1})
    """Bootstrap resamples of the patients, for the intervals."""
    confidence: float = field(default=0.95, metadata={"gt": 0, "lt": 1})
    """Level of the intervals."""
    seed: int = 0
    """Seed of the resamples and of the fit."""

    def __post_init__(self) -> None:
        if self.solver not in ("logistic", "adamw"):
            raise ValueError(f"solver={self.solver!r}: use 'logistic' or 'adamw'")
        falling = all(a > b for a, b in zip(self.penalties, self.penalties[1:], strict=False))
        if not self.penalties or not falling or self.penalties[-1] <= 0:
            raise ValueError(f"penalties={self.penalties}: give positive numbers, strongest first")
        for name, least in (("min_patients", 2), ("min_positives", 1), ("resamples", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: use at least {least}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence={self.confidence}: use a share between 0 and 1, such as 0.95")
