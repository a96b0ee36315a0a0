"""How many ECGs name a patient, and how many patients they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, kw_only=True)
class PatientCounts:
    """Counts of kept records by patient."""

    kept: int
    named: int
    """Kept records that name a patient."""
    patients: int
    most: int
    """ECGs of the patient with most of them."""

    @classmethod
    def of(cls, patient_ids: Iterable[str | None]) -> Self:
        """Count the patients of records, None for one whose patient is not known."""
        times = Counter(patient_ids)
        unknown = times.pop(None, 0)
        named = times.total()
        return cls(kept=named + unknown, named=named, patients=len(times), most=max(times.values(), default=0))

    def in_words(self) -> str:
        """Return the counts as a sentence: one whose patient is not known may lie on both sides of a split."""
        text = f"{self.named:,} of {self.kept:,} kept records name a patient"
        if self.patients:
            text += f": {self.patients:,} patients, at most {self.most:,} ECGs of one"
        if self.named == self.kept:
            return text
        return (
            f"{text}; each of the other {self.kept - self.named:,} counts as a patient of its own, so that one person "
            "may be in training and in validation"
        )
